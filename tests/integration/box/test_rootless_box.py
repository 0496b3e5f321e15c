"""The box of an ordinary user: one person, no FUSE, no networks of its own, and a dataset in a session all the same."""

from __future__ import annotations

import pwd
from collections.abc import Iterator

import pytest
from boxes import Box, can_run_as, make_box
from visitor import Visitor

UID = pwd.getpwnam("nobody").pw_uid  # PostgreSQL wants an entry in passwd
pytestmark = [
    pytest.mark.root,  # to become the ordinary user
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_run_as(UID), reason="the checkout lies where other users may not enter"),
]


@pytest.fixture(scope="module")
def rootless() -> Iterator[Box]:
    yield from make_box(uid=UID)


async def test_attach_without_root(rootless: Box) -> None:
    assert {part["state"] for part in rootless.status["parts"]} == {"healthy"}
    assert "scratch" not in {part["name"] for part in rootless.status["parts"]}, "nothing can be mounted"
    async with Visitor(rootless.address, "km3net-user", rootless.passwords["km3net-user"]) as visitor:
        await visitor.start("minimal")
        attached = await visitor.attach("dmsp:tutorial.first-steps")
        assert attached["state"] == "ready", attached
        program = "import dmsp; print(open(dmsp.attach('dmsp:tutorial.first-steps')[0]).read(1))"
        code, said = await visitor.terminal(f'rucio whoami && python -c "{program}" && touch /scratch/lake/x')
        assert code != 0, "scratch is read-only"
        assert "account    : km3net-user" in said
        assert "#" in said
        await visitor.stop()
