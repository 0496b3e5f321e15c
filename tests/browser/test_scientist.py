"""What a scientist does, from the address of the VRE to a number from a dataset, and again the next day."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from boxes import Box
from playwright.async_api import Browser, expect
from scientist import PATIENCE, Scientist

pytestmark = [pytest.mark.root, pytest.mark.browser, pytest.mark.timeout(900)]

KM3NET = """import km3io
reader = km3io.OfflineReader(events[0])
energies = reader.mc_trks.E[:, 0]
print(len(reader), "events,", min(energies) > 0, round(float(max(energies)) / 1e3, 1), "TeV at most")"""
NUMBERS = re.compile(r"1000 events, True \d+\.\d TeV at most")

CPP = """TFile* f = nullptr;
for (const auto& name : lake) if (name.find("zee-tutorial.root") != std::string::npos) f = TFile::Open(name.c_str());
TTree* t = nullptr; f->GetObject("events", t);
std::cout << lake.size() << " files, " << t->GetEntries() << " events" << std::endl;"""


@asynccontextmanager
async def somebody(browser: Browser, box: Box, name: str, scheme: str = "light") -> AsyncIterator[Scientist]:
    """Logged in, no server running; what they saw last is kept as a picture when something goes wrong."""
    person = await Scientist.arrive(browser, box, name, scheme)
    try:
        await person.login()
        await person.stop_server()
        yield person
        await person.stop_server()
    except BaseException:
        await person.picture(f"failed-{name}")
        raise
    finally:
        await person.leave()


async def reopen(person: Scientist, profile: str, notebook: str) -> None:
    """The server started again, the notebook opened again."""
    await person.launch(profile)
    await person.open_lab(f"lab/tree/{notebook}?reset")
    await person.kernel_is_idle()


async def test_km3net_from_login_to_numbers_and_back(browser: Browser, box: Box) -> None:
    did = "km3net:mc.muon-CC.offline"
    async with somebody(browser, box, "km3net-user") as person:
        await person.launch("KM3NeT")
        await person.new_notebook("Python 3")
        await person.open_lake()
        await person.expand("km3net", "km3net:km3net.2026", "km3net:km3net.mc")
        await person.picture("lake")
        await person.attach(did, "events")
        seen = await person.watch(did)
        assert seen[-1][0] == "ready", seen
        assert any(state in ("requested", "replicating", "landing") for state, _ in seen), (
            "it had to be replicated"
        )
        await expect(person.attachment(did)).to_contain_text("is ready in")
        assert NUMBERS.search(await person.run(KM3NET))
        await person.picture("numbers")
        notebook = await person.save()

    async with somebody(browser, box, "km3net-user") as person:
        await reopen(person, "KM3NeT", notebook)
        await person.restart_and_run_all()
        await expect(person.page.locator(".jp-OutputArea-output").last).to_contain_text(NUMBERS)
        assert "Error" not in await person.outputs()


async def test_root_cpp_from_login_to_numbers_and_back(browser: Browser, box: Box) -> None:
    did = "dmsp:tutorial.first-steps"
    async with somebody(browser, box, "collider-user") as person:
        await person.launch("ROOT")
        await person.new_notebook("ROOT C++")
        await person.open_lake()
        await person.expand("dmsp")
        await person.attach(did, "lake")
        seen = await person.watch(did)
        assert seen[-1][0] == "ready", seen
        await expect(person.attachment(did)).to_contain_text("is ready in", timeout=PATIENCE)
        assert "3 files, 20000 events" in await person.run(CPP)
        await person.picture("root")
        notebook = await person.save()

    async with somebody(browser, box, "collider-user") as person:
        await reopen(person, "ROOT", notebook)
        await person.restart_and_run_all()
        await expect(person.page.locator(".jp-OutputArea-output").last).to_contain_text("3 files, 20000 events")


async def test_another_experiment_sees_its_own(browser: Browser, box: Box) -> None:
    async with somebody(browser, box, "collider-user", scheme="dark") as person:
        await person.page.goto(f"{box.address}hub/spawn")
        assert await person.page.get_by_role("radio").count() == 2, "Minimal and ROOT, not KM3NeT"
        await person.launch("Minimal")
        await person.open_lake()
        await expect(person.row("collider")).to_be_visible()
        await expect(person.row("dmsp")).to_be_visible()
        await expect(person.row("km3net")).to_have_count(0)
        await person.picture("lake-dark")
