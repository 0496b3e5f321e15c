"""What keeps a session from being idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyterhub_dmsp.lab import activity
from jupyterhub_dmsp.lab.activity import SETTING, Activity, Seen
from jupyterhub_dmsp.lab.session import IdleInfo


class Kernels:
    def __init__(self, **states: str) -> None:
        self.states = states

    def list_kernel_ids(self) -> list[str]:
        return list(self.states)

    def get_kernel(self, ident: str) -> Any:
        return SimpleNamespace(execution_state=self.states[ident])


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process does anything."""
    monkeypatch.setattr(activity, "processes", dict)


@pytest.mark.usefixtures("quiet")
async def test_nothing_happens(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"kernel_manager": Kernels(one="idle", two="starting")}
    assert await Activity(settings, tmp_path, None).look() == []
    assert SETTING not in settings


@pytest.mark.usefixtures("quiet")
async def test_busy_kernel(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"kernel_manager": Kernels(one="idle", two="busy")}
    assert await Activity(settings, tmp_path, None).look() == ["kernel two"]
    assert (datetime.now(UTC) - settings[SETTING]).total_seconds() < 60


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("requested", True),
        ("replicating", True),
        ("landing", True),
        ("ready", False),
        ("stuck", False),
        ("failed", False),
        ("released", False),
    ],
)
async def test_attachments(tmp_path: Path, state: str, counts: bool) -> None:
    one = SimpleNamespace(did="a:b", state=state)
    service: Any = SimpleNamespace(attachments=SimpleNamespace(all=lambda: [one]))
    assert await Activity({}, tmp_path, service).look() == (["attachment a:b"] if counts else [])


@pytest.mark.usefixtures("quiet")
async def test_leases(tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    looking = Activity(settings, tmp_path, None)
    folder = tmp_path / "busy"
    folder.mkdir()
    over, held = folder / "over", folder / "held"
    for file, ahead in ((over, -1), (held, 3600)):
        file.touch()
        os.utime(file, (time.time() + ahead,) * 2)
    assert await looking.look() == ["lease held"]
    held.unlink()
    assert await looking.look() == []


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)


async def test_programs_that_compute_and_programs_that_wait(tmp_path: Path) -> None:
    spin = "import sys; print(flush=True)\nwhile True: pass"
    wait = "import sys, time; print(flush=True); time.sleep(600)"
    running = [started(code) for code in (spin, wait)]
    try:
        for one in running:
            assert one.stdout is not None
            one.stdout.readline()
        looking = Activity({}, tmp_path, None)
        await looking.look()
        used = activity.processes()[running[0].pid].cpu
        while activity.processes()[running[0].pid].cpu < used + 0.5:
            os.sched_yield()
        # On a busy machine it may not have had a tenth of a processor all the time.
        looking._looked = time.monotonic() - 1
        found = await looking.look()
        assert f"process {running[0].pid}" in found
        assert f"process {running[1].pid}" not in found
    finally:
        for one in running:
            one.kill()
            one.communicate()


async def test_a_terminals_program_counts_for_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download waits most of the time; a shell at its prompt and an idle editor use nothing at all."""
    me = os.getpid()
    shells = {"1": 0.3, "2": 0.3}
    table = {
        me: Seen(1, me, 5),
        10: Seen(me, 10, 0.3),
        11: Seen(10, 10, 0.1),
        20: Seen(me, 20, 0.3),
        30: Seen(me, 30, 0.1),
    }
    terminals = {name: SimpleNamespace(ptyproc=SimpleNamespace(pid=int(name) * 10)) for name in shells}
    settings: dict[str, Any] = {"terminal_manager": SimpleNamespace(terminals=terminals)}
    monkeypatch.setattr(activity, "processes", lambda: dict(table))
    looking = Activity(settings, tmp_path, None)
    assert await looking.look() == []  # the first look only compares
    looking._looked = time.monotonic() - 60
    table[11] = Seen(10, 10, 0.15)
    table[30] = Seen(me, 30, 0.9)  # an idle kernel
    assert await looking.look() == ["process 11"]


def test_only_what_belongs_to_the_server_counts() -> None:
    seen = {1: Seen(0, 1, 0), 5: Seen(1, 5, 0), 6: Seen(5, 5, 0), 7: Seen(6, 7, 0), 8: Seen(1, 8, 0)}
    if os.stat("/proc/1").st_uid == os.getuid():  # noqa: PTH116
        assert activity.below(5, seen) == {6, 7, 8}
    assert activity.below(6, seen) == {7}


def test_interval_follows_the_time_out() -> None:
    assert IdleInfo().interval == 60
    assert IdleInfo(timeout=86400).interval == 60
    assert IdleInfo(timeout=200).interval == 10
