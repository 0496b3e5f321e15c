"""What a killed box left is ended by number and start time, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import leftovers
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.sandbox.process import Process

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(1000)"
)


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def state(tmp_path: Path) -> State:
    found = State(tmp_path / "state")
    found.open()
    return found


def said(process: Process) -> dict[str, object]:
    return {"parts": [{"name": "hub", "pid": process.pid, "pid_started": process.started}, {"name": "content"}]}


async def test_parts_of_a_killed_box_are_ended(
    state: State, stubborn: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "GRACE", 0.3)
    process = Process.of(stubborn.pid)
    assert process is not None
    state.write_status(said(process))
    assert leftovers.parts(state) == {"hub": process}
    assert await leftovers.end_parts(state) == ["hub"]
    assert stubborn.wait(10) == -9
    assert state.read_status() == {}


async def test_a_process_that_only_has_the_number_is_left_alone(
    state: State, stubborn: subprocess.Popen[bytes]
) -> None:
    process = Process.of(stubborn.pid)
    assert process is not None
    state.write_status(said(Process(process.pid, process.started - 1)))
    assert await leftovers.end_parts(state) == []
    assert stubborn.poll() is None
