"""Starts the parts of a box in the order they need one another, keeps them alive, and ends them.

A part is a process with a readiness check. Parts whose needs are met start in parallel. One that ends by
itself comes back with a growing delay; after :data:`MAX_FAILURES` failures within :data:`WINDOW` seconds it
is declared failed, with the last lines of its log. What the supervisor knows is published after every change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.process import Process, main_of

MAX_FAILURES = 5
WINDOW = 120.0
READY_INTERVAL = 0.1
PUBLISH_INTERVAL = 2.0
LIVENESS_INTERVAL = 5.0

log = logging.getLogger("dmsp.box")

StateName = Literal["waiting", "preparing", "starting", "healthy", "unhealthy", "failed", "stopping", "stopped"]


Say = Callable[[str], None]


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
        ready: answers whether the part serves; asked until it does, and now and then afterwards.
        prepare: what must be done before each start (idempotent); it is given a function that shows progress.
        clean: what must be done after it ended, such as unmounting (idempotent).
        needs: names of the parts that must be healthy first.
        address: where it serves, for ``dmsp status``.
        environment: the whole environment of the process; never a secret.
        stop_signal: how it is asked to end.
        stop_timeout: seconds until it is killed.
        start_timeout: seconds until readiness is given up.
    """

    name: str
    title: str
    command: Callable[[], Sequence[str]] | None
    ready: Callable[[], Awaitable[bool]]
    prepare: Callable[[Say], Awaitable[None]] = _nothing_said
    clean: Callable[[], Awaitable[None]] = _nothing
    needs: tuple[str, ...] = ()
    address: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    start_timeout: float = 120.0


@dataclass
class Running:
    """What is known of a part now."""

    part: Part
    state: StateName = "waiting"
    detail: str = ""
    process: asyncio.subprocess.Process | None = None
    healthy: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[float] = field(default_factory=list)
    restarts: int = 0
    seconds: float = 0.0

    def describe(self) -> dict[str, Any]:
        """As ``dmsp status --json`` gives it; ``rss_bytes`` is resident memory of the process tree."""
        pid = self.process.pid if self.process and self.process.returncode is None else None
        return {
            "name": self.part.name,
            "title": self.part.title,
            "state": self.state,
            "detail": self.detail,
            "pid": pid,
            "rss_bytes": tree_rss(pid) if pid else 0,
            "address": self.part.address,
            "restarts": self.restarts,
            "start_seconds": round(self.seconds, 3),
        }


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and all its descendants; 0 when it is gone."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    except psutil.Error:
        return total
    return total


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


