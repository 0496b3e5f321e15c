"""Replication by Rucio (rule made → all locks OK) against `cp -r` and `sync` of the same files, in one run."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

from lakes import SCRATCH, SITE, administrator, make_dataset, place

from benchmarks.common import Box, Stopwatch, median, report, run, running_box
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did

CASES = [
    ("one small file", 1, 10_000, 5),
    ("1 GiB in one file", 1, 1 << 30, 5),
    ("10k small files", 10_000, 10_000, 1),
]
"""What, files, bytes of each, rounds (disks are noisy: the median of a round's copy and replication counts)."""


async def replicate(client: RucioClient, dataset: Did) -> float:
    """Seconds from the rule to its last lock."""
    clock = Stopwatch()
    rule_id = await client.add_rule(dataset, SCRATCH, 86400)
    while True:
        rule = await client.rule(rule_id)
        if rule.state == "OK":
            return clock.seconds
        assert rule.state == "REPLICATING", rule
        await asyncio.sleep(min(0.5, 0.02 + clock.seconds / 50))


def copy(box: Box, files: list[Path]) -> float:
    """Seconds of `cp -r` and `sync` of the same bytes into the same file system."""
    source, target = box.state / "bench-source", box.state / "bench-target"
    source.mkdir()
    for path in files:
        (source / path.name).hardlink_to(path)
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    subprocess.run(["sync", "-f", str(target)], check=True)
    seconds = time.perf_counter() - begin
    shutil.rmtree(source)
    shutil.rmtree(target)
    return seconds


async def _main() -> None:
    rows = []
    with running_box() as box:
        async with administrator(box) as client:
            for name, count, size, rounds in CASES:
                baselines, times = [], []
                for number in range(rounds):
                    dataset = Did("dmsp", f"bench.{count}x{size}.{number}")
                    files = await make_dataset(box, client, dataset, [size] * count)
                    baselines.append(copy(box, [place(box, SITE, file.did) for file in files]))
                    times.append(await replicate(client, dataset))
                baseline, seconds = median(baselines), median(times)
                rows.append(
                    {
                        "what": name,
                        "files": count,
                        "bytes": count * size,
                        "rounds": rounds,
                        "cp + sync s": baseline,
                        "Rucio s": seconds,
                        "cp / Rucio": baseline / seconds,
                        "files/s": count / seconds,
                        "MB/s": count * size / seconds / 1e6,
                    }
                )
    columns = ["what", "files", "bytes", "rounds", "cp + sync s", "Rucio s", "cp / Rucio", "files/s", "MB/s"]
    report("transfer", columns, rows, "rule made → all locks OK, adler32 verified")


def main() -> None:
    """One small file, 1 GiB, 10 000 small files."""
    run(_main())
