"""Tokens that live a minute: a session works on for five, and nobody notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import Box, make_box
from visitor import Visitor

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]
LIFETIME = 60
MINUTES = 5
DATASETS = [
    "dmsp:tutorial.first-steps",
    "km3net:mc.numu-CC.genhen.offline",
    "km3net:mc.muon-CC.offline",
    "km3net:irf.point-source.v0.4",
]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box whose issuer gives short-lived tokens."""
    config: Path = tmp_path_factory.mktemp("short") / "dmsp.yaml"
    config.write_text(f"box: {{token_lifetime: {LIFETIME}}}\n")
    yield from make_box(config)


async def test_five_minutes_of_work(short: Box) -> None:
    """Browse, attach and the Rucio client, again and again: no failed request, tokens renewed on the way."""
    tokens = set()
    async with Visitor(short.address, "km3net-user", short.passwords["km3net-user"]) as visitor:
        await visitor.start("minimal")
        end = time.monotonic() + MINUTES * 60
        rounds = 0
        while time.monotonic() < end:
            for parent in ("", "km3net", "dmsp"):
                query = {"parent": parent, "refresh": "true"}
                status, page = await visitor.lab("GET", "dmsp/v1/children", params=query)
                assert status == 200, page
                assert page["error"] is None, page
            attached = await visitor.attach(DATASETS[rounds % len(DATASETS)])
            assert attached["state"] == "ready", attached
            code, said = await visitor.terminal("rucio whoami > who; s=$?; cat $BEARER_TOKEN_FILE; (exit $s)")
            assert code == 0, said
            tokens.add(said)
            rounds += 1
            await asyncio.sleep(10)  # the time that passes is what is tested
        await visitor.stop()
    assert rounds >= 10
    assert len(tokens) >= MINUTES, "a token an hour would not be a test"
