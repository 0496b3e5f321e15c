"""The daemons' health does not depend on the clock that somebody sets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.box.rucio import config, parts

NOW = 50_000.0


def document(**more: Any) -> dict[str, Any]:
    loops = {"judge-evaluator": {"last": 1e9, "tick": NOW - 1, "error": "", "rounds": 5}}
    known = {"pid": 1, "started": 1e9, "now": 1e9, "tick": NOW, "first_tick": NOW - 600, "ready": True}
    return known | {"copying": 0, "copied": 0, "failed": 0, "loops": loops} | more


@pytest.fixture
def health(tmp_path: Path) -> Path:
    path = config.Files(tmp_path).health
    path.parent.mkdir()
    return path


@pytest.mark.parametrize("jump", [-3600.0, 0.0, 3600.0])
async def test_a_jump_makes_nobody_silent(health: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """Also in the moment in which the file and some loops still have the time from before."""
    directory = health.parents[1]
    monkeypatch.setattr(time, "monotonic", lambda: NOW + 0.5)
    monkeypatch.setattr(time, "time", lambda: 1e9 + jump)
    health.write_text(json.dumps(document()))
    assert await parts.daemons_wrong(directory) == ""
    assert parts.daemons_health(directory).ready
    health.write_text(json.dumps(document(now=1e9 + jump)))
    assert await parts.daemons_wrong(directory) == ""


async def test_silence_is_noticed_whatever_the_clock_says(
    health: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = health.parents[1]
    health.write_text(json.dumps(document()))
    monkeypatch.setattr(time, "monotonic", lambda: NOW + 60)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert await parts.daemons_wrong(directory) == "have been silent for 60 s"
    assert not parts.daemons_health(directory).ready


def test_what_an_earlier_version_wrote_is_not_ready(health: Path) -> None:
    before = document()
    del before["tick"]
    health.write_text(json.dumps(before))
    assert not parts.daemons_health(health.parents[1]).ready
    health.write_bytes(b"\xff\xfe")
    assert not parts.daemons_health(health.parents[1]).ready
