"""A scope with a hundred thousand DIDs: what a real experiment's looks like to a browser."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from jupyterhub_dmsp.box.demo.admin import ACCOUNT, admin_client, patiently
from jupyterhub_dmsp.box.demo.staging import Say
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import Duplicate

SCOPE = "scale"
BLOCK = 1000
PARALLEL = 2
PER_CONTAINER = 1000
CHILDREN = 20
_STREAMS = ("physics_Main", "physics_Late", "express", "calibration_DarkCounts", "cosmics")
_FORMATS = ("RAW", "ESD", "AOD", "DST")


def names(count: int) -> list[tuple[Did, str]]:
    """``count`` DIDs with their kinds: datasets of runs, each thousandth a container."""
    found = []
    for number in range(count):
        if number % PER_CONTAINER == PER_CONTAINER - 1:
            found.append((Did(SCOPE, f"period.{number // PER_CONTAINER:04d}"), "CONTAINER"))
            continue
        run = 500_000 + number // len(_FORMATS)
        stream = _STREAMS[(number // len(_FORMATS)) % len(_STREAMS)]
        name = f"data26.{run:08d}.{stream}.{_FORMATS[number % len(_FORMATS)]}"
        found.append((Did(SCOPE, name), "DATASET"))
    return found


async def scale(state: Path, rucio_url: str, count: int, say: Say) -> None:
    """Make sure that the scope ``scale`` holds ``count`` DIDs (datasets without files, some containers).

    Repeating it adds only what is missing.

    Args:
        state: the box's state directory.
        rucio_url: the Rucio server.
        count: how many DIDs.
        say: told what is under way.

    Raises:
        LakeError: Rucio declined or did not answer.
    """
    wanted = names(count)
    blocks = [wanted[start : start + BLOCK] for start in range(0, count, BLOCK)]
    done = 0
    gate = asyncio.Semaphore(PARALLEL)

    async def add(client: RucioClient, block: list[tuple[Did, str]]) -> None:
        nonlocal done
        async with gate:
            await patiently(partial(_add, client, block))
        done += len(block)
        say(f"{done:,} of {count:,} names")

    async with admin_client(state, rucio_url) as client:
        await client.add_scope(ACCOUNT, SCOPE)
        try:
            async with asyncio.TaskGroup() as group:
                for block in blocks:
                    group.create_task(add(client, block))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for block in blocks:
            container, kind = block[-1]
            if kind == "CONTAINER":
                children = [did for did, _ in block[:CHILDREN]]
                await patiently(partial(client.attach, container, children))


async def _add(client: RucioClient, block: list[tuple[Did, str]]) -> None:
    """Add a block; where it is there in part, only the rest."""
    try:
        await client.add_dids(block)
    except Duplicate:
        rows = await client.metadata_bulk([did for did, _ in block])
        present = {Did(row["scope"], row["name"]) for row in rows}
        missing = [(did, kind) for did, kind in block if did not in present]
        if missing:
            await client.add_dids(missing)
