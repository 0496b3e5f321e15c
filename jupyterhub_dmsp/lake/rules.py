"""Replication rules: what keeps data on scratch."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import Changing, CutOff, Duplicate, Forbidden, NotFound, ServerFault, make
from jupyterhub_dmsp.lake.models import Failure, Lock, Row, Rule, integer
from jupyterhub_dmsp.lake.transport import ATTEMPTS, Transport

log = logging.getLogger(__name__)
LEASE = 600.0
"""Seconds for which a session says in advance that it uses what a rule holds; it renews that in time."""

ENDING = 5.0
"""A rule that has less than these seconds to live is not extended: Rucio may have chosen it for deletion already."""


def _in_use(meta: Mapping[str, Any], until: float) -> Row:
    return {**meta, "dmsp": {"in_use_until": round(until)}}


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
        body: Row = {
            "dids": [did.as_dict()],
            "account": self.account,
            "copies": 1,
            "rse_expression": rse,
            "lifetime": lifetime,
            "grouping": "DATASET",
            "activity": "User Subscriptions",
            "comment": comment or None,
            "meta": json.dumps(_in_use({}, time.time() + LEASE)),  # here a text, in `PUT` the value
        }
        made = await self.transport.write("POST", "/rules/", body)
        if not isinstance(made, list) or not made or not isinstance(made[0], str):
            raise make(CutOff, "no id of a rule")
        return made[0]

    async def pin(self, did: Did, rse: str, lifetime: int, comment: str = "") -> Pinned:
        """Have a rule for the DID on the RSE that lives for `lifetime` seconds from now, made or extended.

        One call for a new rule, three when an own one exists. A site that refuses owners the change of their
        rules leaves the existing lifetime as it is (`Pinned.extended` is False).

        Raises:
            Changing: the existing rule has expired, and Rucio is about to delete it, whatever its lifetime becomes now;
                or files are just being removed. In a moment a new rule can be made.
            QuotaExceeded, Forbidden, NoPlace, NotFound: Rucio declined.
        """
        for _ in range(ATTEMPTS):
            try:
                return Pinned(await self._rule_made(did, rse, lifetime, comment), None, True)
            except Duplicate:
                rule = await self.own_rule(did, rse)
            if rule is None:
                continue  # it ended between the two calls
            if rule.expires_at is not None and rule.expires_at < time.time() + ENDING:
                break
            try:
                meta = _in_use(rule.meta, time.time() + LEASE)
                await self._options(rule.id, {"lifetime": lifetime, "meta": meta})
            except Forbidden:
                return Pinned(rule.id, rule, False, False)
            except NotFound:
                continue
            return Pinned(rule.id, rule, False)
        raise make(Changing, "the own rule is being ended")

    async def _rule_made(self, did: Did, rse: str, lifetime: int, comment: str) -> str:
        """Make a rule, up to three times: Rucio fails on it when somebody else's rule locks the same files just now."""
        for attempt in range(1, ATTEMPTS):
            try:
                return await self.add_rule(did, rse, lifetime, comment)
            except (ServerFault, Changing) as error:
                log.info("rule for %s, attempt %d: %s", did, attempt, error.reason)
                await asyncio.sleep(0.3 * 3 ** (attempt - 1) * random.uniform(0.7, 1.3))  # noqa: S311
        return await self.add_rule(did, rse, lifetime, comment)

    async def set_lifetime(self, rule_id: str, seconds: int) -> None:
        """Let a rule live for so many seconds from now (``PUT /rules/{id}``)."""
        await self._options(rule_id, {"lifetime": seconds})

    async def mark_in_use(self, rule: Rule, until: float) -> None:
        """Say that a running session uses the rule's data until then (seconds since the epoch).

        It stands in the rule's metadata: ``{"dmsp": {"in_use_until": …}}``. The box's evictor reads it.
        """
        await self._options(rule.id, {"meta": _in_use(rule.meta, until)})

    async def boost(self, rule_id: str) -> None:
        """Have a STUCK rule repaired at once (otherwise Rucio waits up to 2 h)."""
        await self._options(rule_id, {"boost_rule": True})

    async def end_rule(self, rule_id: str, purge: bool = False) -> None:
        """End a rule now: its locks go, the quota is free; what no other rule locks stays until the RSE needs the room.

        Args:
            purge: remove such replicas at once. An RSE with greedy deletion, as the box's are, does so anyway.

        ``DELETE /rules/{id}`` would let it live for another hour.
        """
        await self._options(rule_id, {"lifetime": 0, **({"purge_replicas": True} if purge else {})})

    async def _options(self, rule_id: str, options: Row) -> None:
        await self.transport.write(
            "PUT", f"/rules/{quote(rule_id, safe='')}", {"options": options}, repeat=True
        )

    async def locks(self, rule_id: str) -> AsyncIterator[list[Lock]]:
        """The locks of a rule, one a file, as they arrive (``GET /rules/{id}/locks``)."""
        async for rows in self.transport.batches(f"/rules/{quote(rule_id, safe='')}/locks"):
            yield [Lock(Did(r["scope"], r["name"]), str(r["rse"]), str(r["state"])) for r in rows]

    async def analysis(self, rule_id: str) -> str:
        """Why a rule is stuck, in Rucio's words (``GET /rules/{id}/analysis``); empty when it tells nothing."""
        data = await self.transport.read(f"/rules/{quote(rule_id, safe='')}/analysis")
        reasons = [str(data.get("rule_error") or "")]
        # Of a transfer Rucio tells nothing but its state.
        reasons += [str(t["last_error"]) for t in data.get("transfers", []) if t.get("last_error")]
        reasons = [reason for reason in reasons if not reason.startswith("RequestState.")]
        return next((reason for reason in reversed(reasons) if reason), "")

    async def failures(self, rule_id: str) -> list[Failure]:
        """The files of a stuck rule that do not arrive, sorted, each with its reason (``GET /rules/{id}/analysis``).

        None while Rucio still tries, or has succeeded.
        """
        data = await self.transport.read(f"/rules/{quote(rule_id, safe='')}/analysis")
        return sorted((Failure.of(t) for t in data.get("transfers", [])), key=lambda failure: str(failure.did))

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
