"""The state directory: layout, modes, version, lock, ports."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from jupyterhub_dmsp.box.state import SCHEMA, State, port_is_free
from jupyterhub_dmsp.errors import DmspError


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.open()
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_modes(state: State) -> None:
    assert mode(state / "secrets") == 0o700
    assert mode(state / "logs") == 0o700
    assert mode(state.secret("a")) == 0o600
    assert state.secret("a").read_text() == state.secret("a").read_text()
    assert len(state.hex_secret("b").read_text()) == 64


def test_open_twice_keeps_everything(state: State) -> None:
    secret = state.secret("a").read_text()
    State(state.path).open()
    assert state.secret("a").read_text() == secret


def test_another_version_is_refused_and_untouched(state: State) -> None:
    text = json.dumps({"schema": 999, "created_by": "9"})
    (state / "version.json").write_text(text)
    with pytest.raises(DmspError, match=f"has version 999, this program uses version {SCHEMA}"):
        State(state.path).open()
    assert (state / "version.json").read_text() == text


def test_broken_version_file(state: State) -> None:
    (state / "version.json").write_text("{")
    with pytest.raises(DmspError, match="cannot be understood"):
        State(state.path).open()


def test_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DmspError, match=r"holds other things \(such as 'thesis.tex'\)"):
        State(tmp_path).open()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_instead_of_directory(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(DmspError, match="is not a directory"):
        State(tmp_path / "f").open()


def test_second_lock_is_refused(state: State) -> None:
    code = (
        "import sys; from pathlib import Path; from jupyterhub_dmsp.box.state import State\n"
        "with State(Path(sys.argv[1])).locked():\n print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(state.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "held\n"
    owner = state.owner()
    assert owner is not None
    assert owner.pid == child.pid
    with pytest.raises(DmspError, match="A box already runs"), state.locked():
        pass
    child.stdin.close()
    child.wait(10)
    assert state.owner() is None
    with state.locked():
        owner = state.owner()
        assert owner is not None
        assert owner.pid == os.getpid()
    assert state.owner() is None, "although this process lives on"


def test_the_owner_is_known_after_the_clock_was_set(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells the boot in seconds since 1970, so it moves with the clock, and psutil's start times too."""
    with state.locked():
        before = psutil.Process().create_time()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 1e9)
        assert abs(psutil.Process().create_time() - before) > 1000
        owner = state.owner()
        assert owner is not None
        assert owner.pid == os.getpid()


def test_an_owner_of_before_an_upgrade_is_known(state: State) -> None:
    me = psutil.Process()
    (state / "lock").write_text(json.dumps({"pid": me.pid, "started": me.create_time()}))
    assert state.owner() is None
    with (state / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        owner = state.owner()
    assert owner is not None
    assert owner.pid == me.pid


@pytest.mark.parametrize("started", [1.0, 1])
def test_reused_pid_is_not_the_owner(state: State, started: float) -> None:
    (state / "lock").write_text(json.dumps({"pid": os.getpid(), "started": started}))
    assert state.owner() is None


def test_ports_are_kept_and_checked(state: State) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        public = free.getsockname()[1]
    first = state.ports(public)
    assert first == state.ports(public)
    assert len(set(first.values())) == len(first)
    moved = state.ports(public + 50)
    assert moved["issuer"] == first["issuer"], "the issuer's address is part of every identity"
    with socket.create_server(("127.0.0.1", public)):
        assert not port_is_free(public)
        with pytest.raises(DmspError, match=rf"Port {public} \(public\) is taken.*--port"):
            state.ports(public)


def test_remove_leaves_what_is_not_ours(state: State) -> None:
    (state / "notes.txt").write_text("mine")
    state.remove()
    assert [p.name for p in state.path.iterdir()] == ["notes.txt"]
