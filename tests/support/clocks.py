"""A wall clock of their own for programs under test, which can be set while they run."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path


class Clock:
    """Programs that start with :attr:`environment` go by it; others, and the monotonic clock, do not notice.

    Args:
        directory: an empty one, which the programs can read.
    """

    def __init__(self, directory: Path) -> None:
        self._file, library = directory / "offset", directory / "clock.so"
        self._file.write_bytes(struct.pack("q", 0))
        source = Path(__file__).with_name("clock.c")
        command = ["gcc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(source)]
        subprocess.run(command, check=True, timeout=60)
        self.environment = {"LD_PRELOAD": str(library), "TEST_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """From now on the clock is ahead by so many seconds; behind when negative."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", seconds))
