"""What a killed box leaves: locks, status files, pids of others, sockets. `status`, `down` and `up` see through it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.sandbox.process import Process


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.open()
    return made


def dmsp(state: State, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jupyterhub_dmsp.cli", *arguments, "--state", str(state.path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


LOCKS = {
    "dead": lambda: json.dumps({"pid": dead_pid(), "started": 1.0}),
    "reused": lambda: json.dumps({"pid": os.getpid(), "started": Process.here().started - 500}),
    "earlier version": lambda: json.dumps({"pid": os.getpid(), "started": psutil.Process().create_time()}),
    "garbage": lambda: "\0\0\0",
}


@pytest.mark.parametrize("text", LOCKS.values(), ids=LOCKS.keys())
def test_a_stale_lock_and_status(state: State, text: object) -> None:
    assert callable(text)
    (state / "lock").write_text(text())
    parts = [{"name": "hub", "title": "JupyterHub", "state": "healthy", "detail": "", "pid": os.getpid()}]
    state.write_status({"address": "http://127.0.0.1:1/", "pid": os.getpid(), "parts": parts})
    (state / "rucio" / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        # A path of 108 bytes is the longest for a socket: bind it from within.
        here = os.open(state / "rucio" / "run", os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/cache.sock")
        os.close(here)
    said = dmsp(state, "status", "--json")
    assert (said.returncode, json.loads(said.stdout)["parts"]) == (3, []), said.stderr
    said = dmsp(state, "down")
    assert said.returncode == 3, said.stdout
    assert "No box runs on this state." in said.stderr
    assert psutil.pid_exists(os.getpid()), "whoever has the pid now is left alone"
    with state.locked():
        owner = state.owner()
        assert owner is not None
        assert owner.pid == os.getpid()
