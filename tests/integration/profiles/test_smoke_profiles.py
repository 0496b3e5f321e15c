"""The shipped profiles: their environments are built and their notebooks open real data."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from jupyterhub_dmsp.profiles import catalogue, smoke
from jupyterhub_dmsp.profiles.catalogue import Profile
from jupyterhub_dmsp.profiles.environments import Environments

# Shared with other tests of this run, and with the next run.
ENVIRONMENTS = Path(tempfile.gettempdir()) / f"dmsp-test-envs-{os.geteuid()}"


def shipped(slug: str) -> Profile:
    profile = catalogue.load().get(slug)
    assert profile is not None
    return profile


async def ran(slug: str) -> dict[str, str]:
    profile = shipped(slug)
    environment = await Environments(ENVIRONMENTS).ensure(profile.environment())
    return {finding.notebook: finding.sentence for finding in await smoke.run(profile, environment)}


@pytest.mark.timeout(600)
async def test_minimal() -> None:
    found = await ran("minimal")
    assert list(found) == ["smoke.ipynb"]
    assert found["smoke.ipynb"].startswith("m(Z) = 91.")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_km3net() -> None:
    assert (await ran("km3net"))["smoke.ipynb"].startswith("1.52 neutrinos a year from the Galactic centre")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_root_in_python_and_cpp() -> None:
    found = await ran("root")
    assert found["smoke.ipynb"].startswith("m(Z) = 91.")
    assert found["smoke-cpp.ipynb"].startswith("5296 Higgs events in the window")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("assert 91 == 92, 'the Z is too heavy'", "AssertionError: the Z is too heavy"),
        ("print('nothing to say')", "it printed no line with “smoke:”."),
        ("import sys; print('input_line_1:1: error: boom', file=sys.stderr); print('smoke: ok')", "boom"),
    ],
)
async def test_a_failing_notebook_is_told_apart(tmp_path: Path, source: str, cause: str) -> None:
    folder = tmp_path / "minimal"
    shutil.copytree(shipped("minimal").folder, folder)
    notebook = json.loads((folder / "smoke.ipynb").read_text())
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    notebook["cells"] = [code | {"source": [source]}]
    (folder / "smoke.ipynb").write_text(json.dumps(notebook))
    (profile,) = catalogue.load(tmp_path)
    environment = await Environments(ENVIRONMENTS).ensure(profile.environment())
    with pytest.raises(smoke.SmokeFailed) as error:
        await smoke.run(profile, environment)
    assert cause in error.value.message
    assert error.value.message.startswith("The notebook smoke.ipynb of the profile minimal failed: ")
