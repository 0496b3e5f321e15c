"""What the hub of a box is started with. Light: the ``dmsp`` command and the supervisor import no JupyterHub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = """\
# Written by `dmsp up` at every start; change dmsp.yaml instead.
from jupyterhub_dmsp.box.hub_config import fill

fill(c, {facts!r})  # noqa: F821
"""


def write(directory: Path, facts: dict[str, Any]) -> Path:
    """Write the hub's configuration and its facts (no secrets, references only); returns the file to start with."""
    facts_file = directory / "facts.json"
    facts_file.write_text(json.dumps(facts, indent=1))
    config = directory / "jupyterhub_config.py"
    config.write_text(FILE.format(facts=str(facts_file)))
    return config
