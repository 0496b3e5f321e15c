"""Backup and restore of a box's state."""

from jupyterhub_dmsp.box.backup.archive import check as verify
from jupyterhub_dmsp.box.backup.create import create
from jupyterhub_dmsp.box.backup.restore import restore

__all__ = ["create", "restore", "verify"]
