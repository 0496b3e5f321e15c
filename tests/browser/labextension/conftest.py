"""A scientist at a browser: logs in through the issuer's page and opens JupyterLab in a session of the box."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boxes import Box
from playwright.async_api import BrowserContext, Locator, Page, async_playwright
from scientist import ARGUMENTS, ARTIFACTS, CHROMIUM, FAILED, PATIENCE
from visitor import Visitor

USER, PROFILE = "vre-admin", "minimal"


@dataclass
class Lab:
    """JupyterLab in a page, by the roles and names that a screen reader hears."""

    page: Page
    visitor: Visitor

    @property
    def tree(self) -> Locator:
        return self.page.get_by_role("treegrid", name="Data Lake")

    @property
    def attached(self) -> Locator:
        return self.page.get_by_role("region", name="Attached")

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog", name="Attach dataset")

    def row(self, name: str) -> Locator:
        return self.tree.get_by_role("row", name=re.compile(f"^{re.escape(name)},"))

    def item(self, did: str) -> Locator:
        return self.attached.get_by_role("listitem").filter(has_text=did)

    async def open(self, path: str = "lab") -> None:
        """Load JupyterLab anew, and show the sidebar."""
        await self.page.goto(f"{self.visitor.base}{path}?reset", wait_until="domcontentloaded")
        tab = self.page.get_by_role("tab", name="Data Lake")
        await tab.wait_for()
        if await tab.get_attribute("aria-selected") != "true":
            await tab.click()
        await self.row("dmsp").wait_for()

    async def notebook(self, name: str) -> None:
        """Make an empty notebook with a Python kernel and open it, beside the sidebar."""
        body = {
            "type": "notebook",
            "content": {
                "cells": [],
                "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
                "nbformat": 4,
                "nbformat_minor": 5,
            },
        }
        status, made = await self.visitor.lab("PUT", f"api/contents/{name}", json=body)
        assert status in (200, 201), made
        await self.open(f"lab/tree/{name}")
        await self.idle()

    async def idle(self) -> None:
        """Wait until the notebook's kernel has started and runs nothing: the status bar tells."""
        await self.page.get_by_text(re.compile(r"\| Idle$")).first.wait_for()

    async def attach(self, name: str, variable: str) -> None:
        """Press the button of a row and fill in the dialog."""
        await self.page.get_by_role("button", name=f"Attach {name}", exact=True).click()
        await self.dialog.get_by_role("textbox", name="Variable name").fill(variable)
        await self.dialog.get_by_role("button", name="Attach").click()

    async def run(self, code: str) -> None:
        """Type into the last cell and run it; that makes a new last cell."""
        await self.page.locator(".jp-Notebook .jp-CodeCell .cm-content:visible").last.click()
        await self.page.keyboard.insert_text(code)
        await self.page.keyboard.press("Shift+Enter")

    async def output(self, text: str) -> None:
        """Wait until a cell has printed this."""
        await self.page.locator(".jp-OutputArea-output", has_text=text).first.wait_for()

    async def saved(self, name: str) -> dict[str, Any]:
        """Save; the notebook as it is on disk."""
        await self.page.keyboard.press("Control+s")
        await self.page.locator(".jp-mod-dirty").wait_for(state="detached")
        _, model = await self.visitor.lab("GET", f"api/contents/{name}")
        found: dict[str, Any] = model["content"]
        return found


async def _log_in(page: Page, box: Box) -> None:
    await page.goto(f"{box.address}hub/oauth_login?next=/hub/home")
    await page.get_by_label("User name").fill(USER)
    await page.get_by_label("Password").fill(box.passwords[USER])
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url(re.compile("/hub/home"))


@pytest.fixture(scope="session")
async def visitor(box: Box) -> AsyncIterator[Visitor]:
    """The user's server, running."""
    async with Visitor(box.address, USER, box.passwords[USER]) as visitor:
        await visitor.start(PROFILE)
        yield visitor
        await visitor.stop()


@pytest.fixture(scope="session")
async def browser(box: Box, visitor: Visitor) -> AsyncIterator[BrowserContext]:
    """Chromium with a profile of its own, logged in."""
    with tempfile.TemporaryDirectory(prefix="dmsp-browser-") as profile:
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                Path(profile),
                executable_path=CHROMIUM,
                args=ARGUMENTS,
                viewport={"width": 1400, "height": 900},
            )
            await _log_in(context.pages[0], box)
            yield context
            await context.close()


@pytest.fixture
async def lab(request: pytest.FixtureRequest, browser: BrowserContext, visitor: Visitor) -> AsyncIterator[Lab]:
    """A fresh page; nothing of the page may have thrown; its kernels and attachments end with it."""
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE)
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    yield Lab(page, visitor)
    if request.node.stash.get(FAILED, False):
        ARTIFACTS.mkdir(exist_ok=True)
        await page.screenshot(path=ARTIFACTS / f"failed-{request.node.name}.png")
    await page.close()
    _, sessions = await visitor.lab("GET", "api/sessions")
    for session in sessions:
        await visitor.lab("DELETE", f"api/sessions/{session['id']}")
    _, attachments = await visitor.lab("GET", "dmsp/v1/attachments")
    for attachment in attachments["attachments"]:
        path = f"dmsp/v1/attachments/{attachment['id']}"
        await visitor.lab("DELETE", path, params={"purge": "true"})
    assert not thrown, json.dumps(thrown, indent=1)
