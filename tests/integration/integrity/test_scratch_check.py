"""``dmsp scratch check`` against a real lake: every kind of damage is found, named, and cured."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from damage import Damage
from testlake import GROUPS, RUCIO_UID, SCRATCH, SITES

pytestmark = pytest.mark.root
NORTH, SOUTH = SITES


def _content(dataset: str, count: int) -> dict[str, bytes]:
    name = dataset.split(":")[1]
    return {f"{name}/deep/{n:03d}.dat": os.urandom(2000 + n) for n in range(count)}


def _on_scratch(damage: Damage, dataset: str, count: int, *sites: str) -> tuple[list[str], list[bytes], str]:
    content = _content(dataset, count)
    dids = damage.dataset(dataset, content, *sites)
    root = damage.lake.root
    rule = root.rule(dataset)
    root.wait(rule)
    return dids, list(content.values()), rule


def _read(damage: Damage, dids: list[str]) -> list[bytes]:
    return [damage.lake.place(SCRATCH, did).read_bytes() for did in dids]


async def test_a_whole_scratch_is_clean(damage: Damage, did: Any) -> None:
    damage.end_all()
    _on_scratch(damage, did("km3net"), 5)
    report = await damage.check()
    assert report.problems == []
    assert report.clean
    assert (report.files, report.read) == (5, report.bytes)
    assert (await damage.check(checksums=False)).read == 0


async def test_every_damage_is_found_and_cured(damage: Damage, did: Any) -> None:
    dids, content, rule = _on_scratch(damage, did("km3net"), 8)
    damage.flip(SCRATCH, dids[0])
    damage.truncate(SCRATCH, dids[1])
    damage.write(SCRATCH, dids[2], content[2] + b"more")
    damage.remove(SCRATCH, dids[3])
    fast = await damage.check(checksums=False)
    assert fast.counts() == {"short": 1, "long": 1, "missing": 1}
    found = await damage.check()
    assert {problem.did: problem.kind for problem in found.problems} == {
        dids[0]: "checksum",
        dids[1]: "short",
        dids[2]: "long",
        dids[3]: "missing",
    }
    assert not found.clean
    assert str(damage.lake.state) not in str(found.as_dict())
    cured = await damage.check(repair=True)
    assert Counter(problem.outcome for problem in cured.problems) == {"cured": 4}
    assert cured.clean
    assert _read(damage, dids) == content
    state = damage.lake.root.wait(rule)
    assert (state["state"], state["locks_ok_cnt"]) == ("OK", 8)
    assert (await damage.check()).problems == []
    # and the same files a second time: what was bad once can be bad again
    damage.flip(SCRATCH, dids[0])
    assert (await damage.check(repair=True)).clean
    assert _read(damage, dids) == content


async def test_without_another_copy_it_is_said_and_nothing_is_thrown_away(damage: Damage, did: Any) -> None:
    dataset = did("dmsp")
    dids, content, rule = _on_scratch(damage, dataset, 3)
    scope, name = dids[0].split(":")
    damage.lake.sql(f"delete from replicas where name='{name}' and lock_cnt=0 returning name")
    damage.flip(SCRATCH, dids[0])
    report = await damage.check(repair=True)
    assert [(p.did, p.kind, p.outcome) for p in report.problems] == [(dids[0], "checksum", "lost")]
    assert not report.clean
    assert "no other copy" in report.problems[0].text
    assert damage.lake.place(SCRATCH, dids[0]).stat().st_size == len(content[0])
    assert damage.lake.root.state(rule)["locks_ok_cnt"] == 3
    # giving it up is asked for: it leaves its dataset, the others stay
    await damage.check(repair=True, give_up=True)
    root = damage.lake.root
    damage.lake.until(lambda: root.state(rule)["locks_ok_cnt"] == 2, 30, "the lost file to leave")
    left = {f"{scope}:{row['name']}" for row in root("GET", f"/dids/{dataset.replace(':', '/')}/dids")}
    assert left == set(dids[1:])
    damage.lake.until(lambda: not damage.lake.place(SCRATCH, dids[0]).exists(), 30, "its rest to be removed")
    assert (await damage.check()).clean


async def test_a_damaged_source_is_named_as_the_reason(damage: Damage, did: Any) -> None:
    dids, content, rule = _on_scratch(damage, did("dmsp"), 2)
    damage.flip(SCRATCH, dids[0])
    damage.flip(NORTH, dids[0])
    report = await damage.check(repair=True)
    assert [(p.did, p.outcome) for p in report.problems] == [(dids[0], "failed")]
    assert "is damaged" in report.problems[0].text
    root = damage.lake.root
    assert "is damaged" in root.wait(rule, "STUCK")["error"]
    damage.write(NORTH, dids[0], content[0])
    root("PUT", f"/rules/{rule}", {"options": {"boost_rule": True}})
    root.wait(rule)
    assert _read(damage, dids) == content


async def test_what_nobody_knows_is_listed_and_then_removed(damage: Damage, did: Any) -> None:
    dids, content, _ = _on_scratch(damage, did("km3net"), 3)
    scratch = damage.facts.root(SCRATCH)
    dark = damage.write(SCRATCH, "km3net:nobody/knows.this", b"dark")
    boot = "0" * 8
    half = damage.lake.place(SCRATCH, dids[0]).with_name(f".box-{boot}-{'1' * 32}.part")
    demo = dark.with_name(".staged.dat.part")
    link = scratch / "km3net" / "elsewhere"
    empty = scratch / "km3net" / "ab" / "cd"
    for path in (half, demo):
        path.write_bytes(b"half")
        os.chown(path, RUCIO_UID, GROUPS["km3net"])
        path.chmod(0o640)
    link.symlink_to("/etc/passwd")
    empty.mkdir(parents=True)
    for path in (empty, empty.parent):
        os.chown(path, RUCIO_UID, GROUPS["km3net"])
        path.chmod(0o2750)
    assert (await damage.check()).problems == []  # they may be on their way
    found = await damage.check(older_than=0.0)
    assert found.counts() == {"dark": 1, "temporary": 2, "odd": 1, "orphan_directory": 2}
    assert all(path.exists() or path.is_symlink() for path in (dark, half, demo, link, empty))
    removed = await damage.check(repair=True, older_than=0.0)
    assert {problem.outcome for problem in removed.problems} == {"removed"}
    assert not any(path.exists() or path.is_symlink() for path in (dark, half, demo, link, empty.parent))
    assert Path("/etc/passwd").exists()
    assert (scratch / "dmsp").is_dir()
    assert _read(damage, dids) == content
    assert (await damage.check(older_than=0.0)).problems == []


async def test_owners_groups_and_modes_are_put_right(damage: Damage, did: Any) -> None:
    dids, content, _ = _on_scratch(damage, did("km3net"), 4)
    places = [damage.lake.place(SCRATCH, one) for one in dids]
    places[0].chmod(0o644)
    os.chown(places[1], 0, 0)
    places[1].chmod(0o600)
    places[2].parent.chmod(0o2755)
    os.chown(places[3].parent.parent.parent, RUCIO_UID, GROUPS["collider"])
    found = await damage.check()
    assert found.counts()["access"] == 4
    # root's own file cannot be read by Rucio, and the check says that instead of going on blindly
    assert [p.did for p in found.problems if p.kind == "unreadable"] == [dids[1]]
    fixed = await damage.check(repair=True)
    assert fixed.counts() == {"access": 4}
    assert fixed.clean
    assert (await damage.check()).problems == []
    info = places[1].stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (RUCIO_UID, GROUPS["km3net"], 0o640)
    assert _read(damage, dids) == content


async def test_a_site_is_cured_from_another_one(damage: Damage, did: Any) -> None:
    """A site has no rules: declaring its file bad alone would delete it there."""
    dataset = did("dmsp")
    content = _content(dataset, 4)
    dids = damage.dataset(dataset, content, NORTH, SOUTH)
    damage.flip(NORTH, dids[0])
    damage.remove(NORTH, dids[1])
    shutil.rmtree(damage.lake.place(SOUTH, dids[2]).parent)
    report = await damage.check(NORTH, repair=True)
    assert report.clean, report.as_dict()
    # The site holds what other tests have damaged, too.
    assert sorted({p.did for p in report.problems} & set(dids)) == sorted(dids[:2])
    for one, data in zip(dids, content.values(), strict=True):
        assert damage.lake.place(NORTH, one).read_bytes() == data
    assert (await damage.check(SOUTH, repair=True)).clean
    assert damage.lake.place(SOUTH, dids[2]).read_bytes() == list(content.values())[2]


async def test_a_row_that_is_held_for_a_moment_puts_nothing_off(damage: Damage, did: Any) -> None:
    """Rucio leaves such a rule alone for 10 to 40 minutes: too long for somebody who waits for the room."""
    dids, _, rule = _on_scratch(damage, did("dmsp"), 1)
    options = {"purge_replicas": True, "lifetime": 3}
    damage.lake.root("PUT", f"/rules/{rule}", {"options": options})
    row = f"select id from rules where id='{rule}' for update"
    held = f"with held as materialized ({row}) select id, pg_sleep(8)::text from held"
    await asyncio.to_thread(damage.lake.sql, held)
    damage.lake.until(lambda: not damage.lake.place(SCRATCH, dids[0]).exists(), 60, "the file to go")


async def test_a_running_transfer_is_no_problem(damage: Damage, did: Any) -> None:
    lake = damage.lake
    lake.start_daemons(DMSP_RUCIO_COPY_PAUSE="0.02")
    dataset = did("dmsp")
    file = damage.dataset(dataset, {dataset.split(":")[1] + ".big": bytes(400 << 20)})[0]
    rule = lake.root.rule(dataset)
    lake.until(lake.parts, 20, "the copy to begin")
    assert (await damage.check(repair=True, wait=0, older_than=0.0)).problems == []
    lake.start_daemons()
    lake.root.wait(rule)
    assert lake.place(SCRATCH, file).stat().st_size == 400 << 20
    assert (await damage.check()).problems == []
