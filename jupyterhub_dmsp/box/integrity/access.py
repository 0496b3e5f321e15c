"""Owners, groups and modes on a storage element: a scope's files are for its group alone.

Looks at everything below the root without following links; blocks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jupyterhub_dmsp.box.integrity.facts import Facts
from jupyterhub_dmsp.box.integrity.report import Problem
from jupyterhub_dmsp.box.rucio.storage import scope_path
from jupyterhub_dmsp.errors import DmspError

_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def check(facts: Facts, rse: str, *, repair: bool) -> list[Problem]:
    """Problems of kind ``access``; with ``repair`` they are put right (owners and groups only by root)."""
    root = facts.root(rse)
    if not root.is_dir():
        raise DmspError(f"The storage of {rse} is not there.", "`dmsp up` makes it.")
    rules = _Rules(facts, rse)
    problems = []
    for path, relative in _everything(root):
        try:
            info = path.lstat()
        except FileNotFoundError:
            continue
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            continue  # the comparison with the catalogue tells
        wrong = rules.faults(relative, info)
        if wrong:
            outcome = _put_right(path, rules.wanted(relative, info)) if repair else ""
            problems.append(Problem("access", relative, f"{' and '.join(wrong)}.", outcome=outcome))
    return problems


def kept_directories(facts: Facts, rse: str) -> list[str]:
    """Directories of scopes, relative to the root: they stay when they are empty."""
    return sorted({"user", *(scope_path(scope) for scope in facts.scopes)}) if rse == facts.scratch else []


class _Rules:
    """What each path should be."""

    def __init__(self, facts: Facts, rse: str) -> None:
        self._facts = facts
        self._scratch = rse == facts.scratch
        self._root = os.geteuid() == 0
        # Longest first: the scope of a path is the one that is the longest of its beginnings.
        paths = {scope_path(scope): gid for scope, gid in facts.scopes.items()}
        self._scopes = sorted(paths.items(), key=lambda item: -len(item[0])) if self._scratch else []

    def _group(self, relative: str) -> int | None:
        for directory, gid in self._scopes:
            if relative == directory or relative.startswith(f"{directory}/"):
                return gid
        return None

    def _leads(self, relative: str) -> bool:
        """Whether it only leads to scopes, as ``user`` does: everybody may pass."""
        return relative == "user" or any(d.startswith(f"{relative}/") for d, _ in self._scopes)

    def wanted(self, relative: str, info: os.stat_result) -> tuple[int, int, int]:
        """uid, gid and mode."""
        facts, group = self._facts, self._group(relative)
        if not stat.S_ISDIR(info.st_mode):
            return facts.uid, facts.gid if group is None else group, 0o640
        if self._scratch and group is None and self._leads(relative):
            return facts.uid, info.st_gid, 0o755
        return facts.uid, facts.gid if group is None else group, 0o750 if group is None else 0o2750

    def faults(self, relative: str, info: os.stat_result) -> list[str]:
        """What is wrong, in words. On a site, whose root only Rucio enters, groups and others do not matter."""
        uid, gid, mode = self.wanted(relative, info)
        now = stat.S_IMODE(info.st_mode)
        found = []
        if self._root and info.st_uid != uid:
            found.append(f"it belongs to user {info.st_uid} instead of {uid}")
        if self._root and self._scratch and info.st_gid != gid:
            found.append(f"it belongs to group {info.st_gid} instead of {gid}")
        loose = now & 0o022 or now & _SPECIAL & ~stat.S_ISGID
        if now != mode if self._scratch else loose or mode & 0o700 & ~now:
            found.append(f"its mode is {now:04o} instead of {mode:04o}")
        return found


def _everything(root: Path) -> Iterator[tuple[Path, str]]:
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = Path(directory, name)
            yield path, str(path.relative_to(root))


def _put_right(path: Path, wanted: tuple[int, int, int]) -> str:
    uid, gid, mode = wanted
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return "fixed"
    except OSError:
        return "failed"
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
    except OSError:
        return "failed"
    finally:
        os.close(descriptor)
    return "fixed"