class Supervisor:
    """Runs parts until told to stop.

    Args:
        parts: what to run; needs may name only parts of this list.
        logs: directory of the log files.
        publish: called with the list of descriptions after every change.
        announce: called with (part, state, detail) for the live progress display.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        logs: Path,
        publish: Callable[[list[dict[str, Any]]], None],
        announce: Callable[[Part, StateName, str], None],
    ) -> None:
        self.running = {part.name: Running(part) for part in parts}
        self.logs = logs
        self._publish = publish
        self._announce = announce
        self._stopping = asyncio.Event()
        self._fatal: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start everything; returns when all parts are healthy, raises :class:`DmspError` when one fails."""
        self._fatal = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._keep(r), name=f"keep-{n}") for n, r in self.running.items()]
        self._tasks.append(asyncio.create_task(self._publish_now_and_then(), name="publish"))
        everything = asyncio.create_task(self._all_healthy())
        waiting: set[asyncio.Future[None]] = {everything, self._fatal}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            everything.cancel()
        if self._fatal.done():
            self._fatal.result()

    async def _all_healthy(self) -> None:
        for running in self.running.values():
            await running.healthy.wait()

    async def wait_fatal(self) -> None:
        """Wait until a part is given up; raises the reason."""
        assert self._fatal is not None, "start() comes first"
        await asyncio.shield(self._fatal)

    async def stop(self) -> None:
        """End all parts, those that others need last; returns when nothing of them is left."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        left = dict(self.running)
        while left:
            needed = {need for r in left.values() for need in r.part.needs}
            leaves = [r for name, r in left.items() if name not in needed] or list(left.values())
            await asyncio.gather(*(self._end(r) for r in leaves))
            for r in leaves:
                left.pop(r.part.name)
        self._publish([r.describe() for r in self.running.values()])

    def _set(self, running: Running, state: StateName, detail: str = "") -> None:
        running.state, running.detail = state, detail
        if state == "healthy":
            running.healthy.set()
        else:
            running.healthy.clear()
        self._announce(running.part, state, detail)
        self._publish([r.describe() for r in self.running.values()])

    async def _keep(self, running: Running) -> None:
        part = running.part
        while not self._stopping.is_set():
            try:
                for need in part.needs:
                    await self.running[need].healthy.wait()
                await self._launch(running)
                if part.command is None:
                    return
                await self._watch(running)
                reason = f"ended with code {running.process.returncode if running.process else '?'}"
            except DmspError as error:
                reason = str(error)
            except OSError as error:
                reason = f"could not be started: {error.strerror}"
            except Exception as error:  # a part's hook may raise anything; the cause goes to the log
                log.exception("part %s", part.name)
                reason = f"{type(error).__name__}: {error}"
            if self._stopping.is_set():
                return
            await self._kill(running)
            await part.clean()
            now = time.monotonic()
            running.failures = [t for t in running.failures if now - t < WINDOW] + [now]
            running.restarts += 1
            log.warning("part %s %s (%d failures)", part.name, reason, len(running.failures))
            if len(running.failures) >= MAX_FAILURES or self._first_start_failed(running):
                self._give_up(running, reason)
                return
            self._set(running, "unhealthy", reason)
            await asyncio.sleep(min(10.0, 0.2 * 2 ** len(running.failures)))

    def _first_start_failed(self, running: Running) -> bool:
        """A part that never was healthy has a wrong configuration: three tries are enough."""
        return running.seconds == 0.0 and len(running.failures) >= 3

    def _give_up(self, running: Running, reason: str) -> None:
        self._set(running, "failed", reason)
        text = tail(self.logs / f"{running.part.name}.log")
        error = DmspError(
            f"{running.part.title} does not start: {reason}." + (f"\n{text}" if text else ""),
            f"`dmsp logs {running.part.name}` shows more.",
        )
        if self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(error)

    async def _launch(self, running: Running) -> None:
        part = running.part
        begin = time.monotonic()
        self._set(running, "preparing")
        await part.prepare(lambda text: self._set(running, "preparing", text))
        if part.command is None:
            running.seconds = time.monotonic() - begin
            self._set(running, "healthy")
            return
        self._set(running, "starting")
        with (self.logs / f"{part.name}.log").open("ab") as output:
            running.process = await asyncio.create_subprocess_exec(
                *part.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", **part.environment},
                start_new_session=True,
            )
        while not await part.ready():
            if running.process.returncode is not None:
                raise DmspError(f"ended with code {running.process.returncode} before it was ready")
            if time.monotonic() - begin > part.start_timeout:
                raise DmspError(f"was not ready after {part.start_timeout:.0f} s")
            await asyncio.sleep(READY_INTERVAL)
        running.seconds = time.monotonic() - begin
        self._set(running, "healthy")

    async def _watch(self, running: Running) -> None:
        """Until the process ends, or its readiness check fails three times in a row."""
        assert running.process is not None
        missed = 0
        ended = asyncio.create_task(running.process.wait())
        try:
            while missed < 3:
                done, _ = await asyncio.wait({ended}, timeout=LIVENESS_INTERVAL)
                if done:
                    return
                missed = 0 if await running.part.ready() else missed + 1
            raise DmspError("stopped answering")
        finally:
            ended.cancel()

    async def _publish_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_INTERVAL)
            self._publish([r.describe() for r in self.running.values()])

    async def _end(self, running: Running) -> None:
        process = running.process
        if process is not None and process.returncode is None:
            self._set(running, "stopping")
            _signal(process, running.part.stop_signal)
            try:
                async with asyncio.timeout(running.part.stop_timeout):
                    await process.wait()
            except TimeoutError:
                log.warning("part %s did not end in time and is killed", running.part.name)
                await self._kill(running)
        await running.part.clean()
        self._set(running, "stopped")

    async def _kill(self, running: Running) -> None:
        """End a process and what it left in its session, at once."""
        process = running.process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal the program itself; bubblewrap around it when that has not started it: there is nothing to tidy up."""
    started = Process.of(process.pid)
    if started is not None:
        (main_of(started) or started).send(number)
