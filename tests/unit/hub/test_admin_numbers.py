"""What is counted of starts and tokens, and under which labels."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tornado.httpclient import HTTPClientError

from jupyterhub_dmsp.hub.errors import IssuerDown, LoginAgain, Refused, SpawnException
from jupyterhub_dmsp.hub.launch.spawner import ProfileSpawner
from jupyterhub_dmsp.hub.metrics import numbers, watching

CATALOGUE = Path(__file__).parents[2] / "integration" / "hub" / "catalogue"


class Stock:
    """What Watched needs of JupyterHub's Spawner."""

    ready = False
    name = ""

    def add_poll_callback(self, *args: Any) -> None: ...

    def run_post_stop_hook(self) -> None: ...


class Spawner(ProfileSpawner, Stock):
    fault: BaseException | None = None

    @watching.starting
    async def start(self) -> str:
        await self.prepare()
        return "there"

    @watching.stage("environment")
    async def prepare(self) -> None:
        if self.fault:
            raise self.fault


def spawner(**more: Any) -> Spawner:
    one = Spawner(catalogue_path=str(CATALOGUE))
    one.user = SimpleNamespace(name="km3net-user", groups=[])
    one.user_options = {}
    for key, value in more.items():
        setattr(one, key, value)
    return one


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def spawns(profile: str, outcome: str, reason: str = "") -> float:
    return value("dmsp_spawns_total", profile=profile, outcome=outcome, reason=reason)


async def test_a_start_is_ok_once_its_server_answers() -> None:
    before, stages = (
        spawns("everybody", "ok"),
        value("dmsp_spawn_stage_seconds_count", stage="environment"),
    )
    one = spawner()
    await one.choose({"profile": "everybody"})
    await one.start()
    assert spawns("everybody", "ok") == before
    one.add_poll_callback(print)
    one.add_poll_callback(print)
    one.run_post_stop_hook()
    assert spawns("everybody", "ok") == before + 1
    assert value("dmsp_spawn_stage_seconds_count", stage="environment") == stages + 1
    assert value("dmsp_spawn_stage_seconds_count", stage="server") >= 1
    assert watching.recent[-1].outcome == "ok"


async def test_refusals_name_no_profile_that_the_catalogue_lacks() -> None:
    before = spawns(watching.UNKNOWN, "refused", "profile")
    for number in range(20):
        with pytest.raises(SpawnException):
            await spawner().choose({"profile": f"made-up-{number}"})
    assert spawns(watching.UNKNOWN, "refused", "profile") == before + 20
    labels = {s.labels.get("profile") for m in REGISTRY.collect() for s in m.samples if m.name == "dmsp_spawns"}
    assert not any("made-up" in str(label) for label in labels)
    assert watching.recent[-1].sentence == "There is no profile 'made-up-19'."


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        (SpawnException("Full.", reason="capacity", status_code=409), "refused", "capacity"),
        (SpawnException("Broken.", reason="session", status_code=503), "failed", "session"),
        (asyncio.CancelledError(), "failed", "cancelled"),
        (RuntimeError("secret"), "failed", "error"),
    ],
)
async def test_starts_that_fail_have_a_reason(fault: BaseException, outcome: str, reason: str) -> None:
    before = spawns("everybody", outcome, reason)
    one = spawner(fault=fault)
    await one.choose({"profile": "everybody"})
    with pytest.raises(type(fault)):
        await one.start()
    one.run_post_stop_hook()
    assert spawns("everybody", outcome, reason) == before + 1
    assert "secret" not in watching.recent[-1].sentence
    assert watching.recent[-1].sentence


async def test_server_that_nobody_hears_of_has_failed() -> None:
    before = spawns("everybody", "failed", "unanswered")
    one = spawner()
    await one.choose({"profile": "everybody"})
    await one.start()
    one.run_post_stop_hook()
    assert spawns("everybody", "failed", "unanswered") == before + 1


async def test_sessions_count_by_profile() -> None:
    before = value("dmsp_sessions", profile="everybody")
    adopted, gone = (
        spawner(ready=True, user_options={"profile": slug}) for slug in ("everybody", "taken-away")
    )
    assert value("dmsp_sessions", profile="everybody") == before + 1
    assert value("dmsp_sessions", profile=watching.UNKNOWN) >= 1
    adopted.ready = gone.ready = False
    assert value("dmsp_sessions", profile="everybody") == before


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (LoginAgain(), "login_again"),
        (IssuerDown(), "issuer_down"),
        (TimeoutError(), "issuer_down"),
        (HTTPClientError(503), "issuer_down"),
        (HTTPClientError(400), "refused"),
        (Refused("rucio"), "refused"),
    ],
)
async def test_questions_to_the_issuer_by_outcome(error: Exception | None, outcome: str) -> None:
    async def ask(self: Any, user: Any, audience: str) -> str:
        if error:
            raise error
        return "token"

    names = {
        numbers.refresh: ("dmsp_token_refreshes_total", {"outcome": outcome}),
        numbers.exchange: ("dmsp_token_exchanges_total", {"audience": "rucio", "outcome": outcome}),
    }
    for count, (name, labels) in names.items():
        before = value(name, **labels)
        with pytest.raises(type(error)) if error else contextlib.nullcontext():
            await count(ask)(None, None, "rucio")
        assert value(name, **labels) == before + 1
