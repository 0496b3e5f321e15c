"""Login, groups, the launch form, and requests that must be refused without harm."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Stack = Any

pytestmark = pytest.mark.root


async def test_login_brings_groups_and_provisioning(stack: Stack) -> None:
    async with stack.browser() as browser, stack.admin() as api:
        page = await browser.login("km3net-user")
        assert page.status_code == 200, page.text
        model = (await api.get("users/km3net-user")).json()
    assert sorted(model["groups"]) == ["/dmsp", "/dmsp/km3net"]
    assert model["admin"] is False
    calls = [json.loads(line) for line in (stack.state / "hub" / "provisioned").read_text().splitlines()]
    _, subject, groups = next(call for call in calls if call[0] == "km3net-user")
    assert subject
    assert groups == ["/dmsp", "/dmsp/km3net"]


async def test_admin_group_makes_admin(stack: Stack) -> None:
    async with stack.browser() as browser, stack.admin() as api:
        await browser.login("vre-admin")
        assert (await api.get("users/vre-admin")).json()["admin"] is True


async def test_logout_ends_the_login_at_the_issuer_too(stack: Stack) -> None:
    async with stack.browser() as browser, stack.admin() as api:
        await browser.login("vre-admin")
        state = (await api.get("users/vre-admin")).json()["auth_state"]
        bearer = {"Authorization": f"Bearer {state['access_token']}"}
        assert (await browser.http.get(f"{stack.issuer}/userinfo", headers=bearer)).status_code == 200
        await browser.http.get(f"{stack.public}hub/logout")
        assert set((await api.get("users/vre-admin")).json()["auth_state"]) == {"oauth_user"}
        assert (await browser.http.get(f"{stack.issuer}/userinfo", headers=bearer)).status_code == 401
    assert state["refresh_token"] not in stack.log("hub")


async def test_stranger_is_refused_with_a_sentence(stack: Stack) -> None:
    async with stack.browser() as browser, stack.admin() as api:
        page = await browser.login("stranger")
        assert page.status_code == 403
        assert "not in a group that may use" in page.text
        assert (await api.get("users/stranger")).status_code == 404


async def test_failed_provisioning_refuses_the_login(stack: Stack) -> None:
    refuse = stack.state / "hub" / "refuse"
    refuse.touch()
    try:
        async with stack.browser() as browser:
            page = await browser.login("collider-user")
            assert page.status_code == 503
            assert "The data lake is closed today. Come back tomorrow." in page.text
            assert (await browser.http.get(f"{stack.public}hub/home")).url.path != "/hub/home"
    finally:
        refuse.unlink()


async def test_form_offers_what_the_groups_allow(stack: Stack) -> None:
    async with stack.browser() as km3, stack.browser() as collider:
        await km3.login("km3net-user")
        await collider.login("collider-user")
        mine, theirs = (await km3.form()).text, (await collider.form()).text
    assert re.findall(r'name="profile"[^>]*value="([^"]+)"', mine) == ["everybody", "broken", "deepsea"]
    assert re.findall(r'name="profile"[^>]*value="([^"]+)"', theirs) == ["everybody", "broken"]
    assert "Deep sea" not in theirs
    assert "http://" not in re.sub(
        r'action="[^"]*"', "", theirs.split('id="spawn_form"')[1].split("</form>")[0]
    )


async def test_twenty_refusals_leave_the_hub_alive(stack: Stack) -> None:
    async with stack.browser() as browser:
        await browser.login("collider-user")
        for number in range(20):
            profile = "deepsea" if number % 2 else f"nosuch-{number}<script>"
            page = await browser.submit(profile)
            assert page.status_code == 400, page.text
            sentence = "not open to your groups" if number % 2 else "There is no profile"
            assert sentence in page.text
            assert "<script>'" not in page.text
        assert (await browser.form()).status_code == 200
    assert stack.processes["hub"].poll() is None


@pytest.mark.parametrize(
    "options",
    [{"profile": 7}, {"profile": ["deepsea"]}, {"image": "x"}, {"profile": "deepsea"}, {"profile": "../x"}],
)
async def test_api_is_refused_alike(stack: Stack, options: dict[str, Any]) -> None:
    async with stack.browser() as browser, stack.admin() as api:
        await browser.login("collider-user")
        answer = await api.post("users/collider-user/server", json=options)
    assert answer.status_code == 400
    assert answer.json()["message"].endswith((".", "known; `profile` is."))


async def test_pages_carry_security_headers_and_the_site(stack: Stack) -> None:
    async with stack.browser() as browser:
        page = await browser.http.get(f"{stack.public}hub/login")
        secret = await browser.http.get(f"{stack.public}hub/api/dmsp/token?audience=rucio")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "Sign in with Dark Matter Science Project" in page.text
    assert not re.findall(r'(?:src|href)="https?://', page.text.replace(stack.public, "/"))
    assert secret.status_code == 403
    assert secret.headers["cache-control"] == "no-store"


def test_secrets_are_not_in_the_environment_of_the_hub(stack: Stack) -> None:
    pid = stack.processes["hub"].pid
    folder = Path(f"/proc/{pid}")
    seen = (folder / "environ").read_text() + (folder / "cmdline").read_text()
    for name in ("crypt", "api", "hub-client"):
        secret = stack.secret_file(name).read_text().strip()
        assert secret not in seen
        assert secret not in stack.log("hub")
