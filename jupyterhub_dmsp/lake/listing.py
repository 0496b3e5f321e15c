"""The listing index: sorted pages of what Rucio only streams, without order and without offset.

A listing (the scopes, the top of a scope, the content of a DID) is read once, in the background, into a per-user
SQLite file. Pages come from there while it still fills: totals grow, and the first page never waits for the last
row. A complete listing serves until its successor is complete.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did, check_scope
from jupyterhub_dmsp.lake.enrich import Enricher
from jupyterhub_dmsp.lake.errors import CutOff, Refused, make
from jupyterhub_dmsp.lake.listing_store import SORTS, ListingRow, ListingStore
from jupyterhub_dmsp.lake.models import Entry

log = logging.getLogger(__name__)
EXPIRY = 300.0
FIRST_ROWS = 0.4
MOST_ROWS = 1_000_000
MOST_CONTAINERS = 500
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a listing from an offset on.

    Attributes:
        total: rows known so far that match.
        complete: whether the listing is read to its end.
        snapshot: changes when the listing was read anew.
        error: why the reading stopped early.
    """

    rows: list[ListingRow]
    total: int
    complete: bool
    snapshot: str
    error: DmspError | None


@dataclass(slots=True, eq=False)
class _Listing:
    """One reading of a parent's children."""

    number: int
    parent: str
    snapshot: str = field(default_factory=lambda: secrets.token_hex(6))
    started: float = field(default_factory=time.monotonic)
    total: int = 0
    complete: bool = False
    error: DmspError | None = None
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self.complete or self.error is not None


Changed = Callable[[str, str, int, bool], None]


