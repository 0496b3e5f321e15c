"""The mount's health, and files on it: every look at it runs in a thread and under a timeout.

A FUSE mount whose server died answers ENOTCONN; one whose server hangs does not answer at all. Timeouts are
``asyncio.timeout``: in Python 3.11 ``wait_for`` can swallow a cancellation, and a task that should end goes on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "dead", "missing"]
_DEAD = {errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.EHOSTDOWN, errno.ECONNABORTED}


@dataclass(frozen=True, slots=True)
class Health:
    """The mount as it is now; sizes in bytes, None when it is not well."""

    path: str
    state: State
    free_bytes: int | None = None
    total_bytes: int | None = None


class MountGone(Exception):
    """The mount does not answer, or is not there."""

    def __init__(self, health: Health) -> None:
        super().__init__(health.state)
        self.health = health


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that should be on the mount."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at files found, as positions in what was asked.

    Attributes:
        present: there with the right size.
        wrong: there with another size.
        refused: the user may not read there.
        absent: not there.
    """

    present: list[int]
    wrong: list[int]
    refused: list[int]
    absent: list[int]


def unmounted(point: Path) -> bool:
    """Whether a mount is gone whose place lies in a directory that is a mount itself: an empty folder looks well."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = {fields[4] for line in lines if (fields := line.split())}
    return _escaped(point.parent) in points and _escaped(point) not in points


def _escaped(path: Path) -> str:
    """As mountinfo spells a path (proc(5))."""
    return str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")


def _health(path: Path) -> Health:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return Health(str(path), "missing")
        room = os.statvfs(path)
    except OSError as error:
        return Health(str(path), "dead" if error.errno in _DEAD else "missing")
    return Health(str(path), "ok", room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)


def _look(wanted: Sequence[Wanted]) -> Look:
    look = Look([], [], [], [])
    for position, want in enumerate(wanted):
        try:
            found = os.stat(want.path)  # noqa: PTH116 - a third of the time of Path.stat
        except FileNotFoundError:
            look.absent.append(position)
        except NotADirectoryError:
            look.absent.append(position)
        except PermissionError:
            look.refused.append(position)
        else:
            if not stat.S_ISREG(found.st_mode):
                look.absent.append(position)
            elif found.st_size == want.bytes:
                look.present.append(position)
            else:
                look.wrong.append(position)
    return look


class Mount:
    """A mounted RSE.

    Args:
        path: where it is mounted.
        timeout: seconds after which a look counts as hanging.
        needed: whether it is missing when nothing is mounted there; see :func:`unmounted`.
    """

    def __init__(self, path: Path, timeout: float = 5.0, *, needed: bool = False) -> None:
        self.path = path
        self._needed = needed
        self._timeout = timeout
        # Own threads: ones that hang on a dead mount must not take the event loop's default pool with them.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="dmsp-mount")

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def health(self) -> Health:
        """Whether the mount is there and answers, with its free space."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                return await loop.run_in_executor(self._threads, self._now)
        except TimeoutError:
            return Health(str(self.path), "dead")

    def _now(self) -> Health:
        if self._needed and unmounted(self.path):
            return Health(str(self.path), "missing")
        return _health(self.path)

    async def look(self, wanted: Sequence[Wanted], batch: int = 500) -> Look:
        """Look for files, in batches.

        Raises:
            MountGone: the mount does not answer or is not there.
        """
        loop = asyncio.get_running_loop()
        found = Look([], [], [], [])
        for start in range(0, len(wanted), batch):
            part = wanted[start : start + batch]
            try:
                async with asyncio.timeout(self._timeout * 4):
                    look = await loop.run_in_executor(self._threads, _look, part)
            except TimeoutError:
                raise MountGone(Health(str(self.path), "dead")) from None
            except OSError as error:
                raise MountGone(await self.health()) from error
            found.present.extend(start + i for i in look.present)
            found.wrong.extend(start + i for i in look.wrong)
            found.refused.extend(start + i for i in look.refused)
            found.absent.extend(start + i for i in look.absent)
        if found.absent and not found.present:
            health = await self.health()
            if health.state != "ok":
                raise MountGone(health)
        return found
