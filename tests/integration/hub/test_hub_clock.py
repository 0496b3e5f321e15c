"""The clock of a running hub is set, and the issuer's differs: tokens are renewed, or one sentence says why not."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asking import Server
from clocks import Clock

from jupyterhub_dmsp.identity import claims

pytestmark = pytest.mark.root
USER = "km3net-user"
LIFETIME = 600
HOURS = 2 * 3600


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clock]:
    """Of hub and issuer."""
    return {name: Clock(tmp_path_factory.mktemp(name)) for name in ("hub", "issuer")}


@pytest.fixture(scope="module")
async def moved(make_stack: Callable[..., Any], clocks: dict[str, Clock]) -> AsyncIterator[Any]:
    """An installation whose clocks can be set."""
    environments = {name: clock.environment for name, clock in clocks.items()}
    async with make_stack(token_lifetime=LIFETIME, environments=environments) as running:
        yield running


@pytest.fixture
async def server(moved: Any, clocks: dict[str, Clock]) -> AsyncIterator[Server]:
    one = await Server(moved, USER).login()
    yield one
    for clock in clocks.values():
        clock.set(0)
    await one.http.aclose()


def set_all(clocks: dict[str, Clock], seconds: int) -> None:
    for clock in clocks.values():
        clock.set(seconds)


async def good(server: Server, ahead: int) -> str:
    """The token that the server gets: good by a clock that is so much ahead."""
    answer = await server.ask()
    assert answer.status_code == 200, answer.text
    body = answer.json()
    inside = claims.read(body["access_token"])
    now = time.time() + ahead
    assert inside["iat"] <= now + 2
    assert now + LIFETIME / 2 < body["expires_at"] <= inside["exp"] + 1
    return str(body["access_token"])


@pytest.mark.parametrize("jump", [HOURS, -HOURS])
async def test_a_machine_whose_clock_is_set_while_tokens_are_held(
    server: Server, clocks: dict[str, Clock], jump: int
) -> None:
    """By hours ahead or back, with the issuer on it: the next request has a good token, and it is kept again."""
    first = await good(server, 0)
    assert await good(server, 0) == first
    set_all(clocks, jump)
    second = await good(server, jump)
    assert second != first
    assert await good(server, jump) == second, "it is not exchanged at each request"
    set_all(clocks, 0)
    assert await good(server, 0) != second


async def test_a_small_step_costs_nothing(server: Server, clocks: dict[str, Clock]) -> None:
    first = await good(server, 0)
    for seconds in (3, -3):
        set_all(clocks, seconds)
        assert await good(server, 0) == first


@pytest.mark.parametrize("minutes", [-120, 3])
async def test_an_issuer_whose_clock_differs(server: Server, clocks: dict[str, Clock], minutes: int) -> None:
    """Far behind: one sentence with the number, and good tokens again as soon as it is right. A little: a warning."""
    clocks["issuer"].set(60 * minutes)
    await server.login()
    answer = await server.ask()
    if minutes == 3:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 502, answer.text
        said = "The clocks of the identity provider and of the hub differ by 120 minutes."
        assert answer.json()["message"] == f"{said} An administrator has to set them."
    told = re.findall(r"Our clock is (-?\d+) s ahead of the issuer's", server.stack.log("hub"))
    assert int(told[-1]) == pytest.approx(-60 * minutes, abs=3)
    clocks["issuer"].set(0)
    await server.login()
    await good(server, 0)
