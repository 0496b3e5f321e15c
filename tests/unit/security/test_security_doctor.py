"""What the doctor says about limits, on machines of our own making."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import doctor
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.sandbox import cgroup


def limits(tmp_path: Path) -> doctor.Finding:
    return next(one for one in doctor.examine(State(tmp_path / "state"), 18997) if one.name == "limits")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root on a machine whose control groups are here."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def test_version_two_with_everything(machine: Path) -> None:
    (machine / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    found = limits(machine)
    assert found.ok
    assert found.remedy == ""


def test_version_two_without_memory(machine: Path) -> None:
    (machine / "cgroup.controllers").write_text("cpu pids")
    found = limits(machine)
    assert not found.ok
    assert not found.needed
    assert found.text == (
        "Control groups are missing for memory (not offered): a session can take all memory of this machine."
    )
    assert "/sys/fs/cgroup" in found.remedy


def test_no_control_groups_at_all(machine: Path) -> None:
    found = limits(machine)
    for name, consequence in doctor.WITHOUT.items():
        assert f"{name} (not offered): {consequence}" in found.text


def test_read_only_is_said(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "cgroup.controllers").write_text("cpu memory pids")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "pids (read-only): processes are counted for each user by prlimit instead" in limits(machine).text


def test_an_ordinary_user_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = limits(tmp_path)
    assert not found.ok
    assert "do not hold" in found.text
