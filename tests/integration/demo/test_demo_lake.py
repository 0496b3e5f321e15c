"""The demo's content in a real Rucio: what is there, that it is what Rucio says, that it replicates."""

from __future__ import annotations

import asyncio
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.box import demo
from jupyterhub_dmsp.box.demo import staging
from jupyterhub_dmsp.box.demo.staging import SPEC
from jupyterhub_dmsp.box.rucio import storage
from jupyterhub_dmsp.errors import DmspError

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

DATASETS = {
    "km3net:mc.numu-CC.genhen.offline": 1,
    "km3net:mc.nue-CC.gseagen.offline.v6": 1,
    "km3net:mc.numu-CC.gseagen.offline.r00004695": 1,
    "km3net:data.online.d00000267.r00025291": 3,
    "km3net:data.oscillations.orca6.433kt-y.v0.5": 2,
    "km3net:irf.point-source.v0.4": 5,
    "collider:zee.mc.13TeV.r00410001": 6,
    "collider:zee.mc.13p6TeV.r00420001": 3,
    "dmsp:tutorial.first-steps": 3,
    "dmsp:zee.histograms.v1": 1000,
    "dmsp:collider.zee-control.2026": 4,
    "dmsp:gamma.awaiting-data": 0,
}


def path_of(did: str) -> str:
    return "/dids/" + did.replace(":", "/", 1)


def did(filled: Any, name: str) -> dict[str, Any]:
    answer = filled.lake.root("GET", f"{path_of(name)}?dynamic_depth=FILE")
    assert isinstance(answer, dict)
    return answer


def metadata(filled: Any, name: str) -> dict[str, Any]:
    return dict(filled.lake.root("GET", f"{path_of(name)}/meta?plugin=ALL"))


async def test_an_interrupted_filling_goes_on_where_it_was(filled: Any) -> None:
    first, second, third, last = filled.said
    assert "making KM3NeT files" in first
    assert "making open data" in second, "files that were not finished are made again"
    assert "making KM3NeT files" not in third, "finished files are kept: Rucio may know their checksums"
    assert any(message.startswith("making 0 datasets") for message in last)
    assert sorted(entry.name for entry in (filled.lake.state / "demo").iterdir()) == ["filled.json"]


async def test_a_second_filling_asks_nobody(filled: Any) -> None:
    nobody = "http://127.0.0.1:9"
    said: list[str] = []
    await demo.fill(filled.lake.state, nobody, filled.environments, said.append, sites=filled.sites)
    assert await demo.stage(filled.lake.state, filled.environments, said.append, sites=filled.sites) is None
    assert said == []


@pytest.mark.parametrize(("name", "count"), DATASETS.items())
async def test_datasets(filled: Any, name: str, count: int) -> None:
    found = did(filled, name)
    assert (found["type"], found["length"] or 0) == ("DATASET", count)
    assert found["open"] is (count == 0)


async def test_containers_of_three_levels(filled: Any) -> None:
    def children(name: str) -> dict[str, str]:
        rows = filled.lake.root("GET", f"{path_of(name)}/dids")
        return {f"{row['scope']}:{row['name']}": row["type"] for row in rows}

    for top in ("dmsp:dark-matter.2026", "km3net:km3net.2026"):
        middle = children(top)
        assert len(middle) >= 2
        assert set(middle.values()) == {"CONTAINER"}
        bottom = {name: kind for part in middle for name, kind in children(part).items()}
        assert len(bottom) >= 6
        assert set(bottom.values()) == {"DATASET"}
        assert did(filled, top)["length"] >= 10


async def test_every_file_is_what_rucio_says_and_belongs_to_rucio(filled: Any) -> None:
    known = {}
    for top in ("km3net:km3net.2026", "collider:zee.mc", "dmsp:dark-matter.2026", *DATASETS):
        for row in filled.lake.root("GET", f"{path_of(top)}/files") or []:
            known[f"{row['scope']}:{row['name']}"] = row
    seen = set()
    for site in filled.sites:
        root = storage.root(filled.lake.plan.storage, site)
        for place in (path for path in root.rglob("*") if path.is_file()):
            if any(part.startswith("test_") for part in place.relative_to(root).parts):
                continue  # other tests share this lake, and name their files after themselves
            name = f"{place.relative_to(root).parts[0]}:{place.name}"
            status = place.stat()
            assert place == filled.lake.place(site, name)
            assert status.st_size == known[name]["bytes"], name
            assert f"{zlib.adler32(place.read_bytes()):08x}" == known[name]["adler32"], name
            assert status.st_mode & 0o7777 == 0o640
            assert (status.st_uid, status.st_gid) == (root.stat().st_uid, root.stat().st_gid)
            seen.add(name)
    assert seen == set(known)
    assert len(seen) > 1060


