"""Many at once, and nobody there: the moment of expiry, three lifetimes of twenty users, the hub started anew."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from plainhub import PlainHub

from jupyterhub_dmsp.identity.errors import IdentityError
from jupyterhub_dmsp.identity.hub_source import HubTokenSource
from jupyterhub_dmsp.identity.tokens import Refreshing

pytestmark = pytest.mark.timeout(600)
USERS = [f"user-{number}" for number in range(20)]
LIFETIMES = 3


async def entered(site: PlainHub, name: str) -> str:
    """Logged in; a server's token."""
    await site.enter(name)
    return await site.server_token(name)


@pytest.mark.parametrize("slow", [0.0, 1.0])
async def test_fifty_requests_of_one_user_at_the_moment_of_expiry(hub: PlainHub, slow: float) -> None:
    await hub.order(all=True, lifetime=2)
    token = await entered(hub, "ada")
    await hub.order(slow=slow)
    async with hub.browser() as http:
        await hub.login(http)
        before = await hub.auth_state("ada")
        await hub.expire("ada")
        await hub.order(lifetime=3600)
        pages = [asyncio.create_task(http.get("home", follow_redirects=False)) for _ in range(10)]
        answers = await hub.ask(token, times=50)
        assert Counter(answer.status_code for answer in answers) == {200: 50}
        assert len({answer.json()["access_token"] for answer in answers}) == 1
        assert Counter(page.status_code for page in await asyncio.gather(*pages)) == {200: 10}
    counts, after = await hub.counts(), await hub.auth_state("ada")
    assert counts["refresh"] == 1
    assert counts["exchange"] == 1
    assert after["refresh_token"] != before["refresh_token"], "it was a token that works once"


async def work(source: Refreshing, end: float, faults: list[IdentityError], seen: set[str]) -> None:
    """What a session does: it wants a good token, again and again."""
    while time.monotonic() < end:
        try:
            token = await source.get()
        except IdentityError as error:
            faults.append(error)
        else:
            assert token.expires_at > time.time()
            seen.add(token.reveal())
        await asyncio.sleep(0.5)  # the time that passes is what is tested


@pytest.mark.slow
@pytest.mark.parametrize(("lifetime", "restart"), [(10, False), (24, True)], ids=["alone", "hub-restarted"])
async def test_three_lifetimes_of_twenty_users(hub: PlainHub, lifetime: int, restart: bool) -> None:
    await hub.order(all=True, grace=True)
    tokens = {name: await entered(hub, name) for name in USERS}
    await hub.order(lifetime=lifetime)
    # From here on tokens are short: a login each.
    tokens = {name: await entered(hub, name) for name in USERS}
    before = await hub.counts()
    url = f"{hub.url}api/dmsp/token"
    hubs = {name: HubTokenSource(url, token, "rucio") for name, token in tokens.items()}
    faults: list[IdentityError] = []
    seen: dict[str, set[str]] = {name: set() for name in USERS}
    end = time.monotonic() + LIFETIMES * lifetime
    people = [asyncio.create_task(work(Refreshing(hubs[name]), end, faults, seen[name])) for name in USERS]
    if restart:
        await asyncio.sleep(LIFETIMES * lifetime / 2)
        await hub.stop("hub", kill=True)
        await hub.start_hub()
    await asyncio.gather(*people)
    for one in hubs.values():
        await one.aclose()
    assert faults == []
    fewest = min(len(found) for found in seen.values())
    assert fewest > LIFETIMES, "otherwise no token was renewed on the way"
    counts = await hub.counts()
    assert counts.get("refused", 0) == 0, "no refresh token was used twice"
    assert counts["authorization"] == before["authorization"], "nobody had to log in"
    refreshes = counts["refresh"] - before.get("refresh", 0)
    # At most one for each half of a life, and one that was cut off.
    assert len(USERS) * (LIFETIMES - 1) <= refreshes <= len(USERS) * (2 * LIFETIMES + 2)
