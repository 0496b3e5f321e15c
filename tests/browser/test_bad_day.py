"""A browser with an open Lab while the proxy and the hub are killed: it goes on, and nobody reads "Bad Gateway"."""

from __future__ import annotations

import uuid

import pytest
from boxes import Box
from killing import all_healthy, kill_part
from lakes import administrator, make_dataset
from playwright.async_api import Browser, expect
from scientist import PATIENCE, Scientist

from jupyterhub_dmsp.lake.did import Did

pytestmark = [pytest.mark.root, pytest.mark.browser, pytest.mark.timeout(900)]


async def test_open_lab_while_parts_die(browser: Browser, box: Box) -> None:
    did = Did("dmsp", f"test.bad-day.{uuid.uuid4().hex[:8]}")
    async with administrator(box) as rucio:
        await make_dataset(box, rucio, did, [1 << 20] * 120)
    person = await Scientist.arrive(browser, box, "collider-user", "dark")
    try:
        await person.login()
        await person.stop_server()
        await person.launch("Minimal")
        await person.new_notebook("Python 3")
        assert "6 times 7 is 42" in await person.run("remembered = 42; print('6 times 7 is', remembered)")
        await person.open_lake()
        await person.expand("dmsp")
        await person.attach(str(did), "lake")
        for part in ("proxy", "hub", "issuer"):
            before = kill_part(box, part)
            await all_healthy(box, {part: before})
        seen = await person.watch(str(did))
        assert seen[-1][0] == "ready", seen
        await expect(person.attachment(str(did))).to_contain_text("is ready in", timeout=PATIENCE)
        assert "120 files, still 42" in await person.run("print(len(lake), 'files, still', remembered)")
        await person.picture("bad-day-lab")
    finally:
        await person.picture("bad-day-last")
        await person.stop_server()
        await person.leave()


async def test_a_page_while_the_hub_comes_back(browser: Browser, box: Box) -> None:
    person = await Scientist.arrive(browser, box, "collider-user")
    try:
        await person.login()
        kill_part(box, "hub")
        answer = await person.page.goto(f"{box.address}hub/home")
        assert answer is not None
        assert answer.status in (502, 503)
        await expect(person.page.get_by_role("heading", name="One moment")).to_be_visible()
        await expect(person.page.get_by_role("status")).to_contain_text("is being started again.")
        await person.picture("one-moment")
        # By itself, without a click.
        await expect(person.page.get_by_role("heading", name="One moment")).to_have_count(0, timeout=PATIENCE)
        assert person.page.url == f"{box.address}hub/home"
        await expect(person.page.locator("#start, #stop").first).to_be_visible()
    finally:
        await person.leave()
        await all_healthy(box)
