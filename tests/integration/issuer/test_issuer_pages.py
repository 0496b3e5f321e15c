"""What people see: login, its limits, devices, and what the pages do not let through."""

from __future__ import annotations

import asyncio
import re
from html import unescape

import pytest

from jupyterhub_dmsp.box.issuer import Lifetimes
from jupyterhub_dmsp.identity import claims

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def fields(page):
    return {n: unescape(v) for n, v in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text)}


async def test_login_page_is_accessible_and_closed(browser):
    page = await browser.http.get(browser.issuer.url + "/login")
    assert page.headers["content-type"].startswith("text/html")
    text = page.text
    assert '<html lang="en">' in text
    for control in ("username", "password"):
        assert f'<label for="{control}">' in text
        assert re.search(rf'<input id="{control}" name="{control}"[^>]* required', text)
    assert "Test &amp; Site" in text
    assert "<script" not in text
    assert not re.search(r'(src|href)="(https?:)?//', text)
    policy = page.headers["content-security-policy"]
    for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "style-src 'self'"):
        assert rule in policy
    assert "form-action 'self' http://127.0.0.1:18999" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "server" not in page.headers
    style = await browser.http.get(browser.issuer.url + "/style.css")
    assert "prefers-color-scheme: dark" in style.text
    assert style.headers["content-type"].startswith("text/css")


async def test_cookies_are_limited(browser):
    await browser.http.get(browser.issuer.url + "/login")
    answer = await browser.log_in()
    assert answer.status_code == 303
    cookies = [c for r in (answer,) for c in r.headers.get_list("set-cookie")]
    assert any(c.startswith("dmsp-issuer-session=") for c in cookies)
    for cookie in cookies:
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Path=/oidc" in cookie
        assert "Domain" not in cookie
    home = await browser.http.get(browser.follow(answer))
    assert "KM3NeT demo user" in home.text


async def test_wrong_password_and_unknown_user_look_the_same(browser):
    wrong = await browser.log_in("collider-user", "wrong")
    unknown = await browser.log_in("nobody-here", "wrong")
    assert wrong.status_code == unknown.status_code == 403
    sentence = "The user name or the password is wrong."
    for answer in (wrong, unknown):
        assert re.search(rf'<p class="error" role="alert" id="error">{re.escape(sentence)}</p>', answer.text)
    assert 'value="collider-user"' in wrong.text
    evil = await browser.log_in('"><script>alert(1)</script>', "x")
    assert "<script" not in evil.text
    assert "set-cookie" not in wrong.headers


async def test_forms_are_protected(browser):
    url = browser.issuer.url + "/login"
    page = await browser.http.get(url)
    good = fields(page) | {"username": "km3net-user", "password": browser.issuer.passwords["km3net-user"]}
    no_token = {k: v for k, v in good.items() if k != "_xsrf"}
    for data, headers in (
        (no_token, {}),
        ({**good, "_xsrf": "2|00000000|00|1"}, {}),
        (good, {"Origin": "http://evil.example"}),
        # Another server on the same host: its pages share our cookies.
        (good, {"Origin": "http://127.0.0.1:18999"}),
        (good, {"Origin": "null"}),
    ):
        answer = await browser.http.post(url, data=data, headers=headers)
        assert answer.status_code == 403
        assert "reload the page" in answer.text
    own = {"Origin": browser.issuer.url.removesuffix("/oidc")}
    assert (await browser.http.post(url, data=good, headers=own)).status_code == 303


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/oidc/authorize/../../evil",
        "/hub/",
        "/oidc/logout",
        "/oidc/device?x=1\r\nSet-Cookie: a=b",
    ],
)
async def test_login_goes_nowhere_else(browser, target):
    page = await browser.http.get(browser.issuer.url + "/login", params={"next": target})
    assert fields(page)["next"] == "/oidc/"
    good = fields(page) | {"username": "km3net-user", "password": browser.issuer.passwords["km3net-user"]}
    answer = await browser.http.post(browser.issuer.url + "/login", data=good | {"next": target})
    assert answer.headers["location"] == "/oidc/"


async def test_session_is_new_after_login(browser):
    browser.http.cookies.set("dmsp-issuer-session", "planted", domain="127.0.0.1", path="/oidc")
    await browser.log_in()
    values = {c.value for c in browser.http.cookies.jar if c.name == "dmsp-issuer-session"}
    assert "planted" not in values
    first = values.pop()
    await browser.log_in("collider-user")
    browser.http.cookies.clear()
    browser.http.cookies.set("dmsp-issuer-session", first, domain="127.0.0.1", path="/oidc")
    assert "You are not logged in" in (await browser.http.get(browser.issuer.url + "/")).text


