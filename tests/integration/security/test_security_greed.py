"""A session that takes all it can get hurts itself alone: memory, processes, processors, memory file systems."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psutil
import pytest
from boxes import Box
from killing import Watcher
from visitor import Visitor

from jupyterhub_dmsp.sandbox import cgroup

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

GREEDY, OTHER, PROFILE = "collider-user", "km3net-user", "minimal"
LIMIT = 2 << 30
"""Bytes of memory in that profile."""


@dataclass
class Neighbours:
    greedy: Visitor
    other: Visitor


@pytest.fixture(scope="module")
async def neighbours(box: Box) -> AsyncIterator[Neighbours]:
    async with (
        Visitor(box.address, GREEDY, box.passwords[GREEDY]) as greedy,
        Visitor(box.address, OTHER, box.passwords[OTHER]) as other,
    ):
        for visitor in (greedy, other):
            await visitor.start(PROFILE)
        yield Neighbours(greedy, other)
        for visitor in (greedy, other):
            await visitor.stop()


@pytest.fixture
async def undisturbed(neighbours: Neighbours) -> AsyncIterator[None]:
    """While the test runs nobody else notices anything, and afterwards the greedy session is well too."""
    kernel = await neighbours.greedy.kernel()
    await kernel.run("here = 'still here'")
    async with Watcher.of(neighbours.other) as watcher:
        yield
        await watcher.settled()
    assert watcher.report() == {}
    assert "still here" in await kernel.run("here")
    await kernel.shutdown()


def limited(controller: str) -> None:
    """Skip where the machine has no such limit; `dmsp doctor` and the launch say so there."""
    if reason := cgroup.offered()[controller]:
        pytest.skip(f"control groups: {controller} {reason}")


@pytest.mark.usefixtures("undisturbed")
async def test_memory(neighbours: Neighbours) -> None:
    limited("memory")
    kernel = await neighbours.greedy.kernel()
    pid = int(await kernel.run("import os; print(os.getpid())"))
    eat = f"x = bytearray({LIMIT * 2})\nx[::4096] = b'x' * len(x[::4096])\nprint('ate', 'all')"
    code, said = await neighbours.greedy.terminal(f"cat > eat.py <<'END'\n{eat}\nEND\npython eat.py")
    assert code == 137, said
    assert "ate all" not in said
    # It was the eater, not the biggest one who happened to be near: this kernel has the same number.
    assert int(await kernel.run("print(os.getpid())")) == pid
    await kernel.shutdown()


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
async def test_memory_file_systems(neighbours: Neighbours, place: str) -> None:
    code, said = await neighbours.greedy.terminal(f"head -c {LIMIT} /dev/zero > {place}/big")
    assert code == 1
    assert "No space left on device" in said
    code, said = await neighbours.greedy.terminal(f"stat -c %s {place}/big; rm {place}/big")
    assert int(said) == LIMIT // 2


@pytest.mark.usefixtures("undisturbed")
async def test_processes(neighbours: Neighbours) -> None:
    bomb = (
        "import os, time\nwhile True:\n    if os.fork() == 0:\n        time.sleep(600)\n        os._exit(0)\n"
    )
    code, said = await neighbours.greedy.terminal(
        f"cat > bomb.py <<'END'\n{bomb}\nEND\npython bomb.py; pkill -9 -f bomb.py"
    )
    assert "BlockingIOError" in said, (code, said)


@pytest.mark.usefixtures("undisturbed")
async def test_processors(neighbours: Neighbours, box: Box) -> None:
    """Twice as many busy processes as the machine has processors."""
    count = 2 * (psutil.cpu_count() or 1)
    many = f"for i in $(seq {count}); do timeout 20 sh -c 'while :; do :; done' & done; wait"
    running = asyncio.create_task(neighbours.greedy.terminal(many))
    done = await asyncio.to_thread(box.dmsp, "status", "--json")
    assert '"hub"' in done.stdout
    await running


async def test_no_core_dumps_of_the_platform(box: Box, neighbours: Neighbours) -> None:
    """They would hold secrets. A user may ask for those of their own programs."""
    pids = {part["name"]: part["pid"] for part in box.status["parts"] if part["pid"]}
    for name, pid in pids.items():
        assert resource.prlimit(pid, resource.RLIMIT_CORE)[0] == 0, name
    code, _ = await neighbours.greedy.terminal("ulimit -c unlimited")
    assert code == 0
