"""Logs stay small while somebody has them open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import logs
from jupyterhub_dmsp.shared import dmsp_log


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PART_BYTES", 1000)
    monkeypatch.setattr(logs, "SESSION_BYTES", 500)
    monkeypatch.setattr(logs, "SESSIONS_BYTES", 3000)


def test_a_grown_log_is_cut_and_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "hub.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(1, 7):
            writer.write(b"%d" % number * 1001)
            logs.bound(tmp_path)
            writer.write(b"after %d\n" % number)
            assert path.read_bytes() == b"after %d\n" % number, "no hole of zeros where it was cut"
            os.truncate(path, 0)
    kept = {p.name: p.read_bytes()[:1] for p in tmp_path.iterdir() if p != path}
    assert kept == {"hub.log.1": b"6", "hub.log.2": b"5", "hub.log.3": b"4"}
    assert all(p.stat().st_size <= 1000 for p in tmp_path.iterdir())
    assert (tmp_path / "hub.log.1").stat().st_mode & 0o777 == 0o600


def test_of_a_log_that_grew_too_fast_the_end_is_kept(tmp_path: Path) -> None:
    (tmp_path / "rucio.log").write_bytes(b"a" * 50_000 + b"the end")
    logs.bound(tmp_path)
    kept = (tmp_path / "rucio.log.1").read_bytes()
    assert len(kept) == 1000
    assert kept.endswith(b"the end")


def test_small_logs_and_the_boxs_own_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hub.log").write_bytes(b"x" * 1000)
    (tmp_path / "box.log").write_bytes(b"x" * 5000)
    logs.bound(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["box.log", "hub.log"]


def test_logs_of_sessions_are_bounded_one_by_one_and_together(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    for number in range(10):
        path = sessions / f"user{number}.log"
        path.write_bytes(b"x" * 501)
        os.utime(path, (1000 + number, 1000 + number))
    logs.bound(tmp_path)
    left = list(sessions.iterdir())
    assert sum(p.stat().st_size for p in left) <= 3000
    assert not [p for p in left if p.stat().st_size > 500]


def test_tail(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert logs.tail(path) == ""
    path.write_bytes(b"x" * 20_000 + b"\n" + b"\n".join(b"%d" % n for n in range(9)) + b"\n")
    assert logs.tail(path, 3) == "6\n7\n8"


def test_the_end_of_a_log_is_for_people(tmp_path: Path) -> None:
    event = dmsp_log.Event(1.5, "ERROR", "hub", "x", "", "failed", "", "Traceback\nValueError")
    path = tmp_path / "hub.log"
    path.write_text(f"before\n{dmsp_log.as_json(event)}\nTraceback of a crash\n")
    assert logs.tail(path, 2).splitlines() == [
        "1970-01-01T00:00:01.500Z ERROR hub x [rid=-] failed\\nTraceback\\nValueError",
        "Traceback of a crash",
    ]
