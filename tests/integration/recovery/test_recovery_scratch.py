"""Scratch dies, hangs, fills up and comes back, under a running session that is never restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from boxes import Box
from killing import assert_on_scratch
from lakes import SCRATCH, administrator, make_dataset, place
from switches import SmallDisk
from visitor import Visitor

from jupyterhub_dmsp.box.rucio.parts import daemons_health
from jupyterhub_dmsp.lake.did import Did

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
NUMU = "km3net:mc.numu-CC.genhen.offline"


@pytest.fixture(scope="module")
async def user(own: Box) -> AsyncIterator[Visitor]:
    """A member of an experiment in a running session."""
    async with Visitor(own.address, "km3net-user", own.passwords["km3net-user"]) as visitor:
        await visitor.start("minimal")
        yield visitor
        await visitor.stop()


async def until(condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """Ask until the answer is true."""
    end = asyncio.get_running_loop().time() + seconds
    while not (found := await asyncio.to_thread(condition)):
        assert asyncio.get_running_loop().time() < end, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.2)
    return found


def scratch(box: Box) -> dict[str, Any]:
    """The part as the box last described it; asked often, so not through the command."""
    parts = json.loads((box.state / "run" / "status.json").read_text())["parts"]
    found: dict[str, Any] = next(part for part in parts if part["name"] == "scratch")
    return found


def bindfs(box: Box) -> psutil.Process:
    return psutil.Process(scratch(box)["pid"])


def is_open(box: Box, path: str) -> bool:
    """Whether a process of the session has a file of this name open."""
    init = json.loads((box.state / "sessions" / "km3net-user" / "record.json").read_text())["init"]["pid"]
    for process in psutil.Process(init).children(recursive=True):
        with contextlib.suppress(OSError, psutil.Error):
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                if os.readlink(link).endswith(Path(path).name):  # noqa: PTH115 - a text, no path here
                    return True
    return False


def is_back(box: Box, before: psutil.Process) -> bool:
    part = scratch(box)
    return bool(part["state"] == "healthy" and part["pid"] not in (None, before.pid))


def server(box: Box, name: str) -> psutil.Process:
    """The Jupyter server of a user's session."""
    init = json.loads((box.state / "sessions" / name / "record.json").read_text())["init"]["pid"]
    return next(
        p for p in psutil.Process(init).children(recursive=True) if "singleuser" in " ".join(p.cmdline())
    )


async def path_of(visitor: Visitor, attached: dict[str, Any]) -> str:
    _, text = await visitor.terminal(f"cat $DMSP_RUNTIME/attachments/{attached['id']}/manifest.json")
    path: str = json.loads(text)["files"][0]["path"]
    return path


async def test_a_dead_mount_is_back_in_the_running_session(own: Box, user: Visitor) -> None:
    """Although it is busy: a session has a file open and its working directory there."""
    attached = await user.attach(NUMU)
    assert attached["state"] == "ready", attached
    path = await path_of(user, attached)
    held = asyncio.create_task(user.terminal(f"cd {Path(path).parent}; exec 9< {path}; read -t 60 x"))
    await until(lambda: is_open(own, path), "the open file", 30)
    before = bindfs(own)
    before.kill()
    await until(lambda: is_back(own, before), "the mount")
    code, said = await user.terminal(f"head -c 4 {path}")
    assert (code, said) == (0, "root"), said
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    assert sum(f" {own.state}/scratch/lake " in line for line in lines) == 1, "one mount, not one on another"


async def test_a_mount_that_hangs_is_ended_and_mounted_again(own: Box, user: Visitor) -> None:
    """Whoever waits for it comes free, the server holds no more threads than before, and it can be read again."""
    path = await path_of(user, await user.attach(NUMU))
    await user.lab("GET", "dmsp/v1/status")
    process = server(own, "km3net-user")
    threads = process.num_threads()
    before = bindfs(own)
    before.send_signal(signal.SIGSTOP)
    waiting = asyncio.create_task(user.terminal(f"cat {path} > /dev/null"))
    for _ in range(8):  # each asks whether the mount is well
        status, _said = await user.lab("GET", "dmsp/v1/status")
        assert status == 200
    await until(lambda: is_back(own, before), "the mount")
    code, _ = await waiting
    assert code in (0, 1), "what waited has ended, with or without an error"
    code, said = await user.terminal(f"head -c 4 {path}")
    assert (code, said) == (0, "root"), said
    assert not before.is_running()
    assert process.num_threads() <= threads + 4, "the looks at the mount share four threads"


