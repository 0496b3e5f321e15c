"""The doctor's findings on machines that lack something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import doctor
from jupyterhub_dmsp.box.state import State


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A machine without any program."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return State(tmp_path / "state")


def by_name(state: State) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(state, 18997)}


def test_each_missing_thing_has_its_remedy(bare: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FUSE", bare.path / "no-fuse")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = by_name(bare)
    assert found["bwrap"].remedy == "apt install bubblewrap"
    assert found["bindfs"].remedy == "apt install bindfs"
    assert found["c++ headers"].remedy == "apt install g++"
    assert "the profile `root` cannot run" in found["c++ headers"].text
    assert "/dev/fuse" in found["fuse"].remedy
    assert {name for name, f in found.items() if f.needed and not f.ok} >= {
        "bwrap",
        "fuse",
        "bindfs",
        "nft",
        "ip",
    }


def test_an_ordinary_user_is_told_what_is_limited(bare: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = by_name(bare)
    assert not found["root"].ok
    assert not found["root"].needed
    assert found["fuse"].ok
    assert not found["bindfs"].needed
