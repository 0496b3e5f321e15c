"""Several users at once, each attaching and reading with tokens of a minute: nothing fails, nothing grows.

The size comes from the environment: ``DMSP_SOAK_USERS`` (10), ``DMSP_SOAK_MINUTES`` (10), ``DMSP_SOAK_SEED`` (random).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from boxes import Box, running_or_new
from lakes import administrator, make_dataset
from measures import Sampler
from visitor import Kernel, Visitor

from jupyterhub_dmsp.lake.did import Did

pytestmark = [pytest.mark.root, pytest.mark.slow]
READ = "import dmsp; d = dmsp.attach({did!r}); sum(len(open(path, 'rb').read()) for path in d)"


@dataclass(frozen=True)
class Size:
    """How long which number of people work, and how long a token lives, in minutes and seconds."""

    users: int
    minutes: float
    token_lifetime: int
    slack: float = 1.0

    @property
    def names(self) -> list[str]:
        return [f"soak-{n:02d}" for n in range(self.users)]


SHORT = Size(users=4, minutes=1.0, token_lifetime=30, slack=2.0)


def _config(directory: Path, size: Size) -> Path:
    file = directory / "dmsp.yaml"
    named = [{"name": name, "groups": ["/dmsp", "/dmsp/km3net"]} for name in size.names]
    file.write_text(yaml.safe_dump({"box": {"token_lifetime": size.token_lifetime, "users": named}}))
    return file


class Person:
    """One user at work until the end; `done` counts what was done."""

    def __init__(self, visitor: Visitor, datasets: dict[str, int], seed: int) -> None:
        self.visitor, self.datasets = visitor, datasets
        self.random = random.Random(f"{seed} {visitor.name}")
        self.done: Counter[str] = Counter()
        self.attached: dict[str, str] = {}

    async def work(self, end: float) -> None:
        kernel = await self.visitor.kernel()
        tokens = set()
        while time.monotonic() < end:
            await self._browse()
            await self._read(kernel, self.random.choice(list(self.datasets)))
            if self.attached:  # what was ready stays so, whatever others have released meanwhile
                await self._read(kernel, self.random.choice(list(self.attached.values())))
            if len(self.attached) > 2 or self.random.random() < 0.3:
                await self._release()
            if self.done["rounds"] % 3 == 0:
                tokens.add(await kernel.run("import os; open(os.environ['BEARER_TOKEN_FILE']).read()[-40:]"))
            self.done["rounds"] += 1
            await asyncio.sleep(self.random.uniform(0.2, 2))  # people think
        self.done["tokens"] = len(tokens)

    async def _browse(self) -> None:
        query = {"parent": self.random.choice(["", "km3net", "dmsp"]), "refresh": "true"}
        status, page = await self.visitor.lab("GET", "dmsp/v1/children", params=query)
        assert (status, page["error"]) == (200, None), (query, status, page)
        status, body = await self.visitor.lab("GET", "dmsp/v1/status")
        assert (status, body["lake"]["error"], body["token"]["error"]) == (200, None, None), body

    async def _read(self, kernel: Kernel, did: str) -> None:
        attached = await self.visitor.attach(did, timeout=300)
        if (attached["state"], attached["error"]) != ("ready", None):
            raise AssertionError(json.dumps(attached))
        self.attached[attached["id"]] = did
        said = await kernel.run(READ.format(did=did), timeout=300)
        assert said.splitlines()[-1] == str(self.datasets[did]), (did, said)
        self.done["bytes"] += self.datasets[did]

    async def _release(self) -> None:
        ident = self.random.choice(list(self.attached))
        # With purge or without: what another user finds on scratch at this moment must not vanish under their hands.
        query = {"purge": self.random.choice(["true", "false"])}
        status, body = await self.visitor.lab("DELETE", f"dmsp/v1/attachments/{ident}", params=query)
        assert (status, body["state"]) == (200, "released"), body
        del self.attached[ident]
        self.done["released"] += 1


async def _datasets(box: Box, count: int, chance: random.Random) -> dict[str, int]:
    found = {}
    async with administrator(box) as rucio:
        for number in range(count):
            did = Did(chance.choice(["dmsp", "km3net"]), f"soak.{number:03d}.{os.urandom(3).hex()}")
            sizes = [chance.randrange(1, 300_000) for _ in range(chance.randrange(1, 12))]
            await make_dataset(box, rucio, did, sizes)
            found[str(did)] = sum(sizes)
    return found


async def _day(box: Box, size: Size, seed: int) -> tuple[Sampler, list[Person]]:
    """Everybody works; returns what was sampled meanwhile."""
    names, seconds = size.names, size.minutes * 60
    datasets = await _datasets(box, 6 + 3 * len(names), random.Random(seed))
    passwords = box.passwords
    sampler = Sampler(box)
    async with contextlib.AsyncExitStack() as stack:
        people = []
        for name in names:
            visitor = await stack.enter_async_context(Visitor(box.address, name, passwords[name]))
            await visitor.start("minimal")
            stack.push_async_callback(visitor.stop)
            people.append(Person(visitor, datasets, seed))
        sampling = asyncio.create_task(sampler.run(every=max(2.0, seconds / 100)))
        try:
            end = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for person in people:
                    group.create_task(person.work(end))
        finally:
            sampler.stop()
            await sampling
    return sampler, people


def _report(sampler: Sampler, people: list[Person], seed: int, size: Size) -> None:
    total: Counter[str] = sum((person.done for person in people), Counter())
    print(f"\nseed {seed}: {len(people)} users, {size.minutes:g} min, {dict(total)}")
    print(sampler.table())


def _lines(box: Box, pattern: str) -> list[str]:
    files = sorted((box.state / "logs").glob(pattern))
    return [line for file in files for line in file.read_text(errors="replace").splitlines()]


def _nothing_failed(box: Box) -> None:
    """No part restarted; nobody, and no session, was answered with a fault."""
    parts: list[dict[str, Any]] = box.status["parts"]
    assert {part["name"]: part["restarts"] for part in parts if part["restarts"]} == {}
    answered = re.compile(r"\] 5\d\d (GET|POST|PUT|PATCH|DELETE) ")
    bad = [line for line in _lines(box, "sessions/*.log*") + _lines(box, "hub.log*") if answered.search(line)]
    assert not bad, bad[:5]
    rucio = [line for line in _lines(box, "rucio.log*") if " gunicorn.access " in line]
    faults = [line for line in rucio if re.search(r" (5\d\d|401) \d+ bytes in ", line)]
    print(f"Rucio answered {len(rucio)} requests, {len(faults)} of them with a fault or a refused token")
    assert not faults, faults[:5]


def _run(tmp_path: Path, size: Size) -> None:
    seed = int(os.environ.get("DMSP_SOAK_SEED") or secrets.randbelow(1 << 31))
    print(f"\nDMSP_SOAK_SEED={seed}")
    boxes = running_or_new("DMSP_TEST_STATE", _config(tmp_path, size))
    box = next(boxes)
    try:
        sampler, people = asyncio.run(_day(box, size, seed))
        _report(sampler, people, seed, size)
        _nothing_failed(box)
        assert all(person.done["rounds"] >= 3 for person in people)
        renewals = int(size.minutes * 60 / size.token_lifetime)
        assert all(person.done["tokens"] >= renewals for person in people), "tokens are renewed"
        grown = sampler.grown(size.slack)
        assert not grown, "\n".join(grown)
    finally:
        next(boxes, None)


def test_four_users(tmp_path: Path) -> None:
    """The short form."""
    _run(tmp_path, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_users(tmp_path: Path) -> None:
    """The long form."""
    users, minutes = int(os.environ.get("DMSP_SOAK_USERS", 10)), float(os.environ.get("DMSP_SOAK_MINUTES", 10))
    _run(tmp_path, Size(users, minutes, token_lifetime=60))
