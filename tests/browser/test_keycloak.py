"""A real Keycloak as the identity provider: from its login page to Rucio, through a refresh and an exchange."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from boxes import Box, make_box
from keycloak import Keycloak, running_keycloak
from playwright.async_api import Browser, Page, expect
from scientist import PATIENCE, Scientist

pytestmark = [pytest.mark.root, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]

USER, LIFETIME = "ada", 60
CONFIG = """
identity:
  issuer: {issuer}
  name: Keycloak
  client_secret: file:{secret}
  preset: keycloak
  audiences: [{{name: rucio, scopes: [openid, profile, rucio]}}]
  revoke_at: [logout]
"""
WHO = """import os, subprocess
print(subprocess.run(["rucio", "whoami"], capture_output=True, text=True).stdout)"""
# The token itself never leaves the session: what identifies it does.
TOKEN = """import base64, json, os, time
def token():
    body = open(os.environ["BEARER_TOKEN_FILE"]).read().split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=="))
first = token()
print("audience:", first["aud"], "issuer:", first["iss"], "scope:", first["scope"])"""
NEXT = """while token()["jti"] == first["jti"]:
    time.sleep(0.2)
print("another token, from", "another" if token()["iat"] > first["iat"] else "the same", "moment")"""


@pytest.fixture(scope="module")
def keycloak() -> Iterator[Keycloak]:
    with running_keycloak() as running:
        yield running


@pytest.fixture(scope="module")
def site(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box whose users are Keycloak's."""
    config = tmp_path_factory.mktemp("keycloak") / "dmsp.yaml"

    @contextmanager
    def realm(box: Box) -> Iterator[None]:
        users = {USER: ["/dmsp", "/dmsp/km3net"], "stranger": []}
        keycloak.make_realm(f"{box.address}hub/oauth_callback", users, LIFETIME)
        secret = config.with_name("secret")
        secret.touch(0o600)
        secret.write_text(keycloak.client_secret)
        config.write_text(CONFIG.format(issuer=keycloak.issuer, secret=secret))
        yield

    yield from make_box(config, around=realm)


@pytest.fixture
async def person(browser: Browser, site: Box, request: pytest.FixtureRequest) -> AsyncIterator[Scientist]:
    one = await Scientist.arrive(browser, site, getattr(request, "param", USER))
    try:
        yield one
    finally:
        await one.picture(f"keycloak-{one.name}")
        await one.leave()


async def login(person: Scientist, password: str) -> None:
    """From the VRE's address."""
    await person.page.goto(person.box.address)
    await person.page.get_by_role("button", name="Sign in with Keycloak").click()
    await fill_in(person.page, person.name, password)
    await person.page.wait_for_url(re.compile(re.escape(person.box.address)))


async def fill_in(page: Page, name: str, password: str) -> None:
    """Keycloak's own page."""
    await page.get_by_label("Username or email").fill(name)
    await page.locator("#password").fill(password)
    await page.get_by_role("button", name="Sign In").click()


@pytest.mark.parametrize("person", ["stranger"], indirect=True)
async def test_somebody_without_a_group_stays_outside(person: Scientist, keycloak: Keycloak) -> None:
    await login(person, keycloak.password)
    assert "is not in a group that may use" in await person.page.inner_text("body")


async def test_from_the_login_page_to_rucio_and_past_a_refresh(person: Scientist, keycloak: Keycloak) -> None:
    await login(person, keycloak.password)
    await person.launch("Minimal")
    await person.new_notebook("Python 3")
    assert f"account    : {USER}" in await person.run(WHO)
    seen = await person.run(TOKEN)
    assert f"audience: rucio issuer: {keycloak.issuer} scope:" in seen
    assert {"openid", "profile"} <= set(seen.split())
    assert "offline_access" not in seen
    assert "another token, from another moment" in await person.run(NEXT)
    assert f"account    : {USER}" in await person.run(WHO)
    assert keycloak.events("LOGIN")
    assert keycloak.events("REFRESH_TOKEN")
    assert len(keycloak.events("TOKEN_EXCHANGE")) >= 2
    for refused in (
        "REFRESH_TOKEN_ERROR",
        "TOKEN_EXCHANGE_ERROR",
        "CODE_TO_TOKEN_ERROR",
        "USER_INFO_REQUEST_ERROR",
    ):
        assert not keycloak.events(refused), refused
    assert not re.search(r"eyJ[\w-]{20,}\.", (person.box.state / "logs" / "hub.log").read_text())
    await person.stop_server()
    await person.page.goto(f"{person.box.address}hub/logout")
    await person.page.wait_for_url(re.compile("/hub/"))
    assert keycloak.events("REVOKE_GRANT"), "the logout ends the login at Keycloak too"


async def test_a_login_that_ends_under_the_work_is_renewed_beside_it(
    person: Scientist, keycloak: Keycloak
) -> None:
    page = person.page
    await login(person, keycloak.password)
    await person.launch("Minimal")
    await person.new_notebook("Python 3")
    await person.run("remembered = 42")
    last = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").last
    await last.locator(".cm-content").click()
    await page.keyboard.insert_text("print('not saved, and still', remembered)")
    keycloak.log_out(USER)
    toasts = page.locator(".Toastify")
    expired = toasts.get_by_text("Your login has expired. Your work stays as it is.")
    # At the end of the token that the server still has, and a look at the status.
    await expect(expired).to_be_visible(timeout=(2 * LIFETIME + 60) * 1000)
    await person.picture("login-expired")
    async with page.context.expect_page() as opened:
        await toasts.get_by_role("button", name="Log in again").click()
    tab = await opened.value
    await fill_in(tab, person.name, keycloak.password)
    await expect(tab.get_by_role("heading", name="You are logged in again")).to_be_visible(timeout=PATIENCE)
    await tab.close()
    await expect(expired).to_have_count(0, timeout=PATIENCE)
    await expect(last).to_contain_text("print('not saved, and still', remembered)")
    await last.locator(".cm-content").click()
    await page.keyboard.press("Shift+Enter")
    await expect(page.locator(".jp-OutputArea-output").last).to_contain_text("not saved, and still 42")
    await person.open_lake()
    await person.expand("dmsp")
    await person.attach("dmsp:tutorial.first-steps", "lake")
    seen = await person.watch("dmsp:tutorial.first-steps")
    assert seen[-1][0] == "ready", seen
    assert f"account    : {USER}" in await person.run(WHO)
    await person.stop_server()
