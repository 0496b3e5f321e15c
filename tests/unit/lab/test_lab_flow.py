"""The attachment's state machine against a lake of paper: what a real one cannot be made to do on demand."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.lab import flow as flow_module
from jupyterhub_dmsp.lab.attachments import Attachments
from jupyterhub_dmsp.lab.errors import BadRequest, NoAttachment
from jupyterhub_dmsp.lab.flow import Tools
from jupyterhub_dmsp.lab.manifest import Manifests
from jupyterhub_dmsp.lab.records import Attachment, Records
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import (
    Forbidden,
    LakeError,
    NotFound,
    QuotaExceeded,
    RucioDown,
    Unauthorised,
    make,
)
from jupyterhub_dmsp.lake.models import LakeFile, Room, Rule, Usage
from jupyterhub_dmsp.lake.rules import Pinned
from jupyterhub_dmsp.scratch.links import Links
from jupyterhub_dmsp.scratch.mount import Mount
from jupyterhub_dmsp.scratch.paths import Paths

LAKE = "http://rucio.test"
DS = Did("dmsp", "ds")
SETTLED = frozenset({"requested", "replicating", "landing"})


@dataclass
class Paper:
    """A lake that does what it is told."""

    contents: list[LakeFile]
    rule_now: Rule
    raises: dict[str, LakeError] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    room_now: Room | None = None
    account: str = "me"

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.raises:
            raise self.raises[name]

    async def files(self, did: Did) -> AsyncIterator[list[LakeFile]]:
        self._call("files")
        yield self.contents

    async def pin(self, did: Did, rse: str, lifetime: int, comment: str) -> Pinned:
        self._call("pin")
        return Pinned("rule1", None, True)

    async def rule(self, rule_id: str) -> Rule:
        self._call("rule")
        return self.rule_now

    async def own_rules(self) -> list[Rule]:
        self._call("own_rules")
        return [self.rule_now]

    async def analysis(self, rule_id: str) -> str:
        self._call("analysis")
        return "RequestErrMsg.TRANSFER_FAILED:source file is missing"

    async def boost(self, rule_id: str) -> None:
        self._call("boost")

    async def mark_in_use(self, rule: Rule, until: float) -> None:
        self._call("mark_in_use")
        self.rule_now = replace(self.rule_now, in_use_until=until)

    async def usage(self, account: str) -> list[Usage]:
        self._call("usage")
        return self.usages

    async def room(self, rse: str) -> Room | None:
        self._call("room")
        return self.room_now

    async def set_lifetime(self, rule_id: str, seconds: int) -> None:
        self._call("set_lifetime")

    async def end_rule(self, rule_id: str, purge: bool) -> None:
        self._call(f"end_rule {purge}")

    async def bytes_done(self, did: Did, rse: str) -> int | None:
        self._call("bytes_done")
        return 5


@dataclass
class Bench:
    """A manager on a temporary scratch."""

    root: Path
    lake: Paper
    told: list[tuple[str, int]] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        (self.root / "mount").mkdir(exist_ok=True)
        self.paths = Paths(self.root / "mount")
        self.mount = Mount(self.root / "mount", timeout=2)
        self.records = Records(self.root / "attachments.sqlite", LAKE)
        self.tools = Tools(
            self.lake,
            "SCRATCH",
            self.paths,
            self.mount,
            self.records,
            Manifests(self.root / "run"),
            Links(self.root / "home" / "datasets"),
            self._changed,
        )
        self.manager = Attachments(self.tools, LAKE, 86400)

    def _changed(self, attachment: Attachment) -> None:
        self.told.append((attachment.state, attachment.seq))
        self.manager.note(attachment)

    def land(self, *numbers: int, content: bytes = b"x" * 10) -> None:
        for number in numbers:
            path = Path(self.paths.of("dmsp", f"f{number}"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def set_rule(self, **changes: Any) -> None:
        self.lake.rule_now = replace(self.lake.rule_now, **changes)

    async def until(self, ident: str, *states: str) -> Attachment:
        async with asyncio.timeout(10):
            while (found := self.manager.get(ident)).state not in states:
                await asyncio.sleep(0.01)
        return found

    def manifest(self, ident: str) -> dict[str, Any]:
        return dict(json.loads((self.root / "run" / "attachments" / ident / "manifest.json").read_text()))

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        await self.manager.stop()
        await self.records.close()


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(flow_module, "FIRST_POLL", 0.01)
    monkeypatch.setattr(flow_module, "LONGEST_POLL", 0.05)
    files = [LakeFile(Did("dmsp", f"f{i}"), 10, "0a") for i in range(3)]
    rule = Rule("rule1", DS, "me", "SCRATCH", "REPLICATING", 0, 3, 0, "", 2e9, 1e9)
    bench = Bench(tmp_path, Paper(files, rule))
    yield bench
    await bench.close()


async def test_on_scratch_already_is_ready_after_one_call_and_then_pinned(bench: Bench) -> None:
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0)
    attachment, new = await bench.manager.attach(DS)
    assert new
    await bench.until(attachment.id, "ready")
    assert bench.told[-1][0] == "ready"
    async with asyncio.timeout(5):
        while attachment.expires_at != 2e9:
            await asyncio.sleep(0.01)
    assert bench.lake.calls == ["files", "pin", "rule"]
    manifest = bench.manifest(attachment.id)
    assert [Path(f["path"]).read_bytes() for f in manifest["files"]] == [b"x" * 10] * 3
    assert manifest["digest"].startswith("sha256:")
    assert len((bench.root / "run" / "attachments" / attachment.id / "paths.txt").read_text().splitlines()) == 3
    assert len(list((bench.root / "home/datasets/dmsp/ds").glob("f*"))) == 3
    # Attached again: one look at the rule, nothing else.
    again, new = await bench.manager.attach(DS)
    assert (again, new) == (attachment, False)
    assert bench.lake.calls[3:] == ["rule"]


async def test_the_whole_way(bench: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS, "events")
    await bench.until(attachment.id, "replicating")
    assert bench.manifest(attachment.id)["state"] == "replicating"
    bench.land(0)
    bench.set_rule(ok=1, replicating=2)
    async with asyncio.timeout(5):
        while attachment.bytes_ready < 10:
            await asyncio.sleep(0.01)
    assert (attachment.files_ready, attachment.bytes_ready, attachment.files_total) == (1, 10, 3)
    bench.set_rule(state="OK", ok=3, replicating=0)
    await bench.until(attachment.id, "landing")
    assert bench.manager.get(attachment.id).state == "landing"
    bench.land(1, 2)
    await bench.until(attachment.id, "ready")
    states = list(dict.fromkeys(state for state, _ in bench.told))
    assert states == ["requested", "replicating", "landing", "ready"]
    assert [seq for _, seq in bench.told] == sorted({seq for _, seq in bench.told})
    assert attachment.variable == "events"


async def test_stuck_tells_the_reason_and_retry_boosts(bench: Bench) -> None:
    bench.set_rule(state="STUCK", replicating=0, ok=2, stuck=1)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "stuck")
    assert attachment.error is not None
    assert attachment.error["message"] == "1 of 3 files do not arrive: source file is missing"
    assert attachment.error["action"] == "retry"
    bench.set_rule(state="REPLICATING", replicating=1, stuck=0)
    await bench.manager.retry(attachment.id)
    assert "boost" in bench.lake.calls
    await bench.until(attachment.id, "replicating")
    assert attachment.error is None


async def test_boost_refused_says_how_it_goes_on(bench: Bench) -> None:
    bench.set_rule(state="STUCK", replicating=0, stuck=3)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "stuck")
    bench.lake.raises["boost"] = make(Forbidden)
    await bench.manager.retry(attachment.id)
    assert attachment.error is not None
    assert attachment.error["action"] == "wait"
    assert "2 hours" in attachment.error["message"]


async def test_suspended(bench: Bench) -> None:
    bench.set_rule(state="SUSPENDED")
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "stuck")
    assert attachment.error is not None
    assert (attachment.error["code"], attachment.error["action"]) == ("suspended", "contact")


async def test_rule_gone_while_replicating(bench: Bench) -> None:
    bench.lake.raises["rule"] = make(NotFound)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "failed")
    assert attachment.error is not None
    assert (attachment.error["code"], attachment.error["action"]) == ("rule_gone", "retry")
    del bench.lake.raises["rule"]
    await bench.manager.attach(DS)
    await bench.until(attachment.id, "replicating")


async def test_rules_deleted_behind_a_ready_one(bench: Bench) -> None:
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "ready")
    async with asyncio.timeout(5):
        while attachment.rule_id is None or "rule" not in bench.lake.calls:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    bench.set_rule(id="another")
    await bench.manager.check_rules()
    assert attachment.state == "ready"
    assert attachment.error is not None
    assert (attachment.error["code"], attachment.error["action"]) == ("not_kept", "retry")
    shutil.rmtree(bench.root / "mount" / "dmsp")
    attachment.error = None
    await bench.manager.check_rules()
    assert attachment.state == "failed"
    assert bench.manifest(attachment.id)["state"] == "failed"
    assert not (bench.root / "run" / "attachments" / attachment.id / "paths.txt").exists()


@pytest.mark.parametrize(
    ("where", "error", "code", "action"),
    [
        ("files", NotFound, "not_found", "none"),
        ("files", RucioDown, "rucio_down", "retry"),
        ("pin", QuotaExceeded, "quota", "release"),
        ("pin", Forbidden, "forbidden", "contact"),
        ("pin", Unauthorised, "unauthorised", "login"),
    ],
)
async def test_refusals(
    bench: Bench,
    where: str,
    error: type[LakeError],
    code: str,
    action: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow_module, "AWAY_PATIENCE", 0.0)
    bench.lake.raises[where] = make(error)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "failed")
    assert attachment.error is not None
    assert (attachment.error["code"], attachment.error["action"]) == (code, action)
    assert bench.manifest(attachment.id)["error"] == attachment.error


async def test_empty(bench: Bench) -> None:
    bench.lake.contents = []
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "failed")
    assert attachment.error is not None
    assert attachment.error["code"] == "empty"


async def test_names_that_leave_the_mount(bench: Bench) -> None:
    bench.lake.contents = [LakeFile(Did("dmsp", "a/../../../etc/passwd"), 10)]
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "failed")
    assert attachment.error is not None
    assert attachment.error["code"] == "outside_mount"
    assert "pin" not in bench.lake.calls


async def test_a_lake_that_is_down_for_a_while_costs_nothing(bench: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "replicating")
    bench.lake.raises["rule"] = make(RucioDown)
    async with asyncio.timeout(5):
        while attachment.error is None:
            await asyncio.sleep(0.01)
    assert attachment.state == "replicating"
    del bench.lake.raises["rule"]
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0)
    await bench.until(attachment.id, "ready")
    assert attachment.error is None


async def test_usable_but_not_kept(bench: Bench) -> None:
    bench.land(0, 1, 2)
    bench.lake.raises["pin"] = make(QuotaExceeded)
    attachment, _ = await bench.manager.attach(DS)
    async with asyncio.timeout(5):
        while attachment.error is None:
            await asyncio.sleep(0.01)
    assert attachment.state == "ready"
    assert attachment.error["code"] == "not_kept"
    assert "quota" in attachment.error["message"]
    del bench.lake.raises["pin"]
    bench.set_rule(state="OK", ok=3, replicating=0)
    await bench.manager.retry(attachment.id)
    async with asyncio.timeout(5):
        while attachment.rule_id is None or attachment.error:
            await asyncio.sleep(0.01)


async def test_files_that_never_land_are_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "LANDING_PATIENCE", 0.1)
    bench.land(0)
    bench.land(1, content=b"short")
    bench.set_rule(state="OK", ok=3, replicating=0)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "failed")
    async with asyncio.timeout(5):
        while not bench.manifest(attachment.id)["missing"]:
            await asyncio.sleep(0.01)
    manifest = bench.manifest(attachment.id)
    assert manifest["missing"] == ["f1", "f2"]
    assert [f["name"] for f in manifest["files"]] == ["f0"]
    assert attachment.error is not None
    assert (attachment.error["code"], attachment.error["action"]) == ("not_landed", "retry")


async def test_a_mount_that_is_gone_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "MOUNT_AGAIN", 0.02)
    mount = bench.root / "mount"
    mount.rmdir()
    bench.set_rule(state="OK", ok=3, replicating=0)
    attachment, _ = await bench.manager.attach(DS)
    async with asyncio.timeout(5):
        while attachment.error is None:
            await asyncio.sleep(0.01)
    assert (attachment.state, attachment.error["action"]) == ("landing", "remount")
    mount.mkdir()
    bench.land(0, 1, 2)
    await bench.until(attachment.id, "ready")
    assert attachment.error is None


async def test_a_new_server_takes_up_where_the_old_one_was(bench: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "replicating")
    await bench.close()
    shutil.rmtree(bench.root / "run")
    second = Bench(bench.root, bench.lake)
    await second.manager.start()
    assert second.manager.get(attachment.id).state == "replicating"
    second.land(0, 1, 2)
    second.set_rule(state="OK", ok=3, replicating=0)
    await second.until(attachment.id, "ready")
    assert second.lake.calls.count("files") == 1
    assert second.lake.calls.count("pin") == 1
    assert second.manager.get(attachment.id).seq > attachment.seq
    await second.close()
    shutil.rmtree(bench.root / "run")
    third = Bench(bench.root, bench.lake)
    calls = len(third.lake.calls)
    await third.manager.start()
    assert third.manifest(attachment.id)["state"] == "ready"
    assert len(third.lake.calls) == calls
    await third.close()


async def test_ten_requests_for_a_did_are_one_attachment(bench: Bench) -> None:
    found = await asyncio.gather(*(bench.manager.attach(DS) for _ in range(10)))
    assert len({a.id for a, _ in found}) == 1
    assert [new for _, new in found].count(True) == 1
    await bench.until(found[0][0].id, "replicating")
    assert bench.lake.calls.count("pin") == 1


async def test_release(bench: Bench) -> None:
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0)
    attachment, _ = await bench.manager.attach(DS)
    async with asyncio.timeout(5):
        while attachment.expires_at != 2e9:
            await asyncio.sleep(0.01)
    bench.lake.raises["end_rule False"] = make(RucioDown)
    with pytest.raises(RucioDown):
        await bench.manager.release(attachment.id)
    assert bench.manager.get(attachment.id).state == "ready"
    del bench.lake.raises["end_rule False"]
    assert (await bench.manager.release(attachment.id)).state == "released"
    assert not (bench.root / "home/datasets/dmsp").exists()
    assert not (bench.root / "run/attachments" / attachment.id).exists()
    with pytest.raises(NoAttachment):
        bench.manager.get(attachment.id)
    again, new = await bench.manager.attach(DS)
    assert new
    assert again.id == attachment.id


async def test_cancel_purges_what_has_not_arrived(bench: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "replicating")
    await bench.manager.release(attachment.id)
    assert "end_rule True" in bench.lake.calls


async def test_a_site_that_refuses_owners(bench: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "replicating")
    bench.lake.raises["set_lifetime"] = bench.lake.raises["end_rule True"] = make(Forbidden)
    with pytest.raises(Forbidden, match="does not let you"):
        await bench.manager.extend(attachment.id, 3600)
    released = await bench.manager.release(attachment.id)
    assert released.error is not None
    assert released.error["code"] == "rule_stays"


async def test_extend(bench: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "replicating")
    await bench.manager.extend(attachment.id, 3600)
    assert "set_lifetime" in bench.lake.calls
    with pytest.raises(BadRequest):
        await bench.manager.extend(attachment.id, 5)


async def test_bad_requests(bench: Bench) -> None:
    for name in ("class", "2x", "a b", "print", "vector;", "__x"):
        with pytest.raises(BadRequest):
            await bench.manager.attach(DS, name)
    with pytest.raises(BadRequest):
        await bench.manager.attach(DS, lifetime=3)
    with pytest.raises(NoAttachment):
        bench.manager.get("0" * 16)


async def test_a_large_file_moves_its_bar(bench: Bench) -> None:
    size = 64 * 2**20
    bench.lake.contents = [LakeFile(Did("dmsp", "big"), size)]
    bench.set_rule(replicating=1)
    attachment, _ = await bench.manager.attach(DS)
    async with asyncio.timeout(5):
        while not attachment.bytes_ready:
            await asyncio.sleep(0.01)
    assert (attachment.bytes_ready, attachment.files_ready) == (5, 0)


async def test_content_that_has_grown_is_read_anew(bench: Bench) -> None:
    bench.land(0, 1, 2, 3)
    bench.set_rule(state="OK", ok=3, replicating=0)
    attachment, _ = await bench.manager.attach(DS)
    async with asyncio.timeout(5):
        while attachment.expires_at != 2e9:
            await asyncio.sleep(0.01)
    bench.lake.contents = [*bench.lake.contents, LakeFile(Did("dmsp", "f3"), 10)]
    bench.set_rule(ok=4)
    await bench.manager.attach(DS)
    await bench.until(attachment.id, "ready")
    assert attachment.files_total == 4
    assert len(bench.manifest(attachment.id)["files"]) == 4


async def _ready(bench: Bench) -> Attachment:
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0, in_use_until=time.time() + 500)
    attachment, _ = await bench.manager.attach(DS)
    async with asyncio.timeout(5):
        while attachment.expires_at != 2e9:
            await asyncio.sleep(0.01)
    bench.lake.calls.clear()
    return attachment


async def test_use_is_marked_and_renewed_at_half_time(bench: Bench) -> None:
    attachment = await _ready(bench)
    await bench.manager.check_rules()
    assert bench.lake.calls == ["own_rules"]
    bench.set_rule(in_use_until=time.time() + 299)
    await bench.manager.check_rules()
    assert bench.lake.calls[1:] == ["own_rules", "mark_in_use"]
    bench.set_rule(expires_at=time.time() + 100)
    await bench.manager.check_rules()
    assert bench.lake.calls[3:] == ["own_rules", "set_lifetime"]
    assert attachment.error is None
    assert attachment.expires_at is not None
    assert attachment.expires_at > time.time() + 80_000


async def test_a_lake_that_lets_owners_change_nothing_is_asked_once(bench: Bench) -> None:
    attachment = await _ready(bench)
    bench.lake.raises = {"mark_in_use": make(Forbidden), "set_lifetime": make(Forbidden)}
    bench.set_rule(in_use_until=0.0, expires_at=time.time() + 100)
    for _ in range(2):
        await bench.manager.check_rules()
        assert attachment.error is not None
        assert (attachment.state, attachment.error["code"]) == ("ready", "expiring")
        assert "does not let you extend" in attachment.error["message"]
    assert bench.lake.calls == ["own_rules", "mark_in_use", "set_lifetime", "own_rules"]


async def test_an_announced_end_is_told_and_taken_back(bench: Bench) -> None:
    attachment = await _ready(bench)
    bench.set_rule(ends_at=1795348800.0)
    await bench.manager.check_rules()
    assert attachment.error is not None
    assert (attachment.state, attachment.error["code"]) == ("ready", "evicting")
    assert "2026-11-22 12:00 UTC" in attachment.error["message"]
    bench.set_rule(ends_at=None)
    await bench.manager.check_rules()
    assert attachment.error is None


async def test_no_room_has_numbers_and_is_tried_again_when_there_is_some(bench: Bench) -> None:
    bench.lake.raises["pin"] = make(QuotaExceeded)
    bench.lake.usages = [Usage("SCRATCH", 90, 1, 100)]
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "failed")
    assert attachment.error is not None
    assert "It needs 30 bytes, your quota on scratch has 10 bytes left." in attachment.error["message"]
    del bench.lake.raises["pin"]
    await bench.manager.check_rules()
    assert attachment.state == "failed"
    bench.lake.usages = [Usage("SCRATCH", 20, 1, 100)]
    await bench.manager.check_rules()
    await bench.until(attachment.id, "replicating")


async def test_files_that_vanish_or_are_copied_anew_are_not_ready(bench: Bench) -> None:
    attachment = await _ready(bench)
    bench.land(1, content=b"short")
    await bench.manager.check_rules()
    assert attachment.error is not None
    assert (attachment.state, attachment.error["code"]) == ("landing", "damaged")
    assert not (bench.root / "run" / "attachments" / attachment.id / "paths.txt").exists()
    bench.land(1)
    await bench.until(attachment.id, "ready")
    assert attachment.error is None
    bench.set_rule(state="REPLICATING", ok=2, replicating=1)
    await bench.manager.check_rules()
    assert attachment.error is not None
    assert (attachment.state, attachment.error["code"]) == ("replicating", "repairing")
    bench.set_rule(state="OK", ok=3, replicating=0)
    await bench.until(attachment.id, "ready")
    # A dataset that grows is not damaged.
    bench.set_rule(state="REPLICATING", ok=3, replicating=1)
    await bench.manager.check_rules()
    assert attachment.state == "ready"
