"""``kill -9`` of each part under a running transfer and a running session: all of it comes back by itself."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from boxes import Box
from killing import PARTS, Watcher, all_healthy, assert_on_scratch, kill_part, said
from lakes import SCRATCH, administrator, make_dataset, place
from visitor import Kernel, Visitor

from jupyterhub_dmsp.box.rucio.parts import daemons_health
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]
FILES, SIZE = 24, 2 << 20


@dataclass
class Scene:
    """A user with a session, a kernel that remembers something, and an attachment under way."""

    box: Box
    visitor: Visitor
    kernel: Kernel
    secret: str

    async def attach(self) -> tuple[str, list[LakeFile]]:
        """Attach a new dataset and come back in the middle of the copying; identity and files."""
        did = Did("dmsp", f"test.kill.{uuid.uuid4().hex[:8]}")
        async with administrator(self.box) as rucio:
            files = await make_dataset(self.box, rucio, did, [SIZE] * FILES)
        status, body = await self.visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
        assert status == 201, body
        # Files get their names many at a time, at the end of a batch: that copying goes on is seen in the health file.
        async with asyncio.timeout(60):
            while not daemons_health(self.box.state / "rucio").copying:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert not all(place(self.box, SCRATCH, file.did).exists() for file in files), "it is over already"
        return str(body["id"]), files

    async def ready(self, identity: str, timeout: float = 180) -> None:
        """Wait until the attachment is ready; while a part is gone, asking may fail."""
        body: object = None
        async with asyncio.timeout(timeout):
            while True:
                status, body = await self.visitor.lab_or_nothing(f"dmsp/v1/attachments/{identity}")
                if status == 200 and isinstance(body, dict):
                    assert body["state"] != "failed", body
                    if body["state"] == "ready":
                        return
                await asyncio.sleep(0.3)

    async def release(self, identity: str) -> None:
        """Give the room back."""
        await self.visitor.lab("DELETE", f"dmsp/v1/attachments/{identity}", params={"purge": "true"})


@pytest.fixture(scope="module")
async def scene(own_box: Box) -> AsyncIterator[Scene]:
    name = "collider-user"
    async with Visitor(own_box.address, name, own_box.passwords[name]) as visitor:
        await visitor.start("minimal")
        kernel = await visitor.kernel()
        secret = uuid.uuid4().hex
        await kernel.run(f"remembered = {secret!r}")
        yield Scene(own_box, visitor, kernel, secret)


async def trial(scene: Scene, victims: list[str], *, tree: bool = False, gap: float = 0.0) -> None:
    """Kill these parts one after the other in the middle of an attachment; then nothing may be missing."""
    identity, files = await scene.attach()
    async with Watcher.of(scene.visitor) as watcher:
        for victim in victims:
            before = kill_part(scene.box, victim, tree=tree)
            await all_healthy(scene.box, {victim: before})
            await asyncio.sleep(gap)
        await scene.ready(identity)
        await watcher.settled()
    print(f"{victims}: {watcher.report()}")
    assert_on_scratch(scene.box, files)
    assert scene.secret in await scene.kernel.run("remembered")
    watcher.assert_clear(most=len(victims))
    await scene.release(identity)


@pytest.mark.parametrize("part", PARTS)
async def test_killed_part_comes_back(scene: Scene, part: str) -> None:
    await trial(scene, [part])


@pytest.mark.parametrize("part", ["rucio"])
async def test_killed_with_its_whole_tree(scene: Scene, part: str) -> None:
    await trial(scene, [part], tree=True)


def seed(usual: int | None = None) -> int:
    """From DMSP_SOAK_SEED, else the usual or a new one; printed, so that a run can be repeated."""
    new = usual if usual is not None else random.SystemRandom().randrange(1 << 31)
    chosen = int(os.environ.get("DMSP_SOAK_SEED") or new)
    print(f"DMSP_SOAK_SEED={chosen}")
    return chosen


async def test_random_kills(scene: Scene) -> None:
    choice = random.Random(seed(4))
    await trial(scene, [choice.choice(PARTS) for _ in range(4)])


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_random_kills(scene: Scene) -> None:
    """Twenty (DMSP_SOAK_KILLS) in a row, whole trees among them."""
    choice = random.Random(seed())
    for number in range(int(os.environ.get("DMSP_SOAK_KILLS") or 20)):
        print(f"kill {number}")
        await trial(scene, [choice.choice(PARTS)], tree=choice.random() < 0.3)


async def test_restart_of_a_part(scene: Scene) -> None:
    """`dmsp restart PART`: the part alone, and the command comes back when it is healthy."""
    before = said(scene.box)
    done = await asyncio.to_thread(scene.box.dmsp, "restart", "issuer")
    assert "issuer is healthy" in done.stdout
    after = said(scene.box)
    assert after["issuer"]["restarts"] == before["issuer"]["restarts"] + 1
    assert after["issuer"]["pid"] != before["issuer"]["pid"]
    assert {n: p["pid"] for n, p in after.items() if n != "issuer"} == {
        n: p["pid"] for n, p in before.items() if n != "issuer"
    }
    wrong = await asyncio.to_thread(scene.box.dmsp, "restart", "nonsense", check=False)
    assert wrong.returncode == 1
    assert "database" in wrong.stderr
