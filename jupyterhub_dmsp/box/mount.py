"""The part ``scratch``: bindfs shows the scratch RSE's storage to sessions, read-only, with POSIX groups enforced.

The mount point lies in a directory that is a shared mount of its own. Sessions bind that directory, so a mount that
died and came back appears inside running sessions too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import psutil

from jupyterhub_dmsp.sandbox.run import run

OPTIONS = "allow_other,attr_timeout=1,entry_timeout=1,negative_timeout=0,fsname=dmsp-scratch"
POINT = "lake"
STAT_TIMEOUT = 3.0


def _mounts(path: Path) -> list[list[str]]:
    """The lines of this process's mount table whose mount point is ``path`` (proc(5), mountinfo)."""
    escaped = str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [fields for line in lines if (fields := line.split())[4] == escaped]


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly here; looks at the table, so a hanging mount cannot block it."""
    return bool(_mounts(path))


def _is_shared(path: Path) -> bool:
    return any(field.startswith("shared:") for mount in _mounts(path) for field in mount[6:])


def command(source: Path, directory: Path) -> list[str]:
    """bindfs in the foreground; it ends when the process that started it ends."""
    bindfs = ["bindfs", "-f", "-r", "--multithreaded", "-o", OPTIONS, str(source), str(directory / POINT)]
    return ["setpriv", "--pdeathsig", "TERM", *bindfs]


async def prepare(directory: Path) -> None:
    """Make the shared directory and the empty mount point; a dead mount of an earlier run is taken away."""
    await release(directory)
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    if not is_mounted(directory):
        await run(["mount", "--bind", str(directory), str(directory)])
    if not _is_shared(directory):
        await run(["mount", "--make-shared", str(directory)])
    (directory / POINT).mkdir(exist_ok=True)
    (directory / POINT).chmod(0o555)


class _Look:
    """One look at a mount in a thread of its own: a mount that hangs holds one thread of ours, never more."""

    def __init__(self, point: Path) -> None:
        self.done = threading.Event()
        self.fault = ""
        # A daemon: a look that hangs must not keep the program from ending.
        threading.Thread(target=self._look, args=(point,), name="dmsp-mount-look", daemon=True).start()

    def _look(self, point: Path) -> None:
        try:
            os.stat(point / ".")  # noqa: PTH116 - as short as it can be
        except OSError as error:
            self.fault = error.strerror or "it cannot be read"
        self.done.set()


_looks: dict[Path, _Look] = {}


async def wrong(directory: Path) -> str:
    """What is wrong with the mount, "" when it is there and answers within :data:`STAT_TIMEOUT` seconds."""
    point = directory / POINT
    if not is_mounted(point):
        return "nothing is mounted"
    look = _looks.get(point) or _Look(point)
    _looks[point] = look
    if not await _answered(look):
        return f"the mount does not answer within {STAT_TIMEOUT:.0f} s"
    _looks.pop(point, None)
    return look.fault


async def _answered(look: _Look) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + STAT_TIMEOUT
    while not look.done.is_set():
        if loop.time() >= end:
            return False
        # The thread cannot wake a loop that may be gone by the time it comes free.
        await asyncio.sleep(0.02)
    return True


async def ready(directory: Path) -> bool:
    """Mounted, and answering."""
    return not await wrong(directory)


def _end_servers(point: Path) -> None:
    """Kill what serves the mount: only then do processes that wait for a stopped one come free."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            argv = process.cmdline()
            if process.name() == "bindfs" and argv and argv[-1] == str(point):
                process.kill()


async def release(directory: Path) -> None:
    """Take the FUSE mount away, also a dead or a stopped one; the shared directory stays for running sessions."""
    point = directory / POINT
    if is_mounted(point):
        await asyncio.to_thread(_end_servers, point)
    _looks.pop(point, None)
    while is_mounted(point):
        await run(["fusermount3", "-uz", str(point)])


async def remove(directory: Path) -> None:
    """Take both mounts away, at the end of the box."""
    await release(directory)
    while is_mounted(directory):
        await run(["umount", "-l", str(directory)])
