"""The attachment's state machine against a lake of paper: what a real one cannot be made to do on demand."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from paperlake import DS, Bench

from jupyterhub_dmsp.lab import flow as flow_module
from jupyterhub_dmsp.lab.errors import BadRequest, NoAttachment
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import (
    Changing,
    Forbidden,
    LakeError,
    NotFound,
    QuotaExceeded,
    RucioDown,
    Unauthorised,
    make,
)
from jupyterhub_dmsp.lake.models import LakeFile


async def test_on_scratch_already_is_locked_before_it_is_called_ready(bench: Bench) -> None:
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0)
    attachment, new = await bench.manager.attach(DS)
    assert new
    await bench.until(attachment.id, "ready")
    assert bench.told[-1][0] == "ready"
    assert bench.lake.calls == ["files", "pin", "rule"]
    assert attachment.expires_at == 2e9
    async with asyncio.timeout(5):
        while not attachment.links:  # they follow
            await asyncio.sleep(0.01)
    manifest = bench.manifest(attachment.id)
    assert [Path(f["path"]).read_bytes() for f in manifest["files"]] == [b"x" * 10] * 3
    assert manifest["digest"].startswith("sha256:")
    assert len((bench.root / "run" / "attachments" / attachment.id / "paths.txt").read_text().splitlines()) == 3
    assert len(list((bench.root / "home/datasets/dmsp/ds").glob("f*"))) == 3
    # Attached again: one look at the rule, nothing else.
    again, new = await bench.manager.attach(DS)
    assert (again, new) == (attachment, False)
    assert bench.lake.calls[3:] == ["rule"]


async def test_what_another_user_s_purge_takes_is_not_called_ready(bench: Bench) -> None:
    # All is on scratch, and the rule that holds it there is being ended: ours cannot be made until the files are gone.
    bench.land(0, 1, 2)
    bench.lake.raises["pin"] = make(Changing)
    attachment, _ = await bench.manager.attach(DS)
    async with asyncio.timeout(5):
        while attachment.error is None:
            await asyncio.sleep(0.01)
    assert (attachment.state, attachment.error["code"], attachment.error["action"]) == (
        "requested",
        "changing",
        "wait",
    )
    shutil.rmtree(bench.root / "mount" / "dmsp")
    del bench.lake.raises["pin"]
    await bench.until(attachment.id, "replicating")
    bench.land(0, 1, 2)
    bench.set_rule(state="OK", ok=3, replicating=0)
    await bench.until(attachment.id, "ready")
    states = [state for state, _ in bench.told]
    assert states.index("ready") > states.index("replicating")
    assert attachment.error is None


async def test_a_kept_one_that_has_to_be_copied_anew_is_followed(bench: Bench) -> None:
    bench.land(0, 1, 2)
    bench.lake.raises["pin"] = make(RucioDown)
    attachment, _ = await bench.manager.attach(DS)
    await bench.until(attachment.id, "ready")
    async with asyncio.timeout(5):
        while attachment.error is None:
            await asyncio.sleep(0.01)
    # The lake is back, and has lost a replica meanwhile.
    del bench.lake.raises["pin"]
    bench.set_rule(ok=2, replicating=1)
    await bench.manager.resume()
    await bench.until(attachment.id, "replicating")
    bench.set_rule(state="OK", ok=3, replicating=0)
    await bench.until(attachment.id, "ready")
    assert attachment.error is None


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


async def test_files_that_are_stuck_are_named_when_asked_for_and_not_in_a_poll(bench: Bench) -> None:
    attachment, _ = await bench.manager.attach(DS)
    assert await bench.manager.failures(attachment.id) == ([], 0)
    bench.lake.stuck = 53
    bench.set_rule(state="STUCK", replicating=0, ok=2, stuck=1)
    await bench.until(attachment.id, "stuck")
    assert "failures" not in bench.lake.calls
    some, total = await bench.manager.failures(attachment.id)
    assert (len(some), total) == (50, 53)
    assert (str(some[1].did), some[1].reason) == ("dmsp:f001", "reason 1")
    assert bench.lake.calls.count("failures") == 1


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
    some, total = await bench.manager.failures(attachment.id)
    assert total == 2
    assert {str(one.did): one.reason for one in some} == {
        "dmsp:f1": "On scratch it has another size than in the data lake.",
        "dmsp:f2": "It is not on scratch.",
    }


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
    await bench.until(attachment.id, "ready")
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
    await bench.until(attachment.id, "ready")
    bench.lake.contents = [*bench.lake.contents, LakeFile(Did("dmsp", "f3"), 10)]
    bench.set_rule(ok=4)
    await bench.manager.attach(DS)
    await bench.until(attachment.id, "ready")
    assert attachment.files_total == 4
    assert len(bench.manifest(attachment.id)["files"]) == 4
