"""The flows of a client: code with PKCE, refresh, exchange, revocation, introspection, logout."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from jupyterhub_dmsp.box.issuer import Lifetimes

CALLBACK = "http://127.0.0.1:18999/hub/oauth_callback"
LOGGED_OUT = "http://127.0.0.1:18999/hub/login"


async def verified(browser, token, audience, typ="at+jwt"):
    """What a resource server does: keys from the discovery document, signature, issuer, audience, times."""
    discovery = (await browser.http.get(browser.issuer.url + "/.well-known/openid-configuration")).json()
    keys = KeySet.import_key_set((await browser.http.get(discovery["jwks_uri"])).json())
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    assert decoded.header["kid"] == keys.keys[0].kid
    assert decoded.header["typ"] == typ
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": browser.issuer.url}, aud={"essential": True, "value": audience}
    )
    registry.validate(decoded.claims)
    return decoded.claims


async def test_code_flow_gives_wlcg_tokens(browser):
    tokens = await browser.tokens()
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 20
    claims = await verified(browser, tokens["access_token"], "jupyterhub")
    assert claims["wlcg.ver"] == "1.0"
    assert claims["wlcg.groups"] == ["/dmsp", "/dmsp/km3net"]
    assert claims["preferred_username"] == "km3net-user"
    assert claims["name"] == "KM3NeT demo user"
    assert claims["email"] == "km3net-user@localhost"
    assert claims["exp"] - claims["iat"] == 20
    assert claims["aud"] == "jupyterhub"
    assert "km3net" not in claims["sub"]
    identity = await verified(browser, tokens["id_token"], "jupyterhub", typ="JWT")
    assert identity["sub"] == claims["sub"]
    assert identity["nonce"]
    assert identity["at_hash"]
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    userinfo = (await browser.http.get(browser.issuer.url + "/userinfo", headers=headers)).json()
    assert userinfo["sub"] == claims["sub"]
    assert userinfo["wlcg.groups"] == claims["wlcg.groups"]


async def test_scopes_open_claims(browser):
    tokens = await browser.tokens(scope="openid")
    claims = await verified(browser, tokens["access_token"], "jupyterhub")
    assert not {"wlcg.groups", "email", "preferred_username"} & set(claims)
    assert "refresh_token" not in tokens
    bad = await browser.authorize(scope="openid everything")
    assert parse_qs(urlsplit(bad.headers["location"]).query)["error"] == ["invalid_scope"]


async def test_second_authorization_needs_no_login(browser):
    await browser.tokens()
    answer = await browser.authorize()
    assert answer.headers["location"].startswith(CALLBACK)
    again = await browser.authorize(prompt="login")
    assert "/login?" in again.headers["location"]
    after = await browser.log_in(at=browser.follow(again))
    assert (await browser.http.get(browser.follow(after))).headers["location"].startswith(CALLBACK)


async def test_prompt_none_and_max_age(browser):
    silent = await browser.authorize(prompt="none")
    assert parse_qs(urlsplit(silent.headers["location"]).query)["error"] == ["login_required"]
    await browser.tokens()
    assert (
        (await browser.authorize(prompt="none", max_age="600"))
        .headers["location"]
        .startswith(CALLBACK + "?code")
    )
    await asyncio.sleep(1.1)
    assert "/login?" in (await browser.authorize(max_age="0")).headers["location"]


async def test_code_works_once_and_its_reuse_revokes(browser):
    code = await browser.code()
    tokens = (await browser.redeem(code)).json()
    again = await browser.redeem(code)
    assert again.status_code == 400
    assert again.json()["error"] == "invalid_grant"
    assert (await browser.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert (await browser.http.get(browser.issuer.url + "/userinfo", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code_verifier": "x" * 64}, id="wrong verifier"),
        pytest.param({"code_verifier": ""}, id="no verifier"),
        pytest.param({"redirect_uri": CALLBACK + "/"}, id="other redirect"),
        pytest.param({"code": "unknown"}, id="unknown code"),
    ],
)
async def test_code_is_refused(browser, changes):
    answer = await browser.redeem(await browser.code(), **changes)
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_grant", "invalid_request")


async def test_pkce_is_required_of_public_clients_and_s256_of_all(browser):
    def error(answer):
        return parse_qs(urlsplit(answer.headers["location"]).query)["error"]

    none = await browser.authorize(client_id="public-app", code_challenge=None, code_challenge_method=None)
    assert error(none) == ["invalid_request"]
    assert error(await browser.authorize(code_challenge_method="plain")) == ["invalid_request"]
    assert error(await browser.authorize(code_challenge_method=None)) == ["invalid_request"]
    code = await browser.code(client_id="public-app", scope="openid")
    form = {
        "code": code,
        "redirect_uri": CALLBACK,
        "grant_type": "authorization_code",
        "client_id": "public-app",
    }
    url = browser.issuer.url + "/token"
    assert (await browser.http.post(url, data=form)).status_code == 400
    answer = await browser.http.post(url, data={**form, "code_verifier": browser.verifier})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"redirect_uri": "http://127.0.0.1:18999/evil"}, id="other path"),
        pytest.param({"redirect_uri": CALLBACK + "?x=1"}, id="query"),
        pytest.param({"redirect_uri": 'javascript:alert("1")'}, id="script"),
        pytest.param({"client_id": "nobody"}, id="unknown client"),
        pytest.param({"client_id": "dmsp-cli"}, id="client without redirects"),
        pytest.param({"response_type": 'co"de'}, id="forbidden character"),
    ],
)
async def test_bad_redirects_stay_here(browser, changes):
    answer = await browser.authorize(**changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert 'role="alert"' in answer.text
    assert "<script" not in answer.text


async def test_unsupported_response_type_goes_to_the_client(browser):
    answer = await browser.authorize(response_type="token")
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["error"] == ["unsupported_response_type"]
    assert query["state"] == ["a state & more"]


async def test_refresh_rotates_and_reuse_revokes_the_family(make_issuer):
    async with make_issuer(lifetimes=Lifetimes(refresh_grace=0)) as issuer, issuer.browser() as browser:
        first = await browser.tokens()
        second = (await browser.refresh(first["refresh_token"])).json()
        assert second["refresh_token"] != first["refresh_token"]
        assert (await verified(browser, second["id_token"], "jupyterhub", "JWT"))["sub"]
        third = (await browser.refresh(second["refresh_token"])).json()
        reuse = await browser.refresh(first["refresh_token"])
        assert reuse.status_code == 400
        assert reuse.json()["error"] == "invalid_grant"
        assert (await browser.refresh(third["refresh_token"])).json()["error"] == "invalid_grant"
        exchanged = await browser.exchange(third["access_token"])
        assert exchanged.json()["error"] == "invalid_request"
    assert any("reused" in line for line in issuer.log)


async def test_the_same_refresh_at_once_gets_the_same_successor(browser):
    first = (await browser.tokens())["refresh_token"]
    answers = await asyncio.gather(*(browser.refresh(first) for _ in range(20)))
    assert [a.status_code for a in answers] == [200] * 20
    successors = {a.json()["refresh_token"] for a in answers}
    assert len(successors) == 1
    assert (await browser.refresh(successors.pop())).status_code == 200
    # The successor was used: whoever comes with the first one now is not a retry, grace or not.
    assert (await browser.refresh(first)).json()["error"] == "invalid_grant"


async def test_refresh_narrows_the_access_token_only(browser):
    first = await browser.tokens()
    narrow = (await browser.refresh(first["refresh_token"], scope="openid")).json()
    assert narrow["scope"] == "openid"
    whole = (await browser.refresh(narrow["refresh_token"])).json()
    assert set(whole["scope"].split()) == set(first["scope"].split())
    wide = await browser.refresh(whole["refresh_token"], scope="openid wlcg")
    assert wide.json()["error"] == "invalid_scope"


async def test_refresh_token_belongs_to_its_client(browser):
    tokens = await browser.tokens()
    secret = (browser.issuer.state / "secrets" / "other-secret").read_text().strip()
    stolen = await browser.token(
        ("other", secret), grant_type="refresh_token", refresh_token=tokens["refresh_token"]
    )
    assert stolen.status_code == 400
    assert (await browser.refresh(tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize("auth", [("jupyterhub", "wrong"), ("jupyterhub", "ünrecht"), ("nobody", "x")])
async def test_client_authentication(browser, auth):
    answer = await browser.token(auth, grant_type="refresh_token", refresh_token="x")
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"
    assert "WWW-Authenticate" in answer.headers


async def test_malformed_token_requests_are_errors_not_faults(browser):
    url = browser.issuer.url + "/token"
    for headers in ({"Authorization": "Basic %%%"}, {"Authorization": "Basic /////w=="}):
        answer = await browser.http.post(
            url, data={"grant_type": "refresh_token", "refresh_token": "x"}, headers=headers
        )
        assert answer.status_code == 401
    unsupported = await browser.http.post(url, data={"grant_type": 'pass"word'})
    assert unsupported.json()["error"] == "unsupported_grant_type"
    in_the_url = await browser.http.post(url + "?grant_type=refresh_token&refresh_token=x")
    assert in_the_url.json()["error"] == "unsupported_grant_type"
    by_form = await browser.http.post(
        url,
        data={
            "grant_type": "refresh_token",
            "refresh_token": "x",
            "client_id": "jupyterhub",
            "client_secret": browser.issuer.secret,
        },
    )
    assert by_form.json()["error"] == "invalid_grant"
    assert (await browser.http.get(url)).status_code == 405


async def test_exchange_for_rucio(browser):
    tokens = await browser.tokens()
    answer = await browser.exchange(tokens["access_token"])
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert "refresh_token" not in body
    subject = await verified(browser, tokens["access_token"], "jupyterhub")
    claims = await verified(browser, body["access_token"], "rucio")
    assert claims["aud"] == "rucio"
    assert claims["sub"] == subject["sub"]
    assert claims["exp"] <= subject["exp"]
    assert {"openid", "profile"} <= set(claims["scope"].split())
    assert "offline_access" not in claims["scope"].split()
    assert claims["wlcg.groups"] == ["/dmsp", "/dmsp/km3net"]
    narrow = (await browser.exchange(tokens["access_token"], scope="openid profile")).json()
    assert narrow["scope"] == "openid profile"
    assert "wlcg.groups" not in await verified(browser, narrow["access_token"], "rucio")


async def test_exchange_is_refused(browser):
    tokens = await browser.tokens(scope="openid offline_access")
    access = tokens["access_token"]

    async def error(*args, **form):
        answer = await browser.exchange(*args, **form)
        assert answer.status_code == 400
        return answer.json()["error"]

    assert await error(access, "elsewhere") == "invalid_target"
    assert await error(access, "") == "invalid_target"
    assert await error(access, scope="openid wlcg.groups") == "invalid_scope"
    assert await error(access, scope="openid offline_access") == "invalid_scope"
    assert await error(access + "x") == "invalid_request"
    assert await error(tokens["refresh_token"]) == "invalid_request"
    assert await error(tokens["id_token"]) == "invalid_request"
    assert (
        await error(access, subject_token_type="urn:ietf:params:oauth:token-type:id_token") == "invalid_request"
    )
    assert await error(access, actor_token=access) == "invalid_request"
    secret = (browser.issuer.state / "secrets" / "other-secret").read_text().strip()
    assert await error(access, auth=("other", secret)) == "invalid_request"
    # What was exchanged cannot be exchanged on to more.
    rucio = (await browser.exchange(access)).json()["access_token"]
    assert await error(rucio, scope="openid profile") == "invalid_scope"
    public = await browser.http.post(
        browser.issuer.url + "/token",
        data={"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "client_id": "dmsp-cli"},
    )
    assert public.json()["error"] == "invalid_client"


async def test_revocation_and_introspection(browser):
    tokens = await browser.tokens()

    async def introspect(token, auth=None):
        url = browser.issuer.url + "/introspect"
        return (await browser.http.post(url, data={"token": token}, auth=auth or browser.issuer.hub)).json()

    async def revoke(token, auth=None):
        url = browser.issuer.url + "/revoke"
        return await browser.http.post(url, data={"token": token}, auth=auth or browser.issuer.hub)

    live = await introspect(tokens["access_token"])
    assert live["active"] is True
    assert live["username"] == "km3net-user"
    assert live["wlcg.groups"]
    assert (await introspect(tokens["refresh_token"]))["active"] is True
    assert await introspect("nonsense") == {"active": False}
    other = ("other", (browser.issuer.state / "secrets" / "other-secret").read_text().strip())
    assert await introspect(tokens["access_token"], other) == {"active": False}
    assert (await revoke(tokens["refresh_token"], other)).status_code == 400
    assert (await revoke("nonsense")).status_code == 200
    exchanged = (await browser.exchange(tokens["access_token"])).json()["access_token"]
    assert (await introspect(exchanged))["active"] is True
    assert (await revoke(tokens["refresh_token"])).status_code == 200
    for token in (tokens["access_token"], tokens["refresh_token"], exchanged):
        assert await introspect(token) == {"active": False}
    assert (await browser.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    unknown = await browser.http.post(browser.issuer.url + "/introspect", data={"token": "x"})
    assert unknown.status_code == 401


async def test_revoked_access_token_leaves_its_family_alone(browser):
    tokens = await browser.tokens()
    url = browser.issuer.url + "/revoke"
    await browser.http.post(url, data={"token": tokens["access_token"]}, auth=browser.issuer.hub)
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert (await browser.http.get(browser.issuer.url + "/userinfo", headers=headers)).status_code == 401
    assert (await browser.refresh(tokens["refresh_token"])).status_code == 200


async def test_userinfo_says_what_is_wrong(browser):
    url = browser.issuer.url + "/userinfo"
    none = await browser.http.get(url)
    assert none.status_code == 401
    assert none.headers["WWW-Authenticate"].startswith("Bearer realm=")
    bad = await browser.http.get(url, headers={"Authorization": "Bearer a.b.c"})
    assert 'error="invalid_token"' in bad.headers["WWW-Authenticate"]
    rucio_only = (await browser.exchange((await browser.tokens())["access_token"], scope="profile")).json()
    weak = await browser.http.get(url, headers={"Authorization": f"Bearer {rucio_only['access_token']}"})
    assert weak.status_code == 403


async def test_logout(browser):
    tokens = await browser.tokens()
    url = browser.issuer.url + "/logout"
    ask = await browser.http.get(
        url, params={"post_logout_redirect_uri": LOGGED_OUT, "client_id": "jupyterhub"}
    )
    assert ask.status_code == 200
    assert "Log out" in ask.text
    assert (await browser.authorize()).headers["location"].startswith(CALLBACK)
    hint = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": LOGGED_OUT, "state": "s"}
    out = await browser.http.get(url, params=hint)
    assert out.headers["location"] == LOGGED_OUT + "?state=s"
    assert "/login?" in (await browser.authorize()).headers["location"]
    # Offline access outlives the browser's session.
    assert (await browser.refresh(tokens["refresh_token"])).status_code == 200


async def test_logout_after_the_question(browser):
    await browser.tokens()
    url = browser.issuer.url + "/logout"
    page = await browser.http.get(
        url, params={"post_logout_redirect_uri": LOGGED_OUT, "client_id": "jupyterhub"}
    )
    fields = {n: unescape(v) for n, v in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text)}
    assert fields["post_logout_redirect_uri"] == LOGGED_OUT
    out = await browser.http.post(url, data=fields)
    assert out.headers["location"] == LOGGED_OUT
    assert "/login?" in (await browser.authorize()).headers["location"]
    nowhere = await browser.http.get(url, params={"post_logout_redirect_uri": "http://evil.example/"})
    assert "location" not in nowhere.headers
    damaged = await browser.http.get(url, params={"id_token_hint": "a.b.c"})
    assert damaged.status_code == 400


async def test_discovery(browser):
    root = browser.issuer.url.removesuffix("/oidc")
    documents = [
        f"{browser.issuer.url}/.well-known/openid-configuration",
        f"{browser.issuer.url}/.well-known/oauth-authorization-server",
        f"{root}/.well-known/oauth-authorization-server/oidc",
        f"{root}/.well-known/openid-configuration",
    ]
    answers = [(await browser.http.get(url)).json() for url in documents]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["issuer"] == browser.issuer.url
    for name, value in answers[0].items():
        if name.endswith(("_endpoint", "_uri")):
            status = (await browser.http.get(value)).status_code
            assert status in (200, 303, 400, 401, 405), (name, status)
    jwks = (await browser.http.get(answers[0]["jwks_uri"])).json()
    assert [set(key) for key in jwks["keys"]] == [{"kty", "n", "e", "use", "alg", "kid"}]


async def test_health(browser):
    answer = await browser.http.get(browser.issuer.url + "/health")
    assert answer.json() == {"status": "ok", "issuer": browser.issuer.url}
