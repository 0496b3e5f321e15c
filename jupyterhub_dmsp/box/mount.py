"""The part ``scratch``: bindfs shows the scratch RSE's storage to sessions, read-only, with POSIX groups enforced.

The mount point lies in a directory that is a shared mount of its own. Sessions bind that directory, so a mount that
died and came back appears inside running sessions too.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError

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


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, error = await asyncio.wait_for(process.communicate(), 15)
    except TimeoutError:
        process.kill()
        raise DmspError(f"`{command[0]}` did not end within 15 s.") from None
    if process.returncode:
        raise DmspError(f"`{' '.join(command[:2])}` failed: {error.decode(errors='replace').strip()}.")


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
        await _run("mount", "--bind", str(directory), str(directory))
    if not _is_shared(directory):
        await _run("mount", "--make-shared", str(directory))
    (directory / POINT).mkdir(exist_ok=True)
    (directory / POINT).chmod(0o555)


async def ready(directory: Path) -> bool:
    """Mounted, and answering within :data:`STAT_TIMEOUT` seconds."""
    point = directory / POINT
    if not is_mounted(point):
        return False
    try:
        await asyncio.wait_for(asyncio.to_thread(os.stat, point / "."), STAT_TIMEOUT)
    except (OSError, TimeoutError):
        return False
    return True


async def release(directory: Path) -> None:
    """Take the FUSE mount away, also a dead one; the shared directory stays for running sessions."""
    while is_mounted(directory / POINT):
        await _run("fusermount3", "-uz", str(directory / POINT))


async def remove(directory: Path) -> None:
    """Take both mounts away, at the end of the box."""
    await release(directory)
    while is_mounted(directory):
        await _run("umount", "-l", str(directory))
