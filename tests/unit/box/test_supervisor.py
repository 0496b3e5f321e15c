"""The supervisor with real processes: order, restart, giving up, stopping."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyterhub_dmsp.box import supervisor as supervision
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


async def until(condition: Any, timeout: float = 30) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


async def test_kills_from_outside_never_use_up_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty random kills of healthy parts: nothing is declared failed."""
    monkeypatch.setattr(supervision, "STEADY", 0.0)
    supervisor = world.supervisor(world.part("a"))
    await supervisor.start()
    running = supervisor.running["a"]
    for number in range(20):
        assert running.process is not None
        running.process.kill()
        await until(lambda n=number: running.restarts > n and running.state == "healthy")
    assert "failed" not in [state for _, state in world.said]
    assert running.failures == 1
    await supervisor.stop()


async def test_failed_part_leaves_the_others_alone_and_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "LIMIT", 3)
    monkeypatch.setattr(supervision, "RETRY_FAILED", 0.3)
    broken = world.directory / "broken"
    code = f"import pathlib, sys\nif pathlib.Path({str(broken)!r}).exists(): sys.exit('no such luck')\n" + SERVE
    supervisor = world.supervisor(world.part("bad", code), world.part("good"))
    await supervisor.start()
    bad, good = supervisor.running["bad"], supervisor.running["good"]
    broken.touch()
    assert bad.process is not None
    bad.process.kill()
    await until(lambda: bad.state == "failed")
    seen = bad.describe()["last_failure"]
    assert seen["reason"] == "ended with code 1 before it was ready"
    assert "no such luck" in seen["log"]
    assert seen["at"].endswith("+00:00")
    tries = bad.launches
    await until(lambda: bad.launches > tries + 1)
    assert good.state == "healthy"
    assert good.restarts == 0
    broken.unlink()
    await until(lambda: bad.state == "healthy")
    await supervisor.stop()


async def test_restart_on_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy part is asked to end and starts again; one that has failed is tried at once."""
    supervisor = world.supervisor(world.part("a"))
    await supervisor.start()
    running = supervisor.running["a"]
    supervisor.restart("a")
    await until(lambda: running.restarts == 1 and running.state == "healthy")
    assert (world.directory / "a.ended").exists(), "it was asked, not killed"
    assert running.last_failure is None
    monkeypatch.setattr(supervision, "LIMIT", 1)
    assert running.process is not None
    running.process.kill()
    await until(lambda: running.state == "failed")
    supervisor.restart("a")
    await until(lambda: running.state == "healthy")
    await supervisor.stop()


async def test_lost_need_is_not_held_against_a_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is started again when a need dies, and work that failed meanwhile is done again."""
    tries: list[int] = []

    async def prepare(_: Any) -> None:
        tries.append(1)
        process = supervisor.running["database"].process
        if len(tries) < 4:
            assert process is not None
            process.kill()
            raise DmspError("The database is gone.")

    work = world.part("content", prepare=prepare, needs=("database",))
    work.command = None
    supervisor = world.supervisor(world.part("database"), world.part("rucio", needs=("database",)), work)
    await supervisor.start()
    assert len(tries) == 4, "more tries than a part has for its first start"
    assert supervisor.running["content"].failures == 0
    assert supervisor.running["rucio"].restarts == 0
    await supervisor.stop()


async def test_part_that_is_not_alive_is_started_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LIVENESS_INTERVAL", 0.02)
    monkeypatch.setattr(supervision, "SUSPICION_INTERVAL", 0.02)
    ill = world.directory / "ill"

    async def alive() -> str:
        return "has hiccups" if ill.exists() else ""

    async def prepare(_: Any) -> None:
        ill.unlink(missing_ok=True)
        (world.directory / "a").unlink(missing_ok=True)

    supervisor = world.supervisor(world.part("a", alive=alive, prepare=prepare))
    await supervisor.start()
    running = supervisor.running["a"]
    ill.touch()
    await until(lambda: running.restarts == 1 and running.state == "healthy")
    assert running.last_failure is not None
    assert running.last_failure.reason == "has hiccups"
    await supervisor.stop()


async def test_illness_counts_only_while_the_needs_are_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "LIVENESS_INTERVAL", 0.02)
    monkeypatch.setattr(supervision, "SUSPICION_INTERVAL", 0.02)
    asked: list[int] = []

    async def alive() -> str:
        asked.append(1)
        return "cannot reach the database"

    supervisor = world.supervisor(world.part("database"), world.part("rucio", alive=alive, needs=("database",)))
    starting = asyncio.create_task(supervisor.start())
    rucio = supervisor.running["rucio"]
    await until(lambda: len(asked) > 3 * supervision.MISSES)
    assert rucio.state == "unhealthy", "it is seen"
    assert rucio.restarts == 0, "its need came up a moment ago"
    starting.cancel()
    await supervisor.stop()


async def test_stop_has_one_deadline_for_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of parts that ignore the signal: the last ones have no time of their own left."""
    monkeypatch.setattr(supervision, "STOP_WITHIN", 0.6)
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while True: time.sleep(1)\n"
    )
    names = [f"p{n}" for n in range(5)]
    parts = [
        world.part(n, code, stop_timeout=0.5, needs=(names[i - 1],) if i else ()) for i, n in enumerate(names)
    ]
    supervisor = world.supervisor(*parts)
    await supervisor.start()
    processes = [r.process for r in supervisor.running.values()]
    begin = asyncio.get_running_loop().time()
    await supervisor.stop()
    assert asyncio.get_running_loop().time() - begin < 5 * 0.5
    assert all(process is not None and process.returncode == -9 for process in processes)
    assert [name for name, state in world.said if state == "stopped"] == names[::-1]
