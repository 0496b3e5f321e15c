"""The supervisor with real processes: order, restart, giving up, stopping."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyterhub_dmsp.box.supervisor import Part, Supervisor
from jupyterhub_dmsp.errors import DmspError

SERVE = (
    "import pathlib, signal, sys, time\n"
    "def end(*a): pathlib.Path(sys.argv[1] + '.ended').touch(); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "while True: time.sleep(1)\n"
)


class World:
    """Collects what a supervisor says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[tuple[str, str]] = []
        self.published: list[dict[str, Any]] = []

    def part(self, name: str, code: str = SERVE, **more: Any) -> Part:
        mark = self.directory / name

        async def ready() -> bool:
            return mark.exists()

        async def prepare(_: Any) -> None:
            mark.unlink(missing_ok=True)

        return Part(
            name=name,
            title=name,
            command=lambda: [sys.executable, "-c", code, str(mark)],
            ready=ready,
            prepare=more.pop("prepare", prepare),
            **more,
        )

    def supervisor(self, *parts: Part) -> Supervisor:
        return Supervisor(
            parts,
            self.directory,
            publish=lambda p: setattr(self, "published", p),
            announce=lambda part, state, _detail: self.said.append((part.name, state)),
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_needs_come_first_and_end_last(world: World) -> None:
    supervisor = world.supervisor(world.part("hub", needs=("database",)), world.part("database"))
    await supervisor.start()
    said = world.said
    assert said.index(("database", "healthy")) < said.index(("hub", "preparing"))
    assert {p["state"] for p in world.published} == {"healthy"}
    assert all(p["rss_bytes"] > 1e6 for p in world.published)
    await supervisor.stop()
    assert said.index(("hub", "stopped")) < said.index(("database", "stopping"))
    assert (world.directory / "hub.ended").exists(), "the part was asked, not killed"


async def test_killed_part_comes_back(world: World) -> None:
    supervisor = world.supervisor(world.part("a"))
    await supervisor.start()
    running = supervisor.running["a"]
    assert running.process is not None
    first = running.process.pid
    running.process.kill()
    while running.state == "healthy":
        await asyncio.sleep(0.01)
    await asyncio.wait_for(running.healthy.wait(), 30)
    assert running.process.pid != first
    assert running.restarts == 1
    await supervisor.stop()


async def test_part_that_never_starts_is_given_up_with_its_log(world: World) -> None:
    supervisor = world.supervisor(world.part("bad", "import sys; sys.exit('no such luck')"), world.part("good"))
    with pytest.raises(DmspError, match=r"bad does not start: ended with code 1 before it was ready") as caught:
        await supervisor.start()
    assert "no such luck" in str(caught.value)
    good = supervisor.running["good"].process
    await supervisor.stop()
    assert good is None or good.returncode is not None


async def test_failure_of_preparation_is_told(world: World) -> None:
    async def prepare(_: Any) -> None:
        raise DmspError("The disk is full.", "Make room.")

    supervisor = world.supervisor(world.part("a", prepare=prepare))
    with pytest.raises(DmspError, match=r"The disk is full\. Make room"):
        await supervisor.start()
    await supervisor.stop()


async def test_stubborn_part_is_killed_with_its_children(world: World) -> None:
    code = (
        "import pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "pathlib.Path(sys.argv[1] + '.child').write_text(str(child.pid))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while True: time.sleep(1)\n"
    )
    supervisor = world.supervisor(world.part("a", code, stop_timeout=0.5))
    await supervisor.start()
    child = psutil.Process(int((world.directory / "a.child").read_text()))
    process = supervisor.running["a"].process
    assert process is not None
    await supervisor.stop()
    assert process.returncode is not None
    child.wait(10)
    assert not child.is_running()


async def test_work_without_a_process(world: World) -> None:
    done = []

    async def prepare(say: Any) -> None:
        say("half way")
        done.append(1)

    part = world.part("content", prepare=prepare)
    part.command = None
    supervisor = world.supervisor(part)
    await supervisor.start()
    assert done == [1]
    assert world.published[0]["state"] == "healthy"
    assert world.published[0]["pid"] is None
    await supervisor.stop()


async def test_no_secret_of_ours_is_inherited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "x")
    supervisor = world.supervisor(world.part("a"))
    await supervisor.start()
    process = supervisor.running["a"].process
    assert process is not None
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    await supervisor.stop()
    assert b"SECRET_OF_THE_SHELL" not in environment
    assert os.environ["SECRET_OF_THE_SHELL"] == "x"
