"""``dmsp scratch check`` on a running box, with a user's attachment over the damaged files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from boxes import Box, make_box
from lakes import SCRATCH, administrator, make_dataset, place
from visitor import Visitor

from jupyterhub_dmsp.lake.did import Did

pytestmark = pytest.mark.root
USER = "km3net-user"


@pytest.fixture(scope="module")
def own_box() -> Iterator[Box]:
    yield from make_box()


async def _sums(user: Visitor, attached: str) -> str:
    manifest = f"$DMSP_RUNTIME/attachments/{attached}/paths.txt"
    code, output = await user.terminal(f"cat $(cat {manifest}) | sha256sum")
    assert code == 0, output
    return output.split()[0]


async def test_damage_under_a_ready_attachment_is_cured(own_box: Box) -> None:
    box = own_box
    async with administrator(box) as root:
        files = await make_dataset(box, root, Did("km3net", "under.repair"), [200_000] * 6)
    async with Visitor(box.address, USER, box.passwords[USER]) as user:
        await user.start("minimal")
        attached = await user.attach("km3net:under.repair")
        assert attached["state"] == "ready"
        before = await _sums(user, attached["id"])
        paths = [place(box, SCRATCH, file.did) for file in files]
        with paths[0].open("r+b") as file:  # the same size
            file.seek(1000)
            file.write(b"damaged")
        with paths[1].open("r+b") as file:
            file.truncate(10)
        paths[2].unlink()
        assert await _sums(user, attached["id"]) != before or not paths[2].exists()
        done = box.dmsp("scratch", "check", "--json", check=False)
        found = json.loads(done.stdout)
        assert done.returncode == 1, done.stderr
        assert found["counts"] == {"checksum": 1, "short": 1, "missing": 1}
        done = box.dmsp("scratch", "check", "--repair", "--json", timeout=300)
        cured = json.loads(done.stdout)
        assert cured["clean"]
        assert {problem["outcome"] for problem in cured["problems"]} == {"cured"}
        async with asyncio.timeout(120):
            while True:
                _, now = await user.lab("GET", f"dmsp/v1/attachments/{attached['id']}", params={"wait": 20})
                if now["state"] == "ready":
                    break
        assert await _sums(user, attached["id"]) == before
    done = box.dmsp("scratch", "check")
    assert "all as the catalogue says" in done.stdout
    site = json.loads(box.dmsp("scratch", "check", "--rse", "SITE-NORTH", "--fast", "--json").stdout)
    assert site["clean"]
    assert site["files"] > 20


def test_what_the_command_refuses(own_box: Box) -> None:
    done = own_box.dmsp("scratch", "check", "--rse", "NOWHERE", check=False)
    assert done.returncode == 1
    assert "has no storage element NOWHERE" in done.stderr
    assert own_box.dmsp("scratch", "check", "--give-up-lost", check=False).returncode == 2
    own_box.down()
    done = own_box.dmsp("scratch", "check", check=False)
    assert done.returncode == 3
    assert "No box runs" in done.stderr
