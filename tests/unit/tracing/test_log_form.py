"""One event, one line, whatever is in it; and what a line says is what was logged."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_dmsp.shared import dmsp_log
from jupyterhub_dmsp.shared.dmsp_log import Event

ANY = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["a\nb", "\x1b[2J", "\\n", "\u2028", "\x85", "\u202eevil", "\udc80", "[rid=forged-1] x", "%s", "{}", ""]
)
EVENTS = st.builds(
    Event,
    time=st.integers(0, 4_000_000_000_000).map(lambda n: n / 1000),
    level=st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
    part=st.sampled_from(["hub", "sessions/km3net-user"]),
    logger=st.sampled_from(["jupyterhub_dmsp.hub.login.token", "py.warnings"]),
    rid=st.just("") | st.from_regex(dmsp_log.ID, fullmatch=True),
    message=ANY,
    user=ANY,
    exception=ANY,
)


@given(EVENTS)
def test_text_is_one_line_and_read_again(event: Event) -> None:
    line = dmsp_log.as_text(event)
    assert line.encode()
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    read = dmsp_log.parse(line + "\n")
    assert read is not None
    whole = f"{event.message}\n{event.exception}" if event.exception else event.message
    assert (read.level, read.part, read.logger, read.rid) == (event.level, event.part, event.logger, event.rid)
    assert read.message == whole
    assert dmsp_log.iso(read.time) == dmsp_log.iso(event.time)


@given(EVENTS)
def test_json_is_one_line_and_read_again(event: Event) -> None:
    line = dmsp_log.as_json(event)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    read = dmsp_log.parse(line)
    assert read is not None
    assert dmsp_log.as_json(read) == line
    assert (read.message, read.user, read.exception) == (event.message, event.user, event.exception)


@given(ANY)
def test_any_line_can_be_looked_at(line: str) -> None:
    event = dmsp_log.parse(line)
    assert event is None or line.startswith(("{", "2"))
    assert dmsp_log.unescape(dmsp_log.escape(line)) == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[I 2026-11-22 22:00:00.100 JupyterHub log:192] 200 GET /hub/ [rid=other-id]",
        "2026-99-22T22:22:01.123Z INFO hub x [rid=-] no such month",
        '{"time": "2026-11-22T22:22:01.123Z"}',
        '{"time": 3, "level": "INFO", "part": "a", "logger": "b", "rid": "", "message": "c"}',
        '{"time": "x", "level": "INFO", "part": "a", "logger": "b", "rid": "", "message": "c"}',
        '{"time": "2026-11-22T22:22:01Z", "level": "INFO", "part": [], "logger": "b", "rid": "", "message": "c"}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "null",
    ],
)
def test_what_is_no_event(line: str) -> None:
    assert dmsp_log.parse(line) is None


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Logging is the process's: put back what the test changes; gives what was written."""
    loggers = [logging.getLogger(name) for name in ("", *dmsp_log.OURS)]
    before = [(log, list(log.handlers), log.level, log.propagate) for log in loggers]
    monkeypatch.setattr(dmsp_log, "_started", False)
    monkeypatch.setattr(dmsp_log, "_style", dmsp_log.Style("-"))
    for log in loggers:
        log.handlers.clear()  # other tests have made applications, which left theirs
        log.propagate = True
    yield io.StringIO()
    for log, handlers, level, propagate in before:
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
    logging.captureWarnings(False)


def _start(stream: io.StringIO, form: str, level: str = "info", rid: str = "") -> None:
    environment = dmsp_log.variables("hub", form, level)
    handler = logging.StreamHandler(stream)
    dmsp_log.start("other", rid=lambda: rid, handler=handler, environment=environment)


@pytest.mark.parametrize("form", dmsp_log.FORMATS)
def test_what_is_logged(own_logging: io.StringIO, form: str) -> None:
    _start(own_logging, form, rid="request-1")
    log = logging.getLogger("jupyterhub_dmsp.test")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("failed for %s", "a\n2026-11-22T22:22:01.123Z INFO hub x [rid=forged-1] b")
    log.info("%d of %s", "no number", "it")
    log.info("of another", extra={"rid": "request-2", "user": "km3net-user"})
    log.info("of none that is valid", extra={"rid": "a b"})
    log.info("x" * 50_000)
    logging.getLogger("some.library").info("not written")
    lines = own_logging.getvalue().splitlines()
    events = [event for line in lines if (event := dmsp_log.parse(line))]
    assert len(lines) == len(events) == 5
    assert {event.part for event in events} == {"hub"}
    assert [event.rid for event in events] == ["request-1", "request-1", "request-2", "", "request-1"]
    first = f"{events[0].message}\n{events[0].exception}"
    assert first.startswith("failed for a\n2026-11-22T22")
    assert "ValueError: first\nsecond" in first
    assert "no number" not in events[1].message
    assert "its values do not fit" in events[1].message
    assert len(events[4].message) < 21_000
    assert "30000 characters more" in events[4].message
    if form == "json":
        assert json.loads(lines[2])["user"] == "km3net-user"
        assert json.loads(lines[0])["level"] == "ERROR"
        assert "exception" in json.loads(lines[0])


@pytest.mark.parametrize(("level", "ours", "theirs"), [("debug", 4, 2), ("info", 3, 2), ("error", 1, 1)])
def test_levels_are_ours_and_libraries_say_less(
    own_logging: io.StringIO, level: str, ours: int, theirs: int
) -> None:
    _start(own_logging, "json", level)
    for name in ("dmsp.pool", "httpcore"):
        for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(severity, "said")
    loggers = [json.loads(line)["logger"] for line in own_logging.getvalue().splitlines()]
    assert (loggers.count("dmsp.pool"), loggers.count("httpcore")) == (ours, theirs)


@pytest.mark.parametrize("name", [dmsp_log.FORMAT, dmsp_log.LEVEL])
def test_a_wrong_choice_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        dmsp_log.start("hub", environment={name: "loud"})


def test_it_runs_where_nothing_of_ours_is_installed(tmp_path: Path) -> None:
    """As in Rucio's environment: the directory on the path, nothing else."""
    shared = Path(dmsp_log.__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(shared)!r}); import dmsp_log, logging; dmsp_log.start('daemons')"
    )
    code += "; logging.getLogger('dmsp.x').info('here'); assert 'jupyterhub_dmsp' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    event = dmsp_log.parse(done.stderr)
    assert event is not None
    assert (event.part, event.logger, event.message) == ("daemons", "dmsp.x", "here")
