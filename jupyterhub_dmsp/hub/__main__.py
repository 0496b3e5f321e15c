"""``python -m jupyterhub_dmsp.hub -f <config>``: JupyterHub, started faster.

jsonschema imports ``rfc3987_syntax`` when it is there, which builds a grammar: half of the hub's import time, for a
format that nothing here validates.
"""

from __future__ import annotations

import sys
from typing import Any, cast

cast(dict[str, Any], sys.modules)["rfc3987_syntax"] = None

from jupyterhub.app import main  # noqa: E402

if __name__ == "__main__":
    main()
