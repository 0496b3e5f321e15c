"""``kill -9`` in the middle of the building of environments: the next `dmsp up`, the next launch, builds them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from boxes import Box
from killing import all_healthy, kill_everything, kill_part, said
from visitor import Visitor, form_of

from jupyterhub_dmsp.profiles.builder import MARKER

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
USER = "vre-admin"


def forget(box: Box, slug: str) -> None:
    """The environment was never built."""
    (environment,) = (box.state / "envs").glob(f"{slug}-*[0-9a-f]")
    shutil.rmtree(environment)


def built(box: Box, slug: str) -> bool:
    (environment,) = (box.state / "envs").glob(f"{slug}-*[0-9a-f]")
    return (environment / MARKER).exists()


def installer(box: Box, slug: str) -> psutil.Process | None:
    """uv, while it installs this environment."""
    for process in psutil.process_iter(["name", "cmdline"]):
        argv = process.info["cmdline"] or []
        if process.info["name"] == "uv" and "install" in argv and f"{box.state}/envs/{slug}-" in " ".join(argv):
            return process
    return None


async def caught(find: Callable[[], Any], seconds: float = 120) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := find()):
            await asyncio.sleep(0.005)
    return found


async def test_the_box_is_killed_while_it_installs_rucio(own: Box) -> None:
    own.down()
    forget(own, "rucio")
    command = [
        sys.executable,
        "-m",
        "jupyterhub_dmsp.cli",
        "up",
        "--state",
        str(own.state),
        "--port",
        str(own.port),
    ]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet, start_new_session=True)
    await caught(lambda: installer(own, "rucio"))
    kill_everything(own)
    await process.wait()
    assert not built(own, "rucio")
    await asyncio.to_thread(own.up)
    await all_healthy(own)
    assert built(own, "rucio")


async def test_the_hub_is_killed_while_it_builds_for_a_launch(own: Box) -> None:
    """With the installer. The user presses Start once more."""
    async with Visitor(own.address, USER, own.passwords[USER]) as user:
        await user.start("minimal")
        await user.stop()
        forget(own, "minimal")
        async with user.http.get(f"{user.address}hub/spawn") as answer:
            action, fields = form_of(await answer.text(), str(answer.url))
        launch = asyncio.create_task(user.request("POST", action, data={**fields, "profile": "minimal"}))
        uv = await caught(lambda: installer(own, "minimal"))
        before = kill_part(own, "hub")
        with contextlib.suppress(psutil.NoSuchProcess):
            uv.send_signal(signal.SIGKILL)
        await asyncio.gather(launch, return_exceptions=True)
        assert not built(own, "minimal")
        await all_healthy(own, {"hub": before})
    async with Visitor(own.address, USER, own.passwords[USER]) as user:
        await user.start("minimal")
        assert built(own, "minimal")
        await user.stop()
    assert said(own)["hub"]["state"] == "healthy"
