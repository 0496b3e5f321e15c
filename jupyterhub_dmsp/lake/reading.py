"""Reading the lake: scopes, DIDs, contents, metadata, replicas, limits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from jupyterhub_dmsp.lake.did import BadDid, Did, check_scope
from jupyterhub_dmsp.lake.errors import CutOff, make
from jupyterhub_dmsp.lake.models import (
    KINDS,
    DatasetReplica,
    DidInfo,
    Entry,
    LakeFile,
    Room,
    Row,
    Usage,
    integer,
    understood,
)
from jupyterhub_dmsp.lake.transport import Transport

log = logging.getLogger(__name__)
BULK = 1000
"""Items in one bulk call: Rucio fails on more (5000 gave a 500)."""


def _bulks(dids: Sequence[Did]) -> Iterable[dict[str, Any]]:
    for start in range(0, len(dids), BULK):
        yield {"dids": [did.as_dict() for did in dids[start : start + BULK]]}


def _entries(rows: Iterable[Row], kind: str) -> list[Entry]:
    """Rows of a listing. A DID that cannot be handled (control characters) must not hide the others."""
    entries = []
    for row in rows:
        try:
            did = Did(row["scope"], row["name"])
        except BadDid as error:
            log.warning("left out of a listing: %s", error.message)
            continue
        entries.append(Entry(did, KINDS[row[kind]], integer(row.get("bytes")), integer(row.get("length"))))
    return entries


class Reading:
    """Calls that change nothing."""

    transport: Transport

    async def whoami(self) -> str:
        """The account that Rucio sees behind the token (``GET /accounts/whoami`` redirects to it)."""
        account = unquote((await self.transport.location("/accounts/whoami")).rstrip("/").rpartition("/")[2])
        if not account:
            raise make(CutOff, "no account in the answer")
        return account

    async def scopes(self) -> list[str]:
        """All scopes (``GET /scopes/``): Rucio shows every scope to everybody."""
        found = await self.transport.read("/scopes/")
        if not isinstance(found, list):
            raise make(CutOff, "not a list of scopes")
        return sorted(str(scope) for scope in found)

    async def search(self, scope: str, kind: str = "collection") -> AsyncIterator[list[Entry]]:
        """The DIDs of a scope as they arrive (``GET /dids/{scope}/dids/search``); no order, no offset.

        Args:
            kind: ``collection``, ``container``, ``dataset``, ``file`` or ``all``.
        """
        path = f"/dids/{quote(check_scope(scope), safe='')}/dids/search"
        async for rows in self.transport.batches(path, {"type": kind, "long": "True"}):
            yield [
                Entry(
                    Did(r["scope"], r["name"]), KINDS[r["did_type"]], integer(r["bytes"]), integer(r["length"])
                )
                for r in rows
            ]

    async def contents(self, did: Did) -> AsyncIterator[list[Entry]]:
        """The direct children of a container or dataset as they arrive (``GET /dids/…/dids``)."""
        async for rows in self.transport.batches(f"/dids/{did.quoted}/dids"):
            yield _entries(rows, "type")

    async def files(self, did: Did) -> AsyncIterator[list[LakeFile]]:
        """All files below a DID as they arrive, of whatever kind it is (``GET /dids/…/files``)."""
        async for rows in self.transport.batches(f"/dids/{did.quoted}/files"):
            with understood():
                files = [
                    LakeFile(Did(r["scope"], r["name"]), integer(r["bytes"]) or 0, str(r.get("adler32") or ""))
                    for r in rows
                ]
            yield files

    async def did(self, did: Did) -> DidInfo:
        """Kind and summed size of a DID (``GET /dids/…?dynamic_depth=FILE``)."""
        data = await self.transport.read(f"/dids/{did.quoted}", {"dynamic_depth": "FILE"})
        with understood():
            return DidInfo(
                did=did,
                kind=KINDS[data["type"]],
                account=str(data.get("account") or ""),
                open=bool(data.get("open")),
                bytes=integer(data.get("bytes")),
                length=integer(data.get("length")),
            )

    async def metadata(self, did: Did) -> dict[str, Any]:
        """All metadata, Rucio's columns and the users' own (``GET /dids/…/meta?plugin=ALL``)."""
        data: dict[str, Any] = await self.transport.read(f"/dids/{did.quoted}/meta", {"plugin": "ALL"})
        return data

    async def metadata_bulk(self, dids: Sequence[Did]) -> list[Row]:
        """Rucio's columns of many DIDs (``POST /dids/bulkmeta``)."""
        found: list[Row] = []
        for body in _bulks(dids):
            found += await self.transport.rows("/dids/bulkmeta", body=body)
        return found

    async def parents(self, did: Did) -> list[Entry]:
        """What a DID is in (``GET /dids/…/parents``)."""
        rows = await self.transport.rows(f"/dids/{did.quoted}/parents")
        return [Entry(Did(r["scope"], r["name"]), KINDS[r["type"]]) for r in rows]

    async def dataset_replicas(self, did: Did) -> list[DatasetReplica]:
        """Where a dataset is (``GET /replicas/…/datasets``)."""
        return [DatasetReplica.of(r) for r in await self.transport.rows(f"/replicas/{did.quoted}/datasets")]

    async def dataset_replicas_bulk(self, dids: Sequence[Did]) -> list[DatasetReplica]:
        """Where many datasets are (``POST /replicas/datasets_bulk``)."""
        found: list[DatasetReplica] = []
        for body in _bulks(dids):
            found += [
                DatasetReplica.of(r) for r in await self.transport.rows("/replicas/datasets_bulk", body=body)
            ]
        return found

    async def file_replicas(self, dids: Sequence[Did], rse: str = "") -> list[Row]:
        """Replicas of files (``POST /replicas/list``); expensive, so for a handful only."""
        body: dict[str, Any] = {"dids": [did.as_dict() for did in dids], "sort": "random", "all_states": True}
        if rse:
            body["rse_expression"] = rse
        return await self.transport.rows("/replicas/list", body=body)

    async def protocols(self, rse: str) -> list[Row]:
        """The protocols of an RSE (``GET /rses/{rse}/protocols``)."""
        found: list[Row] = await self.transport.read(f"/rses/{quote(rse, safe='')}/protocols")
        return found

    async def usage(self, account: str) -> list[Usage]:
        """An account's use and limits (``GET /accounts/{account}/usage/local``)."""
        rows = await self.transport.rows(f"/accounts/{quote(account, safe='')}/usage/local")
        return [
            Usage(
                str(r["rse"]),
                integer(r.get("bytes")) or 0,
                integer(r.get("files")) or 0,
                integer(r.get("bytes_limit")),
            )
            for r in rows
        ]

    async def room(self, rse: str) -> Room | None:
        """How full an RSE is (``GET /rses/{rse}/usage``); None where nobody tells how much it can hold.

        The box tells that as source ``dmsp``. What is used is Rucio's own count: new rules are measured by it.
        """
        rows = await self.transport.rows(f"/rses/{quote(rse, safe='')}/usage")
        with understood():
            told = {str(row["source"]): row for row in rows}
            if "dmsp" not in told:
                return None
            capacity = int(told["dmsp"]["used"]) + int(told["dmsp"]["free"])
            used = int(told.get("rucio", told["dmsp"])["used"])
            return Room(used, max(0, capacity - used))

    async def ping(self) -> str:
        """Rucio's version (``GET /ping``)."""
        return str((await self.transport.read("/ping"))["version"])
