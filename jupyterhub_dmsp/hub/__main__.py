"""``python -m jupyterhub_dmsp.hub -f <config>``: JupyterHub, started faster.

jsonschema imports ``rfc3987_syntax`` when it is there, which builds a grammar: half of the hub's import time, for a
format that nothing here validates.
"""

from __future__ import annotations

import sys
from typing import Any, cast

cast(dict[str, Any], sys.modules)["rfc3987_syntax"] = None

from jupyterhub.app import JupyterHub, main  # noqa: E402
from traitlets.config import Config  # noqa: E402

from jupyterhub_dmsp.hub import logs  # noqa: E402

if __name__ == "__main__":
    logs.adopt(JupyterHub)
    JupyterHub.instance(config=Config({"Application": logs.start("hub")}))
    main()