class ListingIndex:
    """Pages of listings for one user.

    Args:
        directory: a directory of mode 0700 for the index.
        client: the lake.
        rse: the RSE on which availability is looked up.
        scopes: scopes to show at the root; None for all that Rucio names.
        changed: called with parent, snapshot, total and complete when a listing has grown or has learned more.
    """

    def __init__(
        self,
        directory: Path,
        client: RucioClient,
        rse: str,
        scopes: Sequence[str] | None = None,
        changed: Changed = lambda *_: None,
    ) -> None:
        self._client = client
        self._scopes = scopes
        self._changed = changed
        self._store = ListingStore(directory / "listing.sqlite")
        self._enricher = Enricher(client, rse, self._store)
        self._shown: dict[str, _Listing] = {}
        self._next: dict[str, _Listing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Guards the decision to start a reading: ten requests for a parent are one reading.
        self._starting = asyncio.Lock()

    async def close(self) -> None:
        """Stop reading and forget everything."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()

    async def page(
        self,
        parent: str,
        offset: int = 0,
        limit: int = 200,
        sort: str = "name",
        descending: bool = False,
        pattern: str = "",
        refresh: bool = False,
    ) -> Page:
        """Rows of a parent's children.

        Args:
            parent: empty for the scopes, a scope for its top-level DIDs, ``scope:name`` for the contents of a DID.
            limit: at most :data:`PAGE`.
            sort: ``name``, ``bytes``, ``length`` or ``created``.
            pattern: shell pattern, or a part of the name.
            refresh: read it from Rucio again.

        Raises:
            BadDid: the parent is none.
            DmspError: not a single row could be read.
        """
        if sort not in SORTS:
            raise make(Refused, f"cannot sort by {sort[:20]}")
        offset, limit = max(0, offset), max(1, min(PAGE, limit))
        listing = await self._listing(parent, refresh)
        while True:
            page = await self._read(listing, offset, limit, sort, descending, pattern)
            shown = self._shown.get(parent, listing)
            if shown is listing:
                return page
            listing = shown  # its successor was completed while we read

    async def _read(
        self, listing: _Listing, offset: int, limit: int, sort: str, descending: bool, pattern: str
    ) -> Page:
        if not pattern:
            await self._wait(listing, offset + limit)
        if listing.error is not None and not listing.total:
            self._shown.pop(listing.parent, None)
            raise listing.error
        rows = await self._store.run(self._store.page, listing.number, offset, limit, sort, descending, pattern)
        total = await self._store.run(self._store.total, listing.number, pattern)
        self._enrich(listing, rows, sort)
        complete = listing.complete and listing.parent not in self._next
        return Page(rows, total, complete, listing.snapshot, listing.error)

    def forget(self, parent: str) -> None:
        """Read this listing again at the next request."""
        listing = self._shown.get(parent)
        if listing is not None:
            listing.started = float("-inf")

    async def _listing(self, parent: str, refresh: bool) -> _Listing:
        async with self._starting:
            return await self._current(parent, refresh)

    async def _current(self, parent: str, refresh: bool) -> _Listing:
        shown = self._shown.get(parent)
        running = parent in self._next or (shown is not None and not shown.over)
        stale = shown is None or shown.error is not None or time.monotonic() - shown.started > EXPIRY
        if (refresh or stale) and not running:
            fresh = await self._start(parent)
            shown = self._shown.get(parent)
            if shown is None or not shown.complete:
                await self._show(fresh)
                shown = fresh
            elif fresh is not shown and not fresh.over:
                self._next[parent] = fresh
        if shown is None:
            shown = self._shown[parent]
        return shown

    async def _start(self, parent: str) -> _Listing:
        fill = self._filler(parent)
        listing = _Listing(await self._store.run(self._store.new, parent), parent)
        listing.task = self._spawn(self._fill(listing, fill))
        return listing

    def _filler(self, parent: str) -> Callable[[_Listing], AsyncIterator[None]]:
        """How to read the children of a parent; raises :class:`BadDid`."""
        if not parent:
            return self._fill_root
        if ":" in parent:
            did = Did.parse(parent)
            return lambda listing: self._fill_did(listing, did)
        check_scope(parent)
        return self._fill_scope

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _show(self, listing: _Listing) -> None:
        old = self._shown.get(listing.parent)
        self._shown[listing.parent] = listing
        if old is not None and old is not listing:
            await self._store.run(self._store.drop, old.number)

    async def _fill(self, listing: _Listing, fill: Callable[[_Listing], AsyncIterator[None]]) -> None:
        told = 0.0
        try:
            async for _ in fill(listing):
                listing.grown.set()
                listing.grown = asyncio.Event()
                if listing.total > MOST_ROWS:
                    raise CutOff(
                        f"Only the first {MOST_ROWS} entries are shown.", "Use the search for what is missing."
                    )
                if time.monotonic() - told > 0.5:
                    told = time.monotonic()
                    self._changed(listing.parent, listing.snapshot, listing.total, False)
            listing.complete = True
        except DmspError as error:
            # Not of the lake's kind alone: the token for it may be refused, or not to be had.
            log.warning("listing of %r stopped: %s", listing.parent, getattr(error, "reason", "") or error)
            listing.error = error
        except (LookupError, TypeError, ValueError) as error:
            log.exception("listing of %r stopped", listing.parent)
            listing.error = make(CutOff, type(error).__name__)
        listing.total = await self._store.run(self._store.total, listing.number)
        self._next.pop(listing.parent, None)
        if listing.complete:
            await self._show(listing)
        elif self._shown.get(listing.parent) is not listing:
            await self._store.run(self._store.drop, listing.number)
        listing.grown.set()
        self._changed(listing.parent, listing.snapshot, listing.total, listing.complete)
        await self._evict()

    async def _fill_root(self, listing: _Listing) -> AsyncIterator[None]:
        scopes = await self._client.scopes()
        if self._scopes is not None:
            scopes = [scope for scope in scopes if scope in self._scopes]
        listing.total = await self._store.run(self._store.add_scopes, listing.number, scopes)
        yield

    async def _fill_did(self, listing: _Listing, did: Did) -> AsyncIterator[None]:
        async for entries in self._client.contents(did):
            listing.total = await self._store.run(self._store.add, listing.number, entries)
            yield

    async def _fill_scope(self, listing: _Listing) -> AsyncIterator[None]:
        """Containers first; what is inside them is hidden, which needs one call for each container."""
        containers: list[Entry] = []
        async for entries in self._client.search(listing.parent, "container"):
            containers += entries
            listing.total = await self._store.run(self._store.add, listing.number, entries)
            yield
        nesting = asyncio.ensure_future(self._nest(listing, [e.did for e in containers[:MOST_CONTAINERS]]))
        try:
            await asyncio.wait({nesting}, timeout=FIRST_ROWS / 2)
            async for entries in self._client.search(listing.parent, "dataset"):
                listing.total = await self._store.run(self._store.add, listing.number, entries)
                yield
            await nesting
        finally:
            nesting.cancel()
        yield

    async def _nest(self, listing: _Listing, containers: list[Did]) -> None:
        few = asyncio.Semaphore(4)

        async def one(did: Did) -> None:
            async with few:
                async for entries in self._client.contents(did):
                    inside = [e for e in entries if e.did.scope == listing.parent]
                    await self._store.run(self._store.nest, listing.number, inside)

        await asyncio.gather(*(one(did) for did in containers))

    async def _wait(self, listing: _Listing, rows: int) -> None:
        """Until so many rows are there, or all, or the time for a first answer is over."""
        end = time.monotonic() + FIRST_ROWS
        while not listing.over and listing.total < rows:
            left = end - time.monotonic()
            if left <= 0 and listing.total:
                return
            try:
                async with asyncio.timeout(left if left > 0 else None):
                    await listing.grown.wait()
            except TimeoutError:
                continue

    def _enrich(self, listing: _Listing, rows: list[ListingRow], sort: str) -> None:
        async def run() -> None:
            if await self._enricher.enrich(listing.number, rows, sort):
                total = await self._store.run(self._store.total, listing.number)
                self._changed(listing.parent, listing.snapshot, total, listing.complete)

        if listing.parent and self._enricher.wanted(listing.number, rows, sort):
            self._spawn(run())

    async def _evict(self) -> None:
        gone = set(await self._store.run(self._store.oldest, MOST_ROWS))
        for parent, listing in list(self._shown.items()):
            if listing.number in gone and listing.over:
                del self._shown[parent]
                await self._store.run(self._store.drop, listing.number)