async def test_an_attachment_waits_for_the_mount_and_goes_on(own: Box, user: Visitor) -> None:
    """While the supervisor is stopped nothing heals: the fault is shown. Then it vanishes by itself."""
    did = Did("km3net", f"test.waiting.{uuid.uuid4().hex[:8]}")
    async with administrator(own) as rucio:
        await make_dataset(own, rucio, did, [1000, 70_000])
    supervisor = psutil.Process(json.loads((own.state / "lock").read_text())["pid"])
    before = bindfs(own)
    supervisor.suspend()
    try:
        before.kill()
        status, body = await user.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
        assert status in (200, 201), body
        ident = body["id"]
        async with asyncio.timeout(60):
            while (body.get("error") or {}).get("code") != "mount_gone":
                assert body["state"] not in ("ready", "failed"), body
                await asyncio.sleep(0.2)
                _, body = await user.lab("GET", f"dmsp/v1/attachments/{ident}")
        assert body["state"] == "landing"
    finally:
        supervisor.resume()
    await until(lambda: is_back(own, before), "the mount")
    async with asyncio.timeout(60):
        while body["state"] != "ready":
            _, body = await user.lab("GET", f"dmsp/v1/attachments/{ident}", params={"wait": 10})
    assert body["error"] is None
    code, said = await user.terminal(f"cat {await path_of(user, body)} | wc -c")
    assert (code, int(said)) == (0, 1000)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(False, id="for a moment"),
        pytest.param(True, id="until it is told", marks=pytest.mark.soak),  # three tries, a minute
    ],
)
async def test_a_full_disk_in_the_middle_of_a_transfer(own: Box, user: Visitor, told: bool) -> None:
    """What is there stays; what is on its way waits, is told if that takes long, and arrives when there is room."""
    held = await user.attach(NUMU)
    assert held["state"] == "ready", held
    path = await path_of(user, held)
    did = Did("dmsp", f"test.full.{uuid.uuid4().hex[:8]}")
    async with administrator(own) as rucio:
        files = await make_dataset(own, rucio, did, [2 << 20] * 24)
    failed = daemons_health(own.state / "rucio").failed
    status, body = await user.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
    assert status == 201, body
    await until(lambda: daemons_health(own.state / "rucio").copying, "a copy", 60)
    with SmallDisk(own.state / "storage" / SCRATCH, 0).full():
        await until(
            lambda: daemons_health(own.state / "rucio").failed > failed, "a copy that met the full disk", 60
        )
        if told:
            body = await attachment(user, body["id"], "stuck")
            assert body["error"]["code"] == "stuck"
            assert "files do not arrive: No space is left at SCRATCH." in body["error"]["message"]
        code, said = await user.terminal(f"head -c 4 {path}")
        assert (code, said) == (0, "root"), said
    body = await attachment(user, body["id"], "ready")
    assert (body["error"], body["files_ready"]) == (None, len(files))
    assert_on_scratch(own, files)
    assert not [f for f in place(own, SCRATCH, files[0].did).parent.iterdir() if f.name != files[0].did.name]
    await user.lab("DELETE", f"dmsp/v1/attachments/{body['id']}", params={"purge": "true"})


async def attachment(user: Visitor, ident: str, state: str) -> dict[str, Any]:
    """An attachment, once it is in a state."""
    body: dict[str, Any] = {"state": ""}
    async with asyncio.timeout(180):
        while body["state"] != state:
            status, body = await user.lab("GET", f"dmsp/v1/attachments/{ident}")
            assert status == 200, body
            assert body["state"] != "failed", body
            await asyncio.sleep(0.3)
    return body
