"""The Data Lake sidebar in a browser, against a whole box: real Rucio, real transfers, real kernels."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

pytestmark = [pytest.mark.root, pytest.mark.browser, pytest.mark.timeout(900)]
DATASET, FILES = "tutorial.first-steps", 3
MANY = "zee.histograms.v1"
READY = 120_000


async def test_attach_and_use(lab: Any) -> None:
    """From the row to the variable, the metadata, and back after the kernel has been restarted."""
    await lab.notebook("attach.ipynb")
    await lab.row("dmsp").click()
    await lab.attach(DATASET, "steps")
    ready = lab.item(f"dmsp:{DATASET}").get_by_text("is ready in attach.ipynb")
    await expect(ready).to_be_visible(timeout=READY)
    await lab.run("print('files', len(steps))")
    await lab.output(f"files {FILES}")

    [entry] = (await lab.saved("attach.ipynb"))["metadata"]["dmsp"]["attachments"]
    assert (entry["did"], entry["variable"], entry["files"]) == (f"dmsp:{DATASET}", "steps", FILES)
    assert entry["bytes"] > 0
    assert entry["digest"]

    await lab.page.get_by_role("menuitem", name="Kernel").click()
    await lab.page.get_by_text("Restart Kernel…", exact=True).click()
    await lab.page.get_by_role("button", name="Confirm Kernel Restart").click()
    await lab.idle()
    await expect(ready).to_be_visible(timeout=READY)
    await lab.run("print('again', len(steps))")
    await lab.output(f"again {FILES}")


async def test_reopened_notebook_has_its_variables(lab: Any) -> None:
    """Attached, saved, kernel and attachment ended: opening the notebook brings both back and changes nothing."""
    await lab.notebook("reopen.ipynb")
    await lab.row("dmsp").click()
    await lab.attach(DATASET, "steps")
    ready = lab.item(f"dmsp:{DATASET}").get_by_text("is ready in reopen.ipynb")
    await expect(ready).to_be_visible(timeout=READY)
    await lab.saved("reopen.ipynb")
    _, sessions = await lab.visitor.lab("GET", "api/sessions")
    for session in sessions:
        await lab.visitor.lab("DELETE", f"api/sessions/{session['id']}")

    await lab.open("lab/tree/reopen.ipynb")
    await expect(ready).to_be_visible(timeout=READY)
    await expect(lab.page.locator(".jp-mod-dirty")).to_have_count(0)
    await lab.run("print('back', len(steps))")
    await lab.output(f"back {FILES}")


async def test_progress_of_many_files(lab: Any) -> None:
    """A dataset that is on no scratch: its bar has a name, a value and a text, and comes to its end."""
    await lab.open()
    await lab.row("dmsp").click()
    await lab.attach(MANY, "histograms")
    item = lab.item(f"dmsp:{MANY}")
    bar = item.get_by_role("progressbar", name=re.compile(re.escape(f"dmsp:{MANY}")))
    await expect(bar).to_be_visible(timeout=READY)
    await expect(bar).to_have_attribute("aria-valuetext", re.compile(r"of\s1\s?000\sfiles"), timeout=READY)
    await expect(item.get_by_text("Ready", exact=True)).to_be_visible(timeout=READY)
    await expect(bar).to_have_count(0)


async def test_a_variable_is_set_while_a_cell_runs(lab: Any) -> None:
    await lab.notebook("busy.ipynb")
    await lab.run(
        "import time\nwhile 'steps' not in globals():\n    time.sleep(0.05)\nprint('seen', len(steps))"
    )
    await expect(lab.page.locator("[data-status=busy]").first).to_be_visible()
    await lab.row("dmsp").click()
    await lab.attach(DATASET, "steps")
    await lab.output("seen")


async def test_names_that_are_refused(lab: Any) -> None:
    await lab.notebook("names.ipynb")
    await lab.run("mine = 1")
    await lab.row("dmsp").click()
    await lab.page.get_by_role("button", name=f"Attach {DATASET}", exact=True).click()
    name = lab.dialog.get_by_role("textbox", name="Variable name")
    attach = lab.dialog.get_by_role("button", name="Attach")
    for refused in ("", "2x", "a b", "for", "list", "x;import os"):
        await name.fill(refused)
        await expect(attach).to_be_disabled()
        await name.press("Enter")
        await expect(lab.dialog).to_be_visible()
    await name.fill("mine")
    await expect(lab.dialog.get_by_text("will be replaced")).to_be_visible()
    await expect(attach).to_be_enabled()
    await name.press("Escape")
    await expect(lab.dialog).to_have_count(0)
    await expect(lab.item(f"dmsp:{DATASET}")).to_have_count(0)


async def test_by_keyboard_alone(lab: Any) -> None:
    """The line that has the focus is always in the document; the keys do what the README says."""
    await lab.notebook("keys.ipynb")  # JupyterLab gives it the focus once, late: only then does the focus stay
    await lab.tree.focus()

    async def active() -> str:
        line = await lab.tree.get_attribute("aria-activedescendant")
        found = lab.page.locator(f"[id='{line}']")
        await expect(found).to_have_count(1)
        await expect(found).to_have_attribute("aria-selected", "true")
        return await found.get_attribute("aria-label") or ""

    await lab.page.keyboard.press("Home")
    while not (await active()).startswith("dmsp,"):
        await lab.page.keyboard.press("ArrowDown")
    await lab.page.keyboard.press("ArrowRight")
    await expect(lab.row("dmsp")).to_have_attribute("aria-expanded", "true")
    await lab.row(DATASET).wait_for()
    while not (await active()).startswith(f"{DATASET},"):
        await lab.page.keyboard.press("ArrowDown")
    await lab.page.keyboard.press("a")
    await expect(lab.dialog).to_be_visible()
    await expect(lab.dialog.get_by_role("textbox", name="Variable name")).to_be_focused()
    await lab.page.keyboard.press("Escape")
    await lab.page.keyboard.press("ArrowLeft")
    assert (await active()).startswith("dmsp,")
    await lab.page.keyboard.press("ArrowLeft")
    await expect(lab.row("dmsp")).to_have_attribute("aria-expanded", "false")


async def test_filter_and_order(lab: Any) -> None:
    await lab.open()
    box = lab.page.get_by_role("searchbox", name="Filter by name")
    await box.fill("first-st")
    await expect(lab.row(DATASET)).to_be_visible()
    await expect(lab.row(MANY)).to_have_count(0)
    await box.press("Escape")
    await expect(lab.row(DATASET)).to_have_count(0)
    await lab.row("dmsp").click()
    await expect(lab.row(MANY)).to_be_visible()
    await lab.page.get_by_role("button", name="Sort by size").click()
    header = lab.tree.get_by_role("columnheader", name="Size")
    await expect(header).to_have_attribute("aria-sort", "descending")


async def test_details_on_demand(lab: Any) -> None:
    await lab.open()
    await lab.row("dmsp").click()
    await lab.row(DATASET).click(button="right")
    await lab.page.get_by_role("menuitem", name="Details").click()
    details = lab.page.get_by_role("region", name=f"Details of dmsp:{DATASET}")
    await expect(details.get_by_role("heading", name="Replicas")).to_be_visible()
    await expect(details.get_by_text("SITE-").first).to_be_visible()
