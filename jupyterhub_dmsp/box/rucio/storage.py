"""Directories of the lake's storage elements: who owns them, who may read.

``storage/<RSE>/lake/<scope>/<xx>/<yy>/<name>`` is what Rucio's ``hash`` algorithm makes. Everything belongs to the
Rucio uid. On the scratch RSE the directory of a scope has the scope's group and the setgid bit, so that whatever the
daemons land below it (umask 027) is readable for that group and nobody else. A scope without a directory of its own
gets the Rucio group when a file lands: unreadable rather than open.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Directory below an RSE's own that is exported, mounted, and the prefix of its paths in Rucio.
LAKE = "lake"


def root(storage: Path, rse: str) -> Path:
    """Where the files of an RSE are; Rucio's prefix for it."""
    return storage / rse / LAKE


def scope_path(scope: str) -> str:
    """The directory of a scope in Rucio's ``hash`` layout: dots become slashes only for ``user*`` and ``group*``."""
    return scope.replace(".", "/") if scope.startswith(("user", "group")) else scope


def prepare(
    storage: Path, *, sites: Iterable[str], scratch: str, scopes: Mapping[str, int], uid: int, gid: int
) -> None:
    """Make the directories of all RSEs; those that exist get the owner, group and mode that they should have.

    Args:
        storage: the state directory's ``storage``.
        sites: RSEs that only Rucio reads.
        scratch: the RSE that sessions see.
        scopes: scope of an experiment to the gid of its members, for the scratch RSE.
        uid: the Rucio uid.
        gid: the Rucio gid.
    """
    storage.mkdir(mode=0o755, parents=True, exist_ok=True)
    storage.chmod(0o755)
    for rse in sites:
        for place in (storage / rse, root(storage, rse)):
            _directory(place, uid, gid, 0o750)
    for place in (storage / scratch, root(storage, scratch), root(storage, scratch) / "user"):
        _directory(place, uid, gid, 0o755)
    for scope, group in scopes.items():
        scope_directory(storage, scratch, scope, uid=uid, gid=group)


def scope_directory(storage: Path, rse: str, scope: str, *, uid: int, gid: int) -> Path:
    """Make the directory of one scope (``user.<name>`` too: with the user's gid, when the account is made).

    Args:
        storage: the state directory's ``storage``.
        rse: the scratch RSE.
        scope: scope as Rucio knows it.
        uid: the Rucio uid.
        gid: group that may read the scope's files.

    Returns:
        The directory.
    """
    place = root(storage, rse) / scope_path(scope)
    for parent in reversed(place.relative_to(root(storage, rse)).parents[:-1]):
        _directory(root(storage, rse) / parent, uid, -1, 0o755)
    _directory(place, uid, gid, 0o2750)
    return place


def _directory(place: Path, uid: int, gid: int, mode: int) -> None:
    place.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(place, uid, gid)
    place.chmod(mode)
