"""Control groups on a file system of our own making: both versions, and none."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyterhub_dmsp.sandbox import cgroup
from jupyterhub_dmsp.sandbox.cgroup import Limits

LIMITS = Limits(memory=2**30, cpu=1.5, processes=100)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 2 as far as files go: the kernel would make them with the directory."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    made = tmp_path / "dmsp" / "one"
    made.mkdir(parents=True)
    for name in ("cgroup.procs", "memory.max", "cpu.max", "pids.max", "memory.current"):
        (made / name).write_text("0")
    return made


def test_version_two(two: Path) -> None:
    group = cgroup.create("one", LIMITS)
    assert group.directories == [two]
    assert (two / "memory.max").read_text() == str(2**30)
    assert (two / "cpu.max").read_text() == "150000 100000"
    assert (two / "pids.max").read_text() == "100"
    assert (two.parent / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert group.describe() == "limits on memory, cpu, processes"
    command = group.command(["program"])
    assert command[0] == "/bin/sh"
    assert command[-1] == "program"
    assert str(two / "cgroup.procs") in command


def test_controller_that_is_not_offered_is_said(two: Path) -> None:
    (two / "memory.max").unlink()
    group = cgroup.create("one", LIMITS)
    assert group.applied == ["cpu", "processes"]
    assert "no limit on memory" in group.describe()


def test_nothing_offered_falls_back_to_prlimit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    group = cgroup.create("one", LIMITS)
    assert group.directories == []
    assert group.applied == []
    assert group.command(["program"]) == ["prlimit", "--nproc=100", "--", "program"]
    assert "counted by prlimit" in group.describe()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match="group name"):
        cgroup.create(name, Limits())
