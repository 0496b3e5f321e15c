"""Processes that we need not have started ourselves: identity, the program inside a sandbox, a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GRACE = 5.0
"""Seconds between the polite signal and the other one."""


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number.

    Attributes:
        pid: its number in our pid namespace.
        started: its start, in clock ticks since boot (field 22 of ``/proc/<pid>/stat``).
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; None when there is none, or only its zombie."""
        state = _stat(pid)
        return cls(pid, state[1]) if state and state[0] not in "ZX" else None

    @classmethod
    def here(cls) -> Process:
        """Our own process."""
        me = cls.of(os.getpid())
        assert me is not None
        return me

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return Process.of(self.pid) == self

    def children(self) -> list[Process]:
        """Its direct children that are alive; empty when it is gone."""
        numbers: list[str] = []
        with contextlib.suppress(OSError):
            # Each thread has children of its own.
            for thread in os.listdir(f"/proc/{self.pid}/task"):  # noqa: PTH208 - names only
                numbers += Path(f"/proc/{self.pid}/task/{thread}/children").read_text().split()
        if not self.alive():
            return []
        found = (Process.of(int(number)) for number in numbers)
        return [child for child in found if child is not None]

    def send(self, number: int) -> bool:
        """Send a signal to this very process; False when it is gone already."""
        with self._descriptor() as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    async def gone(self, timeout: float) -> bool:
        """Wait until it has ended, at most ``timeout`` seconds; whether it has."""
        with self._descriptor() as descriptor:
            if descriptor is None:
                return True
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            # A pidfd becomes readable when its process ends, child of ours or not: no polling.
            loop.add_reader(descriptor, ended.set)
            try:
                await asyncio.wait_for(ended.wait(), timeout)
            except TimeoutError:
                return False
            finally:
                loop.remove_reader(descriptor)
            return True

    @contextlib.contextmanager
    def _descriptor(self) -> Iterator[int | None]:
        """A pidfd of this very process, None when it is gone; opened first, then checked: no race."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield descriptor if self.alive() else None
        finally:
            os.close(descriptor)


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time, from ``/proc/<pid>/stat`` (proc(5)); None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[19])


def init_of(outer: Process) -> Process | None:
    """Process 1 of the sandbox whose bubblewrap is ``outer``; None while there is none."""
    children = outer.children()
    return children[0] if children else None


def program_of(outer: Process) -> Process | None:
    """The program inside: bubblewrap outside, bubblewrap as process 1 inside, and below that the program."""
    init = init_of(outer)
    return init_of(init) if init else None


def main_of(started: Process) -> Process | None:
    """The program of a command that may be sandboxed: the one inside bubblewrap, else ``started`` itself.

    It is the one to signal: bubblewrap hands no signal on. None while the sandbox has not started its program, or
    when it is gone.
    """
    try:
        name = Path(f"/proc/{started.pid}/comm").read_text().strip()
    except OSError:
        return None
    if name == "bwrap":
        return program_of(started)
    return started if started.alive() else None


async def end(outer: Process, init: Process | None = None, grace: float = GRACE) -> None:
    """End a sandbox and everything in it.

    First SIGTERM to the program, so that it can tidy up; bubblewrap itself forwards no signal, and SIGINT would
    skip the tidying of a Jupyter server without a terminal. After ``grace`` seconds SIGKILL to process 1 of the
    sandbox: the kernel then kills all that is left in its pid namespace.

    Args:
        outer: the bubblewrap process outside.
        init: process 1 inside, if it was noted at the start: it is needed when ``outer`` was killed alone.
        grace: seconds for the polite end; 0 for none.
    """
    init = init_of(outer) or init
    inner = init_of(init) if init else None
    if inner and grace > 0 and inner.send(signal.SIGTERM):
        await inner.gone(grace)
    if init:
        # bubblewrap's process 1 ends by itself when the program did; a daemon left behind keeps it.
        if inner and grace > 0:
            await init.gone(0.2)
        init.send(signal.SIGKILL)
        await init.gone(GRACE)
    if not await outer.gone(1.0 if init else 0.0):
        outer.send(signal.SIGKILL)
        await outer.gone(GRACE)
