"""Following a request through the logs: all lines that carry its id, in order of time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError

# The first date in a line's head, as the parts write it: with or without a fraction and an offset from UTC.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?(?: ?([+-]\d\d:?\d\d|Z))?")
_HEAD = 60


@dataclass(frozen=True, order=True)
class Line:
    """A line of a log, with what follows it without a time of its own (such as a traceback).

    Attributes:
        at: seconds since the epoch.
        log: name of the log, such as ``rucio`` or ``sessions/km3net-user``.
        text: the line as it was written.
    """

    at: float
    log: str
    text: str


def lines_of(directory: Path, identity: str) -> list[Line]:
    """All lines of a request below a directory of logs, older copies included, oldest line first.

    Args:
        directory: the box's logs.
        identity: id of a request, or of an attachment for what goes on in the background.

    Raises:
        DmspError: that is no id.
    """
    if not tracing.valid(identity):
        raise DmspError(
            f"{identity[:80]!r} is not the id of a request.", "It stands in the log and in the error's JSON."
        )
    found: list[Line] = []
    for path in sorted(directory.rglob("*.log*")):
        name = str(path.relative_to(directory)).partition(".log")[0]
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                found += _marked(file, f"[rid={identity}]", name)
        except FileNotFoundError:
            continue  # it was rotated away meanwhile
    return sorted(found)


def _marked(lines: Iterator[str], mark: str, name: str) -> Iterator[Line]:
    at, kept = 0.0, list[str]()
    for line in lines:
        time = _time(line)
        if time is None and kept:
            kept.append(line.rstrip("\n"))
            continue
        if kept:
            yield Line(at, name, "\n".join(kept))
            kept = []
        at = time if time is not None else at
        if mark in line:
            kept = [line.rstrip("\n")]
    if kept:
        yield Line(at, name, "\n".join(kept))


def _time(line: str) -> float | None:
    """When a line was written, in seconds since the epoch; None when it does not say."""
    found = _TIME.search(line[:_HEAD])
    if found is None:
        return None
    date, clock, fraction, offset = found.groups()
    text = f"{date}T{clock}.{(fraction or '0').ljust(6, '0')}{offset or ''}"
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
