"""What all benchmarks share: a box, a table, a result file."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from boxes import Box, free_port, make_box
from visitor import Visitor

RESULTS = Path(__file__).parent / "results"

__all__ = [
    "Box",
    "Visitor",
    "cpu_seconds",
    "free_port",
    "make_box",
    "median",
    "proportional_bytes",
    "report",
    "running_box",
]


@contextmanager
def running_box() -> Iterator[Box]:
    """A box with the defaults, in a directory of its own."""
    boxes = make_box()
    box = next(boxes)
    try:
        yield box
    finally:
        for _ in boxes:
            pass


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def proportional_bytes(pid: int) -> int:
    """Memory of a process tree with shared pages divided among their users (PSS of proc(5)), in bytes."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def cpu_seconds(pid: int) -> float:
    """CPU time of a process tree, ended children included, in seconds."""
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _machine() -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def report(name: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], note: str = "") -> None:
    """Print a table and write ``results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    document = {"benchmark": name, "machine": _machine(), "note": note, "rows": list(rows)}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    print(f"\n{name}" + (f": {note}" if note else ""))
    for line in [list(columns), ["-" * width for width in widths], *cells]:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin


def run(coroutine: Any) -> Any:
    """Run a benchmark's coroutine."""
    return asyncio.run(coroutine)
