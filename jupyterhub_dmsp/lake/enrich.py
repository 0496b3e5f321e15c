"""What a listing does not tell: sizes of open datasets, availability on an RSE, and times of creation.

Asked for the rows somebody looks at, in bulk; for the whole listing only when it is to be sorted by it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import LakeError
from jupyterhub_dmsp.lake.listing_store import Detail, ListingRow, ListingStore
from jupyterhub_dmsp.lake.models import DatasetReplica, timestamp

log = logging.getLogger(__name__)
FRESH = 30.0
MOST_SINGLE = 200
MOST_SORTED = 100_000


def availability(replica: DatasetReplica | None) -> str:
    """``all``, ``part`` or ``none`` of a dataset's files are on the RSE."""
    if replica is None or not replica.available_length:
        return "none"
    return "all" if replica.available_length >= replica.length else "part"


class Enricher:
    """Learns more of rows and writes it to the store."""

    def __init__(self, client: RucioClient, rse: str, store: ListingStore) -> None:
        self._client = client
        self._rse = rse
        self._store = store
        self._busy: set[tuple[int, str]] = set()

    def wanted(self, listing: int, rows: Sequence[ListingRow], sort: str) -> bool:
        """Whether anything is to be learned."""
        return (sort != "name" and (listing, sort) not in self._busy) or bool(self._due(rows))

    def _due(self, rows: Sequence[ListingRow]) -> list[ListingRow]:
        old = time.time() - FRESH
        return [r for r in rows if r.kind in {"dataset", "container"} and r.enriched < old]

    async def enrich(self, listing: int, rows: Sequence[ListingRow], sort: str) -> bool:
        """Learn about these rows, and about all when they are sorted by something; True when anything is new."""
        key = (listing, sort if sort != "name" else f"{rows[0].scope}:{rows[0].name}" if rows else "")
        if key in self._busy:
            return False
        self._busy.add(key)
        try:
            due = self._due(rows)
            if due:
                await self._details(listing, due, MOST_SINGLE)
            if sort != "name":
                await self._all(listing, sort)
            return bool(due) or sort != "name"
        except LakeError as error:
            log.warning("details of a listing: %s", error.reason or error)
            return False
        finally:
            self._busy.discard(key)

    async def _all(self, listing: int, sort: str) -> None:
        for number in range(MOST_SORTED // 1000):
            rows = await self._store.run(self._store.unknown, listing, sort, 1000)
            if not rows:
                return
            # Sizes that need a call each are asked for once around: a thousand datasets must not cost a thousand calls.
            await self._details(listing, rows, 0 if number else MOST_SINGLE)

    async def _details(self, listing: int, rows: Sequence[ListingRow], single: int) -> None:
        """Three calls in bulk for these rows, and one for each size that is still unknown (at most `single`)."""
        dids = [Did(r.scope, r.name) for r in rows]
        datasets = [Did(r.scope, r.name) for r in rows if r.kind == "dataset"]
        replicas: dict[Did, list[DatasetReplica]] = {}
        if datasets:
            for replica in await self._client.dataset_replicas_bulk(datasets):
                replicas.setdefault(replica.did, []).append(replica)
        created = {
            Did(r["scope"], r["name"]): timestamp(r.get("created_at"))
            for r in await self._client.metadata_bulk(dids)
        }
        sizes = await self._sizes(rows, replicas, single)
        details = []
        for row in rows:
            did = Did(row.scope, row.name)
            here = next((r for r in replicas.get(did, []) if r.rse == self._rse), None)
            size, length = sizes.get(did, (None, None))
            known = availability(here) if row.kind == "dataset" else None
            details.append(Detail(row.scope, row.name, size, length, known, created.get(did)))
        await self._store.run(self._store.details, listing, details)

    async def _sizes(
        self, rows: Sequence[ListingRow], replicas: dict[Did, list[DatasetReplica]], single: int
    ) -> dict[Did, tuple[int | None, int | None]]:
        sizes: dict[Did, tuple[int | None, int | None]] = {}
        unknown: list[Did] = []
        for row in rows:
            did = Did(row.scope, row.name)
            largest = max(replicas.get(did, []), key=lambda r: r.length, default=None)
            if row.length is not None:
                continue
            if largest is not None and largest.length:
                sizes[did] = (largest.bytes, largest.length)
            else:
                unknown.append(did)
        few = asyncio.Semaphore(4)

        async def one(did: Did) -> None:
            async with few:
                info = await self._client.did(did)
                sizes[did] = (info.bytes or 0, info.length or 0)

        await asyncio.gather(*(one(did) for did in unknown[:single]))
        return sizes
