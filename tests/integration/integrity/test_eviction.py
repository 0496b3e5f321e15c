"""Scratch that fills up: what goes first, what is told to whom, and what comes by itself when there is room."""

from __future__ import annotations

import asyncio
import configparser
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from attaching import Attaching
from damage import Damage
from testlake import SCRATCH

from jupyterhub_dmsp.lab.records import Attachment
from jupyterhub_dmsp.lake.did import Did

pytestmark = pytest.mark.root
MB = 1_000_000
NOTICE = 20


@pytest.fixture(scope="module")
def small(damage: Damage) -> Iterator[Damage]:
    """Scratch holds 10 MB, begins to release at 9 and ends at 6."""
    file = damage.lake.state / "rucio" / "rucio.cfg"
    before = file.read_text()
    parser = configparser.RawConfigParser()
    parser.read_string(before)
    marks = {"limit": 10 * MB, "high": 90, "low": 60, "notice": NOTICE}
    for name, value in marks.items():
        parser.set("dmsp", f"scratch_{name}", str(value))
    with file.open("w") as stream:
        parser.write(stream)
    damage.lake.start_daemons()
    yield damage
    file.write_text(before)
    damage.lake.start_daemons()


class Session(Attaching):
    """One whose data are released."""

    async def attach(self, dataset: str, *states: str) -> Attachment:
        attachment, _ = await self.manager.attach(Did.parse(dataset))
        return await self.until(attachment.id, *(states or ("ready",)))

    async def counted(self, used: int, free: int) -> None:
        """Wait until the lake says that so many MB are used and free: it counts some seconds later."""
        async with asyncio.timeout(60):
            while (room := await self.client.room(SCRATCH)) is None or (
                (room.used, room.free) != (used * MB, free * MB)
            ):
                await asyncio.sleep(0.5)

    async def until(self, ident: str, *states: str) -> Attachment:
        async with asyncio.timeout(60):
            while (found := self.manager.get(ident)).state not in states or (
                found.state == "ready" and not found.rule_id
            ):
                await asyncio.sleep(0.05)
        return found

    async def told(self, ident: str, code: str | None, seconds: float = 40) -> Attachment:
        """Look after the rules, as the session does now and then, until this is told."""
        async with asyncio.timeout(seconds):
            while True:
                await self.manager.check_rules()
                found = self.manager.get(ident)
                if (found.error or {}).get("code") == code:
                    return found
                await asyncio.sleep(0.5)


@pytest.fixture
async def session(small: Damage, tmp_path: Path) -> AsyncIterator[Session]:
    session = Session(small.lake, tmp_path)
    yield session
    await session.close()


def _data(damage: Damage, did: Any, size: float) -> str:
    dataset: str = did("km3net")
    half = int(size * MB / 2)
    damage.dataset(dataset, {f"{dataset.split(':')[1]}.{n}": os.urandom(half) for n in range(2)})
    return dataset


def _gone(damage: Damage, rule: str) -> bool:
    return bool(damage.lake.root.http.get(f"/rules/{rule}").status_code == 404)


async def test_the_least_recently_used_go_first_and_what_is_in_use_stays(
    small: Damage, session: Session, did: Any
) -> None:
    small.end_all()
    other = small.lake.user(f"o{os.urandom(3).hex()}", "km3net")
    used = await session.attach(_data(small, did, 2))  # the oldest, and in use
    rules = []
    for size in (2, 2, 2):
        rules.append(other.rule(_data(small, did, size)))
        other.wait(rules[-1])
    assert used.rule_id
    assert not any(_gone(small, rule) for rule in rules)
    newest = other.rule(_data(small, did, 1.5))  # 9.5 of 10 MB: down to 6
    other.wait(newest)
    small.lake.until(lambda: _gone(small, rules[0]) and _gone(small, rules[1]), 30, "the older two to go")
    assert not _gone(small, rules[2])
    assert not _gone(small, newest)
    await session.manager.check_rules()
    assert (used.state, used.error) == ("ready", None)
    report = await small.check()
    assert report.clean, report.as_dict()
    room = await session.client.room(SCRATCH)
    assert room is not None
    assert room.used + room.free == 10 * MB


