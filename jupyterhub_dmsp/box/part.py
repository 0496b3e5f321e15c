"""What the supervisor is told about a part of the box, and what it knows of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jupyterhub_dmsp.sandbox.process import Process

StateName = Literal["waiting", "preparing", "starting", "healthy", "unhealthy", "failed", "stopping", "stopped"]

Say = Callable[[str], None]
PAGE = os.sysconf("SC_PAGE_SIZE")


async def _nothing() -> None:
    return None


async def _nothing_said(_: Say) -> None:
    return None


@dataclass
class Part:
    """One process of the box, or (without a command) one piece of work that must be done once a start.

    Attributes:
        name: short name, also of its log file.
        title: what it is, for people.
        command: argument vector, asked for at each start; None for work without a process.
        ready: answers whether the part serves; asked until it does.
        alive: asked every few seconds afterwards: what is wrong with it, in words, or "" when nothing is.
            None: it is alive while it is ready.
        prepare: what must be done before each start (idempotent); it is given a function that shows progress.
        clean: what must be done after it ended, such as unmounting (idempotent).
        needs: names of the parts that must be healthy when it starts. When one of them is gone later the part goes on,
            and what it fails at meanwhile is not held against it.
        address: where it serves, for ``dmsp status``.
        environment: the whole environment of the process; never a secret.
        listener: makes the listening socket that the process gets as its standard input, asked for at each start.
        stop_signal: how it is asked to end.
        stop_timeout: seconds until it is killed.
        start_timeout: seconds until readiness is given up.
    """

    name: str
    title: str
    command: Callable[[], Sequence[str]] | None
    ready: Callable[[], Awaitable[bool]]
    alive: Callable[[], Awaitable[str]] | None = None
    prepare: Callable[[Say], Awaitable[None]] = _nothing_said
    clean: Callable[[], Awaitable[None]] = _nothing
    needs: tuple[str, ...] = ()
    address: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    listener: Callable[[], socket.socket] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 4.0
    start_timeout: float = 120.0

    async def wrong(self) -> str:
        """What is wrong with the running part; "" when it is well."""
        if self.alive is not None:
            return await self.alive()
        return "" if await self.ready() else "does not answer"


@dataclass(frozen=True)
class Failure:
    """Why a part ended or did not start.

    Attributes:
        at: when, as ISO 8601 in UTC.
        reason: in words.
        log: the last lines of its log at that time.
    """

    at: str
    reason: str
    log: str


def now_iso() -> str:
    """The time, as it stands in ``dmsp status --json``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Running:
    """What is known of a part now.

    Attributes:
        healthy: set while it is.
        asked: set when somebody wants it started again.
        launches: starts of it so far.
        lives: starts that came up, so far.
        losses: how often it stopped being healthy.
        failures: failed starts and short lives in a row.
        strikes: the same, weighed; see :data:`jupyterhub_dmsp.box.supervisor.LIMIT`.
        changed: when it came into its state (monotonic clock, seconds).
        seconds: how long its last start took.
        rss: resident bytes of its processes, when they were last counted.
    """

    part: Part
    state: StateName = "waiting"
    detail: str = ""
    process: asyncio.subprocess.Process | None = None
    identity: Process | None = None
    healthy: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    launches: int = 0
    lives: int = 0
    losses: int = 0
    failures: int = 0
    strikes: int = 0
    up_since: float | None = None
    changed: float = field(default_factory=time.monotonic)
    since: str = field(default_factory=now_iso)
    last_failure: Failure | None = None
    seconds: float = 0.0
    rss: int = 0

    def enter(self, state: StateName, detail: str = "") -> None:
        """Change the state; a state that only has a new detail keeps its time."""
        if state != self.state:
            self.changed, self.since = time.monotonic(), now_iso()
            self.losses += self.state == "healthy"
        self.state, self.detail = state, detail
        if state == "healthy":
            self.healthy.set()
        else:
            self.healthy.clear()

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.launches - 1)

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.returncode is None

    def count_memory(self) -> None:
        """Look at all its processes; at each change of a state that would take most of a busy machine's time."""
        self.rss = tree_rss(self.identity) if self.runs and self.identity else 0

    def describe(self) -> dict[str, Any]:
        """As ``dmsp status --json`` gives it; ``rss_bytes`` is resident memory of the process tree."""
        alive = self.identity if self.runs else None
        return {
            "name": self.part.name,
            "title": self.part.title,
            "state": self.state,
            "detail": self.detail,
            "since": self.since,
            "pid": alive.pid if alive else None,
            "pid_started": alive.started if alive else None,
            "rss_bytes": self.rss if alive else 0,
            "address": self.part.address,
            "restarts": self.restarts,
            "start_seconds": round(self.seconds, 3),
            "last_failure": vars(self.last_failure) if self.last_failure else None,
        }


def tree_rss(root: Process) -> int:
    """Resident bytes of a process and all its descendants (proc(5), statm); 0 when it is gone."""
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE
        waiting += process.children()
    return total
