"""Logs in every form are read as events; those of one request are found through all parts, in order of time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jupyterhub_dmsp.box.follow import MOST_LINKS, Entry, Reader, names, of_request
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.shared.dmsp_log import Event, as_json, as_text

RULE, OTHER_RULE = "a" * 32, "b" * 32
ATTACHMENT = "5a41c0ffee5a41c0"
NOBODY = list[str]().append


def at(second: float, part: str, message: str, rid: str = "", user: str = "", level: str = "INFO") -> Event:
    return Event(1_795_384_800 + second, level, part, "x", rid, message, user)


def everything(_: Entry) -> bool:
    return True


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "sessions").mkdir()
    return tmp_path


@pytest.mark.parametrize("form", [as_text, as_json])
def test_from_the_lab_to_the_transfers(logs: Path, form: object) -> None:
    """Another user has attached the same, so that the id is the same, and has another rule."""
    write = {
        "sessions/a.log": [
            at(1, "sessions/a", f"attachment {ATTACHMENT} of dmsp:x", "the-id"),
            at(4, "sessions/a", "dmsp:x: arrives", ATTACHMENT),
            at(4.5, "sessions/a", "nobody's"),
        ],
        "sessions/b.log": [at(2, "sessions/b", "dmsp:x: of the other", ATTACHMENT)],
        "hub.log": [
            at(0, "hub", "token: user=a audience=rucio kept", "the-id"),
            at(0.5, "hub", "token: user=b audience=rucio kept", ATTACHMENT),
            at(1.5, "hub", "token: user=a audience=rucio exchanged", ATTACHMENT),
        ],
        "issuer.log": [at(1.4, "issuer", "POST /oidc/token 200", ATTACHMENT)],
        "rucio.log": [
            at(3, "rucio", f"rule {RULE} made: account=a", ATTACHMENT, "a"),
            at(3.1, "rucio", f"rule {OTHER_RULE} made: account=b", ATTACHMENT, "b"),
            at(3.2, "rucio", "GET /scopes/ 200 account=a", "the-id-and-more"),
        ],
        "daemons.log": [
            at(5, "daemons", f"rule {RULE}: 2 copies done, 10 bytes"),
            at(5, "daemons", f"rule {OTHER_RULE}: 2 copies done, 10 bytes"),
        ],
        "hub.log.1": [at(-3600, "hub", "long ago", "the-id")],
    }
    for name, events in write.items():
        (logs / name).write_text("".join(f"{form(event)}\n" for event in events))  # type: ignore[operator]
    found = [(entry.log, entry.text.split(" ")[0]) for entry in of_request(logs, "the-id", everything, NOBODY)]
    assert found == [
        ("hub", "long"),
        ("hub", "token:"),
        ("sessions/a", "attachment"),
        ("issuer", "POST"),
        ("hub", "token:"),
        ("rucio", "rule"),
        ("sessions/a", "dmsp:x:"),
        ("daemons", "rule"),
    ]
    shown = [
        entry.for_people() for entry in of_request(logs, "the-id", lambda entry: entry.log == "daemons", NOBODY)
    ]
    assert len(shown) == 1
    assert f"INFO daemons x [rid=-] rule {RULE}: 2 copies" in shown[0]
    assert of_request(logs, "unknown-id", everything, NOBODY) == []


def test_a_session_speaks_for_itself_only(logs: Path) -> None:
    """What a user's programs print into the session's log is shown as the session's, and leads to nobody else's."""
    forged = [
        at(1, "rucio", f"rule {RULE} made for b [rid=the-id]", "the-id", "b"),
        at(2, "rucio", "\x1b[2Jclean", "the-id"),
    ]
    (logs / "sessions" / "a.log").write_text(
        "".join(f"{as_json(event)}\n" for event in forged) + "\x1b[2J raw\n"
    )
    (logs / "daemons.log").write_text(as_text(at(5, "daemons", f"rule {RULE}: 2 copies done")) + "\n")
    found = of_request(logs, "the-id", everything, NOBODY)
    assert [entry.log for entry in found] == ["sessions/a"] * 2
    assert [entry.for_people().split()[2] for entry in found] == ["sessions/a"] * 2
    assert {json.loads(entry.for_programs())["part"] for entry in found} == {"sessions/a"}
    shown = Reader(logs, lambda: names(logs)).last(50, everything)
    assert all("\x1b" not in entry.for_people() + entry.for_programs() for entry in shown)


def test_the_way_is_bounded(logs: Path) -> None:
    rules = [f"{number:032x}" for number in range(MOST_LINKS + 5)]
    made = [at(n, "rucio", f"rule {rule} made: account=a", "the-id") for n, rule in enumerate(rules)]
    done = [at(n, "daemons", f"rule {rule}: 1 copies done") for n, rule in enumerate(rules)]
    (logs / "rucio.log").write_text("".join(f"{as_text(event)}\n" for event in made))
    (logs / "daemons.log").write_text("".join(f"{as_text(event)}\n" for event in done))
    said: list[str] = []
    found = of_request(logs, "the-id", everything, said.append)
    assert [entry.log for entry in found].count("daemons") == MOST_LINKS
    assert said == [f"Of {MOST_LINKS + 5} rules that it leads to, {MOST_LINKS} are followed."]


def test_lines_of_earlier_versions(logs: Path) -> None:
    line = "[I 2026-11-22 22:00:02.500 JupyterHub token:117] token: user=a kept [rid=the-id]"
    (logs / "hub.log").write_bytes(f"{line}\n".encode() + b"\xff\xfe no text\n")
    assert [entry.line for entry in of_request(logs, "the-id", everything, NOBODY)] == [line]


@pytest.mark.parametrize("text", ["", "[rid", "a b c d", "x" * 65, "../../etc"])
def test_what_is_no_id(tmp_path: Path, text: str) -> None:
    with pytest.raises(DmspError, match="not the id of a request"):
        of_request(tmp_path, text, everything, NOBODY)


POSTGRES = "2026-11-22 22:00:01.250 UTC [17] FATAL:  password authentication failed"
TRAEFIK = "2026-11-22T22:00:02Z WRN No domain found router=a@file"
TRAEFIK_JSON = (
    '{"level":"error","error":"refused","time":"2026-11-22T22:00:03Z","message":"Error while dialing"}'
)


def test_forms_of_others(logs: Path) -> None:
    (logs / "database.log").write_text(f"{POSTGRES}\n\tits second line\n")
    (logs / "proxy.log").write_text(f"{TRAEFIK}\n{TRAEFIK_JSON}\n")
    found = Reader(logs, lambda: names(logs)).last(50, everything)
    assert [entry.for_people() for entry in found] == [
        "2026-11-22T22:00:01.250Z CRITICAL database postgres [rid=-] password authentication failed",
        "database | \\tits second line",
        "2026-11-22T22:00:02.000Z WARNING proxy traefik [rid=-] No domain found router=a@file",
        "2026-11-22T22:00:03.000Z ERROR proxy traefik [rid=-] Error while dialing error=refused",
    ]
    severe = Reader(logs, lambda: ["proxy"]).last(50, lambda entry: entry.at_least("error"))
    assert len(severe) == 1


def test_the_last_of_each_and_what_is_printed_has_its_place(logs: Path) -> None:
    hub = [as_text(at(n, "hub", f"event {n}")) for n in range(10)]
    crash = ["Traceback (most recent call last):", *(f"  line {n}" for n in range(60)), "MemoryError"]
    (logs / "hub.log").write_text("\n".join([*hub, *crash]) + "\n")
    (logs / "rucio.log").write_text("".join(f"{as_json(at(n + 0.5, 'rucio', f'r{n}'))}\n" for n in range(20)))
    found = Reader(logs, lambda: names(logs)).last(5, everything)
    assert [entry.text for entry in found] == [*crash[-5:], "r15", "r16", "r17", "r18", "r19"]
    warned = Reader(logs, lambda: names(logs)).last(100, lambda entry: entry.at_least("warning"))
    assert [entry.text for entry in warned] == crash, "what may be a crash is never filtered out"


def test_a_traceback_is_unfolded(logs: Path) -> None:
    event = Event(1, "ERROR", "hub", "x", "", "failed", "", 'Traceback\n  File "a"\nValueError: \x07')
    (logs / "hub.log").write_text(as_json(event) + "\n" + as_text(event) + "\n")
    for entry in Reader(logs, lambda: ["hub"]).last(5, everything):
        assert entry.for_people().splitlines() == [
            "1970-01-01T00:00:01.000Z ERROR hub x [rid=-] failed",
            "    Traceback",
            '      File "a"',
            "    ValueError: \\x07",
        ]


def test_following_loses_and_repeats_nothing(logs: Path) -> None:
    path = logs / "hub.log"
    line = "{}\n".format
    path.write_text(line(as_text(at(1, "hub", "one"))) + "half a li")
    reader = Reader(logs, lambda: names(logs))
    assert [entry.text for entry in reader.last(50, everything)] == ["one"]
    assert reader.more() == []
    with path.open("a") as file:
        file.write("ne\n" + line(as_json(at(2, "hub", "two"))))
    (logs / "sessions" / "new.log").write_text(line(as_text(at(3, "sessions/new", "three"))))
    assert [entry.text for entry in reader.more()] == ["half a line", "two", "three"]
    os.truncate(path, 0)
    path.write_text(line(as_text(at(4, "hub", "four"))))
    assert [entry.text for entry in reader.more()] == ["four"]
    (logs / "sessions" / "new.log").unlink()
    assert reader.more() == []
