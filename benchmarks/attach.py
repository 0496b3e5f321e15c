"""*Attach*: from the request to a variable that works in a kernel, and what it costs Rucio, by number of files.

`cold`: the dataset lies at a site and is replicated. `landed`: how long after the last lock it is usable.
`on scratch`: the dataset is there already, held by another account's rule; from the request to the value of an
expression over the variable.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from lakes import SCRATCH, administrator, make_dataset

from benchmarks.common import Box, Stopwatch, Visitor, median, report, run, running_box
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import NotFound

SIZES = (1, 100, 1000, 10_000)
FILE = 10_000
ROUNDS = 3
USER = "collider-user"


async def ready(visitor: Visitor, did: Did) -> tuple[dict[str, Any], float]:
    """Attach and wait; the attachment and the seconds until it was ready."""
    clock = Stopwatch()
    status, body = await visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did), "variable": "data"})
    assert status in (200, 201), body
    while body["state"] not in ("ready", "failed", "stuck"):
        await asyncio.sleep(0.02)
        _, body = await visitor.lab("GET", f"dmsp/v1/attachments/{body['id']}")
    assert body["state"] == "ready", body
    return body, clock.seconds


async def cost(visitor: Visitor) -> dict[str, int]:
    """Calls and bytes that the user's server has exchanged with Rucio so far."""
    _, status = await visitor.lab("GET", "dmsp/v1/status")
    traffic: dict[str, int] = status["lake"]["traffic"]
    return traffic


async def last_lock(client: RucioClient, did: Did) -> float:
    """The moment at which the rule on scratch became OK."""
    while True:
        rules = [rule for rule in await client.rules_of(did) if rule.rse_expression == SCRATCH]
        if rules and rules[0].state == "OK":
            return time.perf_counter()
        await asyncio.sleep(0.05)


async def held_by_another(client: RucioClient, did: Did) -> None:
    """Have it kept on scratch by the administrator too."""
    rule = await client.add_rule(did, SCRATCH, 86400)
    while (await client.rule(rule)).state != "OK":
        await asyncio.sleep(0.1)


async def gone(client: RucioClient, rule_id: str) -> None:
    """Wait until a rule that has ended is deleted."""
    try:
        while await client.rule(rule_id):
            await asyncio.sleep(0.1)
    except NotFound:
        return


async def one(box: Box, client: RucioClient, visitor: Visitor, count: int) -> dict[str, Any]:
    """One size: cold once, then on scratch several times."""
    did = Did("dmsp", f"bench.attach.{count}")
    await make_dataset(box, client, did, [FILE] * count)
    landing = asyncio.create_task(last_lock(client, did))
    clock = time.perf_counter()
    body, cold = await ready(visitor, did)
    landed = clock + cold - await landing
    await held_by_another(client, did)
    kernel = await visitor.kernel(path="bench.ipynb")
    usable, calls, received, shown = [], [], [], []
    for _ in range(ROUNDS):
        await visitor.lab("DELETE", f"dmsp/v1/attachments/{body['id']}")
        await gone(client, body["rule_id"])
        first, before = await cost(visitor), await cost(visitor)
        watch, answers = Stopwatch(), visitor.received
        body, _ = await ready(visitor, did)
        binding = {"notebook": "bench.ipynb", "variable": "data", "attachment": body["id"]}
        _, bound = await visitor.lab("PUT", "dmsp/v1/bindings", json=binding)
        answer = await kernel.run(
            f"{bound['code']['python']}\nprint(len(data), open(data[-1], 'rb').read(1) != b'')"
        )
        usable.append(watch.seconds)
        shown.append(visitor.received - answers)
        assert answer.split() == [str(count), "True"], answer
        after = await cost(visitor)
        # Asking for the status may cost something itself: taken off.
        calls.append(after["calls"] - 2 * before["calls"] + first["calls"])
        received.append(after["bytes"] - 2 * before["bytes"] + first["bytes"])
    await kernel.shutdown()
    return {
        "files": count,
        "cold s": cold,
        "landed → ready s": max(0.0, landed),
        "on scratch → usable s": median(usable),
        "Rucio calls": max(calls),
        "kB from Rucio": max(received) / 1000,
        "kB to the browser": max(shown) / 1000,
    }


async def _main() -> None:
    rows = []
    with running_box() as box:
        async with administrator(box) as client, Visitor(box.address, USER, box.passwords[USER]) as visitor:
            await visitor.start("minimal")
            for count in SIZES:
                rows.append(await one(box, client, visitor, count))
    for row in rows:
        row["usable / 1 file"] = row["on scratch → usable s"] / rows[0]["on scratch → usable s"]
    columns = [*rows[0]]
    report("attach", columns, rows, f"files of {FILE} bytes; on scratch: median of {ROUNDS}")


def main() -> None:
    """1, 100, 1000 and 10 000 files."""
    run(_main())
