r"""Log events: the one form in which every part of ours writes them, and how they are read again.

One event is one line, whatever is in its message. As text::

    2026-11-22T22:22:01.123Z INFO hub jupyterhub_dmsp.hub.login.token [rid=0f3c9a1d] token: user=a audience=rucio kept

``[rid=-]`` belongs to no request. What cannot be printed and backslashes are escaped as in Python (``\n``, ``\x1b``,
``\\``), so that no name, agent or path from outside can forge a line or order a terminal about. A traceback stands,
escaped, behind its message. As JSON one object: ``time, level, part, logger, rid, message`` and,
where there is one, ``user`` and ``exception``.

What a part prints outside of logging, such as the traceback of a crash, stays as it is.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
#: The environment variables that tell a part how to log.
FORMAT, LEVEL, PART = "DMSP_LOG_FORMAT", "DMSP_LOG_LEVEL", "DMSP_LOG_PART"
#: Our own loggers. The libraries' log from WARNING on, whatever is asked: at DEBUG some write headers with tokens.
OURS = ("jupyterhub_dmsp", "dmsp", "dmsp_rucio")
#: Characters of a message, and of a traceback, that are kept.
LONGEST = 20_000

# Ids come from outside and go into logs and headers: no spaces, no brackets, no control characters, not long.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{3,63}")
_ESCAPES = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_ESCAPED = re.compile(r"\\(?:([\\nrt])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_PLAIN = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
_NO_NAME = re.compile(r"[^\x21-\x7e]")
_LINE = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([A-Z]+) (\S+) (\S+) \[rid=([A-Za-z0-9._-]{1,64})\] (.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        time: seconds since 1970.
        level: as Python's logging names it.
        part: who wrote it, such as ``hub`` or ``sessions/km3net-user``.
        logger: which module of that.
        rid: id of the request it belongs to; empty for none.
        message: what happened.
        user: whom it concerns; empty where that is not known (and in text, which does not have it).
        exception: traceback; in text it is the end of the message.
    """

    time: float
    level: str
    part: str
    logger: str
    rid: str
    message: str
    user: str = ""
    exception: str = ""


@dataclass(frozen=True, slots=True)
class Style:
    """How this process logs."""

    part: str
    format: str = "text"
    rid: Callable[[], str] = str
    user: str = ""


_style = Style("-")
_started = False


def valid(text: str) -> bool:
    """Whether this may be the id of a request: 4 to 64 letters, digits, dots, dashes and underscores."""
    return ID.fullmatch(text) is not None


def escape(text: str) -> str:
    """The same in one line that no terminal obeys; :func:`unescape` gives it back."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(one if one.isprintable() and one != "\\" else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    number = ord(one)
    wide = f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
    return _ESCAPES.get(one) or (f"\\x{number:02x}" if number < 0x100 else wide)


def unescape(text: str) -> str:
    """What :func:`escape` was given."""
    return _ESCAPED.sub(lambda m: _PLAIN[m[1]] if m[1] else chr(int(m[2] or m[3] or m[4], 16)), text)


def iso(seconds: float) -> str:
    """A time as it stands in logs: UTC, ISO 8601, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def as_text(event: Event) -> str:
    """An event as a line of text, without its end."""
    message = f"{event.message}\n{event.exception}" if event.exception else event.message
    part, logger = _NO_NAME.sub("_", event.part) or "-", _NO_NAME.sub("_", event.logger) or "-"
    return f"{iso(event.time)} {event.level} {part} {logger} [rid={event.rid or '-'}] {escape(message)}"


def as_json(event: Event) -> str:
    """An event as a JSON object in one line, ASCII only."""
    fields = {
        "time": iso(event.time),
        "level": event.level,
        "part": event.part,
        "logger": event.logger,
        "rid": event.rid,
        "message": event.message,
    }
    more = {"user": event.user, "exception": event.exception}
    return json.dumps(fields | {name: value for name, value in more.items() if value})


def parse(line: str) -> Event | None:
    """The event of a line in either form; None when it is none of ours."""
    line = line.rstrip("\n")
    if line.startswith("{"):
        return _from_json(line)
    found = _LINE.fullmatch(line)
    time = _seconds(found[1]) if found else None
    if found is None or time is None:
        return None
    rid = found[5] if found[5] != "-" else ""
    return Event(time, found[2], found[3], found[4], rid, unescape(found[6]))


def _from_json(line: str) -> Event | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    names = ("level", "part", "logger", "rid", "message", "user", "exception")
    if not isinstance(said, dict) or not {"time", *names[:5]} <= said.keys():
        return None
    texts = [said.get(name, "") for name in names]
    time = _seconds(said["time"]) if isinstance(said["time"], str) else None
    if time is None or not all(isinstance(text, str) for text in texts):
        return None
    return Event(time, *texts)


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _cut(text: str) -> str:
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]} … ({more} characters more)"


class Formatter(logging.Formatter):
    """Writes records in the form that :func:`start` chose. Takes and ignores what other formatters are given."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        event = event_of(record, self, _style)
        return as_json(event) if _style.format == "json" else as_text(event)


def event_of(record: logging.LogRecord, formatter: logging.Formatter, style: Style) -> Event:
    """The event of a log record; its attributes ``rid`` and ``user`` (``extra=``) go before the style's."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError) as error:
        # The event counts for more than the fault of who wrote it.
        message = f"{record.msg} (its values do not fit: {error})"
    exception = formatter.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
    if record.stack_info:
        exception = f"{exception}\n{record.stack_info}".strip()
    rid = str(getattr(record, "rid", "") or style.rid())
    return Event(
        record.created,
        record.levelname if record.levelname.isascii() and record.levelname.isupper() else "INFO",
        style.part,
        record.name,
        rid if valid(rid) else "",
        _cut(message),
        str(getattr(record, "user", "") or style.user),
        _cut(exception),
    )


def variables(part: str, form: str, level: str) -> dict[str, str]:
    """The environment that tells a part's process how to log."""
    return {PART: part, FORMAT: form, LEVEL: level}


def started() -> bool:
    """Whether this process logs in our form."""
    return _started


def start(
    part: str,
    *,
    rid: Callable[[], str] = str,
    user: str = "",
    handler: logging.Handler | None = None,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Have this process log in our form; gives the level of its own events (a number of :mod:`logging`).

    Args:
        part: its name, where the environment names none.
        rid: gives the id of the request that is going on; empty for none.
        user: whom all its events concern.
        handler: where events go; standard error when None.
        environment: see :func:`variables`; text from INFO on when it says nothing.
    """
    global _style, _started
    form = environment.get(FORMAT, "text")
    if form not in FORMATS:
        raise ValueError(f"{FORMAT} must be one of {', '.join(FORMATS)}")
    name = environment.get(LEVEL, "info")
    if name not in LEVELS:
        raise ValueError(f"{LEVEL} must be one of {', '.join(LEVELS)}")
    level = int(getattr(logging, name.upper()))
    _style, _started = Style(environment.get(PART) or part, form, rid, user), True
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    root = logging.getLogger()
    for before in list(root.handlers):
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    for own in OURS:
        logging.getLogger(own).setLevel(level)
    logging.captureWarnings(True)
    return level
