"""``dmsp profiles``: what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from jupyterhub_dmsp.cli import app
from jupyterhub_dmsp.profiles.catalogue import default_path

run = CliRunner()


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A copy of the shipped one."""
    shutil.copytree(default_path(), tmp_path / "profiles")
    return tmp_path / "profiles"


def change(catalogue: Path, slug: str, **keys: object) -> None:
    file = catalogue / slug / "profile.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | keys))


def test_all_in_order(catalogue: Path) -> None:
    for arguments in ([], [str(catalogue)]):
        done = run.invoke(app, ["profiles", "check", *arguments])
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == "3 profiles are in order: minimal, km3net, root.\n"
    done = run.invoke(app, ["profiles", "check", str(catalogue), "--json"])
    assert json.loads(done.stdout) == {"faults": [], "profiles": ["minimal", "km3net", "root"]}


def test_all_faults_in_one_go_each_on_a_line(catalogue: Path) -> None:
    change(catalogue, "minimal", colour="red", mode="magic")
    change(catalogue, "root", choices={"memory": ["1G"]}, environment={"HOME": "/x"})
    (catalogue / "km3net" / "requirements.lock").unlink()
    faults = [
        "Profile km3net: requirements.lock is missing.",
        "Profile minimal: `mode` input should be 'replica' or 'download'.",
        "Profile minimal: `colour` is not a known key.",
        "Profile root: `environment` sets HOME, which belongs to the session.",
    ]
    done = run.invoke(app, ["profiles", "check", str(catalogue)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == faults
    done = run.invoke(app, ["profiles", "check", str(catalogue), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["faults"]) == (1, faults)


def test_experiments_are_those_of_the_configuration(catalogue: Path, tmp_path: Path) -> None:
    config = tmp_path / "dmsp.yaml"
    config.write_text(
        yaml.safe_dump({"experiments": [{"name": "other"}], "profiles": {"path": str(catalogue)}})
    )
    for arguments in ([], [str(catalogue)]):
        done = run.invoke(app, ["profiles", "check", *arguments, "--config", str(config)])
        assert done.exit_code == 1
        assert done.stderr.splitlines() == [
            "Profile km3net: `experiments` names km3net, which dmsp.yaml does not know."
        ]


def test_list_and_schema(catalogue: Path) -> None:
    done = run.invoke(app, ["profiles", "list", str(catalogue)])
    assert done.stdout.splitlines()[1] == "km3net: KM3NeT, for km3net, 4G, 2 cores"
    about = json.loads(run.invoke(app, ["profiles", "list", str(catalogue), "--json"]).stdout)
    assert [profile["slug"] for profile in about] == ["minimal", "km3net", "root"]
    assert about[0]["environment"] == {}
    assert "folder" not in about[0]
    assert "group_limits" in json.loads(run.invoke(app, ["profiles", "schema"]).stdout)["properties"]
