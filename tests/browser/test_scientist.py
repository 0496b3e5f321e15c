"""What a scientist does, from the address of the VRE to a number from a dataset, and again the next day."""

from __future__ import annotations

import pytest
from boxes import Box
from playwright.async_api import Browser, expect
from scientist import Scientist

pytestmark = [pytest.mark.root, pytest.mark.browser, pytest.mark.timeout(900)]

KM3NET = """import km3io
reader = km3io.OfflineReader(events[0])
print(len(reader), "events,", round(float(reader.mc_trks.E[0, 0]), 1), "GeV")"""

CPP = """TFile* f = nullptr;
for (const auto& name : lake) if (name.find("zee-tutorial.root") != std::string::npos) f = TFile::Open(name.c_str());
TTree* t = nullptr; f->GetObject("events", t);
std::cout << lake.size() << " files, " << t->GetEntries() << " events" << std::endl;"""


async def come_back(browser: Browser, box: Box, name: str, profile: str, notebook: str) -> Scientist:
    """The next day: another browser window, the server stopped and started again, the notebook reopened."""
    person = await Scientist.arrive(browser, box, name)
    await person.login()
    await person.stop_server()
    await person.launch(profile)
    await person.open_lab(f"lab/tree/{notebook}?reset")
    await person.kernel_is_idle()
    return person


async def test_km3net_from_login_to_numbers_and_back(browser: Browser, box: Box) -> None:
    did = "km3net:mc.numu-CC.genhen.offline"
    person = await Scientist.arrive(browser, box, "km3net-user")
    await person.login()
    await person.launch("KM3NeT")
    await person.new_notebook("Python 3")
    await person.open_lake()
    await person.expand("km3net", "km3net:km3net.2026", "km3net:km3net.mc")
    await person.picture("lake")
    await person.attach(did, "events")
    seen = await person.watch(did)
    assert seen[-1][0] == "ready", seen
    assert any(state in ("requested", "replicating", "landing") for state, _ in seen), (
        "it had to be replicated first"
    )
    await expect(person.attachment(did)).to_contain_text("events")
    await expect(person.attachment(did)).to_contain_text("is ready in")
    assert "10 events, 228.2 GeV" in await person.run(KM3NET)
    await person.picture("numbers")
    await person.save()
    await person.leave()

    person = await come_back(browser, box, "km3net-user", "KM3NeT", "Untitled.ipynb")
    await person.restart_and_run_all()
    await expect(person.page.locator(".jp-OutputArea-output").last).to_contain_text("10 events, 228.2 GeV")
    assert "Error" not in await person.outputs()
    await person.stop_server()
    await person.leave()


async def test_root_cpp_from_login_to_numbers_and_back(browser: Browser, box: Box) -> None:
    did = "dmsp:tutorial.first-steps"
    person = await Scientist.arrive(browser, box, "collider-user")
    await person.login()
    await person.launch("ROOT")
    await person.new_notebook("ROOT C++")
    await person.open_lake()
    await person.expand("dmsp")
    for container in ("dmsp:dark-matter.2026",):
        if not await person.row(did).count() and await person.row(container).count():
            await person.expand(container)
    await person.attach(did, "lake")
    seen = await person.watch(did)
    assert seen[-1][0] == "ready", seen
    await expect(person.attachment(did)).to_contain_text("is ready in")
    assert "3 files, 20000 events" in await person.run(CPP)
    await person.picture("root")
    await person.save()
    await person.leave()

    person = await come_back(browser, box, "collider-user", "ROOT", "Untitled.ipynb")
    await person.restart_and_run_all()
    await expect(person.page.locator(".jp-OutputArea-output").last).to_contain_text("3 files, 20000 events")
    await person.stop_server()
    await person.leave()


async def test_another_experiment_sees_its_own(browser: Browser, box: Box) -> None:
    person = await Scientist.arrive(browser, box, "collider-user", scheme="dark")
    await person.login()
    await person.page.goto(f"{box.address}hub/spawn")
    names = await person.page.get_by_role("radio").all()
    assert len(names) == 2, "Minimal and ROOT, not KM3NeT"
    await person.launch("Minimal")
    await person.open_lake()
    await expect(person.row("collider")).to_be_visible()
    await expect(person.row("dmsp")).to_be_visible()
    await expect(person.row("km3net")).to_have_count(0)
    await person.picture("lake-dark")
    await person.stop_server()
    await person.leave()
