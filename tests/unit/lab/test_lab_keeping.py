"""What a running session does for what it has attached, against a lake of paper."""

from __future__ import annotations

import time

from paperlake import DS, Bench

from jupyterhub_dmsp.lab.records import Attachment
from jupyterhub_dmsp.lake.errors import Forbidden, QuotaExceeded, make
from jupyterhub_dmsp.lake.models import Usage


async def _ready(bench: Bench) -> Attachment:
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0, in_use_until=time.time() + 500)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "ready")
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
