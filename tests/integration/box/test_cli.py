"""The ``dmsp`` command: bad input gets one sentence and a way out, and damages nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_dmsp.box.state import SCHEMA
from jupyterhub_dmsp.shared import dmsp_log


def dmsp(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jupyterhub_dmsp.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 1, and an error text without a traceback that says these things."""
    assert done.returncode == 1, done.stdout + done.stderr
    text = " ".join(done.stderr.split())
    assert text.startswith("dmsp: ")
    assert "Traceback" not in text
    for part in parts:
        assert part in text


def test_wrong_configuration_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = tmp_path / "dmsp.yaml"
    config.write_text("lake: {mod: replica}\nbox: {token_lifetime: soon}\n")
    state = tmp_path / "state"
    done = dmsp("up", "--config", str(config), "--state", str(state))
    one_sentence(done, "`lake.mod` is not a known key.", "`box.token_lifetime`", "dmsp config schema")
    assert not state.exists()


def test_config_commands(tmp_path: Path) -> None:
    config = tmp_path / "dmsp.yaml"
    config.write_text("site: {name: Test}\n")
    assert dmsp("config", "check", str(config)).returncode == 0
    assert "name: Test" in dmsp("config", "show", str(config)).stdout
    assert json.loads(dmsp("config", "schema").stdout)["title"] == "Settings"
    one_sentence(dmsp("config", "check", str(tmp_path / "none.yaml")), "cannot be read")


def test_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = dmsp("up", "--state", str(tmp_path / "s"), "--port", str(port))
    one_sentence(done, f"Port {port} is taken", "--port")


def test_state_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "version.json").write_text('{"schema": 7}')
    one_sentence(dmsp("up", "--state", str(tmp_path)), "version 7", f"version {SCHEMA}", "--state")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["version.json"]


def test_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    one_sentence(dmsp("up", "--state", str(tmp_path)), "holds other things", "--state")
    one_sentence(dmsp("reset", "--yes", "--state", str(tmp_path)), "holds no box")
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize(
    ("program", "package"),
    [("bwrap", "bubblewrap"), ("bindfs", "bindfs"), ("fusermount3", "fuse3"), ("nft", "nftables")],
)
@pytest.mark.root
def test_missing_program(tmp_path: Path, program: str, package: str) -> None:
    """A PATH that holds everything but one program."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bwrap", "bindfs", "fusermount3", "ip", "nft", "setpriv", "g++"):
        found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
        if name != program and found:
            (tools / name).symlink_to(found)
    env = {**os.environ, "PATH": str(tools)}
    done = dmsp("up", "--state", str(tmp_path / "s"), "--port", "18999", env=env)
    one_sentence(done, f"{program} is missing", f"apt install {package}", "dmsp doctor")
    done = dmsp("doctor", "--state", str(tmp_path / "s"), "--port", "18999", env=env)
    assert done.returncode == 1
    assert f"apt install {package}" in done.stdout


def test_doctor_tells_what_is_limited(tmp_path: Path) -> None:
    findings = json.loads(dmsp("doctor", "--json", "--state", str(tmp_path / "s"), "--port", "18998").stdout)
    assert {f["name"] for f in findings} >= {"root", "bwrap", "fuse", "bindfs", "c++ headers", "ports", "disk"}
    assert all(f["ok"] or f["remedy"] for f in findings)


def test_commands_without_a_box(tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "s")]
    assert dmsp("status", *state).returncode == 3
    assert json.loads(dmsp("status", "--json", *state).stdout) == {"address": None, "parts": []}
    assert dmsp("down", *state).returncode == 3
    one_sentence(dmsp("users", *state), "no users yet")
    one_sentence(dmsp("logs", *state), "no logs yet")
    one_sentence(dmsp("reset", *state), "holds no box")
    one_sentence(dmsp("demo", *state), "No box runs")
    assert dmsp("nonsense").returncode == 2
    assert not (tmp_path / "s").exists()


def _line(form: str, second: int, level: str, message: str) -> str:
    event = dmsp_log.Event(1_795_384_800 + second, level, "hub", "x", "request-1", message)
    return (dmsp_log.as_json if form == "json" else dmsp_log.as_text)(event) + "\n"


@pytest.mark.parametrize("form", ["text", "json"])
def test_logs_of_either_form(tmp_path: Path, form: str) -> None:
    """Shown alike, filtered, as JSON, and followed as they grow."""
    path = tmp_path / "logs" / "hub.log"
    path.parent.mkdir()
    path.write_text(_line(form, 1, "INFO", "a\x1b[2J\nb") + _line(form, 2, "ERROR", "c"))
    state = ["--state", str(tmp_path)]
    first, rest, second = dmsp("logs", *state).stdout.splitlines()
    assert (first[10:], rest) == ("T22:00:01.000Z INFO hub x [rid=request-1] a\\x1b[2J", "    b")
    assert second[10:] == "T22:00:02.000Z ERROR hub x [rid=request-1] c"
    assert dmsp("logs", "hub", "--level", "warning", *state).stdout.splitlines() == [second]
    objects = [json.loads(line) for line in dmsp("logs", "--json", *state).stdout.splitlines()]
    assert [one["message"] for one in objects] == ["a\x1b[2J\nb", "c"]
    assert dmsp("logs", "--request", "request-1", "--level", "error", *state).stdout.splitlines() == [second]
    one_sentence(dmsp("logs", "--level", "loud", *state), "no level 'loud'", "debug, info, warning, error")
    one_sentence(dmsp("logs", "--request", "request-2", *state), "No log knows the request")
    one_sentence(dmsp("logs", "hib", *state), "no log of 'hib'", "hub")
    command = [sys.executable, "-m", "jupyterhub_dmsp.cli", "logs", "-f", "-n", "1", "--level", "error", *state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == f"{second}\n"
        with path.open("a") as file:
            file.write(_line(form, 3, "INFO", "not wanted") + _line(form, 4, "ERROR", "d"))
        assert follower.stdout.readline().endswith(" ERROR hub x [rid=request-1] d\n")
        follower.kill()
