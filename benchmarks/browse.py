"""A scope with very many DIDs: when its first rows are there, when all are, what a jump to the end costs."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil

from benchmarks.common import Box, Stopwatch, Visitor, report, run, running_box

SIZES = (1000, 10_000, 100_000)
PAGE = 200
UNRELATED = 100
USER = "collider-user"


async def page(visitor: Visitor, offset: int, refresh: bool = False) -> tuple[dict[str, Any], float, int]:
    """A page of the scope, the seconds it took, and its bytes."""
    query = {"parent": "scale", "offset": str(offset), "limit": str(PAGE), "refresh": str(refresh).lower()}
    clock, before = Stopwatch(), visitor.received
    status, answer = await visitor.lab("GET", "dmsp/v1/children", params=query)
    assert status == 200, answer
    return answer, clock.seconds, visitor.received - before


async def one(visitor: Visitor, count: int) -> dict[str, Any]:
    """Read the scope anew: the first rows, all rows, then a page from the end."""
    whole = Stopwatch()
    answer, first, size = await page(visitor, 0, refresh=True)
    while not (answer["rows"] and answer["error"] is None):
        await asyncio.sleep(0.01)
        answer, _, size = await page(visitor, 0)
        first = whole.seconds
    while not answer["complete"]:
        await asyncio.sleep(0.05)
        answer, _, _ = await page(visitor, 0)
    complete = whole.seconds
    last, jump, _ = await page(visitor, max(0, answer["total"] - PAGE))
    assert [row["name"] for row in last["rows"]] == sorted(row["name"] for row in last["rows"])
    return {
        "DIDs": answer["total"],
        "asked": count,
        "first rows s": first,
        "all rows s": complete,
        "jump to the end s": jump,
        "kB a page": size / 1000,
    }


async def stall(box: Box, visitor: Visitor) -> float:
    """The longest that a request which has nothing to do with Rucio takes while Rucio answers nobody, in seconds."""
    server = psutil.Process(box.part("rucio")["pid"])
    stopped = [server, *server.children(recursive=True)]
    longest = 0.0
    for process in stopped:
        process.suspend()
    try:
        waiting = asyncio.create_task(page(visitor, 0, refresh=True))
        for _ in range(UNRELATED):
            clock = Stopwatch()
            status, _ = await visitor.lab("GET", "api/status")
            assert status == 200
            longest = max(longest, clock.seconds)
            await asyncio.sleep(0.02)
    finally:
        for process in reversed(stopped):
            process.resume()
    await waiting
    return longest


async def _main() -> None:
    rows = []
    with running_box() as box:
        async with Visitor(box.address, USER, box.passwords[USER]) as visitor:
            await visitor.start("minimal")
            for count in SIZES:
                await asyncio.to_thread(box.dmsp, "demo", "--scale", str(count), timeout=1200)
                rows.append(await one(visitor, count))
            rows[-1]["unrelated request, Rucio silent s"] = await stall(box, visitor)
    for row in rows:
        row["first rows / smallest"] = row["first rows s"] / rows[0]["first rows s"]
    report("browse", [*rows[-1]], rows, f"pages of {PAGE} rows, sorted by name")


def main() -> None:
    """1000, 10 000 and 100 000 DIDs in a scope."""
    run(_main())