async def test_two_sites_never_share_blocks(filled: Any) -> None:
    files = [filled.lake.place(site, "km3net:numucc.root") for site in filled.sites]
    assert len({file.stat().st_ino for file in files}) == len(filled.sites)


async def test_datasets_are_kept_at_their_sites(filled: Any) -> None:
    rules = filled.lake.root("GET", "/dids/dmsp/tutorial.first-steps/rules")
    assert {rule["rse_expression"] for rule in rules} == set(filled.sites)
    assert all((rule["state"], rule["expires_at"]) == ("OK", None) for rule in rules)
    (rule,) = filled.lake.root("GET", "/dids/dmsp/zee.histograms.v1/rules")
    assert rule["locks_ok_cnt"] == 1000
    assert filled.lake.root("GET", "/dids/dmsp/gamma.awaiting-data/rules") in ([], "")


async def test_metadata_is_read_from_the_files(filled: Any) -> None:
    meta = metadata(filled, "km3net:numucc.root")
    assert meta["kind"] == "MC"
    assert (meta["n_events"], meta["det_id"], meta["energy_max_gev"]) == (10, 20, 315.669)
    meta = metadata(filled, "km3net:mc.numu-CC.gseagen.offline.r00004695")
    assert (meta["n_events"], meta["run"], meta["det_id"]) == (307, 4695, 43)
    meta = metadata(filled, "collider:zee.mc.13TeV.r00410001")
    assert (meta["n_events"], meta["sqrt_s_tev"]) == (1_310_000, 13.0)
    assert "run" not in metadata(filled, "km3net:data.dst.orca"), "two runs: of the dataset neither is true"


async def test_a_physicist_finds_data_by_metadata(filled: Any) -> None:
    found = filled.lake.root("GET", "/dids/km3net/dids/search?type=dataset&det_id=49&kind=MC")
    # Rucio's search by the users' own metadata finds files too, whatever type was asked for.
    names = [row if isinstance(row, str) else row["name"] for row in found]
    assert sorted(name for name in names if not name.endswith(".root")) == [
        "mc.neutrinos.offline.v9.2.r00011291",
        "mc.numu-CC.gseagen.offline.r00008357",
    ]


ANALYSE = """
import json, sys
from pathlib import Path
import numpy, uproot
place = {p.name: p for p in Path(sys.argv[1]).rglob("*.root")}
m = uproot.open(place["zee-tutorial.root"])["events"]["m_ee"].array(library="np")
peak = m[(m > 80) & (m < 100)]
observed = uproot.open(place["orca6-433kt-y-opendata.root"])["binned_data"]["W"].array(library="np").sum()
blocks = [p for n, p in place.items() if n.startswith("zee-lumiblock-")]
total = sum(uproot.open(p)["m_ee"].values().sum() for p in blocks)
print(json.dumps([len(m), float(numpy.median(peak)), float(observed), len(blocks), float(total)]))
"""


async def test_it_replicates_and_holds_physics(filled: Any) -> None:
    root = filled.lake.root
    for name in ("dmsp:tutorial.first-steps", "dmsp:zee.histograms.v1"):
        root.wait(root.rule(name), seconds=240)
    scratch = filled.lake.place("SCRATCH", "dmsp:README.md").parents[2]
    python = filled.environments.path(SPEC) / "bin" / "python"
    argv = [str(python), "-c", ANALYSE, str(scratch)]
    answer = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)
    events, mass, observed, blocks, total = json.loads(answer.stdout)
    assert events == 20_000
    assert abs(mass - 91.15) < 0.1
    assert round(observed) == 649
    assert blocks == 1000
    assert total == metadata(filled, "dmsp:zee.histograms.v1")["n_events"]


async def test_the_large_scope_grows_and_never_doubles(filled: Any) -> None:
    said: list[str] = []
    await demo.scale(filled.lake.state, filled.lake.url, 1500, said.append)
    await demo.scale(filled.lake.state, filled.lake.url, 2500, said.append)
    assert said[-1] == "2,500 of 2,500 names"
    found = filled.lake.root("GET", "/dids/scale/dids/search?type=collection")
    assert len(found) == 2500
    assert did(filled, "scale:period.0001")["type"] == "CONTAINER"


async def test_files_that_cannot_be_made_are_told_in_one_sentence(filled: Any, tmp_path: Path) -> None:
    with pytest.raises(DmspError, match="The demo lake's files cannot be made: "):
        await staging.make(filled.environments, tmp_path / "staging", (65534, 65534), lambda _: None)
