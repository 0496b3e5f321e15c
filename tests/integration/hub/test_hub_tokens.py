"""The token endpoint against a real issuer whose refresh tokens work once, at lifetimes of seconds."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from asking import Server

from jupyterhub_dmsp.box import issuer as issuer_part
from jupyterhub_dmsp.identity import claims

pytestmark = pytest.mark.root

LIFETIME = 20
USER = "km3net-user"


@pytest.fixture(scope="module")
async def short(make_stack: Callable[..., Any]) -> AsyncIterator[Any]:
    """An installation with tokens of 20 s, whose hub looks at logins at every request."""
    async with make_stack(token_lifetime=LIFETIME, more="c.Authenticator.auth_refresh_age = 1") as running:
        yield running


@pytest.fixture
async def server(short: Any) -> AsyncIterator[Server]:
    one = await Server(short, USER).login()
    yield one
    await one.http.aclose()


def grants(stack: Any) -> int:
    """How many token requests the issuer answered."""
    return int(stack.log("issuer").count("POST /oidc/token 200"))


async def test_token_for_the_audience(server: Server) -> None:
    answer = await server.ask()
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"access_token", "expires_at", "audience"}
    inside = claims.read(body["access_token"])
    assert inside["aud"] in ("rucio", ["rucio"])
    assert inside["exp"] == pytest.approx(body["expires_at"], abs=1.5)
    assert 0 < body["expires_at"] - time.time() <= LIFETIME
    log = server.stack.log("hub")
    assert f"token: user={USER} audience=rucio exchanged" in log
    assert body["access_token"] not in log
    state = await server.state()
    assert state["refresh_token"] not in log
    assert state["access_token"] not in log


async def test_one_exchange_serves_many(server: Server) -> None:
    await server.ask()
    before = server.stack.log("hub").count("audience=rucio exchanged")
    answers = await asyncio.gather(*(server.ask() for _ in range(10)))
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert server.stack.log("hub").count("audience=rucio exchanged") == before


@pytest.mark.parametrize("audience", [None, "", "fts", "https://wlcg.cern.ch/jwt/v1/any"])
async def test_other_audiences_are_refused(server: Server, audience: str | None) -> None:
    answer = await server.ask(audience)
    assert answer.status_code == 400
    assert "audience" in answer.json()["message"]


async def test_only_servers_may_ask(server: Server) -> None:
    url = f"{server.stack.public}hub/api/dmsp/token?audience=rucio"
    async with server.stack.browser() as browser:
        await browser.login(USER)
        await browser.http.get(f"{server.stack.public}hub/home")
        by_cookie = await browser.http.get(url)
    async with server.stack.admin() as api:
        by_service = await api.get("dmsp/token?audience=rucio")
    own = await server.api_token()
    by_own_token = await server.http.get(url, headers={"Authorization": f"token {own}"})
    by_nobody = await httpx.AsyncClient(trust_env=False).get(url)
    found = [answer.status_code for answer in (by_cookie, by_service, by_own_token, by_nobody)]
    assert found == [403, 403, 403, 403]


async def test_twenty_at_expiry_with_rotating_refresh_tokens(server: Server, until: Any) -> None:
    for wait in (server.age, server.expire):
        old = await server.state()
        await wait()
        before = grants(server.stack)
        answers = await asyncio.gather(*(server.ask() for _ in range(20)))
        assert Counter(answer.status_code for answer in answers) == {200: 20}
        assert all(answer.json()["expires_at"] > time.time() for answer in answers)
        assert (await server.state())["refresh_token"] != old["refresh_token"]
        # The issuer writes its line after its answer.
        await until(lambda wanted=before + 2: grants(server.stack) >= wanted, 5)
        assert grants(server.stack) == before + 2, "one refresh and one exchange"


async def test_twenty_pages_at_expiry(server: Server) -> None:
    async with server.stack.browser() as browser:
        await browser.login(USER)
        await browser.http.get(f"{server.stack.public}hub/home")
        await server.expire()
        pages = await asyncio.gather(
            *(browser.http.get(f"{server.stack.public}hub/home", follow_redirects=False) for _ in range(20))
        )
    assert Counter(page.status_code for page in pages) == {200: 20}


async def test_issuer_down_is_noticed_only_when_the_token_has_expired(server: Server) -> None:
    first = (await server.ask()).json()
    await server.stack.stop("issuer")
    try:
        await server.age()
        still = await server.ask()
        assert still.status_code == 200
        assert still.json()["access_token"] == first["access_token"] or still.json()["expires_at"] > time.time()
        await server.expire()
        gone = await server.ask()
        assert gone.status_code == 503
        assert gone.json()["message"] == "The identity provider does not answer. Try again in a minute."
    finally:
        await server.stack.start_issuer()
    assert (await server.ask()).status_code == 200


async def test_changed_groups_arrive_without_a_login(server: Server, until: Any) -> None:
    stack = server.stack
    provisioned = stack.state / "hub" / "provisioned"
    changed = [
        u.model_copy(update={"groups": ["/dmsp", "/dmsp/collider"]}) if u.name == USER else u
        for u in stack.users
    ]
    files = (stack.state / "secrets", stack.state / "issuer" / "users.json")
    calls = len(provisioned.read_text().splitlines())
    await asyncio.to_thread(issuer_part.ensure_users, changed, *files)
    try:
        async with stack.admin() as api:

            async def groups() -> list[str]:
                await server.ask()
                await api.get(f"users/{USER}")
                return sorted((await api.get(f"users/{USER}")).json()["groups"])

            async def moved() -> bool:
                return await groups() == ["/dmsp", "/dmsp/collider"]

            await until(moved, 2 * LIFETIME)
        last = json.loads(provisioned.read_text().splitlines()[calls])
        assert last[0] == USER
        assert last[2] == ["/dmsp", "/dmsp/collider"]
    finally:
        await asyncio.to_thread(issuer_part.ensure_users, stack.users, *files)


async def test_withdrawn_login_asks_to_log_in_again(server: Server) -> None:
    state = await server.state()
    secret = server.stack.secret_file("hub-client").read_text().strip()
    answer = await server.http.post(
        f"{server.stack.issuer}/revoke",
        data={"token": state["refresh_token"], "token_type_hint": "refresh_token"},
        auth=("jupyterhub", secret),
        headers={"Authorization": ""},
    )
    assert answer.status_code == 200, answer.text
    await server.expire()
    refused = await server.ask()
    assert refused.status_code == 409
    assert refused.json()["message"] == "Your login has expired. Log in again in the browser."
    assert (await (await Server(server.stack, USER).login()).ask()).status_code == 200
