"""What our authenticator makes of every family of issuers: JWTs and opaque tokens, rotating refresh tokens and not."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from plainhub import PlainHub, plain_hub, until

EXPIRED = "Your login has expired. Log in again in the browser."
MEMBER = "urn:mace:egi.eu:group:dmsp:role=member#aai.egi.eu"


@dataclass(frozen=True)
class Family:
    """Claims of somebody with a group, as this family writes them, and what shall come of them."""

    preset: str
    userinfo: dict[str, Any]
    groups: list[str]
    admin: dict[str, Any]
    token: dict[str, Any] = field(default_factory=dict)
    token_groups: tuple[str, ...] = ()


FAMILIES = [
    Family(
        "iam",
        {"groups": ["dmsp", "dmsp/km3net"]},
        ["/dmsp", "/dmsp/km3net"],
        {"groups": ["dmsp", "dmsp/admins"]},
    ),
    Family("wlcg", {"wlcg.groups": ["/dmsp"]}, ["/dmsp"], {"wlcg.groups": ["/dmsp", "/dmsp/admins"]}),
    Family(
        "keycloak",
        {"groups": ["/dmsp"]},
        ["/dmsp"],
        {"groups": ["/dmsp"], "resource_access": {"hub": {"roles": ["admin"]}}},
        {"realm_access": {"roles": ["staff"]}, "resource_access": {"hub": {"roles": ["user"]}}},
        ("role:hub:user", "role:staff"),
    ),
    Family(
        "egi",
        {"eduperson_entitlement": [MEMBER, "urn:mace:elsewhere:group:dmsp:admins"], "entitlements": [MEMBER]},
        ["/dmsp"],
        {"entitlements": [MEMBER, "urn:mace:egi.eu:group:dmsp:role=manager#aai.egi.eu"]},
    ),
    Family("generic", {"groups": ["dmsp"]}, ["dmsp"], {"groups": ["dmsp", "admins"]}),
]
MODES = list(itertools.product((False, True), (True, False)))


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest) -> Family:
    """WLCG's where a test does not ask for all."""
    found: Family = getattr(request, "param", FAMILIES[1])
    return found


@pytest.fixture(scope="module")
async def running(family: Family) -> AsyncIterator[PlainHub]:
    async with plain_hub(family.preset) as one:
        yield one


every_mode = pytest.mark.parametrize(
    "site", MODES, ids=["jwt-rotating", "jwt-lasting", "opaque-rotating", "opaque-lasting"], indirect=True
)
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.preset, indirect=True)


@pytest.fixture
async def site(running: PlainHub, family: Family, request: pytest.FixtureRequest) -> PlainHub:
    """The hub, its issuer in one of four moods, and nobody logged in as ``ada``."""
    opaque, rotating = getattr(request, "param", MODES[0])
    async with running.admin() as api:
        await api.delete("users/ada")
    user = {"sub": "1", "preferred_username": "ada"}
    mood = {"opaque": opaque, "rotating": rotating}
    await running.order(all=True, user=user, userinfo=family.userinfo, token=family.token, **mood)
    return running


async def entered(site: PlainHub, lifetime: int = 3600) -> str:
    """Logged in with tokens of this lifetime; later ones live long. A server's token."""
    await site.order(lifetime=lifetime)
    async with site.browser() as http:
        page = await site.login(http)
        assert page.status_code == 200, page.text
    await site.order(lifetime=3600)
    return await site.server_token("ada")


def sentence(answer: httpx.Response) -> str:
    return str(answer.json()["message"])


@every_family
@every_mode
async def test_login_brings_groups_and_tokens_for_services(site: PlainHub, family: Family) -> None:
    token = await entered(site)
    model = await site.model("ada")
    opaque = not str(model["auth_state"]["access_token"]).startswith("eyJ")
    expected = family.groups + ([] if opaque else list(family.token_groups))
    assert sorted(model["groups"]) == sorted(expected)
    assert model["admin"] is False
    for audience, scope in (("rucio", "openid profile"), ("wide", "all")):
        (answer,) = await site.ask(token, audience)
        assert answer.status_code == 200, answer.text
        asked = (await site.asked())["asked"][-1]
        assert asked["audience"] == audience
        assert asked.get("scope", "all") == scope
    asked = (await site.asked())["asked"][0]
    assert {"openid", "profile", "offline_access"} <= set(asked["scope"].split())
    log = site.log()
    assert "user=ada audience=wide exchanged" in log
    for secret in (answer.json()["access_token"], model["auth_state"]["refresh_token"], token):
        assert secret not in log


@every_family
async def test_an_admin_is_told_by_claims_and_stays_no_longer_than_they_say(
    site: PlainHub, family: Family
) -> None:
    await site.order(userinfo=family.admin)
    await entered(site)
    assert (await site.model("ada"))["admin"] is True
    await site.order(userinfo=family.userinfo)
    await entered(site)
    assert (await site.model("ada"))["admin"] is False


@every_family
@every_mode
async def test_refresh_is_one_for_all_that_ask(site: PlainHub) -> None:
    token = await entered(site, lifetime=1)
    before, groups = await site.auth_state("ada"), (await site.model("ada"))["groups"]
    # Some providers leave the id_token out of a refresh.
    await site.order(id_token_at_refresh=False, slow=0.3)
    await site.expire("ada")
    answers = await site.ask(token, times=20)
    assert [answer.status_code for answer in answers] == [200] * 20
    counts, after = await site.counts(), await site.auth_state("ada")
    assert (counts["refresh"], counts["exchange"]) == (1, 1)
    assert after["access_token"] != before["access_token"]
    rotating = (await site.asked())["rotating"]
    assert (after["refresh_token"] != before["refresh_token"]) is rotating
    assert (await site.model("ada"))["groups"] == groups


