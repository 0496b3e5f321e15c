"""``python -m jupyterhub_dmsp.cli`` is ``dmsp``."""

from jupyterhub_dmsp.cli import main

main()
