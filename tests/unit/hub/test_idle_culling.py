"""When a session is to end, and what is done then."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from jupyterhub_dmsp.hub.idle import culling
from jupyterhub_dmsp.hub.metrics import watching
from jupyterhub_dmsp.settings import Idle

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("rules", "profile", "started", "active", "reason", "left"),
    [
        (Idle(timeout=100), "a", 1000, 99, "", 1),
        (Idle(timeout=100), "a", 1000, 100, "idle", 0),
        (Idle(timeout=100), "a", 10, 500, "", 90),  # the last activity is that of an earlier session
        (Idle(timeout=0), "a", 10_000_000, 10_000_000, "", None),
        (Idle(timeout=100, profiles={"a": 0}), "a", 1000, 900, "", None),
        (Idle(timeout=0, profiles={"a": 50}), "a", 1000, 60, "idle", 0),
        (Idle(timeout=100, profiles={"b": 50}), "a", 1000, 60, "", 40),
        (Idle(timeout=100, max_age=1000), "a", 1000, 1, "age", 0),
        (Idle(timeout=100, max_age=1050), "a", 1000, 10, "", 50),
    ],
)
def test_verdicts(
    rules: Idle, profile: str, started: float, active: float, reason: str, left: float | None
) -> None:
    assert culling.judge(rules, profile, ago(started), ago(active), NOW) == culling.Verdict(reason, left)


def test_looks_are_as_frequent_as_the_times_are_short() -> None:
    assert culling.interval([]) == 60
    assert culling.interval([Idle(timeout=0)]) == 60
    assert culling.interval([Idle(timeout=86400), Idle(timeout=100)]) == 5
    assert culling.interval([Idle(timeout=1)]) == 1


class World:
    """One running session, and a hub that can end it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, idle_for: float, told: Any, **rules: Any) -> None:
        self.ended: list[str] = []
        now = datetime.now(UTC)
        row = SimpleNamespace(
            started=(now - timedelta(days=3)).replace(tzinfo=None),
            last_activity=(now - timedelta(seconds=idle_for)).replace(tzinfo=None),
        )
        user = SimpleNamespace(name="u", stop=self.stop, db=SimpleNamespace(commit=lambda: None))
        settings = SimpleNamespace(idle=Idle(**rules))
        self.spawner = SimpleNamespace(
            user=user,
            name="",
            ready=True,
            launch=None,
            user_options={},
            orm_spawner=row,
            _log_name="u",
            catalogue=dict,
        )
        self.spawner.dmsp_settings = lambda: settings

        async def last_activity(spawner: Any) -> datetime:
            if isinstance(told, Exception):
                raise told
            return now - timedelta(seconds=told)

        monkeypatch.setattr(culling, "last_activity", last_activity)
        monkeypatch.setattr(culling, "running", lambda: [self.spawner])
        app = SimpleNamespace(proxy=SimpleNamespace(delete_user=self.delete_user), log=logging.getLogger("t"))
        self.culler = culling.Culler(app)

    async def delete_user(self, user: Any, name: str) -> None:
        assert self.spawner._stop_pending
        self.ended.append("route")

    async def stop(self, name: str) -> None:
        self.ended.append("server")


async def test_idle_session_loses_route_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, 200, 200, timeout=100)
    await world.culler.look()
    assert world.ended == ["route", "server"]
    assert not world.spawner._stop_pending
    assert "nothing happened in it" in watching.farewells.pop(("u", ""))


async def test_the_server_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub knows is some minutes old; its user may be back."""
    world = World(monkeypatch, 200, 5, timeout=100)
    await world.culler.look()
    assert world.ended == []
    assert datetime.now() - timedelta(minutes=1) < world.spawner.orm_spawner.last_activity.replace(
        tzinfo=UTC
    ).astimezone().replace(tzinfo=None)


@pytest.mark.parametrize(("idle_for", "ended"), [(200, []), (800, ["route", "server"])])
async def test_server_that_does_not_answer_gets_more_time(
    monkeypatch: pytest.MonkeyPatch, idle_for: float, ended: list[str]
) -> None:
    world = World(monkeypatch, idle_for, TimeoutError(), timeout=100)
    await world.culler.look()
    assert world.ended == ended


async def test_warning_comes_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    world = World(monkeypatch, 95, 95, timeout=100, warning=20)
    await world.culler.look()
    await world.culler.look()
    assert [r.message for r in caplog.records if "will end in" in r.message] == [caplog.records[0].message]
    assert world.ended == []


async def test_age_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, 0, RuntimeError("asked"), timeout=100, max_age=3600)
    await world.culler.look()
    assert world.ended == ["route", "server"]
    watching.farewells.clear()
