"""A scientist in front of a real browser: what they click, by the names that they read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from boxes import Box
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000
SPAWN = 420_000
"""Milliseconds; the first start of a profile builds its environment."""
LOOK = "e => [e.dataset.state, e.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow') ?? '']"
ARTIFACTS = Path(__file__).parents[1] / "artifacts"
FAILED = pytest.StashKey[bool]()
"""Whether the call of a test failed."""


@asynccontextmanager
async def headless() -> AsyncIterator[Browser]:
    """Debian's chromium without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


class Scientist:
    """One person at one browser window.

    Args:
        box: the running VRE.
        name: user name.
        page: an empty page of a context of their own.
    """

    def __init__(self, box: Box, name: str, page: Page) -> None:
        self.box, self.name, self.page = box, name, page
        page.set_default_timeout(PATIENCE)

    @classmethod
    async def arrive(cls, browser: Browser, box: Box, name: str, scheme: str = "light") -> Scientist:
        """Open a new browser context, with nothing remembered."""
        context = await browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        return cls(box, name, await context.new_page())

    async def leave(self) -> None:
        """Close the browser window."""
        await self.page.context.close()

    async def picture(self, name: str) -> None:
        """Keep a screenshot for people to look at."""
        ARTIFACTS.mkdir(exist_ok=True)
        await self.page.screenshot(path=ARTIFACTS / f"{name}.png")

    async def login(self) -> None:
        """From the VRE's address through the issuer's page."""
        await self.page.goto(self.box.address)
        sign_in = self.page.locator("#login-main a.btn")
        if await sign_in.count():
            await sign_in.click()
        await self.page.get_by_label("User name").fill(self.name)
        await self.page.get_by_label("Password").fill(self.box.passwords[self.name])
        await self.picture("login")
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.wait_for_url(re.compile(re.escape(self.box.address)))

    async def launch(self, profile: str) -> None:
        """Choose a profile by its name and wait for JupyterLab."""
        await self.page.goto(f"{self.box.address}hub/spawn")
        if "/user/" not in self.page.url:
            await self.page.get_by_role("radio", name=re.compile(rf"^{profile}\b")).check()
            await self.picture("profiles")
            await self.page.get_by_role("button", name="Start").click()
            await self.page.wait_for_url(re.compile(r"/user/.*/lab"), timeout=SPAWN)
        await self.open_lab()

    async def open_lab(self, path: str = "lab?reset") -> None:
        """Go to the running server's Lab, by default with the launcher alone."""
        await self.page.goto(f"{self.box.address}user/{self.name}/{path}")
        await self.lab_is_there()

    async def lab_is_there(self) -> None:
        await expect(self.page.locator("#jp-main-dock-panel")).to_be_visible(timeout=PATIENCE)
        await expect(self.page.locator("#jupyterlab-splash")).to_have_count(0, timeout=PATIENCE)

    async def stop_server(self) -> None:
        """On the hub's home page; nothing when none runs."""
        await self.page.goto(f"{self.box.address}hub/home")
        stop = self.page.locator("#stop")
        if await stop.is_visible():
            await stop.click()
            await expect(stop).to_be_hidden(timeout=PATIENCE)

    async def new_notebook(self, kernel: str) -> None:
        """A notebook from the launcher, its kernel ready."""
        await self.page.locator(f'.jp-LauncherCard[data-category="Notebook"][title*="{kernel}"]').first.click()
        await self.kernel_is_idle()

    async def kernel_is_idle(self) -> None:
        # The notebook's own indicator says "idle" before there is any kernel, and Lab runs nothing then; the status
        # bar says it of a connected one alone.
        bar = self.page.locator("#jp-main-statusbar")
        await expect(bar).to_contain_text("| Idle", timeout=PATIENCE)
        indicator = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator")
        await expect(indicator).to_have_attribute("data-status", "idle", timeout=PATIENCE)

    @property
    def tree(self) -> Locator:
        return self.page.get_by_role("treegrid", name="Data Lake")

    async def open_lake(self) -> None:
        """The sidebar, if it is not open already."""
        if not await self.tree.is_visible():
            await self.page.get_by_role("tab", name="Data Lake").click()
        await expect(self.tree).to_be_visible()

    def row(self, did: str) -> Locator:
        return self.tree.locator(f'[role="row"][data-did="{did}"]')

    async def expand(self, *dids: str) -> None:
        """Expand scopes and containers, one below the other."""
        for did in dids:
            row = self.row(did)
            await expect(row).to_be_visible()
            await self._listed()
            if await row.get_attribute("aria-expanded") != "true":
                await row.click()
            await expect(row).to_have_attribute("aria-expanded", "true")

    async def _listed(self) -> None:
        """Wait until no list grows any more: rows move up when the line above them that says so goes."""
        await expect(self.tree.locator('[data-notice="loading"], [data-notice="listing"]')).to_have_count(0)

    async def attach(self, did: str, variable: str) -> None:
        """Press Attach on a row, give the variable a name and confirm."""
        row = self.row(did)
        await self._listed()
        await row.hover()
        await row.get_by_role("button", name=f"Attach {did.split(':', 1)[1]}").click()
        dialog = self.page.get_by_role("dialog", name="Attach dataset")
        await dialog.get_by_role("textbox", name="Variable name").fill(variable)
        await self.picture("attach")
        await dialog.get_by_role("button", name="Attach", exact=True).click()
        await expect(dialog).to_be_hidden()

    def attachment(self, did: str) -> Locator:
        return self.page.get_by_role("region", name="Attached").locator(f'[data-did="{did}"]')

    async def watch(self, did: str, seconds: float = 120) -> list[tuple[str, str]]:
        """Every (state, progress in percent) that the panel shows until the attachment is ready or has failed."""
        seen: list[tuple[str, str]] = []
        item = self.attachment(did)
        await expect(item).to_be_visible()
        async with asyncio.timeout(seconds):
            while not seen or seen[-1][0] not in ("ready", "failed", "stuck"):
                # One look: between two the item may have changed.
                now = tuple(await item.evaluate(LOOK))
                if not seen or seen[-1] != now:
                    seen.append(now)
                await asyncio.sleep(0.05)
        return seen

    async def run(self, code: str) -> str:
        """Put code into the last cell of the notebook in front, run it, and read what it printed."""
        notebook = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        cells = notebook.locator(".jp-CodeCell")
        cell = cells.nth(await cells.count() - 1)
        await cell.locator(".cm-content").click()
        await self.page.keyboard.insert_text(code)
        await self.page.keyboard.press("Shift+Enter")
        await expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=PATIENCE)
        return "\n".join(await cell.locator(".jp-OutputArea-output").all_inner_texts())

    async def save(self) -> str:
        """Save the notebook in front; its name."""
        await self.page.keyboard.press("Escape")
        await self.page.keyboard.press("Control+s")
        rename = self.page.get_by_role("button", name=re.compile("^Rename"))
        if await rename.count():
            await rename.first.click()
        tab = self.page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current")
        await expect(tab).not_to_have_class(re.compile("jp-mod-dirty"))
        return await tab.locator(".lm-TabBar-tabLabel").inner_text()

    async def restart_and_run_all(self) -> None:
        """Through the menu, with the confirmation."""
        await self.page.get_by_role("menuitem", name="Kernel", exact=True).click()
        await self.page.get_by_role("menuitem", name=re.compile("Restart Kernel and Run All Cells")).click()
        await self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        await self.kernel_is_idle()

    async def outputs(self) -> str:
        """All that the cells of the notebook in front have printed."""
        panel = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        return "\n".join(await panel.locator(".jp-OutputArea-output").all_inner_texts())
