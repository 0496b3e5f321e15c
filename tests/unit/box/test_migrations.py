"""Steps from one version of the state to the next: in order, once, again after an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import migrations
from jupyterhub_dmsp.box.migrations import STEPS, Step, upgrade
from jupyterhub_dmsp.box.state import SCHEMA, State
from jupyterhub_dmsp.errors import DmspError


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state as the first version wrote it."""
    made = State(tmp_path / "state")
    made.open()
    made.write_schema(1)
    (made / "ports.json").write_text(json.dumps({"rucio": 8003}))
    (made / "run" / "network.json").write_text(json.dumps({"subnet": "100.64.7.0/24"}))
    (made / "homes" / "note").write_text("before")
    return made


def test_the_steps_lead_to_today() -> None:
    assert [step.version for step in STEPS] == list(range(2, SCHEMA + 1))


def test_a_state_of_the_first_version(state: State) -> None:
    said: list[str] = []
    upgrade(state, said.append)
    assert state.schema() == SCHEMA
    host = "100.64.7.1" if os.geteuid() == 0 else "127.0.0.1"
    assert state.lake_id("http://elsewhere:1") == f"http://{host}:8003", "the address that sessions knew"
    assert len(said) == len(STEPS)
    upgrade(state, said.append)
    assert len(said) == len(STEPS), "nothing is left to do"


def test_a_state_that_never_was_up_gets_its_name_later(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.open()
    state.write_schema(1)
    upgrade(state, lambda _: None)
    assert state.lake_id("http://a:1") == "http://a:1"
    assert state.lake_id("http://b:2") == "http://a:1"


def test_a_step_that_is_interrupted_runs_again(state: State) -> None:
    tries: list[str] = []

    def step(box: State) -> None:
        tries.append((box / "homes" / "note").read_text())
        (box / "homes" / "note").write_text("half")
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        (box / "homes" / "note").write_text("after")

    steps = [Step(2, "try", ("homes", "absent"), step), Step(3, "more", (), lambda _: None)]
    with pytest.raises(DmspError, match="could not be upgraded to version 2: No space left"):
        upgrade(state, lambda _: None, steps)
    assert state.schema() == 1
    upgrade(state, lambda _: None, steps)
    assert tries == ["before", "half"]
    assert (state / "homes" / "note").read_text() == "after"
    assert state.schema() == 3
    assert (state / migrations.SAFETY / "2" / "homes" / "note").read_text() == "before", "the first copy stays"
    assert (state / migrations.SAFETY).stat().st_mode & 0o777 == 0o700


def test_a_killed_copy_is_made_again(state: State) -> None:
    (state / migrations.SAFETY / ".2.part").mkdir(parents=True)
    (state / migrations.SAFETY / ".2.part" / "torn").write_text("x")
    upgrade(state, lambda _: None, [Step(2, "try", ("homes",), lambda _: None)])
    assert sorted(p.name for p in (state / migrations.SAFETY).iterdir()) == ["2"]
    assert sorted(p.name for p in (state / migrations.SAFETY / "2").iterdir()) == ["homes"]