@every_family
@every_mode
async def test_refused_refresh_is_a_login_and_then_all_is_well(site: PlainHub) -> None:
    token = await entered(site, lifetime=1)
    await site.order(refuse={"refresh": [400, "invalid_grant"]})
    await site.expire("ada")
    for answer in await site.ask(token, times=3):
        assert (answer.status_code, sentence(answer)) == (409, EXPIRED)
    assert (await site.counts())["refresh"] == 1, "a refusal is not asked for again"
    await entered(site)
    await site.order(refuse={})
    (answer,) = await site.ask(token)
    assert answer.status_code == 200, answer.text


@every_mode
async def test_issuer_down_is_tolerated_until_the_token_is_over(site: PlainHub) -> None:
    token = await entered(site, lifetime=4)
    await site.order(down=True)
    state = await site.auth_state("ada")
    (answer,) = await site.ask(token)
    assert answer.status_code == 503, "there is nothing to give yet, and nobody who would exchange"
    assert await site.auth_state("ada") == state, "the login is as it was"
    await site.order(down=False, lifetime=2)
    (answer,) = await site.ask(token)
    assert answer.status_code == 200
    await site.order(down=True)
    (kept,) = await site.ask(token)
    assert kept.json() == answer.json()
    await site.expire("ada")
    (answer,) = await site.ask(token)
    assert (answer.status_code, sentence(answer)) == (
        503,
        "The identity provider does not answer. Try again in a minute.",
    )
    await site.order(down=False, lifetime=3600)
    (answer,) = await site.ask(token)
    assert answer.status_code == 200


@every_mode
async def test_token_withdrawn_before_its_time_is_refreshed(site: PlainHub) -> None:
    await entered(site)
    async with site.browser() as http:
        await site.login(http)
        before = await site.auth_state("ada")
        await site.order(withdraw=True)

        async def looked() -> bool:
            assert (await http.get("home", follow_redirects=False)).status_code == 200
            return "refresh" in await site.counts()

        await until(looked)
    counts = await site.counts()
    assert counts["refresh"] == 1
    assert counts["authorization"] == 2, "nobody was sent to the login"
    assert (await site.auth_state("ada"))["access_token"] != before["access_token"]


@pytest.mark.parametrize(
    ("status", "error", "expected", "words"),
    [
        (400, "invalid_target", 502, "gives no token for rucio"),
        (403, "access_denied", 502, "gives no token for rucio"),
        (400, "invalid_request", 409, "login has expired"),
        (400, "invalid_grant", 409, "login has expired"),
        (429, "slow_down", 503, "does not answer"),
        (500, "server_error", 503, "does not answer"),
    ],
)
async def test_refused_exchange_is_a_sentence(
    site: PlainHub, status: int, error: str, expected: int, words: str
) -> None:
    token = await entered(site)
    await site.order(refuse={"exchange": [status, error]})
    (answer,) = await site.ask(token)
    assert answer.status_code == expected
    assert words in sentence(answer)
    await site.order(refuse={})
    (answer,) = await site.ask(token)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("orders", "status", "words"),
    [
        ({"userinfo": {}, "token": {}}, 403, ""),
        ({"user": {"sub": "1"}}, 403, "does not tell your user name"),
        ({"user": {"sub": "2", "preferred_username": "ada"}}, 403, "belongs to somebody else"),
        ({"refuse": {"code": [400, "not_allowed"]}}, 403, "refused the login: refused: not_allowed"),
        ({"refuse": {"code": [503, "down"]}}, 503, "does not answer"),
        ({"refuse": {"userinfo": [401, "invalid_token"]}}, 403, "refused the login"),
    ],
)
async def test_refused_login_is_a_sentence(
    site: PlainHub, orders: dict[str, Any], status: int, words: str
) -> None:
    await entered(site)
    await site.order(**orders)
    async with site.browser() as http:
        page = await site.login(http)
    assert page.status_code == status, page.text
    assert words in page.text
    codes = (await site.asked())["codes"]
    assert codes
    assert not [code for code in codes if code in site.log()]


@every_family
@every_mode
async def test_logout_revokes_and_leaves_the_name_with_its_owner(site: PlainHub) -> None:
    token = await entered(site)
    refresh = (await site.auth_state("ada"))["refresh_token"]
    async with site.browser() as http:
        await site.login(http)
        refresh = (await site.auth_state("ada"))["refresh_token"]
        await http.get("logout")
    assert (await site.asked())["revoked"] == [refresh]
    assert await site.auth_state("ada") == {"oauth_user": {"sub": "1"}}
    (answer,) = await site.ask(token)
    assert (answer.status_code, sentence(answer)) == (409, EXPIRED)
    await site.order(user={"sub": "2", "preferred_username": "ada"})
    async with site.browser() as http:
        assert (await site.login(http)).status_code == 403
    await site.order(user={"sub": "1", "preferred_username": "ada"})
    await entered(site)
    (answer,) = await site.ask(token)
    assert answer.status_code == 200
