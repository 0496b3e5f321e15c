"""`dmsp down` in the middle of everything: nothing is left running, mounted, listening or locked; later it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from boxes import Box
from killing import all_healthy, assert_on_scratch, of_box
from lakes import administrator, make_dataset
from visitor import Visitor

from jupyterhub_dmsp.box import run
from jupyterhub_dmsp.box.rucio.parts import daemons_health
from jupyterhub_dmsp.box.state import State, port_is_free
from jupyterhub_dmsp.hub.local.records import group_name
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
USERS = ("km3net-user", "collider-user")
FILES, SIZE = 24, 2 << 20


@dataclass
class Traces:
    """What a running box has on this machine."""

    processes: list[psutil.Process]
    ports: list[int]
    names: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, box: Box) -> Traces:
        ports = [box.port, *json.loads((box.state / "ports.json").read_text()).values()]
        return cls(of_box(box), ports, kernel_names(box))

    def assert_gone(self, box: Box) -> None:
        """Nothing of it is there any more."""
        # The kernel ends what lived in the namespaces of a killed part on its own; somebody has to reap it, too.
        _, alive = psutil.wait_procs(self.processes, timeout=10)
        assert alive == []
        assert of_box(box) == []
        assert mounts(box) == []
        assert kernel_names(box) == set()
        assert [port for port in self.ports if not port_is_free(port)] == []
        assert not (box.state / "run" / "status.json").exists()
        with State(box.state).locked():
            pass
        assert State(box.state).owner() is None


def mounts(box: Box) -> list[str]:
    """What is mounted below the state, but for the small disk of these tests."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if f" {box.state}/" in line and "dmsp-small" not in line]


def kernel_names(box: Box) -> set[str]:
    """Network namespaces, devices and firewall table of the sessions, and their control groups."""
    network = json.loads((box.state / "run" / "network.json").read_text())["name"]
    said = ""
    for command in ("ip netns list", "ip -br link", "nft list tables"):
        said += subprocess.run(command.split(), capture_output=True, text=True, timeout=30, check=True).stdout
    groups = [path.name for path in Path("/sys/fs/cgroup").glob("*/dmsp/*-user")]
    own = {word.split("@")[0] for word in said.split() if network in word}
    return own | {name for name in groups if name.startswith(group_prefix(box))}


def group_prefix(box: Box) -> str:
    return group_name(box.state, "")


async def copying(box: Box, user: Visitor) -> tuple[str, list[LakeFile]]:
    """An attachment whose files are being copied; its identity and the files."""
    did = Did("dmsp", f"test.stop.{uuid.uuid4().hex[:8]}")
    async with administrator(box) as rucio:
        files = await make_dataset(box, rucio, did, [SIZE] * FILES)
    status, body = await user.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
    assert status == 201, body
    async with asyncio.timeout(60):
        while not daemons_health(box.state / "rucio").copying:
            await asyncio.sleep(0.05)
    return str(body["id"]), files


async def closed(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether the other side ends the connection; what it still says is read."""
    async with asyncio.timeout(30):
        async for _ in socket:
            pass
    return socket.closed


async def test_a_busy_box_ends_clean_and_goes_on(own: Box) -> None:
    """Two sessions with kernels, an open websocket, a transfer."""
    passwords = own.passwords
    async with (
        Visitor(own.address, USERS[0], passwords[USERS[0]]) as one,
        Visitor(own.address, USERS[1], passwords[USERS[1]]) as two,
    ):
        for user in (one, two):
            await user.start("minimal")
            await (await user.kernel()).run("1")
        identity, files = await copying(own, one)
        before = Traces.of(own)
        assert len(before.names) >= 5, before.names
        async with one.http.ws_connect(f"{one.base}api/events/subscribe") as socket:
            said = await asyncio.to_thread(own.dmsp, "down")
            assert said.stdout == "The VRE has ended.\n"
            assert await closed(socket)
    before.assert_gone(own)
    assert own.dmsp("down", check=False).returncode == 3
    own.up()
    async with Visitor(own.address, USERS[0], passwords[USERS[0]]) as one:
        await one.start("minimal")
        assert (await ready(one, identity))["error"] is None
        await one.stop()
    assert_on_scratch(own, files)


async def ready(user: Visitor, identity: str) -> dict[str, Any]:
    """The attachment, once it is ready by itself."""
    body: dict[str, Any] = {"state": ""}
    async with asyncio.timeout(120):
        while body["state"] != "ready":
            status, body = await user.lab("GET", f"dmsp/v1/attachments/{identity}", params={"wait": 10})
            assert status == 200, body
            assert body["state"] not in ("failed", "stuck"), body
    return body


async def test_a_box_that_hangs_is_ended_all_the_same(own: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor is stopped with a session and a part that ignores signals: `dmsp down` kills and tidies up."""
    async with Visitor(own.address, USERS[0], own.passwords[USERS[0]]) as user:
        await user.start("minimal")
        before = Traces.of(own)
        owner = State(own.state).owner()
        assert owner is not None
        os.kill(owner.pid, signal.SIGSTOP)
        monkeypatch.setattr(run, "ALL_WITHIN", 1)
        assert await asyncio.to_thread(run.stop, State(own.state))
    before.assert_gone(own)
    own.up()
    await all_healthy(own)
