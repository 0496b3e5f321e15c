"""The life of one attachment: requested → replicating → landing → ready, or stuck, failed.

One task an attachment. What it learns is written to the record first, then to the manifest, then told. The truth
is Rucio's rule and what is on the mount; a server that starts again takes up from the record.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.identity.errors import IssuerDown
from jupyterhub_dmsp.lab.errors import Fault, fault_of
from jupyterhub_dmsp.lab.manifest import Manifests, digest_of
from jupyterhub_dmsp.lab.progress import Progress
from jupyterhub_dmsp.lab.records import Attachment, Records, State
from jupyterhub_dmsp.lab.room import with_numbers
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.errors import (
    Changing,
    CutOff,
    EmptyDataset,
    NotFound,
    QuotaExceeded,
    RucioDown,
    RucioSlow,
    ScratchFull,
    ServerFault,
    TooMany,
)
from jupyterhub_dmsp.lake.models import TRANSFER_FAILED, LakeFile, Rule
from jupyterhub_dmsp.scratch.links import Links, LinksRefused
from jupyterhub_dmsp.scratch.mount import Mount, MountGone, Wanted
from jupyterhub_dmsp.scratch.paths import Paths

log = logging.getLogger(__name__)
FIRST_POLL = 0.15
LONGEST_POLL = 10.0
LONGEST_MOVING = 1.0
"""Seconds between two looks while files arrive: what has landed is noticed within this."""
LONGEST_WAITING = 5.0
"""The same before the first file: it may wait in a queue for hours."""
LANDING_PATIENCE = 60.0
AWAY_PATIENCE = 30.0
"""Seconds for which a new attachment waits for a lake or an issuer that is away; then it has failed, for now."""
PROBE_TIMEOUT = 10.0
FAULTY_PATIENCE = 5.0
"""The same for a lake that answers, but with nonsense or faults: it may do so for this request for ever."""
CHANGING_PATIENCE = 600.0
"""The same while files are being removed from scratch: that ends, after thousands of files too."""
MOUNT_AGAIN = 2.0
Listed = tuple[Sequence[LakeFile], Sequence[str], Sequence[str]]
_AWAY = (RucioDown, RucioSlow, TooMany, IssuerDown)
_PASSING = (*_AWAY, CutOff, ServerFault, Changing)


@dataclass(frozen=True, slots=True)
class Tools:
    """What a flow works with."""

    client: RucioClient
    rse: str
    paths: Paths
    mount: Mount
    records: Records
    manifests: Manifests
    links: Links
    changed: Callable[[Attachment], None]


class RuleGone(DmspError):
    """The rule that kept the data is not there any more."""

    code = "rule_gone"
    action = "retry"
    status = 409


class NotLanded(DmspError):
    """Rucio says that the files are on scratch, and they are not seen there."""

    code = "not_landed"
    action = "retry"
    status = 409


class Unexpected(DmspError):
    """A fault of ours; the log has it."""

    code = "internal"
    action = "contact"
    status = 500


class Hidden(DmspError):
    """The files are on scratch, and this user may not read them."""

    code = "not_readable"
    action = "contact"
    status = 403


def _patience(error: DmspError) -> float:
    """Seconds for which a new attachment waits for this to pass."""
    if isinstance(error, Changing):
        return CHANGING_PATIENCE
    return AWAY_PATIENCE if isinstance(error, _AWAY) else FAULTY_PATIENCE


MOUNT_GONE = Fault(
    "mount_gone",
    "Scratch is not reachable in this session. It goes on by itself when scratch is back.",
    "remount",
)


@dataclass(slots=True, eq=False)
class Flow:
    """Drives one attachment; :meth:`run` returns when it is ready or has failed."""

    tools: Tools
    attachment: Attachment
    files: list[LakeFile] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    progress: Progress | None = None
    note: Fault | None = None
    # Guards the record: the flow's task and a request of the user's may both take a step.
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Go on from the record's state until there is nothing to wait for."""
        # Its own id and not that of the request that began it: this goes on for hours.
        with tracing.use(self.attachment.id):
            try:
                await self._run()
            except DmspError as error:
                log.warning("%s: %s", self.attachment.did, getattr(error, "reason", "") or error)
                await self.fail(error)
            except Exception:
                # The last wall: an attachment that waits for a task that is no more would wait for ever.
                log.exception("%s failed unexpectedly", self.attachment.did)
                await self.fail(
                    Unexpected("This failed unexpectedly.", "Try again; ask support when it stays.")
                )

    async def _run(self) -> None:
        attachment = self.attachment
        if not self.files:
            self._take(await self.tools.records.content(attachment.id))
        if attachment.state == "requested":
            await self._request_patiently()
        if attachment.state in {"replicating", "stuck"}:
            await self._follow()
        if attachment.state == "landing":
            await self._land()

    async def save(
        self, state: State | None = None, fault: Fault | None = None, listed: Listed | None = None
    ) -> bool:
        """Take a step: the manifest first (when the state changes), then the record, then memory, then tell.

        So whoever sees a state can rely on the manifest that belongs to it. False, and no step, when another session
        of the user has released it: this one hears of that soon.
        """
        async with self.saving:
            attachment = self.attachment
            moved = state is not None and state != attachment.state
            attachment.updated_at = time.time()
            state = state or attachment.state
            if state not in {"landing", "replicating"}:
                self.note = None
            fault = fault or self.note
            if state != "replicating":
                attachment.rate = attachment.eta = None
            fresh = replace(
                attachment, state=state, seq=attachment.seq + 1, error=fault.as_dict() if fault else None
            )
            if moved or listed is not None:
                files, paths, missing = listed or ((), (), ())
                await asyncio.to_thread(self.tools.manifests.write, fresh, files, paths, missing)
            if not await self.tools.records.save(fresh):
                return False
            attachment.state, attachment.seq, attachment.error = fresh.state, fresh.seq, fresh.error
            self.tools.changed(attachment)
            return True

    async def fail(self, error: DmspError) -> None:
        """End in the state failed, with a sentence."""
        await self.save("failed", fault_of(error))

    def _take(self, files: Iterable[LakeFile]) -> None:
        """These are the files; raises :class:`OutsideMount` for names that cannot be paths."""
        self.files = list(files)
        self.wanted = self.wanted_of(self.files)
        self.progress = Progress(self.files, self.wanted)

    def wanted_of(self, files: Sequence[LakeFile]) -> list[Wanted]:
        """Where these files are to be on the mount; raises :class:`OutsideMount`."""
        return [Wanted(self.tools.paths.of(f.did.scope, f.did.name), f.bytes) for f in files]

    async def _request_patiently(self) -> None:
        """Request it; passing faults are shown and waited out for a while."""
        began, interval = time.monotonic(), 2 * FIRST_POLL
        while True:
            try:
                await self._request()
                return
            except _PASSING as error:
                if time.monotonic() - began > _patience(error):
                    raise
                log.info("%s: %s", self.attachment.did, getattr(error, "reason", "") or error)
                await self._wait_out(error)
                pause = max(interval, getattr(error, "retry_after", 0.0))
            interval = min(LONGEST_POLL, 2 * interval)
            await asyncio.sleep(min(pause, LONGEST_POLL))

    async def answers(self) -> bool:
        """Whether the lake tells of this DID now."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self.tools.client.did(self.attachment.parsed)
        except (DmspError, TimeoutError):
            return False
        return True

    async def keep(self) -> None:
        """Once more: keep on scratch what is usable but has no rule."""
        with tracing.use(self.attachment.id):
            await self._pin_ready()

    async def _request(self) -> None:
        """Read the files, then have them locked by a rule; only what it holds is told to be there.

        A file on the mount that is not locked by the own rule may be gone in the next moment: another user's rule ends.
        """
        attachment = self.attachment
        try:
            files = [f async for batch in self.tools.client.files(attachment.parsed) for f in batch]
        except NotFound as error:
            raise NotFound(
                f"The data lake has no {attachment.did}.",
                "Check the name; it may have been deleted or have expired.",
                error.reason,
            ) from error
        if not files:
            raise EmptyDataset("There are no files in it.", "Choose another dataset, or ask its owners.")
        self._take(dict.fromkeys(files))  # one may be in several datasets of a container
        files = self.files
        attachment.files_total, attachment.bytes_total = len(files), sum(f.bytes for f in files)
        attachment.digest, _ = await asyncio.gather(
            asyncio.to_thread(digest_of, files), self.tools.records.save_content(attachment.id, files)
        )
        try:
            await self._pin()
        except Changing:
            raise
        except DmspError as error:
            # Without a rule they are usable for as long as others keep them, and that is said.
            if not await self.seen(files):
                raise
            await self._ready()
            await self._not_kept(error)
            return
        await self.save("replicating")

    def begin_again(self, note: Fault) -> None:
        """Nothing is known to be there any more: what was ready is looked for, or copied, once more.

        Args:
            note: told until it is ready again.
        """
        self._take(self.files)
        self.note = note
        self.attachment.files_ready = self.attachment.bytes_ready = 0

    async def seen(self, files: Sequence[LakeFile]) -> bool:
        """Whether these are on the mount with their sizes; no when the mount does not answer."""
        wanted = self.wanted_of(files)
        try:
            return len((await self.tools.mount.look(wanted)).present) == len(wanted)
        except MountGone:
            return False

    async def _pin(self) -> Rule | None:
        """Have a rule; one call, three when there was an own one."""
        attachment, client, rse = self.attachment, self.tools.client, self.tools.rse
        try:
            pinned = await client.pin(attachment.parsed, rse, attachment.lifetime, "dmsp attach")
        except (QuotaExceeded, ScratchFull) as error:
            raise await with_numbers(error, client, rse, attachment.bytes_total) from error
        attachment.rule_id = pinned.rule_id
        # What we once made stays ours when it is found again.
        attachment.rule_made = attachment.rule_made or pinned.made
        if pinned.made or pinned.extended:
            attachment.expires_at = time.time() + attachment.lifetime
        elif pinned.rule is not None:
            attachment.expires_at = pinned.rule.expires_at
        return pinned.rule

    async def _pin_ready(self) -> None:
        """Keep on scratch what is usable already; without success it stays usable, with a warning."""
        try:
            await self._pin()
            rule = await self.tools.client.rule(self.attachment.rule_id or "")
        except DmspError as error:
            await self._not_kept(error)
            return
        self.attachment.expires_at = rule.expires_at
        if rule.state == "OK":
            await self.save("ready")
            return
        # The rule has found replicas that were about to be deleted: they are copied anew.
        self._take(self.files)
        await self.save("replicating")

    async def _not_kept(self, error: DmspError) -> None:
        fault = fault_of(error)
        text = f"The files can be used, but the data lake does not keep them on scratch: {fault.message}"
        await self.save(fault=Fault("not_kept", text, fault.action))

    async def _follow(self) -> None:
        """Poll the rule until it is OK; passing faults of Rucio are shown and waited out."""
        interval = FIRST_POLL
        while True:
            before = (self.attachment.files_ready, self.attachment.bytes_ready)
            try:
                rule = await self.tools.client.rule(self.attachment.rule_id or "")
            except NotFound:
                raise RuleGone(
                    "The data lake dropped the request for this data (its rule was deleted or has expired).",
                    "Attach it again.",
                ) from None
            except DmspError as error:
                await self._wait_out(error)
                interval = min(LONGEST_POLL, interval * 2)
                await asyncio.sleep(interval)
                continue
            if rule.state == "OK":
                self.attachment.expires_at = rule.expires_at
                await self.save("landing")
                return
            await self._note(rule)
            moved = before != (self.attachment.files_ready, self.attachment.bytes_ready)
            interval = self._next_interval(interval, moved)
            await asyncio.sleep(interval)

    def _next_interval(self, interval: float, moved: bool) -> float:
        """Quick for what will be over soon, slow for what takes long or does not move."""
        if self.attachment.state == "stuck":
            return LONGEST_POLL / 2
        eta = self.attachment.eta
        if moved and eta is not None:
            return min(LONGEST_MOVING, max(0.25, eta / 20))
        return min(LONGEST_MOVING if self.attachment.files_ready else LONGEST_WAITING, interval * 1.25)

    async def _wait_out(self, error: DmspError) -> None:
        fault = fault_of(error)
        if not isinstance(error, _PASSING) and fault.action != "login":
            log.warning("%s: %s", self.attachment.id, error)
        if self.attachment.error != fault.as_dict():
            await self.save(fault=fault)

    async def _note(self, rule: Rule) -> None:
        """Take a poll into the record."""
        attachment, progress = self.attachment, self.progress
        if progress is None:
            raise RuntimeError("no files were read")
        before = (attachment.files_ready, attachment.bytes_ready, attachment.state, attachment.error)
        await progress.update(rule, time.monotonic(), self.tools.client, self.tools.mount, self.tools.rse)
        attachment.files_ready, attachment.bytes_ready = progress.files_ready, progress.bytes_ready
        attachment.rate, attachment.eta = progress.rate, progress.eta
        attachment.expires_at = rule.expires_at
        state: State = "stuck" if rule.state in {"STUCK", "SUSPENDED"} else "replicating"
        fault = await self._stuck_fault(rule) if state == "stuck" else None
        if rule.state == "WAITING_APPROVAL":
            fault = Fault("approval", "The replication waits for somebody to approve it.", "wait")
        fault = fault or (self.note if state == "replicating" else None)
        after = (attachment.files_ready, attachment.bytes_ready, state, fault.as_dict() if fault else None)
        if before != after:
            await self.save(state, fault)

    async def _stuck_fault(self, rule: Rule) -> Fault:
        if rule.state == "SUSPENDED":
            return Fault("suspended", "The replication was suspended by the data lake's operators.", "contact")
        if self.attachment.state == "stuck" and self.attachment.error:
            code = self.attachment.error
            return Fault(code["code"], code["message"], code["action"])
        reason = rule.error
        if not reason:
            try:
                reason = await self.tools.client.analysis(rule.id)
            except DmspError as error:
                log.info("no analysis of %s: %s", rule.id, error)
        missing = rule.replicating + rule.stuck
        reason = reason.removeprefix(TRANSFER_FAILED).strip()
        text = f"{missing} of {self.attachment.files_total} files do not arrive"
        return Fault("stuck", f"{text}: {reason[:300]}" if reason else f"{text}.", "retry")

    async def _land(self) -> None:
        """Every file is looked for on the mount, with its size, before anybody is told that it is there."""
        attachment, progress = self.attachment, self.progress
        if progress is None or not self.files:
            raise RuntimeError("no files were read")
        started, interval = time.monotonic(), 0.05
        while progress.pending:
            positions = list(progress.pending)
            try:
                found = await self.tools.mount.look([self.wanted[i] for i in positions])
            except MountGone:
                if attachment.error != MOUNT_GONE.as_dict():
                    await self.save(fault=MOUNT_GONE)
                started = time.monotonic()
                await asyncio.sleep(MOUNT_AGAIN)
                continue
            progress.land([positions[i] for i in found.present])
            if found.refused and not found.absent and not found.wrong:
                raise Hidden(
                    "You may not read these files on scratch.", "Ask for membership of the experiment."
                )
            if not progress.pending:
                break
            if time.monotonic() - started > LANDING_PATIENCE:
                await self._give_up([positions[i] for i in (*found.absent, *found.wrong, *found.refused)])
                return
            attachment.files_ready = len(self.files) - len(progress.pending)
            await self.save()
            interval = min(2.0, interval * 2)
            await asyncio.sleep(interval)
        await self._ready()

    async def _give_up(self, absent: Sequence[int]) -> None:
        """Some files never came: keep those that did in the manifest, and name the others."""
        lost = set(absent)
        error = NotLanded(
            f"{len(lost)} of {len(self.files)} files are missing or broken on scratch although the data lake "
            "counts them as delivered.",
            "Try again; report it to support when it stays.",
        )
        here = [i for i in range(len(self.files)) if i not in lost]
        listed: Listed = (
            [self.files[i] for i in here],
            [self.wanted[i].path for i in here],
            [self.files[i].did.name for i in sorted(lost)],
        )
        await self.save("failed", fault_of(error), listed)

    async def _ready(self) -> None:
        """Manifest and links first, then the state: whoever sees `ready` can read."""
        attachment = self.attachment
        attachment.files_ready, attachment.bytes_ready = attachment.files_total, attachment.bytes_total
        paths = [w.path for w in self.wanted]
        try:
            if not await self.save("ready", listed=(self.files, paths, ())):
                return
        except OSError as error:
            raise DmspError(
                f"The list of files cannot be written: {error.strerror}.", "Free some space."
            ) from error
        await self._link(paths)

    async def _link(self, paths: Sequence[str]) -> None:
        attachment = self.attachment
        did = attachment.parsed
        pairs = [(f.did.name, path) for f, path in zip(self.files, paths, strict=True)]
        try:
            target = await asyncio.to_thread(self.tools.links.make, did.scope, did.name, pairs, attachment.id)
        except LinksRefused as error:
            log.warning("%s: %s", attachment.id, error)
            return
        attachment.links = str(target)
        await self.tools.records.save(attachment)

    async def recheck(self, mounted: bool) -> None:
        """After a start of the server: what was ready is looked at again, and its manifest made anew.

        Args:
            mounted: whether the mount answers; if not, the files are waited for.
        """
        attachment = self.attachment
        self._take(await self.tools.records.content(attachment.id))
        if self.progress is None or not self.files:
            attachment.state = "requested"
            return
        if not mounted:
            attachment.state = "landing"
        elif await self.seen(self.files):
            await self._ready()
        else:
            attachment.state = "requested"
