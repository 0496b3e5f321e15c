"""The launch page in a real browser: with and without scripts, by keyboard, dark, narrow."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from scientist import CHROMIUM, headless

pytestmark = [
    pytest.mark.root,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs chromium, which `make test` installs"),
]
USER = "km3net-user"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with headless() as browser:
        yield browser


@pytest.fixture
def launch_page(stack: Any, chromium: Browser) -> Open:
    """A context manager: a person at the launch page."""

    @asynccontextmanager
    async def one(**options: Any) -> AsyncIterator[Page]:
        context = await chromium.new_context(**options)
        page = await context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        await page.goto(f"{stack.public}hub/oauth_login")
        await page.fill("input[name=username]", USER)
        await page.fill("input[name=password]", stack.passwords[USER])
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/hub/**")
        await page.goto(f"{stack.public}hub/spawn")
        yield page
        assert faults == []
        await context.close()

    return one


async def background(page: Page) -> int:
    """How light the page is: 0 is black, 255 white."""
    color = await page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    return max(int(number) for number in re.findall(r"\d+", color)[:3])


async def test_without_scripts_to_a_session(stack: Any, launch_page: Open, until: Any) -> None:
    async with launch_page(java_script_enabled=False) as page:
        await expect(page.get_by_role("searchbox")).to_be_hidden()
        await page.get_by_role("radio", name="Deep sea").check()
        # Only the chosen card shows its choices.
        memory = page.get_by_label("Memory")
        await expect(memory).to_be_hidden()
        # A click anywhere on the card chooses it.
        await page.get_by_text("Python and nothing else").click(force=True)
        await expect(page.get_by_role("radio", name="Everybody's")).to_be_checked()
        await expect(memory).to_be_visible()
        await memory.select_option("512M")
        await page.get_by_label("Edition").select_option("Next release")
        await page.get_by_role("button", name="Start").click()
        await page.wait_for_url(re.compile(r"/(spawn-pending|user)/"))
        await until(lambda: (stack.state / "sessions" / USER / "record.json").exists(), 120)
        assert stack.record(USER).memory == 512 * 1024**2
    await until(lambda: ready(stack), 60)
    await stack.quit(USER)


async def ready(stack: Any) -> bool:
    async with stack.admin() as api:
        servers = (await api.get(f"users/{USER}")).json()["servers"]
        return bool(servers.get("", {}).get("ready"))


async def test_a_refusal_is_told_on_the_page(launch_page: Open) -> None:
    async with launch_page(java_script_enabled=False) as page:
        answer = await page.goto(f"{page.url}?profile=nosuch")
        assert answer is not None
        assert answer.status == 400
        await expect(page.get_by_role("alert")).to_have_text("There is no profile 'nosuch'.")
        await expect(page.get_by_role("radio", name="Everybody's")).to_be_visible()


async def test_search_by_keyboard(launch_page: Open) -> None:
    async with launch_page() as page:
        box, status = (
            page.get_by_role("searchbox", name="Search environments and packages"),
            page.get_by_role("status"),
        )
        shown = page.locator(".dmsp-card:visible")
        everybody, sea = (
            page.get_by_role("radio", name="Everybody's"),
            page.get_by_role("radio", name="Deep sea"),
        )
        await everybody.check()
        assert await shown.count() == 3
        await box.fill("experiment members")
        await expect(status.first).to_have_text("1 of 3 match.")
        # What is chosen stays in sight.
        await expect(everybody).to_be_visible()
        await expect(sea).to_be_visible()
        await expect(page.get_by_role("radio", name="Broken")).to_be_hidden()
        # Enter goes to what was found and starts nothing.
        await box.press("Enter")
        await expect(sea).to_be_checked()
        await expect(sea).to_be_focused()
        await expect(everybody).to_be_hidden()
        assert page.url.endswith("/hub/spawn")
        await box.fill("nothing like that")
        await expect(status.first).to_have_text("Nothing matches.")
        await box.press("Escape")
        await expect(box).to_have_value("")
        assert await shown.count() == 3
        # Packages are found too.
        await box.fill("ipykernel")
        await expect(status.first).to_have_text("3 of 3 match.")


async def test_choosing_by_keyboard(launch_page: Open) -> None:
    async with launch_page() as page:
        everybody = page.get_by_role("radio", name="Everybody's")
        await everybody.focus()
        await page.keyboard.press("ArrowDown")
        await expect(everybody).not_to_be_checked()
        await page.keyboard.press("ArrowUp")
        await expect(everybody).to_be_checked()
        for label in ("Edition", "Memory", "Cores"):
            await page.keyboard.press("Tab")
            await expect(page.get_by_label(label)).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("list", name="Packages of Everybody's")).to_contain_text("ipykernel")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("list", name="Packages of Everybody's")).to_be_focused()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_dark_and_light(launch_page: Open, scripts: bool) -> None:
    async with launch_page(color_scheme="dark", java_script_enabled=scripts) as page:
        assert await background(page) < 64
        if scripts:
            await page.locator("#dark-theme-toggle").click()
            assert await background(page) > 192
    async with launch_page(color_scheme="light", java_script_enabled=scripts) as page:
        assert await background(page) > 192


async def test_narrow(launch_page: Open) -> None:
    async with launch_page(viewport={"width": 360, "height": 700}) as page:
        for summary in await page.locator("summary").all():
            await summary.click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await expect(page.get_by_role("button", name="Start")).to_be_in_viewport()


async def test_home_page_leads_to_a_second_session(launch_page: Open) -> None:
    async with launch_page() as page:
        await page.get_by_role("link", name="Home", exact=True).click()
        await page.get_by_label("server name").fill("river")
        await page.get_by_role("button", name="Add New Server").click()
        await page.locator('[data-server-name="river"]').get_by_role("button", name="start").click()
        await page.wait_for_url(f"**/hub/spawn/{USER}/river")
        await expect(page.get_by_role("radio", name="Deep sea")).to_be_visible()
