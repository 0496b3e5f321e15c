"""The attachment manager: all attachments of a user, their tasks, and what can be asked of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lab import keeping
from jupyterhub_dmsp.lab.errors import PASSING, BadRequest, Fault, NoAttachment, fault_of
from jupyterhub_dmsp.lab.failures import failures_of
from jupyterhub_dmsp.lab.flow import Flow, Tools
from jupyterhub_dmsp.lab.keeping import FIRST_WATCH, Keeper
from jupyterhub_dmsp.lab.records import RUNNING, Attachment, attachment_id
from jupyterhub_dmsp.lab.snippets import suggest, valid
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import Forbidden, LakeError, NotFound
from jupyterhub_dmsp.lake.models import Failure, Rule

log = logging.getLogger(__name__)
LONGEST_LIFETIME = 366 * 86400
RESUME = 5.0
"""Seconds until what a passing fault has stopped is tried again; each time twice as many."""
LONGEST_RESUME = 30.0


class Attachments:
    """Attachments by id.

    Args:
        tools: what each flow works with; its `changed` is called on every change.
        lake: name of the lake, part of the ids.
        lifetime: seconds a rule lives unless asked otherwise.
    """

    def __init__(self, tools: Tools, lake: str, lifetime: int) -> None:
        self._tools = tools
        self._lake = lake
        self._lifetime = lifetime
        self.epoch = secrets.token_hex(6)
        self._flows: dict[str, Flow] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changes: dict[str, asyncio.Event] = {}
        # Guards _flows and _tasks of one id against two requests for the same DID at once.
        self._locks: dict[str, asyncio.Lock] = {}
        self._keeper = Keeper(tools.client)
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what was going on when the last server stopped."""
        mounted = (await self._tools.mount.health()).state == "ok"
        for attachment in await self._tools.records.load():
            if attachment.state != "released":
                await self._adopt(attachment, mounted)
        self._watchers = [
            asyncio.create_task(self._watch(), name="dmsp-rules"),
            asyncio.create_task(self._resume(), name="dmsp-resume"),
        ]
        for task in self._watchers:
            task.add_done_callback(_complain)

    async def _adopt(self, attachment: Attachment, mounted: bool) -> None:
        """Go on with what a former server, or another session, has written down."""
        flow = Flow(self._tools, attachment)
        self._flows[attachment.id] = flow
        if attachment.state == "ready":
            await self._recheck(flow, mounted)
        elif attachment.state == "failed":
            await asyncio.to_thread(self._tools.manifests.write, attachment)
        if attachment.state in RUNNING:
            await asyncio.to_thread(self._tools.manifests.write, attachment)
            self._go(flow)

    async def take_over(self) -> None:
        """Do after the user's other sessions: what they attached is attached here, what they released is not."""
        mounted = (await self._tools.mount.health()).state == "ok"
        for record in await self._tools.records.load():
            async with self._locks.setdefault(record.id, asyncio.Lock()):
                await self._take_over(record, mounted)

    async def _take_over(self, record: Attachment, mounted: bool) -> None:
        flow = self._flows.get(record.id)
        if flow is None:
            # Read again: it may have been released here since all were read.
            if (
                record.state != "released"
                and (fresh := await self._tools.records.get(record.id)).state != "released"
            ):
                await self._adopt(fresh, mounted)
                self._tools.changed(fresh)
            return
        known = flow.attachment
        if record.created_at < known.created_at:
            return
        seq = max(known.seq, record.seq) + 1
        if record.state == "released" or record.created_at > known.created_at:
            await self._halt(record.id)
            await asyncio.to_thread(self._tools.manifests.remove, record.id)
            del self._flows[record.id]
            if record.state == "released":
                known.state, known.seq = "released", seq
                self._tools.changed(known)
                return
            record.seq = seq
            record.rule_made |= known.rule_made and known.rule_id == record.rule_id
            await self._adopt(record, mounted)
            self._tools.changed(record)
            return
        if (record.variable, record.lifetime) != (known.variable, known.lifetime):
            known.variable, known.lifetime, known.expires_at = (
                record.variable,
                record.lifetime,
                record.expires_at,
            )
            known.seq = seq
            self._tools.changed(known)
        if known.state == "failed" and record.state == "ready":
            await self._restart(flow)

    async def _recheck(self, flow: Flow, mounted: bool) -> None:
        try:
            await flow.recheck(mounted)
        except DmspError as error:
            await flow.fail(error)

    async def stop(self) -> None:
        """Stop all tasks; the records keep where they were."""
        tasks = [*self._tasks.values(), *self._watchers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def all(self) -> list[Attachment]:
        """All that are not released, newest first."""
        return sorted((f.attachment for f in self._flows.values()), key=lambda a: -a.created_at)

    def get(self, ident: str) -> Attachment:
        """One attachment; raises :class:`NoAttachment`."""
        return self._flow(ident).attachment

    def of(self, did: str) -> Attachment | None:
        """The attachment of a DID, if there is one."""
        flow = self._flows.get(attachment_id(self._lake, Did.parse(did)))
        return flow.attachment if flow else None

    def note(self, attachment: Attachment) -> None:
        """Wake whoever waits for a change of it."""
        event = self._changes.pop(attachment.id, None)
        if event is not None:
            event.set()

    async def attach(self, did: Did, variable: str = "", lifetime: int = 0) -> tuple[Attachment, bool]:
        """Have a DID on scratch; gives its attachment and whether it is new.

        A DID that is attached already costs at most two calls to Rucio: its rule is looked at, and extended.
        """
        if variable and not valid(variable):
            raise BadRequest(f"“{variable[:40]}” cannot be the name of a variable in all languages.")
        seconds = self._seconds(lifetime or self._lifetime)
        ident = attachment_id(self._lake, did)
        async with self._locks.setdefault(ident, asyncio.Lock()):
            flow = self._flows.get(ident)
            if flow is None:
                name = variable or suggest(did.name, self._taken())
                flow = Flow(self._tools, Attachment(ident, str(did), name, lifetime=seconds))
                self._flows[ident] = flow
                await flow.save()
                self._go(flow)
                return flow.attachment, True
            if variable and variable != flow.attachment.variable:
                flow.attachment.variable = variable
                await flow.save(fault=_kept(flow.attachment))
            if flow.attachment.state == "failed":
                await self._restart(flow)
            elif flow.attachment.state == "ready":
                await self._refresh(flow, seconds if lifetime else 0)
            return flow.attachment, False

    async def failures(self, ident: str) -> tuple[list[Failure], int]:
        """Files of it that do not arrive, with their reasons, and how many there are (:mod:`~.failures`)."""
        return await failures_of(self._flow(ident))

    async def settled(self, ident: str, states: frozenset[str], timeout: float) -> Attachment:
        """The attachment once its state is none of these, or as it is after so many seconds."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0 and self.get(ident).state in states:
            event = self._changes.setdefault(ident, asyncio.Event())
            try:
                async with asyncio.timeout(left):
                    await event.wait()
            except TimeoutError:
                break
        return self.get(ident)

    async def retry(self, ident: str) -> Attachment:
        """Try again: a stuck rule is boosted, a failed attachment starts over, an unkept one is pinned."""
        flow = self._flow(ident)
        attachment = flow.attachment
        async with self._locks.setdefault(ident, asyncio.Lock()):
            if attachment.state == "stuck" and attachment.rule_id:
                await self._boost(flow)
            elif attachment.state == "failed" or (attachment.state == "ready" and attachment.error):
                await self._restart(flow)
            elif attachment.state in RUNNING:
                self._go(flow)
        return attachment

    async def extend(self, ident: str, lifetime: int) -> Attachment:
        """Keep it on scratch for so many seconds from now."""
        flow = self._flow(ident)
        seconds = self._seconds(lifetime)
        if not flow.attachment.rule_id:
            raise BadRequest("It is not kept on scratch yet.", "Try again when it is ready.")
        try:
            await self._tools.client.set_lifetime(flow.attachment.rule_id, seconds)
        except Forbidden as error:
            raise Forbidden(
                "This data lake does not let you change how long data stays on scratch.",
                "Attach it again when it has expired, or ask support.",
                error.reason,
            ) from error
        flow.attachment.expires_at = time.time() + seconds
        flow.attachment.lifetime = seconds
        await flow.save(fault=_kept(flow.attachment))
        return flow.attachment

    async def release(self, ident: str, purge: bool = False) -> Attachment:
        """Give it back: the rule that we made ends now, manifest and links go.

        Args:
            purge: remove the files from scratch at once too, unless somebody else needs them. What has not
                arrived yet is always purged: that cancels the copying.

        Raises:
            LakeError: Rucio did not answer; the attachment is as it was.
        """
        flow = self._flow(ident)
        attachment = flow.attachment
        async with self._locks.setdefault(ident, asyncio.Lock()):
            fault = await self._end_rule(attachment, purge or attachment.state != "ready")
            await self._halt(ident)
            did = attachment.parsed
            await asyncio.to_thread(self._tools.links.remove, did.scope, did.name, ident)
            await asyncio.to_thread(self._tools.manifests.remove, ident)
            await self._tools.records.forget_content(ident)
            attachment.state, attachment.rule_id, attachment.rule_made = "released", None, False
            attachment.fail(fault)
            attachment.seq += 1
            attachment.updated_at = time.time()
            await self._tools.records.save(attachment)
            del self._flows[ident]
            self._tools.changed(attachment)
        return attachment

    async def _end_rule(self, attachment: Attachment, purge: bool) -> Fault | None:
        if not attachment.rule_id or not attachment.rule_made:
            return None
        try:
            await self._tools.client.end_rule(attachment.rule_id, purge)
        except NotFound:
            return None
        except Forbidden:
            text = "This data lake does not let you end its rule: the files stay on scratch until it expires."
            return Fault("rule_stays", text, "none")
        return None

    async def _boost(self, flow: Flow) -> None:
        try:
            await self._tools.client.boost(flow.attachment.rule_id or "")
        except Forbidden:
            text = "This data lake does not let you hurry a stuck replication; it tries again by itself within 2 hours."
            await flow.save(fault=Fault("stuck", text, "wait"))
            return
        except NotFound:
            await self._restart(flow)
            return
        await flow.save("replicating")
        self._go(flow)

    async def _refresh(self, flow: Flow, extend: int) -> None:
        """Attached again while ready: is the rule there, and has the content grown?"""
        attachment = flow.attachment
        try:
            rule = await self._tools.client.rule(attachment.rule_id or "") if attachment.rule_id else None
            if rule is None or rule.ok + rule.replicating + rule.stuck != attachment.files_total:
                await self._restart(flow)
                return
            if extend:
                await self._tools.client.set_lifetime(rule.id, extend)
                attachment.expires_at = time.time() + extend
                await flow.save()
        except NotFound:
            await self._restart(flow)
        except LakeError as error:
            # What is on scratch can be used although Rucio does not answer now.
            log.warning("%s: not refreshed: %s", attachment.id, error.reason or error)

    async def _restart(self, flow: Flow) -> None:
        await self._halt(flow.attachment.id)
        flow.files, flow.wanted, flow.progress = [], [], None
        flow.attachment.files_ready = flow.attachment.bytes_ready = 0
        await flow.save("requested")
        self._go(flow)

    async def _halt(self, ident: str) -> None:
        task = self._tasks.pop(ident, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _go(self, flow: Flow) -> None:
        old = self._tasks.get(flow.attachment.id)
        if old is not None:
            old.cancel()
        log.info("attachment %s of %s", flow.attachment.id, flow.attachment.did)
        task = asyncio.create_task(flow.run(), name=f"dmsp-{flow.attachment.id}")
        self._tasks[flow.attachment.id] = task
        task.add_done_callback(_complain)

    async def _watch(self) -> None:
        """Now and then, one call: how are the rules of what is attached?"""
        pause = FIRST_WATCH
        while True:
            await asyncio.sleep(pause)
            await self.check_rules()
            pause = keeping.WATCH

    async def _resume(self) -> None:
        """What the lake, the issuer or an old login stopped goes on by itself when they are back."""
        pause = RESUME
        while True:
            await asyncio.sleep(pause)
            waiting = await self.resume()
            pause = min(LONGEST_RESUME, 2 * pause) if waiting else RESUME

    async def resume(self) -> int:
        """Try again what a passing fault has stopped; how many there were."""
        waiting = [flow for flow in self._flows.values() if _stopped(flow.attachment)]
        # All at once: of one alone Rucio may have nothing but faults, or silence.
        await asyncio.gather(*(self._take_up(flow) for flow in waiting))
        return len(waiting)

    async def _take_up(self, flow: Flow) -> None:
        if not await flow.answers():
            return
        async with self._locks.setdefault(flow.attachment.id, asyncio.Lock()):
            # Looked at again: the user may have released or retried it meanwhile.
            if self._flows.get(flow.attachment.id) is not flow or not _stopped(flow.attachment):
                return
            log.info("%s goes on: the lake answers again", flow.attachment.did)
            if flow.attachment.state != "ready":
                await self._restart(flow)
                return
            await flow.keep()
            if flow.attachment.state != "ready":
                self._go(flow)

    async def check_rules(self) -> None:
        """Look after the rules of all that is attached; try again what failed and may succeed now."""
        held = [f for f in self._flows.values() if f.attachment.rule_id and f.attachment.state != "failed"]
        try:
            rules = {rule.id: rule for rule in await self._tools.client.own_rules()} if held else {}
        except DmspError as error:
            log.info("rules not checked: %s", fault_of(error).message)
            return
        for flow in list(self._flows.values()):
            async with self._locks.setdefault(flow.attachment.id, asyncio.Lock()):
                if self._flows.get(flow.attachment.id) is not flow:
                    continue  # released meanwhile
                try:
                    await self._look_after(flow, rules)
                except DmspError as error:
                    log.info("%s: rule not checked: %s", flow.attachment.did, fault_of(error).message)

    async def _look_after(self, flow: Flow, rules: dict[str, Rule]) -> None:
        attachment = flow.attachment
        rule = rules.get(attachment.rule_id or "")
        if attachment.state == "failed":
            if await self._keeper.may_try_again(flow):
                await self._restart(flow)
        elif attachment.state == "ready" and attachment.rule_id:
            if await self._keeper.check_ready(flow, rule):
                self._go(flow)
        elif rule is not None:
            await self._keeper.renew(flow, rule)

    def _flow(self, ident: str) -> Flow:
        try:
            return self._flows[ident]
        except KeyError:
            raise NoAttachment("There is no such attachment.", "It may have been released.") from None

    def _taken(self) -> list[str]:
        return [f.attachment.variable for f in self._flows.values()]

    def _seconds(self, lifetime: int) -> int:
        if not 60 <= lifetime <= LONGEST_LIFETIME:
            raise BadRequest("Data can stay on scratch for a minute to a year.", "Ask for less.")
        return lifetime


def _stopped(attachment: Attachment) -> bool:
    """Whether a passing fault keeps it from being ready, or from being kept although it is."""
    code = (attachment.error or {}).get("code", "")
    if attachment.state == "ready":
        retry = (attachment.error or {}).get("action") in ("retry", "wait", "login")
        return code == "not_kept" and attachment.rule_id is None and retry
    return attachment.state == "failed" and code in PASSING


def _kept(attachment: Attachment) -> Fault | None:
    """The error that the record has, to be written again."""
    error = attachment.error
    return Fault(error["code"], error["message"], error["action"]) if error else None


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s ended by an unexpected error", task.get_name(), exc_info=error)