async def test_what_is_in_use_goes_last_and_is_told_before(small: Damage, session: Session, did: Any) -> None:
    small.end_all()
    first = await session.attach(_data(small, did, 4))
    second = await session.attach(_data(small, did, 3))
    third = await session.attach(_data(small, did, 2.5))
    noticed = await session.told(first.id, "evicting")
    assert noticed.state == "ready"
    assert noticed.error
    assert noticed.error["action"] == "release"
    assert "UTC" in noticed.error["message"]
    # Somebody makes room: the notice is taken back, by daemons too that have not given it. An end that an administrator
    # has set for another one stays.
    theirs = "2030-01-01 00:00:00"
    small.lake.sql(f"update rules set eol_at='{theirs}' where id='{third.rule_id}' returning 1")
    small.lake.sql(f"update rules set eol_at='{theirs}' where id='{second.rule_id}' returning 1")
    small.lake.start_daemons()
    await session.manager.release(third.id, purge=True)
    assert (await session.told(first.id, None)).state == "ready"
    kept = await session.client.rule(second.rule_id or "")
    assert kept.ends_at == datetime.fromisoformat(f"{theirs}+00:00").timestamp()
    small.lake.sql(f"update rules set eol_at=null where id='{second.rule_id}' returning 1")
    assert small.lake.sql("select count(*) from configs where section='dmsp-notices'") == "[(0,)]"
    # Nobody does: it goes when its time has come, and not before.
    again = await session.attach(_data(small, did, 2.5))
    noticed = await session.told(first.id, "evicting")
    rule = await session.client.rule(first.rule_id or "")
    assert rule.ends_at is not None
    small.lake.until(lambda: _gone(small, first.rule_id or ""), NOTICE + 30, "the noticed one to go")
    assert time.time() >= rule.ends_at - 1
    gone = await session.told(first.id, "evicted")
    assert gone.state == "failed"
    assert gone.error
    assert gone.error["action"] == "retry"
    for kept in (second, again):
        await session.manager.check_rules()
        assert (kept.state, kept.error) == ("ready", None)


async def test_no_room_is_said_with_numbers_and_comes_by_itself_later(
    small: Damage, session: Session, did: Any
) -> None:
    small.end_all()
    await session.counted(0, 10)
    held = await session.attach(_data(small, did, 6))
    await session.counted(6, 4)
    wanted = await session.attach(_data(small, did, 5), "failed", "ready")
    assert wanted.state == "failed"
    assert wanted.error
    assert (wanted.error["code"], wanted.error["action"]) == ("scratch_full", "release")
    assert "It needs 5.0 MB, scratch has 4.0 MB left." in wanted.error["message"]
    await session.manager.check_rules()
    assert session.manager.get(wanted.id).state == "failed"
    await session.manager.release(held.id, purge=True)
    async with asyncio.timeout(90):
        while session.manager.get(wanted.id).state != "ready":
            await session.manager.check_rules()  # as the session does now and then
            await asyncio.sleep(0.5)
    assert session.manager.get(wanted.id).error is None


async def test_room_is_counted_by_rucio_and_put_right_where_that_is_wrong(
    small: Damage, session: Session, did: Any
) -> None:
    small.end_all()
    await session.counted(0, 10)
    wrong = (
        "update rse_usage set used = used + 3000000, files = files + 1 where source='rucio' and rse_id ="
        f" (select id from rses where rse='{SCRATCH}') returning 1"
    )
    assert small.lake.sql(wrong) == "[(1,)]"
    small.lake.start_daemons()  # they compare at their start, and now and then
    await session.attach(_data(small, did, 2))
    await session.counted(2, 8)


async def test_a_running_session_renews_the_lifetime(small: Damage, session: Session, did: Any) -> None:
    small.end_all()
    attachment = await session.attach(_data(small, did, 1))
    rule = attachment.rule_id or ""
    small.lake.root("PUT", f"/rules/{rule}", {"options": {"lifetime": 60}})
    await session.manager.check_rules()
    found = await session.client.rule(rule)
    assert found.expires_at is not None
    assert found.expires_at > time.time() + 3000
    assert found.in_use_until > time.time() + 300
    assert (attachment.state, attachment.error) == ("ready", None)


async def test_files_that_are_cured_are_not_called_ready_meanwhile(
    small: Damage, session: Session, did: Any
) -> None:
    small.end_all()
    dataset = _data(small, did, 1)
    attachment = await session.attach(dataset)
    files = small.files()
    content = [path.read_bytes() for path in files]
    dids = [f"{dataset.split(':')[0]}:{path.name}" for path in files]
    # The session sees by itself that a file is short …
    small.truncate(SCRATCH, dids[0])
    damaged = await session.told(attachment.id, "damaged")
    assert damaged.state == "landing"
    assert (await small.check(repair=True)).clean
    assert (await session.until(attachment.id, "ready")).error is None
    # … and of a wrong checksum it learns when Rucio copies anew.
    small.flip(SCRATCH, dids[1])
    small.lake.start_daemons(DMSP_RUCIO_COPY_PAUSE="3")
    report = asyncio.create_task(small.check(repair=True))
    cured = await session.told(attachment.id, "repairing")
    assert cured.state == "replicating"
    assert (await report).clean
    assert (await session.until(attachment.id, "ready")).error is None
    assert [path.read_bytes() for path in files] == content
