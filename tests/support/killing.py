"""Killing parts of a running box, and what a user sees of it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
import psutil
from boxes import Box
from lakes import SCRATCH, place
from visitor import Visitor

from jupyterhub_dmsp.box.rucio.inside.dmsp_rucio.copying import checksum
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.lake.models import LakeFile
from jupyterhub_dmsp.sandbox.process import Process, main_of

#: Every part with a process.
PARTS = ("database", "issuer", "rucio", "daemons", "scratch", "proxy", "hub")
PATIENCE = 15.0
"""Seconds after which an answer counts as a hang."""
RECOVERY = 120.0


def said(box: Box) -> dict[str, dict[str, Any]]:
    """The parts as the box last published them: cheap, for polling."""
    return {part["name"]: part for part in State(box.state).read_status().get("parts", [])}


def kill_part(box: Box, name: str, *, tree: bool = False) -> int:
    """``kill -9`` of a part's main process, or of its whole tree from the outside in; its number of restarts before."""
    part = said(box)[name]
    outer = Process(part["pid"], part["pid_started"])
    main = main_of(outer)
    assert main is not None, f"{name} has no process"
    if tree:
        root = psutil.Process(outer.pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    else:
        assert main.send(signal.SIGKILL)
    restarts: int = part["restarts"]
    return restarts


async def all_healthy(box: Box, again: dict[str, int] | None = None, timeout: float = RECOVERY) -> None:
    """Wait until every part is healthy, those in ``again`` after more restarts than said there."""
    deadline = time.monotonic() + timeout
    parts: dict[str, dict[str, Any]] = {}
    while time.monotonic() < deadline:
        parts = said(box)
        fresh = all(parts[name]["restarts"] > count for name, count in (again or {}).items() if name in parts)
        if parts and fresh and all(part["state"] == "healthy" for part in parts.values()):
            return
        failed = [part["name"] for part in parts.values() if part["state"] == "failed"]
        assert not failed, f"given up: {failed}"
        await asyncio.sleep(0.1)
    raise AssertionError({name: (part["state"], part["detail"]) for name, part in parts.items()})


def of_box(box: Box) -> list[psutil.Process]:
    """Every process of a box: of its supervisor, its parts, its mounts and its sessions."""
    marks = (str(box.state),)
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(
            mark in " ".join(process.info["cmdline"] or []) for mark in marks
        ):
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in [process, *process.children(recursive=True)]:
                    found[one.pid] = one
    return list(found.values())


def kill_everything(box: Box) -> int:
    """What a power cut does: every process of the box at once; how many there were."""
    count = 0
    while processes := of_box(box):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
                count += 1
        psutil.wait_procs(processes, timeout=10)
    return count


def assert_on_scratch(box: Box, files: Sequence[LakeFile]) -> None:
    """Every file is on scratch, whole and right."""
    wrong = [f.did for f in files if checksum(str(place(box, SCRATCH, f.did))) != f.adler32]
    assert not wrong, wrong


@dataclass
class Answer:
    """One request of the watcher's.

    Attributes:
        at: when it was answered, seconds of the monotonic clock.
        seconds: how long it took.
        error: what was wrong, "" when nothing.
    """

    at: float
    seconds: float
    error: str


@dataclass
class Watcher:
    """Asks for each address once a second, as a browser with an open Lab does, and notes what comes."""

    visitor: Visitor
    addresses: dict[str, str]
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def of(cls, visitor: Visitor) -> Watcher:
        """Of what an open Lab and the hub's pages ask for."""
        addresses = {
            "hub API": f"{visitor.address}hub/api/users/{visitor.name}",
            "Lab status": f"{visitor.base}api/status",
            "lake status": f"{visitor.base}dmsp/v1/status",
            "attachments": f"{visitor.base}dmsp/v1/attachments",
        }
        return cls(visitor, addresses)

    async def __aenter__(self) -> Watcher:
        self.answers = {name: [] for name in self.addresses}
        self._tasks = [asyncio.create_task(self._watch(*item)) for item in self.addresses.items()]
        await self.settled()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, name: str, url: str) -> None:
        while True:
            begin = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    status, body = await self.visitor.request("GET", url)
                problem = "" if status == 200 else f"{status} {str(body)[:300]}"
            except TimeoutError:
                problem = "HANG"
            except aiohttp.ClientError as error:
                problem = f"{type(error).__name__}: {error}"
            now = time.monotonic()
            self.answers[name].append(Answer(now, now - begin, problem))
            await asyncio.sleep(max(0.0, 1.0 - (now - begin)))

    async def settled(self, good: int = 3, timeout: float = 60) -> None:
        """Wait until each address gave ``good`` right answers in a row from now on."""
        before = {name: len(answers) for name, answers in self.answers.items()}
        async with asyncio.timeout(timeout):
            while not all(
                len(a) >= before[n] + good and not any(x.error for x in a[-good:])
                for n, a in self.answers.items()
            ):
                await asyncio.sleep(0.1)

    def episodes(self, name: str) -> list[list[Answer]]:
        """Errors in a row, for one address."""
        found: list[list[Answer]] = []
        before = ""
        for answer in self.answers[name]:
            if answer.error:
                if not before:
                    found.append([])
                found[-1].append(answer)
            before = answer.error
        return found

    def report(self) -> dict[str, list[list[str]]]:
        """The errors of each address, by episode."""
        return {n: [[a.error for a in e] for e in self.episodes(n)] for n in self.addresses if self.episodes(n)}

    def assert_clear(self, most: int = 1) -> None:
        """At most ``most`` episodes for each address, each with a clear answer, and no hang."""
        for name in self.addresses:
            episodes = self.episodes(name)
            assert len(episodes) <= most, (name, self.report())
            for answer in (a for episode in episodes for a in episode):
                assert answer.error != "HANG", (name, self.report())
                assert answer.error.startswith(CLEAR), (name, self.report())


CLEAR = ("502 ", "503 ", "504 ", "ClientConnectorError", "ServerDisconnectedError", "ClientOSError")
"""A status that says "not now", or a connection that is refused or closed at once."""
