"""Headers and cookies of everything that a browser is shown, against what OWASP's cheat sheets ask."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import SimpleCookie

import aiohttp
import pytest
from attacks.world import World

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HUB = {
    "default-src 'self'",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
}
LAB = {"object-src 'self' blob:", "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'"}
ISSUER = {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"}
PAGES = {
    # name: (address below hub, Lab or issuer; policy; may be kept by a cache)
    "login page": ("hub:hub/login", HUB, False),
    "home": ("hub:hub/home", HUB, False),
    "launch form": ("hub:hub/spawn/vre-admin", HUB, False),
    "tokens page": ("hub:hub/token", HUB, False),
    "hub's API": ("hub:hub/api/user", HUB, False),
    "refusal of the token endpoint": ("hub:hub/api/dmsp/token?audience=rucio", HUB, False),
    "page that is not there": ("hub:hub/nothing", HUB, False),
    "Lab": ("lab:lab", LAB, True),
    "Lab's API": ("lab:api/contents", {*LAB, "default-src 'none'"}, True),
    "a file": ("lab:files/private.txt", {*LAB, "sandbox allow-scripts"}, True),
    "data lake": ("lab:dmsp/v1/attachments", {*LAB, "default-src 'none'"}, False),
    "issuer's login": ("issuer:/login", ISSUER, False),
    "issuer's device page": ("issuer:/device", ISSUER, False),
    "issuer's token endpoint": ("issuer:/token", ISSUER, False),
    "issuer's error": ("issuer:/nothing", ISSUER, False),
    "issuer's keys": ("issuer:/jwks", ISSUER, True),
}


@pytest.fixture(scope="module", autouse=True)
async def running(world: World) -> None:
    """The attack test ends by stopping this session."""
    _, user = await world.victim.hub("GET", "users/km3net-user")
    if not user["servers"]:
        await world.victim.start("minimal")


def _policy(headers: Mapping[str, str]) -> set[str]:
    return {part.strip() for part in headers["Content-Security-Policy"].split(";")}


@pytest.mark.parametrize("name", PAGES)
async def test_headers(world: World, name: str) -> None:
    place, policy, cached = PAGES[name]
    kind, _, path = place.partition(":")
    base = {"hub": world.box.address, "lab": world.victim.base, "issuer": world.issuer}[kind]
    who = world.admin if "vre-admin" in path else world.victim
    async with who.http.get(f"{base}{path}", allow_redirects=name != "login page") as answer:
        await answer.read()
        headers = answer.headers
    assert answer.status < 500
    assert {key: headers.get(key) for key in ALWAYS} == ALWAYS
    assert policy <= _policy(headers)
    assert cached or headers["Cache-Control"] == "no-store"
    assert not any(digit in headers.get("Server", "") for digit in "0123456789"), "no version in the banner"


async def test_cookies(world: World) -> None:
    """Where each cookie of a whole login and start goes, and who may read it."""
    seen: dict[str, SimpleCookie] = {}
    trace = aiohttp.TraceConfig()

    async def note(
        _: object, __: object, done: aiohttp.TraceRequestEndParams | aiohttp.TraceRequestRedirectParams
    ) -> None:
        for line in done.response.headers.getall("Set-Cookie", []):
            cookie = SimpleCookie(line)
            if any(one.value for one in cookie.values()):  # the others are taken away
                seen[line.split("=", 1)[0]] = cookie

    trace.on_request_end.append(note)
    trace.on_request_redirect.append(note)
    jar = aiohttp.CookieJar(unsafe=True)
    for one in world.victim.http.cookie_jar:  # the issuer knows them already
        if one.key == "dmsp-issuer-session":
            jar.update_cookies({one.key: one}, response_url=aiohttp.client.URL(world.issuer))
    async with aiohttp.ClientSession(cookie_jar=jar, trace_configs=[trace]) as browser:
        for path in ("hub/oauth_login?next=/hub/home", "user/km3net-user/lab"):
            async with browser.get(f"{world.box.address}{path}") as answer:
                assert answer.status == 200
        async with browser.get(f"{world.issuer}/login") as answer:
            assert answer.status == 200
    attributes = {name: next(iter(cookie.values())) for name, cookie in seen.items()}
    assert {"jupyterhub-hub-login", "jupyterhub-user-km3net-user", "_xsrf", "dmsp-issuer-xsrf"} <= set(
        attributes
    )
    for name, cookie in attributes.items():
        assert cookie["samesite"] == "Lax", name
        # Lab's scripts repeat this one in a header; it is worth nothing by itself.
        assert cookie["httponly"] or name == "_xsrf", name
        assert not cookie["domain"], name
        # These two mark a browser and a login under way; without the others they open nothing.
        if name not in ("jupyterhub-session-id", "oauthenticator-state"):
            assert cookie["path"] not in ("", "/"), f"{name} is for one part of the site alone"
