"""The listing index: pages while it fills, order, patterns, refresh, faults."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.lake.did import BadDid, Did
from jupyterhub_dmsp.lake.errors import CutOff, LakeError, NotFound, RucioDown, make
from jupyterhub_dmsp.lake.listing import ListingIndex
from jupyterhub_dmsp.lake.listing_store import like
from jupyterhub_dmsp.lake.models import DatasetReplica, DidInfo, Entry


class Paper:
    """Streams that a test feeds by hand."""

    def __init__(self) -> None:
        self.stream: asyncio.Queue[list[Entry] | LakeError | None] = asyncio.Queue()
        self.containers: list[Entry] = []
        self.inside: dict[Did, list[Entry]] = {}
        self.calls = 0

    async def scopes(self) -> list[str]:
        self.calls += 1
        return ["dmsp", "km3net", "user.other"]

    async def _feed(self) -> AsyncIterator[list[Entry]]:
        while (item := await self.stream.get()) is not None:
            if isinstance(item, LakeError):
                raise item
            yield item

    async def search(self, scope: str, kind: str) -> AsyncIterator[list[Entry]]:
        self.calls += 1
        if kind == "container":
            yield self.containers
            return
        async for item in self._feed():
            yield item

    async def contents(self, did: Did) -> AsyncIterator[list[Entry]]:
        self.calls += 1
        if did in self.inside:
            yield self.inside[did]
            return
        async for item in self._feed():
            yield item

    async def dataset_replicas_bulk(self, dids: list[Did]) -> list[DatasetReplica]:
        return [DatasetReplica(d, "SCRATCH", "AVAILABLE", 10, 4, 5, 2) for d in dids]

    async def metadata_bulk(self, dids: list[Did]) -> list[dict[str, Any]]:
        return [{**d.as_dict(), "created_at": "Sun, 22 Nov 2026 19:25:00 UTC"} for d in dids]

    async def did(self, did: Did) -> DidInfo:
        return DidInfo(did, "container", "root", True, 77, 7)


@pytest.fixture
async def paper(tmp_path: Path) -> AsyncIterator[tuple[Paper, ListingIndex, list[tuple[Any, ...]]]]:
    paper, told = Paper(), []
    index = ListingIndex(
        tmp_path / "run", paper, "SCRATCH", ["dmsp", "km3net"], lambda *event: told.append(event)
    )
    yield paper, index, told
    await index.close()


def _files(*names: str) -> list[Entry]:
    return [Entry(Did("dmsp", name), "file", len(name), None) for name in names]


async def test_only_the_users_scopes(paper: Any) -> None:
    _lake, index, _ = paper
    page = await index.page("")
    assert [r.scope for r in page.rows] == ["dmsp", "km3net"]
    assert (page.total, page.complete, page.error) == (2, True, None)


async def test_the_first_page_does_not_wait_for_the_last(paper: Any, tmp_path: Path) -> None:
    lake, index, told = paper
    lake.stream.put_nowait(_files("b", "a", "C"))
    page = await index.page("dmsp:ds", limit=10)
    assert [r.name for r in page.rows] == ["a", "b", "C"]
    assert (page.total, page.complete) == (3, False)
    lake.stream.put_nowait(_files("0"))
    lake.stream.put_nowait(None)
    page = await index.page("dmsp:ds", limit=10)
    assert [r.name for r in page.rows] == ["0", "a", "b", "C"]
    assert (page.total, page.complete) == (4, True)
    assert told[-1] == ("dmsp:ds", page.snapshot, 4, True)
    file = tmp_path / "run" / "listing.sqlite"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_order_offset_and_pattern(paper: Any) -> None:
    lake, index, _ = paper
    lake.stream.put_nowait(_files("run_1.root", "run_22.root", "run%3", "Xrun"))
    lake.stream.put_nowait(None)
    names = [r.name for r in (await index.page("dmsp:ds", sort="bytes", descending=True)).rows]
    assert names == ["run_22.root", "run_1.root", "run%3", "Xrun"]
    page = await index.page("dmsp:ds", offset=1, limit=2)
    assert [r.name for r in page.rows] == ["run_1.root", "run_22.root"]
    assert (await index.page("dmsp:ds", offset=99)).rows == []
    assert [r.name for r in (await index.page("dmsp:ds", pattern="run_*")).rows] == [
        "run_1.root",
        "run_22.root",
    ]
    assert (await index.page("dmsp:ds", pattern="%")).total == 1
    assert (await index.page("dmsp:ds", pattern="RUN")).total == 4
    with pytest.raises(LakeError):
        await index.page("dmsp:ds", sort="name; DROP TABLE row")


async def test_refresh_serves_the_old_rows_until_the_new_are_complete(paper: Any) -> None:
    lake, index, _ = paper
    lake.stream.put_nowait(_files("old"))
    lake.stream.put_nowait(None)
    first = await index.page("dmsp:ds")
    second = await index.page("dmsp:ds", refresh=True)
    assert ([r.name for r in second.rows], second.complete, second.snapshot) == (["old"], False, first.snapshot)
    lake.stream.put_nowait(_files("new"))
    lake.stream.put_nowait(None)
    while not (third := await index.page("dmsp:ds")).complete:
        await asyncio.sleep(0)
    assert [r.name for r in third.rows] == ["new"]
    assert third.snapshot != first.snapshot
    assert lake.calls == 2


async def test_ten_readers_are_one_reading(paper: Any) -> None:
    lake, index, _ = paper
    lake.stream.put_nowait(_files("a"))
    lake.stream.put_nowait(None)
    pages = await asyncio.gather(*(index.page("dmsp:ds") for _ in range(10)))
    assert {p.total for p in pages} == {1}
    assert lake.calls == 1


async def test_a_fault_before_the_first_row_is_raised_and_tried_again(paper: Any) -> None:
    lake, index, _ = paper
    lake.stream.put_nowait(make(NotFound))
    with pytest.raises(NotFound):
        await index.page("dmsp:gone")
    lake.stream.put_nowait(_files("a"))
    lake.stream.put_nowait(None)
    assert (await index.page("dmsp:gone")).total == 1


async def test_a_fault_after_rows_shows_both(paper: Any) -> None:
    lake, index, _ = paper
    lake.stream.put_nowait(_files("a"))
    lake.stream.put_nowait(make(CutOff))
    page = await index.page("dmsp:ds")
    while page.error is None and not page.complete:
        page = await index.page("dmsp:ds")
    assert [r.name for r in page.rows] == ["a"]
    assert isinstance(page.error, CutOff)
    assert not page.complete


async def test_what_is_in_a_container_of_the_scope_is_not_shown_beside_it(paper: Any) -> None:
    lake, index, _told = paper
    top, middle = Entry(Did("dmsp", "top"), "container"), Entry(Did("dmsp", "middle"), "container")
    inner = Entry(Did("dmsp", "inner"), "dataset")
    lake.containers = [top, middle]
    lake.inside = {top.did: [middle], middle.did: [inner]}
    lake.stream.put_nowait([inner, Entry(Did("dmsp", "free"), "dataset")])
    lake.stream.put_nowait(None)
    while not (page := await index.page("dmsp")).complete:
        await asyncio.sleep(0)
    assert [r.name for r in page.rows] == ["free", "top"]
    while (page := await index.page("dmsp")).rows[0].availability is None:
        await asyncio.sleep(0.01)
    free, shown = page.rows
    assert (free.bytes, free.length, free.availability, free.created) == (10, 4, "part", 1795375500.0)
    assert (shown.bytes, shown.length) == (77, 7)


@pytest.mark.parametrize("parent", ["a b", "..", ":x", "dmsp:", "dmsp:a\nb"])
async def test_hostile_parents(paper: Any, parent: str) -> None:
    with pytest.raises(BadDid):
        await paper[1].page(parent)


async def test_a_lake_that_is_down_at_the_root(paper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, index, _ = paper

    async def down() -> list[str]:
        raise make(RucioDown)

    monkeypatch.setattr(lake, "scopes", down)
    with pytest.raises(RucioDown):
        await index.page("")


def test_patterns() -> None:
    assert like("a_b") == "%a\\_b%"
    assert like("a*b?") == "a%b_"
