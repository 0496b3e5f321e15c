"""Writing to the lake: content and accounts. For provisioning, demo content and uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

from jupyterhub_dmsp.lake.did import Did, check_scope
from jupyterhub_dmsp.lake.errors import Duplicate
from jupyterhub_dmsp.lake.models import LakeFile, Row
from jupyterhub_dmsp.lake.reading import BULK
from jupyterhub_dmsp.lake.transport import Transport


def _q(text: str) -> str:
    return quote(text, safe="")


class Writing:
    """Calls that add or change content and accounts; most need an administering account."""

    transport: Transport

    async def add_replicas(self, rse: str, files: Sequence[LakeFile]) -> None:
        """Register files that lie at their deterministic place on an RSE (``POST /replicas``, bulk)."""
        for start in range(0, len(files), BULK):
            rows = [
                {**f.did.as_dict(), "bytes": f.bytes, "adler32": f.adler32} for f in files[start : start + BULK]
            ]
            body = {"rse": rse, "files": rows, "ignore_availability": True}
            await self.transport.write("POST", "/replicas", body)

    async def add_dids(self, dids: Sequence[tuple[Did, str]], meta: Row | None = None) -> None:
        """Make containers and datasets (``POST /dids``, bulk); kind is ``CONTAINER`` or ``DATASET``.

        Raises:
            Duplicate: one of a bulk exists already; none of that bulk is made.
        """
        for start in range(0, len(dids), BULK):
            rows = [
                {**did.as_dict(), "type": kind, **({"meta": meta} if meta else {})}
                for did, kind in dids[start : start + BULK]
            ]
            await self.transport.write("POST", "/dids", rows)

    async def attach(self, parent: Did, children: Sequence[Did], rse: str = "") -> None:
        """Put children into a dataset or container (``POST /dids/attachments``, bulk).

        What is in it already stays; it is not an error.
        """
        for start in range(0, len(children), BULK):
            row: Row = {**parent.as_dict(), "dids": [c.as_dict() for c in children[start : start + BULK]]}
            if rse:
                row["rse"] = rse
            body = {"attachments": [row], "ignore_duplicate": True}
            await self.transport.write("POST", "/dids/attachments", body)

    async def set_metadata(self, entries: Sequence[tuple[Did, Row]]) -> None:
        """Set the users' own metadata of many DIDs (``POST /dids/bulkdidsmeta``)."""
        for start in range(0, len(entries), BULK):
            rows = [{**did.as_dict(), "meta": meta} for did, meta in entries[start : start + BULK]]
            await self.transport.write("POST", "/dids/bulkdidsmeta", {"dids": rows})

    async def close_did(self, did: Did) -> None:
        """Close a dataset: its content, size and number of files are then fixed (``PUT /dids/…/status``)."""
        await self.transport.write("PUT", f"/dids/{did.quoted}/status", {"open": False})

    async def add_account(self, name: str, email: str, kind: str = "USER") -> bool:
        """Make an account (``POST /accounts/{account}``); False when it was there."""
        return await self._unless_there(f"/accounts/{_q(name)}", {"type": kind, "email": email})

    async def add_identity(self, account: str, identity: str, authtype: str, email: str) -> bool:
        """Give an account an identity (``POST /accounts/{account}/identities``); False when it had it."""
        body = {"identity": identity, "authtype": authtype, "email": email, "default": False}
        return await self._unless_there(f"/accounts/{_q(account)}/identities", body)

    async def identities(self, account: str) -> list[Row]:
        """An account's identities (``GET /accounts/{account}/identities``)."""
        return await self.transport.rows(f"/accounts/{_q(account)}/identities")

    async def add_scope(self, account: str, scope: str) -> bool:
        """Make a scope (``POST /accounts/{account}/scopes/{scope}``); False when it was there."""
        return await self._unless_there(f"/accounts/{_q(account)}/scopes/{_q(check_scope(scope))}", None)

    async def attributes(self, account: str) -> dict[str, Any]:
        """An account's attributes (``GET /accounts/{account}/attr/``)."""
        rows = await self.transport.read(f"/accounts/{_q(account)}/attr/")
        return {str(r["key"]): r["value"] for r in rows}

    async def add_attribute(self, account: str, key: str, value: str | bool) -> bool:
        """Give an account an attribute (``POST …/attr/{key}``); False when it had it."""
        body = {"key": key, "value": value}
        return await self._unless_there(f"/accounts/{_q(account)}/attr/{_q(key)}", body)

    async def delete_attribute(self, account: str, key: str) -> None:
        """Take an attribute from an account (``DELETE …/attr/{key}``)."""
        await self.transport.write("DELETE", f"/accounts/{_q(account)}/attr/{_q(key)}", None)

    async def set_limit(self, account: str, rse: str, bytes_: int) -> None:
        """Set an account's limit on an RSE in bytes, -1 for none (``POST /accountlimits/local/…``)."""
        path = f"/accounts/{_q(account)}/limits/local/{_q(rse)}"
        await self.transport.write("POST", path, {"bytes": bytes_})

    async def limits(self, account: str) -> dict[str, int | None]:
        """An account's limits by RSE, in bytes (``GET /accounts/{account}/limits/local``)."""
        found: dict[str, int | None] = await self.transport.read(f"/accounts/{_q(account)}/limits/local")
        return found

    async def replicas_on(self, rse: str) -> AsyncIterator[list[Row]]:
        """All file replicas on an RSE as they arrive (``GET /replicas/rse/{rse}``)."""
        async for rows in self.transport.batches(f"/replicas/rse/{_q(rse)}"):
            yield rows

    async def _unless_there(self, path: str, body: object) -> bool:
        try:
            await self.transport.write("POST", path, body)
        except Duplicate:
            return False
        return True
