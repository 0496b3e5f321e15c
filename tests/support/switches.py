"""Switches that break the parts of a running box: kill, stop and go on, fill a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
from boxes import Box

from jupyterhub_dmsp.sandbox.process import Process, main_of


def processes(box: Box, part: str) -> list[psutil.Process]:
    """All processes of a part, the sandbox around it first."""
    pid = box.part(part)["pid"]
    assert pid, f"{part} has no process"
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def kill(box: Box, part: str, number: int = signal.SIGKILL) -> int:
    """Kill the program of a part (inside its sandbox); its number."""
    started = Process.of(box.part(part)["pid"])
    assert started is not None
    program = main_of(started)
    assert program is not None
    program.send(number)
    return program.pid


@contextlib.contextmanager
def stopped(box: Box, part: str) -> Iterator[None]:
    """A part that is there and does nothing: all its processes are stopped while the block lasts.

    The supervisor ends a part that answers nothing for three checks in a row (15 s).
    """
    frozen = processes(box, part)
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in reversed(frozen):
            # psutil compares start times: a later process with the same number is left alone.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


class SmallDisk:
    """A directory on a file system of its own with so many bytes, to be filled and freed again.

    Mount it before the box starts: confined parts see later mounts only where theirs is shared.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self.directory, self.size = directory, size

    def __enter__(self) -> SmallDisk:
        status = self.directory.stat()
        mode = f"size={self.size},mode={status.st_mode & 0o7777:o},uid={status.st_uid},gid={status.st_gid}"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", mode, "dmsp-small", str(self.directory)], check=True, timeout=30
        )
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.directory)], check=False, timeout=30)

    @property
    def free(self) -> int:
        """Bytes that are left."""
        return shutil.disk_usage(self.directory).free

    @contextlib.contextmanager
    def full(self, leave: int = 0) -> Iterator[None]:
        """No room but `leave` bytes while the block lasts."""
        with full(self.directory, leave):
            yield


@contextlib.contextmanager
def full(directory: Path, leave: int = 0) -> Iterator[None]:
    """Fill the file system of a directory but for `leave` bytes; only for one of limited size."""
    ballast = directory / ".ballast"
    try:
        with ballast.open("wb") as file:
            for _ in range(100):  # others may be writing there, and be quicker
                room = shutil.disk_usage(directory).free - leave
                assert room < 1 << 31, "this is no small disk"
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, max(1, room))
                    break
            else:
                raise AssertionError("the disk cannot be filled")
        yield
    finally:
        ballast.unlink(missing_ok=True)
