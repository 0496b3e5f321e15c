"""Replication rules: what keeps data on scratch."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import Duplicate, Forbidden, NotFound
from jupyterhub_dmsp.lake.models import Lock, Row, Rule, integer
from jupyterhub_dmsp.lake.transport import Transport


@dataclass(frozen=True, slots=True)
class Pinned:
    """The rule that keeps a DID on an RSE.

    Attributes:
        rule_id: the rule.
        rule: what is known of it already: None for a rule that was just made.
        made: whether it was made now; False when an own one existed and was extended.
        extended: False when the existing rule's lifetime could not be changed.
    """

    rule_id: str
    rule: Rule | None
    made: bool
    extended: bool = True


class Rules:
    """Calls about rules, locks and the requests behind them."""

    transport: Transport
    account: str

    async def rule(self, rule_id: str) -> Rule:
        """One rule, less than 1 kB (``GET /rules/{id}``); raises :class:`NotFound` when it is gone."""
        return Rule.of(await self.transport.read(f"/rules/{quote(rule_id, safe='')}"))

    async def rules_of(self, did: Did) -> list[Rule]:
        """All rules on a DID (``GET /dids/…/rules``)."""
        return [Rule.of(r) for r in await self.transport.rows(f"/dids/{did.quoted}/rules")]

    async def own_rule(self, did: Did, rse: str) -> Rule | None:
        """This account's rule for a DID on an RSE (``GET /rules/`` with filters)."""
        params = {"scope": did.scope, "name": did.name, "account": self.account, "rse_expression": rse}
        rows = await self.transport.rows("/rules/", params)
        return Rule.of(rows[0]) if rows else None

    async def own_rules(self) -> list[Rule]:
        """All rules of this account."""
        return [Rule.of(r) for r in await self.transport.rows("/rules/", {"account": self.account})]

    async def add_rule(self, did: Did, rse: str, lifetime: int, comment: str = "") -> str:
        """Make a rule for one copy on an RSE (``POST /rules/``); gives its id.

        Raises:
            Duplicate: this account has such a rule already.
            QuotaExceeded, Forbidden, NoPlace, NotFound: Rucio declined.
        """
        body = {
            "dids": [did.as_dict()],
            "account": self.account,
            "copies": 1,
            "rse_expression": rse,
            "lifetime": lifetime,
            "grouping": "DATASET",
            "activity": "User Subscriptions",
            "comment": comment or None,
        }
        return str((await self.transport.write("POST", "/rules/", body))[0])

    async def pin(self, did: Did, rse: str, lifetime: int, comment: str = "") -> Pinned:
        """Have a rule for the DID on the RSE that lives for `lifetime` seconds from now, made or extended.

        One call for a new rule, three when an own one exists. A site that refuses owners the change of their
        rules leaves the existing lifetime as it is (`Pinned.extended` is False).
        """
        try:
            return Pinned(await self.add_rule(did, rse, lifetime, comment), None, True)
        except Duplicate:
            rule = await self.own_rule(did, rse)
            if rule is None:
                # It expired between the two calls: once more.
                return Pinned(await self.add_rule(did, rse, lifetime, comment), None, True)
        try:
            await self.set_lifetime(rule.id, lifetime)
        except Forbidden:
            return Pinned(rule.id, rule, False, False)
        return Pinned(rule.id, rule, False)

    async def set_lifetime(self, rule_id: str, seconds: int) -> None:
        """Let a rule live for so many seconds from now (``PUT /rules/{id}``)."""
        await self._options(rule_id, {"lifetime": seconds})

    async def boost(self, rule_id: str) -> None:
        """Have a STUCK rule repaired at once (otherwise Rucio waits up to 2 h)."""
        await self._options(rule_id, {"boost_rule": True})

    async def end_rule(self, rule_id: str, purge: bool = False) -> None:
        """End a rule now: its locks go and the quota is free; the replicas stay until the RSE needs the room.

        Args:
            purge: remove the replicas at once too, unless another rule holds them.

        ``DELETE /rules/{id}`` would let it live for another hour.
        """
        await self._options(rule_id, {"lifetime": 0, **({"purge_replicas": True} if purge else {})})

    async def _options(self, rule_id: str, options: Row) -> None:
        await self.transport.write("PUT", f"/rules/{quote(rule_id, safe='')}", {"options": options})

    async def locks(self, rule_id: str) -> AsyncIterator[list[Lock]]:
        """The locks of a rule, one a file, as they arrive (``GET /rules/{id}/locks``)."""
        async for rows in self.transport.batches(f"/rules/{quote(rule_id, safe='')}/locks"):
            yield [Lock(Did(r["scope"], r["name"]), str(r["rse"]), str(r["state"])) for r in rows]

    async def analysis(self, rule_id: str) -> str:
        """Why a rule is stuck, in Rucio's words (``GET /rules/{id}/analysis``); empty when it tells nothing."""
        data = await self.transport.read(f"/rules/{quote(rule_id, safe='')}/analysis")
        reasons = [str(data.get("rule_error") or "")]
        reasons += [str(t["last_error"]) for t in data.get("transfers", []) if t.get("last_error")]
        return next((reason for reason in reversed(reasons) if reason), "")

    async def bytes_done(self, did: Did, rse: str) -> int | None:
        """Bytes of a running transfer that have arrived (``GET /requests/{scope}/{name}/{rse}``).

        None when there is no such request any more (it is finished) or when nothing is reported of it.
        """
        try:
            data = await self.transport.read(f"/requests/{did.quoted}/{quote(rse, safe='')}")
        except NotFound:
            return None
        attributes = data.get("attributes")
        if isinstance(attributes, str):
            attributes = json.loads(attributes or "{}")
        return integer(attributes.get("bytes_done")) if isinstance(attributes, dict) else None
