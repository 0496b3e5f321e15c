"""A box that is backed up while it works, lost, and restored: who worked there goes on where they were."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import Box
from lakes import SITE, administrator, make_dataset, place
from visitor import Visitor

from jupyterhub_dmsp.lake.did import Did

pytestmark = [pytest.mark.root, pytest.mark.timeout(1200)]
NUMU = "km3net:mc.numu-CC.genhen.offline"
USER = "km3net-user"
OTHER_SITE = "SITE-SOUTH"


@pytest.fixture(scope="module")
def second(own: Box) -> Iterator[Box]:
    """Where it is restored, on the same ports: the first box has ended by then."""
    first = own
    directory = first.state.parent.with_name(f"{first.state.parent.name}-restored")
    directory.mkdir(mode=0o755)
    box = Box(directory / "state", first.port)
    yield box
    box.down()
    box.dmsp("reset", "--yes", check=False)
    shutil.rmtree(directory, ignore_errors=True)


async def work(box: Box) -> dict[str, Any]:
    """What a user leaves behind: a notebook with a bound variable, an attachment, a file with a mode of its own."""
    async with Visitor(box.address, USER, box.passwords[USER]) as user:
        await user.start("minimal")
        attached = await user.attach(NUMU, variable="numu")
        assert attached["state"] == "ready", attached
        cells = [
            {"cell_type": "code", "source": "numu", "metadata": {}, "outputs": [], "execution_count": None}
        ]
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        body = {"type": "notebook", "format": "json", "content": notebook}
        status, said = await user.lab("PUT", "api/contents/work.ipynb", json=body)
        assert status in (200, 201), said
        bound = {"notebook": "work.ipynb", "variable": "numu", "attachment": attached["id"]}
        status, said = await user.lab("PUT", "dmsp/v1/bindings", json=bound)
        assert status in (200, 201, 204), said
        await user.terminal("echo secret > mine; chmod 640 mine; ln -s mine link; ln mine twin")
        return attached


async def facts(box: Box) -> dict[str, Any]:
    """What must be the same afterwards."""
    async with administrator(box) as rucio:
        rules = {row.id: (row.account, row.rse_expression) for row in await rucio.rules_of(Did.parse(NUMU))}
        account = [row["identity"] for row in await rucio.identities(USER)]
    home = box.state / "homes" / USER
    files = {
        name: (os.lstat(home / name).st_uid, os.lstat(home / name).st_mode)
        for name in ("mine", "link", "twin", "work.ipynb", ".local/share/dmsp/attachments.sqlite")
    }
    return {
        "rules": rules,
        "identities": sorted(account),
        "files": files,
        "notebook": hashlib.sha256((home / "work.ipynb").read_bytes()).hexdigest(),
        "ids": json.loads((box.state / "ids" / "users.json").read_text()),
        "passwords": box.passwords,
    }


async def test_a_lost_box_is_restored(own: Box, second: Box, tmp_path: Path) -> None:
    first = own
    attached = await work(first)
    sole, both = (Did("dmsp", f"test.{kind}.{uuid.uuid4().hex[:8]}") for kind in ("sole", "both"))
    async with administrator(first) as rucio:
        (alone,) = await make_dataset(first, rucio, sole, [5000])
        (copied,) = await make_dataset(first, rucio, both, [6000])
        for did, rse in ((sole, SITE), (both, SITE), (both, OTHER_SITE)):
            await rucio.add_rule(did, rse, 86400)
        await with_copy(rucio, both)
    before = await facts(first)

    file = tmp_path / "box.tar.gz"
    said = first.dmsp("backup", str(file)).stdout
    assert "It holds every secret of the box." in said
    assert file.stat().st_mode & 0o777 == 0o600
    assert "is in order" in first.dmsp("backup", str(file), "--verify").stdout
    first.down()
    small = tmp_path / "small.tar.gz"
    first.dmsp("backup", str(small), "--without-data")
    with tarfile.open(small) as tar:
        names = tar.getnames()
    assert not any(name.startswith(("storage", "envs", "scratch", "logs", "sessions")) for name in names)
    assert {"database.dump", f"homes/{USER}/work.ipynb", "hub/jupyterhub.sqlite"} <= set(names)
    second.dmsp("restore", str(file), timeout=300)
    refused = second.dmsp("restore", str(file), check=False)
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
    # What the backup of a site may lack: a file that another site has, and one that nobody has.
    place(second, SITE, copied.did).unlink()
    kept = tmp_path / "kept"
    shutil.copy2(place(second, SITE, alone.did), kept)
    place(second, SITE, alone.did).unlink()
    second.up()

    assert await facts(second) == before
    mark = json.loads((second.state / "restored.json").read_text())
    assert (mark["lost"], mark["examples"]) == (1, [str(alone.did)])
    await goes_on(second, attached)
    async with administrator(second) as rucio:
        await with_copy(rucio, both)
    assert place(second, SITE, copied.did).stat().st_size == 6000
    await comes_back(second, place(second, SITE, alone.did), kept, sole)


async def with_copy(rucio: Any, did: Did) -> None:
    """Wait until all rules on a DID are satisfied."""
    async with asyncio.timeout(90):
        while any(rule.state != "OK" for rule in await rucio.rules_of(did)):
            await asyncio.sleep(0.3)


async def goes_on(box: Box, attached: dict[str, Any]) -> None:
    """The same password, the notebook, the attachment: ready and readable by itself, bound at the kernel's start."""
    async with Visitor(box.address, USER, box.passwords[USER]) as user:
        await user.start("minimal")
        body: dict[str, Any] = {"state": ""}
        while body["state"] not in ("ready", "failed"):
            status, body = await user.lab("GET", f"dmsp/v1/attachments/{attached['id']}", params={"wait": 20})
            assert status == 200, body
        assert (body["state"], body["rule_id"]) == ("ready", attached["rule_id"]), body
        kernel = await user.kernel(path="work.ipynb")
        said = await kernel.run("print(open(numu.paths[0], 'rb').read(4), len(numu.paths))")
        assert said.strip() == "b'root' 1"
        code, said = await user.terminal("cat link; stat -c '%a %h' mine")
        assert (code, said.split()) == (0, ["secret", "640", "2"])


async def comes_back(box: Box, path: Path, kept: Path, dataset: Did) -> None:
    """A file that was missing is put back: the next start notices, and the mark of the restore goes."""
    box.down()
    owner = (box.state / "storage" / SITE / "lake").stat()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(kept, path)
    for part in (path, path.parent, path.parent.parent, path.parent.parent.parent):
        os.chown(part, owner.st_uid, owner.st_gid)
    box.up()
    assert not (box.state / "restored.json").exists()
    async with administrator(box) as rucio:
        await with_copy(rucio, dataset)
