"""What a running session does so that what it has attached stays on scratch, and what it says when that cannot be.

Every :data:`WATCH` seconds, with one call for all rules of the user:

- the rule is marked *in use* until :data:`LEASE` seconds from now (in the rule's metadata), renewed when half is left.
  A lake that makes room by itself spares such rules, or gives notice first;
- its lifetime is renewed when less than half is left, as far as the lake's policy lets its owner do so;
- a notice is shown, and files that are copied anew or damaged are no longer called ready.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lab.errors import Fault, fault_of
from jupyterhub_dmsp.lab.flow import Flow, RuleGone
from jupyterhub_dmsp.lab.room import room_left
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.errors import Forbidden, QuotaExceeded, ScratchFull
from jupyterhub_dmsp.lake.models import Rule
from jupyterhub_dmsp.lake.rules import LEASE
from jupyterhub_dmsp.scratch.mount import MountGone

log = logging.getLogger(__name__)
#: Seconds between two looks at the rules; the first comes sooner, for a session may start with a stale mark.
WATCH, FIRST_WATCH = 20.0, 5.0
NO_ROOM = frozenset({QuotaExceeded.code, ScratchFull.code})
#: More files than this are looked at in turns.
LOOK_AT = 5000


class Evicted(DmspError):
    """The lake needed the room."""

    code = "evicted"
    action = "retry"
    status = 409


DAMAGED = Fault(
    "damaged",
    "Some of its files on scratch are missing or damaged. They are looked for until they are right.",
    "wait",
)
REPAIRED = Fault("repairing", "Some of its files on scratch were damaged; they are copied anew.", "wait")


def _clock(seconds: float) -> str:
    """A time as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


class Keeper:
    """Looks after the rules of what is attached.

    Args:
        client: the lake.
    """

    def __init__(self, client: RucioClient) -> None:
        self._client = client
        # A lake whose policy refuses is not asked again in this session, for each thing by itself.
        self._no_marks = self._no_lifetimes = False
        self._turn: dict[str, int] = {}

    async def renew(self, flow: Flow, rule: Rule) -> tuple[Fault | None, float | None]:
        """Mark as in use, renew the lifetime; what is to be told of it, and when the rule expires now."""
        attachment, now, expires_at = flow.attachment, time.time(), rule.expires_at
        mark = rule.in_use_until - now < LEASE / 2 and not self._no_marks
        left = None if rule.expires_at is None else rule.expires_at - now
        ending = left is not None and attachment.lifetime > 0 and left < attachment.lifetime / 2
        try:
            if mark:
                await self._client.mark_in_use(rule, now + LEASE)
        except Forbidden:
            self._no_marks = True
        try:
            if ending and not self._no_lifetimes:
                await self._client.set_lifetime(rule.id, attachment.lifetime)
                expires_at, ending = now + attachment.lifetime, False
                log.info("%s: kept for another %d s", attachment.did, attachment.lifetime)
        except Forbidden:
            self._no_lifetimes = True
        if rule.ends_at is not None:
            text = (
                f"Scratch is full: these files are removed at {_clock(rule.ends_at)} to make room for others. Release"
                " what you do not need, or copy what you must keep."
            )
            return Fault("evicting", text, "release"), expires_at
        if ending and expires_at is not None:
            text = (
                f"These files leave scratch at {_clock(expires_at)}, and this data lake does not let you extend that."
                " Attach them again then."
            )
            return Fault("expiring", text, "none"), expires_at
        return None, expires_at

    async def check_ready(self, flow: Flow, rule: Rule | None) -> bool:
        """A ready attachment against its rule as it is now (None: it is gone); whether its flow must go on."""
        attachment = flow.attachment
        if rule is None:
            await self._gone(flow)
            return False
        note, expires_at = await self.renew(flow, rule)
        if rule.state != "OK" and rule.ok < attachment.files_total:
            flow.begin_again(REPAIRED)
            await flow.save("replicating")
            return True
        if not await self._whole(flow):
            flow.begin_again(DAMAGED)
            await flow.save("landing")
            return True
        told = note.as_dict() if note else None
        if told != attachment.error or expires_at != attachment.expires_at:
            attachment.expires_at = expires_at
            await flow.save(fault=note)
        return False

    async def _whole(self, flow: Flow) -> bool:
        """Whether the files are there with their sizes; of very many, some at each look."""
        wanted, ident = flow.wanted, flow.attachment.id
        first = self._turn.get(ident, 0)
        self._turn[ident] = first + LOOK_AT if first + LOOK_AT < len(wanted) else 0
        part = wanted[first : first + LOOK_AT]
        try:
            return len((await flow.tools.mount.look(part)).present) == len(part)
        except MountGone:
            return True  # that says nothing about the files

    async def _gone(self, flow: Flow) -> None:
        error = flow.attachment.error or {}
        if error.get("code") == "not_kept":
            return
        if error.get("code") == "evicting":
            await flow.fail(
                Evicted(
                    "These files were removed from scratch to make room for others.",
                    "Attach them again when there is room.",
                )
            )
        elif await flow.seen(flow.files):
            text = "The data lake does not keep these files on scratch any more (the rule is gone). Attach them again."
            await flow.save(fault=Fault("not_kept", text, "retry"))
        else:
            await flow.fail(
                RuleGone("These files were removed from scratch (the rule is gone).", "Attach them again.")
            )

    async def may_try_again(self, flow: Flow) -> bool:
        """Whether what has failed for want of room, or for files that did not land, has a chance now."""
        attachment = flow.attachment
        code = (attachment.error or {}).get("code", "")
        try:
            if code == "not_landed":
                return await flow.seen(flow.files)
            if code in NO_ROOM:
                free = await room_left(self._client, flow.tools.rse, code)
                return free is not None and free >= attachment.bytes_total
        except DmspError as error:
            log.info("%s: %s", attachment.did, fault_of(error).message)
        return False
