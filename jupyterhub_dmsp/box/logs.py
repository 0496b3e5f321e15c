"""The log files of a box: their last lines, and how they stay small while the parts have them open.

A part appends to its file and knows nothing of us: it goes on when the supervisor is killed, and no full pipe can
block it. So a log that has grown is copied and cut (what is written in the instant between the two is lost). Each log
has :data:`KEPT` older ones, ``<name>.log.1`` the newest, none longer than :data:`PART_BYTES` or, for a session's,
:data:`SESSION_BYTES`; the sessions' logs together keep within :data:`SESSIONS_BYTES`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from jupyterhub_dmsp.shared import dmsp_log

PART_BYTES = 5_000_000
SESSION_BYTES = 2_000_000
SESSIONS_BYTES = 200_000_000
KEPT = 3
KEPT_OF_SESSION = 1
#: It rotates by itself.
OWN = "box.log"


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message: events as text, whatever their form."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(_readable(line) for line in text.strip().splitlines()[-lines:])


def _readable(line: str) -> str:
    event = dmsp_log.parse(line)
    return dmsp_log.as_text(event) if event else line


def bound(directory: Path) -> None:
    """Cut the logs of the parts and of the sessions that have grown too long; raises :class:`OSError`."""
    for path in directory.glob("*.log"):
        if path.name != OWN:
            _rotate(path, PART_BYTES, KEPT)
    sessions = directory / "sessions"
    for path in sessions.glob("*.log"):
        _rotate(path, SESSION_BYTES, KEPT_OF_SESSION)
    _bound_all(sessions, SESSIONS_BYTES)


def _rotate(path: Path, limit: int, kept: int) -> None:
    size = path.stat().st_size
    if size <= limit:
        return
    for number in range(kept, 1, -1):
        older = _numbered(path, number - 1)
        if older.exists():
            older.replace(_numbered(path, number))
    copy = _numbered(path, 1)
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
        # Of one that grew faster than we look, the end: a copy is as long as the limit at most.
        source.seek(max(0, size - limit))
        shutil.copyfileobj(source, target)
    os.truncate(path, 0)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _bound_all(directory: Path, limit: int) -> None:
    """Remove the logs of sessions that ended longest ago, until the rest fits."""
    found = []
    for path in directory.glob("*.log*"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
