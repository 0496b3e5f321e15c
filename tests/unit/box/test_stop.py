"""How long a box may take to end is the sum of deadlines, not of what its parts do."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import run, service
from jupyterhub_dmsp.box import supervisor as supervision
from jupyterhub_dmsp.box.part import Part
from jupyterhub_dmsp.box.supervisor import Supervisor

PROMISED = 15
"""Seconds."""


def test_the_deadlines_add_up() -> None:
    assert supervision.STOP_WITHIN + supervision.FORCE_WITHIN <= run.END_WITHIN
    assert run.END_WITHIN + run.CLEAN_WITHIN <= run.ALL_WITHIN < PROMISED < service.STOP_TIMEOUT


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

    async def ready() -> bool:
        return True

    def part(name: str, **more: object) -> Part:
        argv = [sys.executable, "-c", "import time; time.sleep(900)"]
        return Part(name=name, title=name, command=lambda: argv, ready=ready, **more)  # type: ignore[arg-type]

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
