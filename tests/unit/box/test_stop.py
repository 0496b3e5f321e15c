"""How long a box may take to end is the sum of deadlines, not of what its parts do."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import part as part_module
from jupyterhub_dmsp.box import run, service
from jupyterhub_dmsp.box import supervisor as supervision
from jupyterhub_dmsp.box.part import Part
from jupyterhub_dmsp.box.supervisor import Supervisor

PROMISED = 15
"""Seconds."""


def test_the_deadlines_add_up() -> None:
    assert supervision.STOP_WITHIN + supervision.FORCE_WITHIN <= run.END_WITHIN
    assert run.END_WITHIN + run.CLEAN_WITHIN <= run.ALL_WITHIN < PROMISED < service.STOP_TIMEOUT


def test_the_command_starts_light() -> None:
    """On a busy machine most of the time went into importing what `dmsp down` does not need."""
    code = "import sys, jupyterhub_dmsp.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not {"jupyterhub", "sqlalchemy", "tornado", "aiohttp", "traitlets"} & set(done.stdout.split())


async def test_memory_is_counted_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each change of a state: then it would take most of a busy machine's time."""
    counted: list[int] = []
    monkeypatch.setattr(part_module, "tree_rss", lambda process: counted.append(process.pid) or 7)
    monkeypatch.setattr(supervision, "PUBLISH_INTERVAL", 900.0)
    published: list[int] = []
    parts = [part(f"p{number}") for number in range(5)]
    supervisor = Supervisor(
        parts, tmp_path, lambda found: published.append(sum(p["rss_bytes"] for p in found)), lambda *_: None
    )
    await supervisor.start()
    await supervisor.stop()
    assert len(counted) == len(parts), "once for each start"
    assert len(published) > 2 * len(parts)
    assert max(published) == 7 * len(parts)
    assert published[-1] == 0


async def ready() -> bool:
    return True


def part(name: str, **more: object) -> Part:
    """A process that waits."""
    argv = [sys.executable, "-c", "import time; time.sleep(900)"]
    return Part(name=name, title=name, command=lambda: argv, ready=ready, **more)  # type: ignore[arg-type]


async def test_a_part_that_cannot_be_tidied_up_keeps_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unmounting hangs: the others end in order, and it is left."""
    monkeypatch.setattr(supervision, "STOP_WITHIN", 0.3)
    monkeypatch.setattr(supervision, "FORCE_WITHIN", 0.3)
    for_ever = asyncio.Event()

    async def hang() -> None:
        while True:
            try:
                await for_ever.wait()
                return
            except asyncio.CancelledError:  # as a command that hangs in the kernel
                continue

    parts = [part("scratch", clean=hang), part("hub", needs=("scratch",)), part("database")]
    supervisor = Supervisor(parts, tmp_path, lambda _: None, lambda *_: None)
    await supervisor.start()
    processes = {name: running.process for name, running in supervisor.running.items()}
    async with asyncio.timeout(30):
        await supervisor.stop()
    for process in processes.values():
        assert process is not None
        await asyncio.wait_for(process.wait(), 10)
    assert supervisor.running["database"].state == supervisor.running["hub"].state == "stopped"
    assert supervisor.running["scratch"].state == "stopping"
    for_ever.set()


HANGS = """
import asyncio, sys, time
from pathlib import Path
from jupyterhub_dmsp.box import run
from jupyterhub_dmsp.box.state import State

class Vre:
    async def clean(self):
        time.sleep(900)  # nothing of ours can interrupt it

run.ALL_WITHIN = 1
asyncio.run(run._end(State(Path(sys.argv[1])), Vre(), None))
"""


def test_the_kernel_ends_a_box_that_hangs_at_its_end(tmp_path: Path) -> None:
    """What it said last stays: `dmsp down` sees by it that there is something to tidy up."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "status.json").write_text("{}")
    done = subprocess.run([sys.executable, "-c", HANGS, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM
    assert (tmp_path / "run" / "status.json").exists()
