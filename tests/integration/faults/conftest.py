"""A box with fault-injecting proxies before Rucio and the issuer, and one session in it: for this package alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from boxes import Box, running_or_new
from faults import FaultProxy, before
from lakes import administrator, make_dataset
from visitor import Visitor

from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile
from jupyterhub_dmsp.shared import dmsp_log

TOKEN_LIFETIME = 20
USER = "km3net-user"


@dataclass
class Faulty:
    """A box, and the proxies before two of its parts."""

    box: Box
    rucio: FaultProxy
    issuer: FaultProxy

    def log(self, name: str) -> str:
        """The text of a log, such as ``hub`` or ``sessions/km3net-user``."""
        path = self.box.state / "logs" / f"{name}.log"
        older = path.with_name(f"{path.name}.1")
        return "".join(file.read_text(errors="replace") for file in (older, path) if file.exists())

    def events(self, name: str, rid: str) -> list[str]:
        """The messages of a request in one log."""
        found = [dmsp_log.parse(line) for line in self.log(name).splitlines()]
        return [event.message for event in found if event and event.rid == rid]


@pytest.fixture(scope="package")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """The box; a running one of the developer's while a test is written (``DMSP_FAULTS_STATE=DIR``)."""
    config: Path = tmp_path_factory.mktemp("faults") / "dmsp.yaml"
    # JSON here and text in everybody else's box: both forms are tried at the price of one.
    config.write_text(f"log: {{format: json}}\nbox: {{token_lifetime: {TOKEN_LIFETIME}}}\n")
    boxes = running_or_new("DMSP_FAULTS_STATE", config)
    try:
        box = next(boxes)
        with before(box, "rucio") as rucio, before(box, "issuer") as issuer:
            yield Faulty(box, rucio, issuer)
    finally:
        next(boxes, None)


@pytest.fixture(scope="package")
async def visitor(faulty: Faulty) -> AsyncIterator[Visitor]:
    """A member of KM3NeT with a running session."""
    async with Visitor(faulty.box.address, USER, faulty.box.passwords[USER]) as visitor:
        await visitor.start("minimal")
        yield visitor
        await visitor.stop()


Make = Callable[..., Awaitable[tuple[Did, list[LakeFile]]]]


@pytest.fixture
async def make(faulty: Faulty) -> AsyncIterator[Make]:
    """Makes a dataset at a site, by its sizes; the name is new."""
    async with administrator(faulty.box) as rucio:

        async def made(*sizes: int, name: str = "faults") -> tuple[Did, list[LakeFile]]:
            did = Did("dmsp", f"test.{name}.{os.urandom(4).hex()}")
            return did, await make_dataset(faulty.box, rucio, did, sizes)

        yield made
