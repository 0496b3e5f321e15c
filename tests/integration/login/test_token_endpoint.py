"""Who gets a token from the hub, how often, and for how long: real servers, shares, logouts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from plainhub import PlainHub, plain_hub, until

SHARED = "This server is shared with others, so it gets no tokens of yours. End that to go on."


@pytest.fixture
async def site(hub: PlainHub) -> PlainHub:
    """Everybody has left; the issuer is as it was."""
    async with hub.admin() as api:
        for user in (await api.get("users")).json():
            for name in user.get("servers") or {}:
                await stop(hub, user["name"], name)
            await api.delete(f"users/{user['name']}")
    await hub.order(all=True)
    return hub


async def start(site: PlainHub, user: str, server: str = "") -> str:
    """A running server; its token."""
    where = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
    async with site.admin() as api:
        answer = await api.post(where)
        assert answer.status_code in (201, 202), answer.text
        await until(lambda: ready(site, user, server))
    return (site.state / f"token-{user}-{server}").read_text()


async def ready(site: PlainHub, user: str, server: str) -> bool:
    return bool(((await site.model(user)).get("servers") or {}).get(server, {}).get("ready"))


async def stop(site: PlainHub, user: str, server: str = "") -> None:
    where = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
    async with site.admin() as api:
        assert (await api.delete(where)).status_code in (202, 204)

        async def gone() -> bool:
            return server not in ((await site.model(user)).get("servers") or {})

        await until(gone)


async def refused(site: PlainHub, token: str) -> tuple[int, str]:
    (answer,) = await site.ask(token)
    return answer.status_code, str(answer.json().get("message"))


async def test_a_shared_server_gets_no_tokens_until_it_is_ones_own_again(site: PlainHub) -> None:
    await site.enter("bob")
    await site.enter("ada")
    token, other = await start(site, "ada"), await start(site, "ada", "side")
    assert (await refused(site, token))[0] == 200
    async with site.admin() as api:
        made = await api.post("shares/ada/", json={"user": "bob"})
        assert made.status_code in (200, 201), made.text
        assert await refused(site, token) == (403, SHARED)
        (answer,) = await site.ask(token)
        assert answer.headers["X-DMSP-Refusal"] == "shared"
        assert (await refused(site, other))[0] == 200, "the other server is not shared"
        assert (await api.patch("shares/ada/", json={"user": "bob"})).is_success
        assert (await refused(site, token))[0] == 200
        code = await api.post("share-codes/ada/", json={"expires_in": 60})
        assert code.is_success, code.text
        status, said = await refused(site, token)
        assert status == 403
        assert "open to whoever has its code" in said
        assert (await api.delete("share-codes/ada/")).is_success
    assert (await refused(site, token))[0] == 200
    assert "refused 403: the server is shared with others" in site.log()


async def test_who_is_no_server_gets_nothing(site: PlainHub) -> None:
    await site.enter("bob")
    await site.enter("ada")
    await start(site, "ada")
    async with site.browser() as http:
        await site.login(http)
        by_cookie = await http.get("api/dmsp/token", params={"audience": "rucio"})
    assert by_cookie.status_code == 403
    assert "own server" in by_cookie.json()["message"]
    async with site.admin() as api:
        by_service = await api.get("dmsp/token", params={"audience": "rucio"})
        assert by_service.status_code == 403
        for scopes in (["custom:dmsp:token"], ["access:servers!server=ada/"], ["inherit"]):
            made = await api.post("users/ada/tokens", json={"scopes": scopes})
            assert (await refused(site, made.json()["token"]))[0] == 403, scopes
        # Somebody else's server: bob may not even have a token made for it.
        for scope in ("access:servers!server=ada/", "access:servers!user=bob"):
            made = await api.post("users/bob/tokens", json={"scopes": ["custom:dmsp:token", scope]})
            if made.status_code == 201:
                assert (await refused(site, made.json()["token"]))[0] == 403, scope
    status, _ = await refused(site, "nonsense")
    assert status == 403


async def test_who_asks_too_often_is_told_when_to_come_back(site: PlainHub) -> None:
    await site.enter("bob")
    await site.enter("ada")
    token, other = await site.server_token("ada"), await site.server_token("bob")
    answers = await site.ask(token, times=300)
    found = Counter(answer.status_code for answer in answers)
    assert set(found) == {200, 429}
    assert found[200] > 100, "120 a minute, of which the tests before have taken some"
    late = next(answer for answer in answers if answer.status_code == 429)
    assert late.json()["message"] == "Your servers ask for tokens too often. Try again in a moment."
    assert int(late.headers["Retry-After"]) >= 1
    assert (await refused(site, other))[0] == 200, "others do not wait for it"
    counts = await site.counts()
    assert counts["exchange"] == 2


async def test_the_login_ends_with_the_last_server_and_comes_back_with_the_next_page(site: PlainHub) -> None:
    await site.enter("ada")
    async with site.browser() as http:
        await site.login(http)
        token = await start(site, "ada")
        await start(site, "ada", "side")
        await stop(site, "ada")
        refresh = (await site.auth_state("ada"))["refresh_token"]
        assert (await site.asked())["revoked"] == [], "a server still runs"
        await stop(site, "ada", "side")

        async def revoked() -> bool:
            return (await site.asked())["revoked"] == [refresh]

        await until(revoked)
        assert await site.auth_state("ada") == {"oauth_user": {"sub": "ada"}}
        assert (await refused(site, token))[0] in (403, 409)
        # The browser has its cookie still: it is shown the login, not an error, and comes back to where it was.
        before = (await site.counts())["authorization"]
        page = await http.get("spawn")
        assert (page.status_code, page.url.path) == (200, "/hub/login")
        assert page.url.params["next"] == "/hub/spawn"
        again = await http.get("oauth_login", params={"next": "/hub/home"})
        assert (again.status_code, again.url.path) == (200, "/hub/home")
        assert (await site.counts())["authorization"] == before + 1
    assert (await refused(site, await start(site, "ada")))[0] == 200


async def test_a_new_hub_ends_the_logins_that_the_former_had_to_wait_for() -> None:
    async with plain_hub("wlcg", "c.DMSPAuthenticator.revoke_delay = 600") as site:
        for name in ("ada", "bob"):
            await site.enter(name)
        refresh = (await site.auth_state("ada"))["refresh_token"]
        await start(site, "ada")
        await stop(site, "ada")
        await site.stop("hub", kill=True)
        assert (await site.asked())["revoked"] == []
        site.more = "c.DMSPAuthenticator.revoke_delay = 0.5"
        await site.start_hub()

        async def revoked() -> bool:
            return (await site.asked())["revoked"] == [refresh]

        await until(revoked)
        assert await site.auth_state("ada") == {"oauth_user": {"sub": "ada"}}
        # Who never had a server has just logged in, and is about to.
        assert "refresh_token" in await site.auth_state("bob")


async def test_a_logout_beside_a_running_server_leaves_its_tokens(site: PlainHub) -> None:
    await site.enter("ada")
    token = await start(site, "ada")
    async with site.browser() as http:
        await site.login(http)
        page = await http.get("logout")
        assert page.status_code == 200
        home = await http.get("home", follow_redirects=False)
        assert home.status_code == 302, "the browser is logged out"
    assert (await site.asked())["revoked"] == []
    assert (await refused(site, token))[0] == 200


@pytest.mark.parametrize("fault", [{"refuse": {"revocation": [503, "down"]}}, {"down": True}])
async def test_a_revocation_that_fails_forgets_all_the_same(site: PlainHub, fault: dict[str, Any]) -> None:
    await site.enter("ada")
    async with site.browser() as http:
        await site.login(http)
        await site.order(**fault)
        assert (await http.get("logout")).status_code == 200
    assert await site.auth_state("ada") == {"oauth_user": {"sub": "ada"}}
    assert "but its revocation failed: HTTP 503" in site.log()


async def test_the_page_after_a_login_from_a_notebook(site: PlainHub) -> None:
    await site.enter("ada")
    async with site.browser() as http:
        page = await http.get("oauth_login", params={"next": "/hub/dmsp/logged-in"})
        assert page.status_code == 200, page.text
        # A hub without our pages shows its own.
        assert page.url.path in ("/hub/home", "/hub/dmsp/logged-in")
