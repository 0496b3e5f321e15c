"""The systemd unit."""

from __future__ import annotations

import configparser
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import service
from jupyterhub_dmsp.box.service import Service
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.errors import DmspError


def read(unit: Service) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit.text())
    return parser


@pytest.mark.parametrize("user", [False, True])
def test_unit(tmp_path: Path, user: bool) -> None:
    found = read(Service(State(tmp_path / "state"), 9000, tmp_path / "dmsp.yaml", user))
    assert found.sections() == ["Unit", "Service", "Install"]
    body = found["Service"]
    words = body["ExecStart"].split()
    assert Path(words[0]) in (Path(sys.prefix, "bin", "dmsp"), Path(sys.executable))
    assert words[words.index("up") :] == [
        *("up", "--state", str(tmp_path / "state"), "--port", "9000", "--config", str(tmp_path / "dmsp.yaml"))
    ]
    assert (body["Type"], body["KillMode"], body["Restart"]) == ("notify", "mixed", "on-failure")
    assert int(body["TimeoutStopSec"]) > 15, "the box ends by itself first"
    assert found["Install"]["WantedBy"] == ("default.target" if user else "multi-user.target")


@pytest.mark.parametrize("folder", ["state", "with space", "per%cent", 'quo"te', "dol$lar", "semi;colon"])
def test_systemd_understands_it(tmp_path: Path, folder: str) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / service.NAME
    unit.write_text(Service(State(tmp_path / folder), 8000, None, False).text())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert service.NAME not in done.stderr, done.stderr


def test_refused_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "systemd_runs", lambda: False)
    with pytest.raises(DmspError, match=r"not run by systemd\. .*--print"):
        Service(State(tmp_path), 8000, None, False).install()


def test_written_for_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "systemd_runs", lambda: True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    unit = Service(State(tmp_path / "state"), 8000, None, True)
    unit.install()
    assert unit.path == tmp_path / "config" / "systemd" / "user" / "dmsp.service"
    assert unit.path.read_text() == unit.text()
    assert any("enable-linger" in line for line in unit.next_commands())


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        service.notify("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_nobody_is_told_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service.notify("READY=1")
