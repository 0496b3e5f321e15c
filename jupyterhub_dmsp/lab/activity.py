"""What counts as activity of a user's server beyond requests and messages, so that nobody ends a session at work.

Jupyter Server takes the latest of all settings whose names end in ``_last_activity`` and reports it to the hub.
Every look that finds work sets one of them to now. Counted are: a busy kernel, an attachment on its way, a program in a
terminal, any other process that uses a tenth of a processor (the workers of a Dask cluster, a detached computation),
and leases.

A lease is a file in ``$DMSP_RUNTIME/busy/`` whose modification time lies ahead: until then the session counts as
active, for work that this machine does not see, such as a workflow at REANA or a cluster elsewhere.
``touch -d '+2 hours' $DMSP_RUNTIME/busy/workflow`` takes one, removing the file gives it back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.lab.service import Service

log = logging.getLogger(__name__)
SETTING = "dmsp_last_activity"
LEASES = "busy"
MOVING = frozenset({"requested", "replicating", "landing"})
SHARE = 0.1
"""Part of one processor that a process must use to count as work: idle kernels and cluster workers use less."""
TERMINAL_SECONDS = 0.02
"""Processor time between two looks that shows a program at work in a terminal; a shell at its prompt uses none."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at one moment: its parent, its session (the terminal's shell) and its processor time in seconds."""

    parent: int
    session: int
    cpu: float


class Activity:
    """Looks at what goes on, as long as the server runs.

    Args:
        settings: the web application's settings, in which the moment of the last activity is kept.
        runtime: the directory that holds the leases.
        service: the lake's attachments; None where there is no lake.
        interval: seconds between two looks.
    """

    def __init__(
        self, settings: dict[str, Any], runtime: Path | None, service: Service | None, interval: float = 60.0
    ) -> None:
        self._settings = settings
        self._leases = runtime / LEASES if runtime else None
        self._service = service
        self._interval = interval
        self._before: dict[int, Seen] = {}
        self._looked = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        if self._leases is not None:
            self._leases.mkdir(mode=0o700, exist_ok=True)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("The look at what goes on failed")
            await asyncio.sleep(self._interval)

    async def look(self) -> list[str]:
        """What goes on now, in words; empty for nothing."""
        found = [f"kernel {name}" for name in self._busy_kernels()] + self._attachments()
        found += await asyncio.to_thread(self._leased)
        found += await asyncio.to_thread(self._working)
        if found:
            self._settings[SETTING] = datetime.now(UTC)
            log.debug("At work: %s", ", ".join(found))
        return found

    def _busy_kernels(self) -> list[str]:
        manager = self._settings.get("kernel_manager")
        if manager is None:
            return []
        kernels = {ident: manager.get_kernel(ident) for ident in manager.list_kernel_ids()}
        return [ident for ident, kernel in kernels.items() if getattr(kernel, "execution_state", "") == "busy"]

    def _attachments(self) -> list[str]:
        if self._service is None:
            return []
        return [f"attachment {one.did}" for one in self._service.attachments.all() if one.state in MOVING]

    def _leased(self) -> list[str]:
        if self._leases is None or not self._leases.is_dir():
            return []
        now = time.time()
        return [f"lease {file.name}" for file in self._leases.iterdir() if file.lstat().st_mtime > now]

    def _working(self) -> list[str]:
        """Processes of the session that have used the processor since the last look."""
        moment, seen, before = time.monotonic(), processes(), self._before
        elapsed, self._looked, self._before = moment - self._looked, moment, seen
        shells = self._shells()
        found = []
        for number in below(os.getpid(), seen):
            was = before.get(number)
            used = seen[number].cpu - (was.cpu if was else 0.0)
            enough = TERMINAL_SECONDS if seen[number].session in shells else SHARE * elapsed
            # A process is judged from the second look on: starting up costs more than many a program's work.
            if was is not None and used >= enough:
                found.append(f"process {number}")
        return found

    def _shells(self) -> set[int]:
        terminals = getattr(self._settings.get("terminal_manager"), "terminals", {})
        return {one.ptyproc.pid for one in list(terminals.values())}


def processes() -> dict[int, Seen]:
    """All processes that can be seen, by number."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            # proc(5): state, parent, group, session; user and system time, with those of children that have ended
            cpu = sum(map(int, fields[11:15])) / _TICKS
            found[int(entry.name)] = Seen(int(fields[1]), int(fields[3]), cpu)
    return found


def below(server: int, seen: dict[int, Seen]) -> set[int]:
    """The processes that come from this server; in a sandbox those that have lost their parent too."""
    roots = {server}
    if seen.get(server, Seen(0, 0, 0)).parent == 1 and _own(1):
        roots.add(1)  # process 1 of our sandbox takes in what was detached
    children: dict[int, list[int]] = {}
    for number, one in seen.items():
        children.setdefault(one.parent, []).append(number)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in found and child != server:
                found.add(child)
                waiting.append(child)
    return found


def _own(number: int) -> bool:
    try:
        return Path(f"/proc/{number}").stat().st_uid == os.getuid()
    except OSError:
        return False
