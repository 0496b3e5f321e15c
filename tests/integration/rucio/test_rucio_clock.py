"""The clock of the machine is set by hours while files are copied: they arrive; only lifetimes go by the clock."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from clocks import Clock

from jupyterhub_dmsp.box.rucio import config, parts

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]
HOURS = 2 * 3600


@pytest.fixture(scope="module")
def clock(lake: Any) -> Iterator[Clock]:
    """Of Rucio's server and daemons, which copy slowly here; it lies where they may read."""
    folder = lake.state / "rucio" / "clock"
    folder.mkdir()
    found = Clock(folder)
    restart(lake, found.environment, "0.3")
    yield found
    restart(lake, {}, "0")


def restart(lake: Any, environment: dict[str, str], pause: str) -> None:
    lake.stop("rucio")
    lake.start("rucio", **environment)
    lake.until(lambda: asyncio.run(parts.server_ready(lake.url)), 60, "the server")
    lake.start_daemons(DMSP_RUCIO_COPY_PAUSE=pause, **environment)


@pytest.fixture(autouse=True)
def _set_right(clock: Clock) -> Iterator[None]:
    yield
    clock.set(0)


def ahead(lake: Any) -> float:
    """By how much the daemons' clock is ahead."""
    return float(json.loads(config.Files(lake.state / "rucio").health.read_text())["now"]) - time.time()


@pytest.mark.parametrize("jump", [HOURS, -HOURS])
def test_copies_go_on(lake: Any, clock: Clock, did: Any, jump: int) -> None:
    dataset = did("dmsp")
    content = {f"{dataset.split(':')[1]}_{n}": os.urandom(2 << 20) for n in range(8)}
    dids = lake.put(dataset, content)
    root = lake.root
    rule = root.rule(dataset, lifetime=None)
    lake.until(lambda: parts.daemons_health(lake.state / "rucio").copying, 30, "a copy")
    clock.set(jump)
    lake.until(lambda: abs(ahead(lake) - jump) < 30, 30, "the daemons' new time")
    lake.root.wait(rule)
    for one, data in zip(dids, content.values(), strict=True):
        assert lake.place("SCRATCH", one).read_bytes() == data
    assert asyncio.run(parts.daemons_wrong(lake.state / "rucio")) == ""
    again = did("dmsp")
    lake.put(again, {again.split(":")[1] + ".dat": b"x" * 1000})
    lake.root.wait(lake.root.rule(again, lifetime=None))
    clock.set(0)
    lake.until(lambda: abs(ahead(lake)) < 30, 30, "the daemons' own time")


def test_a_lifetime_ends_when_the_clock_says_so(lake: Any, clock: Clock, did: Any) -> None:
    """What is kept without one stays."""
    kept, lent = did("dmsp"), did("dmsp")
    files = [lake.put(dataset, {dataset.split(":")[1] + ".dat": b"x" * 1000})[0] for dataset in (kept, lent)]
    rules = [
        lake.root.wait(lake.root.rule(kept, lifetime=None))["id"],
        lake.root.wait(lake.root.rule(lent))["id"],
    ]
    clock.set(HOURS)
    root = lake.root

    def gone() -> bool:
        answer: httpx.Response = root.http.get(f"/rules/{rules[1]}")
        return answer.status_code == 404

    lake.until(gone, 120, "the end of the rule")
    assert root("GET", f"/rules/{rules[0]}")["state"] == "OK"
    assert lake.place("SCRATCH", files[0]).exists()
