"""The ``dmsp`` command; each module adds commands of one kind to :data:`app`.

Exit codes: 0 done · 1 could not be done (one sentence says why) · 2 wrong usage · 3 no box runs here ·
4 the box runs and a part is not healthy.
"""

from jupyterhub_dmsp.cli import backup, box, config, logs, profiles, scratch, service
from jupyterhub_dmsp.cli.base import app, main

__all__ = ["app", "backup", "box", "config", "logs", "main", "profiles", "scratch", "service"]
