"""Persistent allocation of numeric user and group ids."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from jupyterhub_dmsp.sandbox.errors import SandboxError

USERS_BASE = 61000
GROUPS_BASE = 71000
SPAN = 10000
"""How many ids fit between the bases; beyond systemd's dynamic users and below the container ranges."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that belongs to ``path`` (a file ``.<name>.lock`` beside it).

    The lock is on a file of its own because the data file is replaced by rename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a whole file atomically: readers see the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Ids:
    """Names to numbers, kept in a JSON file: the same name always gets the same number, none is used twice.

    Safe between threads and processes. A number stays taken when its user is gone, because files on disk may
    still carry it.

    Args:
        path: the JSON file; made at the first allocation.
        base: the first number, :data:`USERS_BASE` or :data:`GROUPS_BASE`.
    """

    def __init__(self, path: Path, base: int) -> None:
        self.path = path
        self.base = base

    def all(self) -> dict[str, int]:
        """Every allocation so far."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(name): int(number) for name, number in data.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise SandboxError(
                f"The id file {self.path.name} is damaged.", "Restore it: files on disk carry its numbers."
            ) from error

    def get(self, name: str) -> int:
        """The number of ``name``, allocated now if it has none."""
        if not name:
            raise ValueError("a name is needed")
        known = self.all().get(name)
        if known is not None:
            return known
        with locked(self.path):
            known_now = self.all()
            if name in known_now:
                return known_now[name]
            number = max(known_now.values(), default=self.base - 1) + 1
            if number >= self.base + SPAN:
                raise SandboxError(f"No numeric id is left for {name}.", f"{SPAN} names have one already.")
            known_now[name] = number
            replace(self.path, json.dumps(known_now, indent=1, sort_keys=True) + "\n")
            return number
