"""Reading the logs of a box: their lines as events, those of one request through all parts, in order of time.

What a line says of its part is not believed: a session's log holds what the user's programs print. Its file says it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.shared import dmsp_log
from jupyterhub_dmsp.shared.dmsp_log import Event

#: Attachments, and rules, that are looked for beyond what carries the id itself.
MOST_LINKS = 50
SEVERITY = {name: number for number, name in enumerate(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))}
#: Lines before those that are shown in which their time is looked for.
_BACK = 500

# PostgreSQL (`log_line_prefix`), traefik's text; and the first date in the head of any other line.
_POSTGRES = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[\d+\] ([A-Z]+[0-9]?): +(.*)")
_TRAEFIK = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)) ([A-Z]{3}) (.*)")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?(?: ?([+-]\d\d:?\d\d|Z))?")
_HEAD = 60
_LEVELS = {
    "LOG": "INFO",
    "NOTICE": "INFO",
    "FATAL": "CRITICAL",
    "PANIC": "CRITICAL",
    "DBG": "DEBUG",
    "INF": "INFO",
    "WRN": "WARNING",
    "WARN": "WARNING",
    "ERR": "ERROR",
    "FTL": "CRITICAL",
}
_ATTACHMENT = re.compile(r"\battachment ([0-9a-f]{16})\b")
_RULE = re.compile(r"(?:\brule |/rules/)([0-9a-f]{32})\b")
_WHOSE = re.compile(r"\b(?:account|user)=([a-z0-9_-]+)")

Link = TypeVar("Link", str, tuple[str, str])


@dataclass(frozen=True)
class Entry:
    """A line of a log.

    Attributes:
        at: seconds since 1970; that of the line before where it does not say.
        log: name of the log, such as ``rucio`` or ``sessions/km3net-user``.
        line: as it was written.
        event: what it says; None for what was printed outside of logging.
    """

    at: float
    log: str
    line: str
    event: Event | None

    @property
    def text(self) -> str:
        """What it says, whatever its form."""
        return self.event.message if self.event else self.line

    @property
    def user(self) -> str:
        """Whom it concerns; empty where it does not say."""
        if self.event and self.event.user:
            return self.event.user
        found = _WHOSE.search(self.text)
        return found[1] if found else ""

    @property
    def session(self) -> str:
        """Whose session wrote it; empty for what a part wrote."""
        where, _, key = self.log.rpartition("/")
        return key.partition(".")[0] if where == "sessions" else ""

    def belongs_to(self, identity: str) -> bool:
        """Whether it carries the id of a request."""
        if self.event:
            return self.event.rid == identity
        # As earlier versions wrote it.
        return f"[rid={identity}]" in self.line

    def at_least(self, level: str) -> bool:
        """Whether it is that severe; what was printed outside of logging may be a crash and counts as severe."""
        return self.event is None or SEVERITY.get(self.event.level, 1) >= SEVERITY[level.upper()]

    def for_people(self) -> str:
        """One line as parts write it in text; a message of several lines, or a traceback, goes on indented."""
        if self.event is None:
            return f"{self.log} | {dmsp_log.escape(self.line)}"
        event = self.event
        message = f"{event.message}\n{event.exception}" if event.exception else event.message
        first, *rest = message.split("\n")
        head = dmsp_log.as_text(replace(event, part=self.log, message=first, exception=""))
        return "\n".join([head, *(f"    {dmsp_log.escape(line)}" for line in rest)])

    def for_programs(self) -> str:
        """One JSON object in one line."""
        if self.event is None:
            return json.dumps({"part": self.log, "message": self.line})
        fields = asdict(self.event) | {"time": dmsp_log.iso(self.event.time), "part": self.log}
        return json.dumps(
            {name: value for name, value in fields.items() if value or name in ("rid", "message")}
        )


def names(directory: Path) -> list[str]:
    """The logs that are there, those of sessions last."""
    if not directory.is_dir():
        return []
    paths = (*sorted(directory.glob("*.log")), *sorted((directory / "sessions").glob("*.log")))
    return [str(path.relative_to(directory)).removesuffix(".log") for path in paths]


class Reader:
    """Reads logs from their beginning, and then what is added to them.

    Args:
        directory: the box's logs.
        logs: gives the names of those to read; asked each time, so that new ones are found.
    """

    def __init__(self, directory: Path, logs: Callable[[], Iterable[str]]) -> None:
        self._directory, self._logs = directory, logs
        self._places: dict[str, int] = {}

    def last(self, count: int, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """The last entries of each log that are wanted, together in order of time."""
        found: list[Entry] = []
        for name, lines in self._news():
            start, left = len(lines), count
            while start and left:
                start -= 1
                left -= wanted(_entry(lines[start], name, 0.0))
            # What was printed has the time of the event before it.
            before = (_entry(line, name, 0.0).at for line in reversed(lines[max(0, start - _BACK) : start]))
            found += filter(wanted, _read(lines[start:], name, at=next(filter(None, before), 0.0)))
        return sorted(found, key=lambda entry: entry.at)

    def more(self) -> list[Entry]:
        """What was written since; a log that was cut is read from its beginning."""
        return [entry for name, lines in self._news() for entry in _read(lines, name, at=time.time())]

    def _news(self) -> Iterator[tuple[str, list[str]]]:
        for name in self._logs():
            path = self._directory / f"{name}.log"
            try:
                size, begin = path.stat().st_size, self._places.get(name, 0)
                begin = begin if begin <= size else 0
                with path.open("rb") as file:
                    file.seek(begin)
                    written = file.read(size - begin)
            except FileNotFoundError:
                continue  # a session's log, taken away meanwhile
            # The rest of a line that is being written comes the next time.
            whole = written[: written.rfind(b"\n") + 1]
            self._places[name] = begin + len(whole)
            if whole:
                yield name, whole.decode(errors="replace").split("\n")[:-1]


def of_request(
    directory: Path, identity: str, wanted: Callable[[Entry], bool], say: Callable[[str], None]
) -> list[Entry]:
    """All entries of a request below a directory of logs, older copies included, oldest first.

    The way goes on from the request to the attachments that it began, and from there to the transfers of their rules:
    the daemons know rules only.

    Args:
        directory: the box's logs.
        identity: id of a request, or of an attachment for what goes on in the background.
        wanted: which of them are given; all are followed.
        say: told when there is more than is followed.

    Raises:
        DmspError: that is no id.
    """
    if not dmsp_log.valid(identity):
        raise DmspError(
            f"{identity[:80]!r} is not the id of a request.", "It stands in the log and in the error's JSON."
        )
    found = _search(directory, [identity], lambda entry: entry.belongs_to(identity))
    begun = _some(_attachments(found), "attachments", say)
    if begun:
        found += _search(directory, [i for i, _ in begun], lambda entry: _of_attachment(entry, begun))
    rules = {rule for entry in found if entry.log == "rucio" for rule in _RULE.findall(entry.text)}
    rules = _some(rules, "rules", say)
    if rules:
        marks = [f"rule {rule}" for rule in rules]
        found += _search(directory, marks, lambda e: e.log == "daemons" and any(m in e.text for m in marks))
    once = {(entry.log, entry.at, entry.line): entry for entry in found if wanted(entry)}
    return sorted(once.values(), key=lambda entry: entry.at)


def _attachments(found: Iterable[Entry]) -> set[tuple[str, str]]:
    """Id and user of the attachments that these entries of sessions name."""
    return {(one, entry.session) for entry in found if entry.session for one in _ATTACHMENT.findall(entry.text)}


def _of_attachment(entry: Entry, begun: set[tuple[str, str]]) -> bool:
    """Whether it is of one of these; the id alone would not do, since several users may have attached the same."""
    rid = entry.event.rid if entry.event else ""
    return any(rid == one and (entry.session or entry.user) in ("", user) for one, user in begun)


def _some(found: set[Link], what: str, say: Callable[[str], None]) -> set[Link]:
    if len(found) > MOST_LINKS:
        say(f"Of {len(found)} {what} that it leads to, {MOST_LINKS} are followed.")
    return set(sorted(found)[:MOST_LINKS])


def _search(directory: Path, texts: list[str], wanted: Callable[[Entry], bool]) -> list[Entry]:
    """The wanted entries of all logs among the lines that have one of these texts in them."""
    found: list[Entry] = []
    for path in sorted(directory.rglob("*.log*")):
        name = str(path.relative_to(directory)).partition(".log")[0]
        found += [e for e in _entries(path, name, texts) if wanted(e)]
    return found


def _entries(path: Path, name: str, texts: list[str] | None = None) -> Iterator[Entry]:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            yield from _read(file, name, texts)
    except FileNotFoundError:
        return  # it was rotated away meanwhile


def _read(lines: Iterable[str], name: str, texts: list[str] | None = None, at: float = 0.0) -> Iterator[Entry]:
    for line in lines:
        if texts is None or any(text in line for text in texts):
            entry = _entry(line.rstrip("\n"), name, at)
            at = entry.at
            yield entry


def _entry(line: str, name: str, at: float) -> Entry:
    event = dmsp_log.parse(line) or _of_others(line, name)
    said = event.time if event else _time(line)
    return Entry(at if said is None else said, name, line, event)


def _of_others(line: str, name: str) -> Event | None:
    """The event of a line in PostgreSQL's or traefik's own form."""
    if name == "database" and (found := _POSTGRES.fullmatch(line)):
        level = _LEVELS.get(found[2], found[2] if found[2] in SEVERITY else "INFO")
        return Event(_moment(f"{found[1]}Z") or 0.0, level, name, "postgres", "", found[3])
    if name != "proxy":
        return None
    if found := _TRAEFIK.fullmatch(line):
        level = _LEVELS.get(found[2], "INFO")
        return Event(_moment(found[1]) or 0.0, level, name, "traefik", "", found[3])
    try:
        said = json.loads(line) if line.startswith("{") else {}
        time, level, message = (str(said.pop(key)) for key in ("time", "level", "message"))
    except (ValueError, KeyError, RecursionError):
        return None
    level = _LEVELS.get(level.upper(), level.upper())
    more = "".join(f" {key}={value}" for key, value in said.items())
    return Event(
        _moment(time) or 0.0, level if level in SEVERITY else "INFO", name, "traefik", "", message + more
    )


def _time(line: str) -> float | None:
    """When a line was written, in seconds since the epoch; None when it does not say."""
    found = _TIME.search(line[:_HEAD])
    if found is None:
        return None
    date, clock, fraction, offset = found.groups()
    return _moment(f"{date}T{clock}.{(fraction or '0').ljust(6, '0')}{offset or ''}")


def _moment(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
