"""What a running box uses, sampled over time: per part and per session, with a check that nothing grows for ever."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil
from boxes import Box

from jupyterhub_dmsp.box.database import FILES_PER_PROCESS, binaries
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.hub.local.records import all_records

MB = 1e6
FLAT = {"handles": 8.0, "threads": 6.0, "connections": 4.0, "processes": 4.0}
"""Counts that must not grow, and by how much their medians may differ from one quarter to another. What is lost again
and again is in the median too; a moment in which a server has many files open is not."""
MOST = {"files_each": FILES_PER_PROCESS + 24.0, "connections": 3 * 30.0}
"""What must never be passed: a process of the database has sockets and pipes besides its files; the Rucio server's two
processes and its daemons have at most 10 + 20 connections each (``pool_size``, ``max_overflow`` in ``rucio.cfg``)."""
GROWS = {"private_mb": (0.12, 12.0), "index_mb": (0.5, 4.0)}
"""What may grow a little between the second and the last quarter: a share, and an amount."""


@dataclass
class Sampler:
    """Samples a box; the series are by (who, what)."""

    box: Box
    series: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    times: list[float] = field(default_factory=list)
    pss: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """PSS of each part and session in MB, at the start and at the end."""

    def __post_init__(self) -> None:
        self._over = asyncio.Event()

    def stop(self) -> None:
        """Let :meth:`run` take its last sample and return."""
        self._over.set()

    async def run(self, every: float) -> None:
        """Sample until stopped."""
        await asyncio.to_thread(self._weigh)
        while not self._over.is_set():
            await asyncio.to_thread(self._sample)
            try:
                async with asyncio.timeout(every):
                    await self._over.wait()
            except TimeoutError:
                continue
        await asyncio.to_thread(self._sample)
        await asyncio.to_thread(self._weigh)

    def _who(self) -> dict[str, list[psutil.Process]]:
        # What the supervisor publishes, read directly: a command for each sample would be most of the load.
        parts = State(self.box.state).read_status()["parts"]
        roots = {f"session {r.user}": r.outer.pid for r in all_records(self.box.state) if r.alive()}
        # Sessions are the hub's children: they come first, and nobody counts twice.
        roots |= {part["name"]: part["pid"] for part in parts if part["pid"]}
        found: dict[str, list[psutil.Process]] = {}
        seen: set[int] = set()
        for name, pid in roots.items():
            try:
                root = psutil.Process(pid)
                found[name] = [p for p in [root, *root.children(recursive=True)] if p.pid not in seen]
                seen |= {p.pid for p in found[name]}
            except psutil.NoSuchProcess:
                continue
        return found

    def _weigh(self) -> None:
        for name, processes in self._who().items():
            self.pss[name].append(_sum(processes, lambda p: p.memory_full_info().pss) / MB)

    def _sample(self) -> None:
        self.times.append(time.monotonic())
        for name, processes in self._who().items():
            self._note(name, "handles", _sum(processes, lambda p: p.num_fds()))
            self._note(name, "threads", _sum(processes, lambda p: p.num_threads()))
            self._note(name, "private_mb", _sum(processes, _private) / MB)
            if name == "database":
                self._note(name, "processes", len(processes))
                self._note(name, "files_each", max(_sum([p], lambda p: p.num_fds()) for p in processes))
        for path in (self.box.state / "sessions").glob("*/run/dmsp/listing.sqlite"):
            user = path.parents[2].name
            size = sum(p.stat().st_size for p in path.parent.glob("listing.sqlite*"))
            self._note(f"session {user}", "index_mb", size / MB)
        logs = self.box.state / "logs"
        self._note("all", "logs_mb", sum(p.stat().st_size for p in logs.rglob("*.log*")) / MB)
        for what, number in self._database().items():
            self._note("database", what, number)

    def _note(self, who: str, what: str, number: float) -> None:
        self.series[who, what].append(number)

    def _database(self) -> dict[str, float]:
        """Connections, and rows of the tables that only grow where nobody tidies."""
        parts = State(self.box.state).read_status()["parts"]
        address = next(part["address"] for part in parts if part["name"] == "database")
        program = binaries() / "psql"
        query = (
            "select count(*) from pg_stat_activity where backend_type = 'client backend'"
            " union all select count(*) from tokens union all select count(*) from messages"
        )
        with tempfile.NamedTemporaryFile("w", prefix="dmsp-pgpass-") as file:
            file.write(f"*:*:*:*:{self.box.secret('database-password')}\n")
            file.flush()
            port = address.rsplit(":", 1)[1]
            done = subprocess.run(
                [str(program), "-h", "127.0.0.1", "-p", port, "-U", "rucio", "-d", "postgres", "-Atc", query],
                env={**os.environ, "PGPASSFILE": file.name},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        connections, tokens, messages = (float(line) for line in done.stdout.split())
        return {"connections": connections - 1, "tokens": tokens, "messages": messages}

    def grown(self, slack: float = 1.0) -> list[str]:
        """One line for each series that grew from the second quarter to the last by more than it may.

        Args:
            slack: factor on what is allowed: in a short run the start is still going on in the second quarter.
        """
        wrong = [
            f"{what} of {who} came to {max(values):.0f} (at most {MOST[what]:.0f}): {_short(values)}"
            for (who, what), values in sorted(self.series.items())
            if what in MOST and max(values) > MOST[what]
        ]
        for (who, what), values in sorted(self.series.items()):
            # Its processes open the files of more and more tables, each up to the limit; they stay as few.
            if len(values) < 8 or (who, what) == ("database", "handles"):
                continue
            quarter = len(values) // 4
            before, after = values[quarter : 2 * quarter], values[-quarter:]
            grown = statistics.median(after) - statistics.median(before)
            if what in FLAT:
                allowed = FLAT[what] + 0.05 * statistics.median(before)
            elif what in GROWS:
                share, amount = GROWS[what]
                allowed = amount + share * statistics.median(before)
            else:
                continue
            if grown > allowed * slack:
                wrong.append(
                    f"{what} of {who} grew by {grown:.1f} (allowed {allowed * slack:.1f}): {_short(values)}"
                )
        return wrong

    def table(self) -> str:
        """Memory, handles and threads of each, at the start and at the end; then the other series."""
        rows = [
            "| who | PSS start [MB] | PSS end [MB] | handles | threads |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        whole = [0.0, 0.0]
        for who in sorted(self.pss):
            first, last = self.pss[who][0], self.pss[who][-1]
            whole = [whole[0] + first, whole[1] + last]
            handles, threads = self.series[who, "handles"], self.series[who, "threads"]
            rows.append(f"| {who} | {first:.0f} | {last:.0f} | {_ends(handles)} | {_ends(threads)} |")
        rows.append(f"| **all** | {whole[0]:.0f} | {whole[1]:.0f} | | |")
        for (who, what), values in sorted(self.series.items()):
            if what in ("connections", "files_each", "tokens", "messages", "logs_mb") or (
                (who, what) == ("database", "private_mb")
            ):
                rows.append(f"{what} ({who}): {_short(values)}")
        largest = max((max(v) for (_, what), v in self.series.items() if what == "index_mb"), default=0.0)
        rows.append(f"largest listing index: {largest:.2f} MB")
        return "\n".join(rows)


def _private(process: psutil.Process) -> float:
    """Bytes that a process has for itself: the database's processes all have the same buffers besides."""
    memory = process.memory_info()
    return float(memory.rss - memory.shared)


def _sum(processes: Iterable[psutil.Process], ask: object) -> float:
    total = 0.0
    for process in processes:
        try:
            total += ask(process)  # type: ignore[operator]
        except psutil.Error:
            continue
    return total


def _ends(values: list[float]) -> str:
    return f"{values[0]:.0f} → {values[-1]:.0f}" if values else ""


def _short(values: list[float]) -> str:
    """Eight of the values, evenly spread."""
    step = max(1, len(values) // 8)
    return " ".join(f"{value:.4g}" for value in [*values[::step], values[-1]])