async def test_unknown_pages_are_sentences(browser):
    for path in ("/nothing", "/login/x"):
        page = await browser.http.get(browser.issuer.url + path)
        assert page.status_code == 404
        assert "There is no such page here." in page.text
    assert (await browser.http.post(browser.issuer.url + "/nothing")).status_code == 404
    assert (await browser.http.put(browser.issuer.url + "/login")).status_code in (403, 405)


async def test_attempts_are_limited(make_issuer):
    async with make_issuer() as issuer, issuer.browser() as browser:
        await browser.http.get(issuer.url + "/login")  # The cookie first, or parallel pages set one each.
        answers = await asyncio.gather(*(browser.log_in("km3net-user", f"guess {n}") for n in range(12)))
        statuses = sorted(a.status_code for a in answers)
        assert statuses == [403] * 5 + [429] * 7
        limited = await browser.log_in("km3net-user")
        assert limited.status_code == 429
        assert 1 <= int(limited.headers["retry-after"]) <= 60
        assert re.search(
            r'role="alert"[^>]*>Too many attempts: wait \d+ seconds? and try again\.', limited.text
        )
        # Nobody else is kept out, and successes do not add up.
        for _ in range(8):
            assert (await browser.log_in("collider-user")).status_code == 303


async def start_device(browser, scope="openid profile offline_access wlcg.groups", client="dmsp-cli"):
    return await browser.http.post(
        browser.issuer.url + "/device_authorization", data={"client_id": client, "scope": scope}
    )


async def poll(browser, device_code, client="dmsp-cli"):
    form = {"grant_type": DEVICE, "device_code": device_code, "client_id": client}
    return await browser.http.post(browser.issuer.url + "/token", data=form)


async def decide(browser, code, decision="approved"):
    url = browser.issuer.url + "/device"
    page = await browser.http.get(url, params={"user_code": code})
    if "location" in page.headers:
        answer = await browser.log_in(at=browser.follow(page))
        page = await browser.http.get(browser.follow(answer))
    assert f'value="{code}"' in page.text
    return await browser.http.post(url, data=fields(page) | {"user_code": code, "decision": decision})


async def test_device_flow(browser):
    started = (await start_device(browser)).json()
    assert started["verification_uri"] == browser.issuer.url + "/device"
    assert started["verification_uri_complete"].endswith("?user_code=" + started["user_code"])
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", started["user_code"])
    assert (await poll(browser, started["device_code"])).json()["error"] == "authorization_pending"
    assert (await poll(browser, started["device_code"])).json()["error"] == "slow_down"
    page = await decide(browser, started["user_code"].lower().replace("-", " "))
    assert "DMSP command line is connected" in page.text
    tokens = (await poll(browser, started["device_code"])).json()
    assert {"access_token", "refresh_token", "id_token"} <= set(tokens)
    used = await poll(browser, started["device_code"])
    assert used.json()["error"] == "invalid_grant"
    url = browser.issuer.url + "/token"
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "dmsp-cli"}
    refreshed = await browser.http.post(url, data=form)
    assert refreshed.status_code == 200
    assert claims.audiences(claims.read(refreshed.json()["access_token"])) == ["dmsp-cli", "rucio"]


async def test_device_is_refused(browser):
    started = (await start_device(browser)).json()
    assert "was refused" in (await decide(browser, started["user_code"], "denied")).text
    assert (await poll(browser, started["device_code"])).json()["error"] == "access_denied"
    assert (await poll(browser, "unknown")).json()["error"] == "invalid_grant"
    assert (await poll(browser, started["device_code"], client="public-app")).json()[
        "error"
    ] == "unauthorized_client"
    assert (await start_device(browser, client="public-app")).json()["error"] == "unauthorized_client"
    assert (await start_device(browser, scope="openid root")).json()["error"] == "invalid_scope"
    assert (await start_device(browser, client="jupyterhub")).json()["error"] == "invalid_client"


async def test_device_codes_cannot_be_guessed_at_will(make_issuer):
    async with make_issuer() as issuer, issuer.browser() as browser:
        statuses = [(await decide(browser, "BBBB-BBBB")).status_code for _ in range(12)]
        assert statuses == [404] * 10 + [429] * 2


async def test_device_code_expires(make_issuer):
    lifetimes = Lifetimes(device=1, device_interval=1)
    async with make_issuer(lifetimes=lifetimes) as issuer, issuer.browser() as browser:
        started = (await start_device(browser)).json()
        assert started["expires_in"] == 1
        async with asyncio.timeout(10):
            while (answer := await poll(browser, started["device_code"])).json()["error"] != "expired_token":
                assert answer.json()["error"] in ("authorization_pending", "slow_down")
                await asyncio.sleep(0.2)
        page = await decide(browser, started["user_code"])
        assert page.status_code == 404
        assert 'role="alert"' in page.text
