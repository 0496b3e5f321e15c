"""Starts the parts of a box in the order they need one another, keeps them alive, and ends them.

Parts whose needs are met start in parallel. One that ends by itself, or stops being alive, comes back with a growing
delay. Failed starts and short lives in a row are counted; when they reach :data:`LIMIT` the part is declared failed,
with the last lines of its log. While the box comes up that ends it all; afterwards the others go on, and the failed
part is tried again every :data:`RETRY_FAILED` seconds. What the supervisor knows is published after every change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.box import logs as box_logs
from jupyterhub_dmsp.box.part import Failure, Part, Running, Say, StateName, now_iso
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.process import Process, main_of

__all__ = ["Part", "Running", "Say", "StateName", "Supervisor"]

#: A start that does not come up counts START, a life shorter than STEADY seconds counts LIFE; at LIMIT the part has
#: failed. So five starts that fail are enough, while a part that is killed again and again from outside has ten lives.
START, LIFE, LIMIT = 2, 1, 10
STEADY = 10.0
#: Starts that may fail while the box comes up: a part that never was healthy has a wrong configuration.
FIRST_STARTS = 3
RETRY_FAILED = 60.0
READY_INTERVAL = 0.1
PUBLISH_INTERVAL = 2.0
LIVENESS_INTERVAL = 5.0
#: Once a check went wrong the next ones follow sooner; after MISSES in a row the part is started again.
SUSPICION_INTERVAL, MISSES = 2.0, 4
#: Seconds that a part has for finding a need again that came back.
REUNION = 15.0
#: Seconds for ending all parts; what is left then is killed.
STOP_WITHIN = 7.0
#: Seconds for what follows: killing, unmounting. After them the supervisor waits for nothing any more.
FORCE_WITHIN = 3.0
KILL_TIMEOUT = 2.0
CLEAN_TIMEOUT = 5.0

log = logging.getLogger("dmsp.box")


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
        self.up = False
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
        self.up = True

    async def _all_healthy(self) -> None:
        while not all(running.healthy.is_set() for running in self.running.values()):
            for running in self.running.values():
                await running.healthy.wait()

    def restart(self, name: str) -> None:
        """Start a part again: politely when it runs, at once when it has failed."""
        running = self.running[name]
        log.info("part %s is to be started again", name)
        running.strikes = running.failures = 0
        running.asked.set()

    async def stop(self) -> None:
        """End all parts, those that others need last, within STOP_WITHIN + FORCE_WITHIN seconds, whatever they do."""
        deadline = time.monotonic() + STOP_WITHIN
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=KILL_TIMEOUT)
        ended = {name: asyncio.Event() for name in self.running}

        async def end(name: str, running: Running) -> None:
            for other in self.running.values():
                if name in other.part.needs:
                    await ended[other.part.name].wait()
            try:
                await self._end(running, deadline)
            finally:
                ended[name].set()

        tasks = {asyncio.create_task(end(name, running)): running for name, running in self.running.items()}
        done, late = await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()) + FORCE_WITHIN)
        for task in late:
            task.cancel()
            self._kill_at_once(tasks[task])
            log.error("part %s is left as it is: it cannot be ended or tidied up", tasks[task].part.name)
        for task in done:
            if error := task.exception():
                log.error("while ending: %s", error, exc_info=error)
        self._publish_now()

    def _publish_now(self) -> None:
        self._publish([r.describe() for r in self.running.values()])

    def _set(self, running: Running, state: StateName, detail: str = "") -> None:
        running.enter(state, detail)
        self._announce(running.part, state, detail)
        self._publish_now()

    async def _keep(self, running: Running) -> None:
        """One part, start after start, until the box ends."""
        while not self._stopping.is_set():
            await self._await_needs(running)
            losses = self._losses(running)
            running.asked.clear()
            running.up_since = None
            reason = await self._live(running)
            if self._stopping.is_set():
                return
            self._set(running, "unhealthy" if reason else "stopping", reason)
            await self._kill(running)
            await self._clean(running.part)
            if reason:
                await self._failed(running, reason, losses)

    async def _await_needs(self, running: Running) -> None:
        """Until all needs are healthy at the same time."""
        needs = [self.running[name] for name in running.part.needs]
        while missing := [need for need in needs if not need.healthy.is_set()]:
            if running.state != "waiting":
                self._set(running, "waiting", f"for {missing[0].part.title}")
            await missing[0].healthy.wait()

    def _losses(self, running: Running) -> int:
        """How often one of its needs was lost so far."""
        return sum(self.running[name].losses for name in running.part.needs)

    def _needs_steady(self, running: Running) -> bool:
        """Whether all its needs have been there for long enough to be found again."""
        needs = [self.running[name] for name in running.part.needs]
        return all(n.healthy.is_set() and time.monotonic() - n.changed > REUNION for n in needs)

    async def _live(self, running: Running) -> str:
        """One start and what follows; why it ended, or "" when it was asked to start again."""
        try:
            await self._launch(running)
            if running.part.command is None:
                await running.asked.wait()
                return ""
            return await self._watch(running)
        except DmspError as error:
            return str(error)
        except OSError as error:
            return f"could not be started: {error.strerror or error}"
        except Exception as error:  # a part's hook may raise anything; the cause goes to the log
            log.exception("part %s", running.part.name)
            return f"{type(error).__name__}: {error}"

    async def _failed(self, running: Running, reason: str, losses: int) -> None:
        """Judge a failure, and wait as long as it deserves."""
        name = running.part.name
        text = await asyncio.to_thread(box_logs.tail, self.logs / f"{name}.log")
        running.last_failure = Failure(now_iso(), reason, text)
        if running.part.needs and running.up_since is None:
            # It may have noticed the end of what it needs before we did.
            await asyncio.sleep(0.5)
            if self._losses(running) > losses:
                log.warning("part %s %s (what it needs was gone)", name, reason)
                return
        lived = time.monotonic() - running.up_since if running.up_since is not None else None
        if lived is not None and lived >= STEADY:
            running.failures = running.strikes = 0
        running.failures += 1
        running.strikes += START if lived is None else LIFE
        log.warning("part %s %s (%d in a row)", name, reason, running.failures)
        first = not self.up and not running.lives and running.failures >= FIRST_STARTS
        if first or running.strikes >= LIMIT:
            self._give_up(running, reason, text)
            pause = RETRY_FAILED
        else:
            pause = min(10.0, 0.1 * 2.0 ** (running.failures - 1))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running.asked.wait(), pause)

    def _give_up(self, running: Running, reason: str, text: str) -> None:
        self._set(running, "failed", reason)
        log.error("part %s has failed: %s", running.part.name, reason)
        if not self.up and self._fatal is not None and not self._fatal.done():
            error = DmspError(
                f"{running.part.title} does not start: {reason}." + (f"\n{text}" if text else ""),
                f"`dmsp logs {running.part.name}` shows more.",
            )
            self._fatal.set_exception(error)

    async def _launch(self, running: Running) -> None:
        part = running.part
        begin = time.monotonic()
        running.launches += 1
        self._set(running, "preparing")
        await part.prepare(lambda text: self._set(running, "preparing", text))
        if part.command is not None:
            self._set(running, "starting")
            await self._spawn(running)
            assert running.process is not None
            while not await part.ready():
                if running.process.returncode is not None:
                    raise DmspError(f"{_ending(running.process.returncode)} before it was ready")
                if time.monotonic() - begin > part.start_timeout:
                    raise DmspError(f"was not ready after {part.start_timeout:.0f} s")
                await asyncio.sleep(READY_INTERVAL)
        running.up_since = time.monotonic()
        running.seconds = running.up_since - begin
        running.lives += 1
        running.count_memory()
        self._set(running, "healthy")

    async def _spawn(self, running: Running) -> None:
        part = running.part
        assert part.command is not None
        # Appending: the log may be cut while the part has it open, see logs.py.
        with (self.logs / f"{part.name}.log").open("ab") as output, contextlib.ExitStack() as ours:
            # Our copy of the socket is closed at once: it must end with the process.
            listener = ours.enter_context(part.listener()) if part.listener else None
            running.process = await asyncio.create_subprocess_exec(
                *part.command(),
                stdin=listener.fileno() if listener else asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", **part.environment},
                start_new_session=True,
            )
        running.identity = Process.of(running.process.pid)
        self._publish_now()

    async def _watch(self, running: Running) -> str:
        """Why the part ended, "" when it is asked to start again; raises when it stopped being alive."""
        assert running.process is not None
        ended = asyncio.create_task(running.process.wait())
        asked = asyncio.create_task(running.asked.wait())
        missed = 0
        try:
            while missed < MISSES:
                interval = SUSPICION_INTERVAL if missed else LIVENESS_INTERVAL
                done, _ = await asyncio.wait(
                    {ended, asked}, timeout=interval, return_when=asyncio.FIRST_COMPLETED
                )
                if ended in done:
                    return _ending(running.process.returncode)
                if asked in done:
                    self._set(running, "stopping")
                    await self._ask_to_end(running, running.part.stop_timeout)
                    return ""
                missed = await self._examine(running, missed)
            raise DmspError(running.detail or "stopped answering")
        finally:
            ended.cancel()
            asked.cancel()

    async def _examine(self, running: Running, missed: int) -> int:
        """Ask whether the part is alive; the number of checks in a row that went wrong and count."""
        wrong = await running.part.wrong()
        if not wrong:
            if running.state != "healthy":
                self._set(running, "healthy")
            return 0
        if not self._needs_steady(running):
            self._set(running, "unhealthy", wrong)
            return 0
        if missed:
            self._set(running, "unhealthy", wrong)
        return missed + 1

    async def _publish_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_INTERVAL)
            for running in self.running.values():
                running.count_memory()
            self._publish_now()
            try:
                await asyncio.to_thread(box_logs.bound, self.logs)
            except OSError as error:
                log.warning("the logs cannot be kept small: %s", error)

    async def _end(self, running: Running, deadline: float) -> None:
        if running.runs:
            self._set(running, "stopping")
            left = max(0.0, deadline - time.monotonic())
            await self._ask_to_end(running, min(running.part.stop_timeout, left))
        await self._kill(running)
        await self._clean(running.part)
        self._set(running, "stopped")

    async def _ask_to_end(self, running: Running, timeout: float) -> None:
        """Signal the program itself and wait; what is left of it afterwards is for :meth:`_kill`."""
        process, identity = running.process, running.identity
        if process is None or identity is None or process.returncode is not None:
            return
        # bubblewrap hands no signal on; where it has not started the program yet there is nothing to tidy up.
        (main_of(identity) or identity).send(running.part.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            log.warning("part %s did not end within %.1f s and is killed", running.part.name, timeout)

    async def _kill(self, running: Running) -> None:
        """End a process and what it left in its session, at once."""
        process = running.process
        if process is None:
            return
        self._kill_at_once(running)
        try:
            await asyncio.wait_for(process.wait(), KILL_TIMEOUT)
        except TimeoutError:
            log.error("part %s: process %d does not end even when it is killed", running.part.name, process.pid)

    @staticmethod
    def _kill_at_once(running: Running) -> None:
        if running.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.process.pid, signal.SIGKILL)

    async def _clean(self, part: Part) -> None:
        try:
            await asyncio.wait_for(part.clean(), CLEAN_TIMEOUT)
        except (DmspError, OSError, TimeoutError) as error:
            log.warning("part %s was not tidied up: %s", part.name, error or type(error).__name__)


def _ending(code: int | None) -> str:
    """How a process ended, in words; bubblewrap reports a signal as 128 + its number."""
    number = -code if code is not None and code < 0 else (code or 0) - 128
    try:
        return f"was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with code {'?' if code is None else code}"
