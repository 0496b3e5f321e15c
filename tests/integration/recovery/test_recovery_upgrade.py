"""The state that an earlier commit wrote, with databases of earlier versions too, under today's program."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import Box, free_port
from visitor import Visitor

from jupyterhub_dmsp.box import database
from jupyterhub_dmsp.box.backup import dump
from jupyterhub_dmsp.box.backup.create import any_port, place_of
from jupyterhub_dmsp.box.rucio import parts
from jupyterhub_dmsp.box.state import SCHEMA, State

pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[3]
EARLIER = "fd74cf7"
USER, NUMU = "km3net-user", "km3net:mc.numu-CC.genhen.offline"
#: The earlier program takes the place of today's for one command and whatever it starts: sessions find it there too.
INSTEAD = """
set -e
for part in jupyterhub_dmsp profiles; do mount --bind "$1/$part" "$2/$part"; done
shift 2
exec "$@"
"""
#: Runs in Rucio's environment: one step back on its own way of upgrading.
BACK = """
import os
from pathlib import Path
import rucio.db.sqla
from alembic import command
from alembic.config import Config
config = Config(os.environ["INI"])
config.set_main_option("script_location", str(Path(rucio.db.sqla.__path__[0], "migrate_repo")))
config.set_main_option("sqlalchemy.url", os.environ["URL"].replace("%", "%%"))
command.downgrade(config, "-1")
"""


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """The sources of the earlier commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("these are sources without history: the earlier program is not there")
    folder = Path(tempfile.mkdtemp(prefix="dmsp-earlier-"))
    folder.chmod(0o755)
    with tempfile.TemporaryFile() as file:
        command = ["git", "-C", str(ROOT), "archive", EARLIER, "jupyterhub_dmsp", "profiles"]
        made = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=False, timeout=60)
        if made.returncode:
            shutil.rmtree(folder)
            pytest.skip(f"the history does not reach back to {EARLIER}: a shallow clone?")
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            tar.extractall(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A directory for a box that the test starts."""
    directory = Path(tempfile.mkdtemp(prefix="dmsp-test-"))
    directory.chmod(0o755)
    made = Box(directory / "state", free_port())
    yield made
    made.down()
    made.dmsp("reset", "--yes", check=False)
    shutil.rmtree(directory, ignore_errors=True)


def earlier(tree: Path, box: Box, *arguments: str) -> None:
    """A `dmsp` command of the earlier program."""
    program = [sys.executable, "-m", "jupyterhub_dmsp.cli", *arguments, "--state", str(box.state)]
    command = ["unshare", "--mount", "sh", "-c", INSTEAD, "sh", str(tree), str(ROOT), *program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


async def work(box: Box) -> dict[str, Any]:
    """A notebook and an attachment."""
    async with Visitor(box.address, USER, box.passwords[USER]) as user:
        await user.start("minimal")
        attached = await user.attach(NUMU, variable="numu")
        assert attached["state"] == "ready", attached
        notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        body = {"type": "notebook", "format": "json", "content": notebook}
        status, said = await user.lab("PUT", "api/contents/work.ipynb", json=body)
        assert status in (200, 201), said
        return attached


async def take_back(state: State) -> None:
    """The databases of the hub and of Rucio as the versions before the installed ones had them."""
    from jupyterhub.dbutil import write_alembic_ini

    with tempfile.TemporaryDirectory() as folder:
        ini = Path(folder, "alembic.ini")
        write_alembic_ini(str(ini), f"sqlite:///{state.path}/hub/jupyterhub.sqlite")
        command = [sys.executable, "-m", "alembic", "-c", str(ini), "downgrade", "-1"]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=120, capture_output=True)
        place = place_of(state, any_port(), Path(folder, "etc"))
        environment = {
            "PATH": "/usr/bin:/bin",
            "INI": str(state / "rucio" / "alembic.ini"),
            "URL": database.url(place.password, place.port),
            "RUCIO_CONFIG": str(Path(folder, "rucio.cfg")),
            "PYTHONPATH": f"{parts.INSIDE}:{parts.SHARED}",
        }
        config = (state / "rucio" / "rucio.cfg").read_text()
        port = json.loads((state / "ports.json").read_text())["database"]
        Path(folder, "rucio.cfg").write_text(config.replace(f"127.0.0.1:{port}/", f"127.0.0.1:{place.port}/"))
        python = next((state / "envs").glob("rucio-*/bin/python"))
        async with dump.running(place):
            command = [str(python), "-c", BACK]
            await asyncio.to_thread(subprocess.run, command, check=True, timeout=120, env=environment)


async def test_what_an_earlier_program_wrote_is_brought_up_to_date(tree: Path, box: Box) -> None:
    earlier(tree, box, "up", "--detach", "--port", str(box.port))
    assert json.loads((box.state / "version.json").read_text())["schema"] == 1
    passwords = box.passwords
    attached = await work(box)
    earlier(tree, box, "down")
    await take_back(State(box.state))

    box.up()
    assert json.loads((box.state / "version.json").read_text())["schema"] == SCHEMA
    kept = sorted(path.name.split("-")[0] for path in (box.state / "upgrades").iterdir())
    assert kept == ["2", "database"], "what the steps changed, and Rucio's database"
    assert len(list((box.state / "hub").glob("jupyterhub.sqlite.*"))) == 1, "the hub's database"
    assert box.passwords == passwords
    async with Visitor(box.address, USER, passwords[USER]) as user:
        await user.start("minimal")
        status, body = await user.lab("GET", f"dmsp/v1/attachments/{attached['id']}", params={"wait": 20})
        assert (status, body["state"], body["rule_id"]) == (200, "ready", attached["rule_id"]), body
        assert (await user.lab("GET", "api/contents/work.ipynb"))[0] == 200
    box.down()
    kept = sorted(os.listdir(box.state / "upgrades"))  # noqa: PTH208 - names only
    box.up()
    assert sorted(os.listdir(box.state / "upgrades")) == kept, "the second start has nothing to upgrade"  # noqa: PTH208
