"""Everything killed at once, and the supervisor killed alone: the next ``dmsp up`` puts it right."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from boxes import Box
from killing import all_healthy, assert_on_scratch, kill_everything, of_box, said
from lakes import administrator, make_dataset
from visitor import Visitor

from jupyterhub_dmsp.box.rucio.parts import daemons_health
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]
NAME, PROFILE = "collider-user", "minimal"


@pytest.fixture
async def visitor(own_box: Box) -> AsyncIterator[Visitor]:
    async with Visitor(own_box.address, NAME, own_box.passwords[NAME]) as visitor:
        yield visitor


async def attach(box: Box, visitor: Visitor) -> tuple[str, list[LakeFile]]:
    """A dataset whose transfer is under way; the attachment's identity, and the files."""
    did = Did("dmsp", f"test.cut.{uuid.uuid4().hex[:8]}")
    async with administrator(box) as rucio:
        files = await make_dataset(box, rucio, did, [2 << 20] * 24)
    status, body = await visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
    assert status == 201, body
    async with asyncio.timeout(60):
        while not daemons_health(box.state / "rucio").copying:
            await asyncio.sleep(0.05)
    return str(body["id"]), files


async def ready(visitor: Visitor, identity: str) -> None:
    body: object = None
    async with asyncio.timeout(180):
        while not (isinstance(body, dict) and body.get("state") == "ready"):
            _, body = await visitor.lab_or_nothing(f"dmsp/v1/attachments/{identity}")
            assert not (isinstance(body, dict) and body.get("state") == "failed"), body
            await asyncio.sleep(0.3)


async def test_supervisor_killed_alone(own_box: Box, visitor: Visitor) -> None:
    """Its parts end with it, sessions go on; the next box adopts them and finishes the transfer."""
    await visitor.start(PROFILE)
    kernel = await visitor.kernel()
    await kernel.run("remembered = 4711")
    identity, files = await attach(own_box, visitor)
    owner = State(own_box.state).owner()
    assert owner is not None
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    assert own_box.status["parts"] == [], "what a dead box said last does not count"
    await asyncio.to_thread(own_box.up)
    await all_healthy(own_box)
    await ready(visitor, identity)
    assert_on_scratch(own_box, files)
    assert "4711" in await kernel.run("remembered")


async def test_power_cut(own_box: Box, visitor: Visitor) -> None:
    """Everything at once, sessions and mounts too. The user logs in again and the attachment goes on."""
    await visitor.start(PROFILE)
    identity, files = await attach(own_box, visitor)
    count = kill_everything(own_box)
    assert count > len(said(own_box)), "parts, their children and the session"
    assert not of_box(own_box)
    await asyncio.to_thread(own_box.up)
    await all_healthy(own_box)
    async with Visitor(own_box.address, NAME, own_box.passwords[NAME]) as again:
        await again.start(PROFILE)
        await ready(again, identity)
        assert_on_scratch(own_box, files)
        status, listed = await again.lab("GET", "dmsp/v1/attachments")
        assert status == 200
        assert identity in str(listed)


async def test_down_after_the_supervisor_was_killed(own_box: Box, visitor: Visitor) -> None:
    """`dmsp down` takes away what is left: sessions, mounts, networks; then nothing of the box remains."""
    await visitor.start(PROFILE)
    owner = State(own_box.state).owner()
    assert owner is not None
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    own_box.dmsp("down")
    assert not of_box(own_box)
    assert str(own_box.state) not in Path("/proc/self/mountinfo").read_text()
    assert own_box.dmsp("down", check=False).returncode == 3
    await asyncio.to_thread(own_box.up)
