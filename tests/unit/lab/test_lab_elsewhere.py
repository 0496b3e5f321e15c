"""Two sessions of one user, side by side: one list of attachments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from paperlake import DS, LAKE, Bench

from jupyterhub_dmsp.lab.bindings import Bindings
from jupyterhub_dmsp.lab.errors import NoAttachment
from jupyterhub_dmsp.lab.records import Attachment, Records


@pytest.fixture
async def other(bench: Bench) -> AsyncIterator[Bench]:
    """The same user's second session: another runtime directory, the same home and lake."""
    second = Bench(bench.root, bench.lake, run="run2")
    await bench.manager.start()
    await second.manager.start()
    yield second
    await second.close()


def ready(bench: Bench) -> None:
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0)


async def attached(bench: Bench) -> Attachment:
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "ready")
    async with asyncio.timeout(5):
        while not attachment.links:  # they follow, and are the last that is written
            await asyncio.sleep(0.01)
    return attachment


async def told(bench: Bench) -> bool:
    """Look once, as the service does; whether there was anything."""
    news = await bench.records.changed_elsewhere()
    if news:
        await bench.manager.take_over()
    return news


async def test_what_one_attaches_the_other_has(bench: Bench, other: Bench) -> None:
    ready(bench)
    attachment = await attached(bench)
    assert await told(other)
    found = await other.until(attachment.id, "ready")
    assert (found.rule_id, found.rule_made, found.variable) == ("rule1", True, attachment.variable)
    assert len(other.manifest(attachment.id)["files"]) == 3
    assert other.told
    assert bench.lake.calls.count("pin") == 1


async def test_nothing_new_is_nothing_read(bench: Bench, other: Bench) -> None:
    ready(bench)
    await attached(bench)
    await told(other)
    await told(bench)  # the other one has looked at the files, and written so
    for _ in range(3):
        assert not await told(bench)
        assert not await told(other)


async def test_what_one_releases_stays_released(bench: Bench, other: Bench) -> None:
    ready(bench)
    attachment = await attached(bench)
    await told(other)
    mine = other.manager.get(attachment.id)
    await bench.manager.release(attachment.id)
    # The other one does not know yet, and takes a step.
    mine.variable = "stale"
    assert not await other.records.save(replace(mine))
    await told(other)
    with pytest.raises(NoAttachment):
        other.manager.get(attachment.id)
    assert other.told[-1][0] == "released"
    assert not (other.root / "run2" / "attachments" / attachment.id).exists()
    assert [r.state for r in await bench.records.load()] == ["released"]
    assert bench.lake.calls.count("end_rule False") == 1
    third = Bench(bench.root, bench.lake, run="run3")
    await third.manager.start()
    assert third.manager.all() == []
    await third.close()


async def test_released_while_the_other_still_copies(bench: Bench, other: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "replicating")
    await told(other)
    await other.until(attachment.id, "replicating")
    await bench.manager.release(attachment.id)
    ready(bench)  # it arrives all the same: the other's flow sees it before it hears of the release
    flow = other.manager._flows[attachment.id]
    async with asyncio.timeout(5):
        await asyncio.gather(other.manager._tasks[attachment.id], return_exceptions=True)
    assert not await flow.save("ready")
    assert not (bench.root / "home" / "datasets" / "dmsp" / "ds").exists()
    await told(other)
    assert other.manager.all() == []


async def test_attached_anew_after_a_release_elsewhere(bench: Bench, other: Bench) -> None:
    ready(bench)
    first = await attached(bench)
    await told(other)
    await bench.manager.release(first.id)
    await told(other)
    again = await attached(other)
    assert again.id == first.id
    await told(bench)
    assert (await bench.until(first.id, "ready")).created_at == again.created_at


async def test_both_attach_at_once(bench: Bench, other: Bench) -> None:
    ready(bench)
    (one, _), (two, _) = await asyncio.gather(bench.manager.attach(DS), other.manager.attach(DS))
    async with asyncio.timeout(10):
        while (one.created_at, one.state, two.state) != (two.created_at, "ready", "ready"):
            await told(bench)
            await told(other)
            one, two = bench.manager.get(one.id), other.manager.get(two.id)
            await asyncio.sleep(0.01)
    await bench.manager.release(one.id)
    await told(other)
    assert other.manager.all() == []


async def test_released_here_while_all_are_read(
    bench: Bench, other: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(bench)
    attachment = await attached(bench)
    await told(other)
    load = bench.records.load

    async def slowly() -> list[Attachment]:
        found = await load()
        await bench.manager.release(attachment.id)
        return found

    monkeypatch.setattr(bench.records, "load", slowly)
    await bench.manager.take_over()
    assert bench.manager.all() == []


async def test_name_and_lifetime_follow(bench: Bench, other: Bench) -> None:
    ready(bench)
    attachment = await attached(bench)
    await told(other)
    await bench.manager.attach(DS, variable="stars")
    await bench.manager.extend(attachment.id, 5000)
    await told(other)
    found = other.manager.get(attachment.id)
    assert (found.variable, found.lifetime) == ("stars", 5000)


async def test_bindings_follow(tmp_path: Path) -> None:
    files = [Records(tmp_path / "a.sqlite", LAKE) for _ in range(2)]
    one, two = (Bindings(file, tmp_path / f"run{n}", tmp_path) for n, file in enumerate(files))
    await one.load()
    await two.load()
    await one.put("n.ipynb", "stars", "0123")
    assert two.of("n.ipynb") == []
    await two.load()
    assert two.of("n.ipynb") == one.of("n.ipynb")
    (mirror,) = (tmp_path / "run1" / "bindings").iterdir()
    assert "stars" in mirror.read_text()
    await one.delete("n.ipynb", "stars")
    await two.load()
    assert two.of("n.ipynb") == []
    assert "stars" not in mirror.read_text()
    for file in files:
        await file.close()
