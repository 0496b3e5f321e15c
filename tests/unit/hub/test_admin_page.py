"""How the admin page says numbers."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from jupyterhub_dmsp.hub.admin import page
from jupyterhub_dmsp.hub.metrics import watching
from jupyterhub_dmsp.hub.metrics.watching import Ended
from jupyterhub_dmsp.profiles.launch import Capacity

NOW = 1_900_000_000.0


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (None, "-"),
        (NOW - 3, "3 s"),
        (NOW - 125, "2 min"),
        (NOW - 7300, "2 h"),
        (NOW - 200_000, "2 d"),
        (NOW + 5, "0 s"),
        (datetime(2030, 3, 17, 17, 46, 35), "5 s"),  # JupyterHub's times are UTC and do not say so
    ],
)
def test_times(then: Any, said: str) -> None:
    assert page.since(then, NOW) == said


def test_amounts() -> None:
    assert [page.in_bytes(n) for n in (None, float("nan"), 12, 2_500, 3_456_000, 7_890_000_000)] == [
        "-",
        "-",
        "12 B",
        "2 kB",
        "3 MB",
        "7.9 GB",
    ]
    assert [page.in_seconds(n) for n in (None, 0.123, 12.4, 700)] == ["-", "0.12 s", "12 s", "12 min"]
    assert page.free(None) == page.free(Capacity()) == "not known"
    assert page.free(Capacity(memory_bytes=8_000_000_000, cpu=1.5)) == "8.0 GB memory, 1.5 cores"


def test_a_reason_is_not_an_outcome() -> None:
    counter = Counter("t", "t", ["outcome", "reason"], registry=CollectorRegistry())
    counter.labels("refused", "forbidden").inc(2)
    counter.labels("ok", "").inc()
    counter.labels("failed", "error")
    assert page.counted(counter, ("outcome", "reason")) == [["ok", "-", "1"], ["refused", "forbidden", "2"]]


def test_bars_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "durations", {"own": deque([1.0]), "server": deque([1.0, 2.0, 100.0])})
    rows = page.stages()
    assert [row["name"] for row in rows] == ["Server answers", "own"]
    assert rows[0]["tail"] == 100
    assert rows[0]["width"] < 20
    monkeypatch.setattr(watching, "durations", {})
    assert page.stages() == []


def test_bad_starts_are_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [
        Ended(NOW - 9000, "a", "", "refused", "profile", "No.", 0.1),
        Ended(NOW - 30, "b", "root", "ok", "", "", 2),
        Ended(NOW - 10, "c", "root", "failed", "error", "Broken.", 2),
    ]
    monkeypatch.setattr(watching, "recent", deque(ended))
    assert [row["user"] for row in page.bad_starts(NOW)] == ["c", "a"]
    assert page.tally(NOW) == {"ok": 1, "refused": 0, "failed": 1}
