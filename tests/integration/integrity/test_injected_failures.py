"""Many transfers with injected failures: every file ends right, or with a reason that its user sees.

The seed is printed; ``DMSP_SOAK_SEED`` repeats a run, ``DMSP_SOAK_FILES`` sets the size of the long one.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from damage import Damage
from testlake import GROUPS, RUCIO_UID, SCRATCH, SITES

from jupyterhub_dmsp.box.rucio import storage
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import Rule

pytestmark = pytest.mark.root
NORTH, SOUTH = SITES
SHORT_RUN, KILLS_PER_1000 = 400, 2
DATASET = 200
FAULTS = ("missing", "flipped", "short", "long")
#: What a user reads for each fault.
REASONS = {
    "missing": "is missing at",
    "flipped": "is damaged",
    "short": "bytes, the catalogue says",
    "long": "bytes",
}


@dataclass
class Run:
    """What was made, and what was done to it."""

    seed: int
    datasets: dict[str, list[str]] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    doubled: set[str] = field(default_factory=set)

    def expected_stuck(self, dids: list[str]) -> set[str]:
        return {did for did in dids if did in self.broken and did not in self.doubled}


@pytest.fixture
def small_disk(damage: Damage) -> Iterator[int]:
    """Scratch on a disk of its own with this many bytes."""
    size = 512 << 20
    lake, root = damage.lake, damage.facts.root(SCRATCH)
    damage.end_all()
    lake.stop("daemons")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(root)], check=True)
    try:
        storage.prepare(
            lake.plan.storage, sites=SITES, scratch=SCRATCH, scopes=GROUPS, uid=RUCIO_UID, gid=RUCIO_UID
        )
        lake.start_daemons()
        yield size
        damage.end_all()
    finally:
        lake.stop("daemons")
        subprocess.run(["umount", "-l", str(root)], check=True)
        lake.start_daemons()


class _Token:
    """The user's token, good for an hour."""

    def __init__(self, damage: Damage, account: str) -> None:
        self._damage, self._account = damage, account
        self._made, self._text = float("-inf"), ""

    async def get(self) -> Any:
        from pydantic import SecretStr

        if time.monotonic() - self._made > 1800:
            self._made, self._text = time.monotonic(), self._damage.lake.issuer.token(self._account)
        return type("Token", (), {"access_token": SecretStr(self._text)})()


def _client(damage: Damage) -> RucioClient:
    account = f"soak{os.urandom(3).hex()}"
    damage.lake.user(account, "km3net")
    return RucioClient(damage.lake.url, "", account, _Token(damage, account))


def _make(damage: Damage, run: Run, name: str, count: int, chance: random.Random, faulty: bool) -> None:
    dataset = f"km3net:{name}"
    files = {f"{name}.{n:05d}": chance.randbytes(chance.randint(1000, 10_000)) for n in range(count)}
    dids = damage.dataset(dataset, files)
    run.datasets[dataset] = dids
    run.content |= dict(zip(dids, files.values(), strict=True))
    if not faulty:
        return
    # 1 % with a missing source, 1 % with a wrong one (its three kinds in turn); half of each has another, good source.
    chosen = chance.sample(dids, max(4, count // 50))
    for number, did in enumerate(chosen):
        fault = "missing" if number % 2 else FAULTS[1 + number // 2 % 3]
        run.broken[did] = fault
        if chance.random() < 0.5:
            run.doubled.add(did)
    damage.copy(SOUTH, {did: run.content[did] for did in sorted(run.doubled & set(dids))})
    for did in chosen:
        _break(damage, did, run)


def _break(damage: Damage, did: str, run: Run) -> None:
    content = run.content[did]
    match run.broken[did]:
        case "missing":
            damage.remove(NORTH, did)
        case "flipped":
            damage.flip(NORTH, did)
        case "short":
            damage.truncate(NORTH, did)
        case "long":
            damage.write(NORTH, did, content + b"\0")


async def _settled(client: RucioClient, rules: dict[str, str], seconds: float) -> dict[str, Rule]:
    """The rules once no file of theirs is on its way."""
    end = time.monotonic() + seconds
    while True:
        found = {rule.id: rule for rule in await client.own_rules()}
        mine = {dataset: found[rule] for dataset, rule in rules.items()}
        if all(rule.replicating == 0 and rule.state in ("OK", "STUCK") for rule in mine.values()):
            return mine
        assert time.monotonic() < end, mine
        await asyncio.sleep(0.5)


async def _kill_now_and_then(damage: Damage, kills: int, chance: random.Random) -> int:
    """kill -9 of the daemons in mid-run, each time after some files have arrived; how often it was done."""
    for number in range(kills):
        enough = len(damage.files()) + chance.randint(5, 40)
        while len(damage.files()) < enough:
            if damage.lake.sql("select count(*) from locks where state='R'") == "[(0,)]":
                return number  # all have arrived
            await asyncio.sleep(0.1)
        damage.lake.stop("daemons", signal.SIGKILL)
        damage.lake.start_daemons()
    return kills


async def _look_at(damage: Damage, client: RucioClient, run: Run, rules: dict[str, Rule]) -> tuple[int, int]:
    """Every file: right on scratch with its lock OK, or stuck with a reason; how many of each."""
    right = stuck = 0
    for dataset, rule in rules.items():
        locks = {str(lock.did): lock.state async for part in client.locks(rule.id) for lock in part}
        dids = run.datasets[dataset]
        assert set(locks) == set(dids)
        expected = run.expected_stuck(dids)
        assert {did for did in dids if locks[did] != "OK"} == expected, f"seed {run.seed}: {dataset}"
        for did in dids:
            place = damage.lake.place(SCRATCH, did)
            if did in expected:
                stuck += 1
                assert any(reason in rule.error for reason in REASONS.values()), rule
                assert not place.exists()
                continue
            right += 1
            assert zlib.adler32(place.read_bytes()) == zlib.adler32(run.content[did]), did
        # What the user is given: each file that does not arrive, with its own reason, and no other.
        told = {str(failure.did): failure.reason for failure in await client.failures(rule.id)}
        assert set(told) == expected, f"seed {run.seed}: {dataset}"
        for did, reason in told.items():
            assert REASONS[run.broken[did]] in reason, (did, run.broken[did], reason)
            assert str(damage.lake.state) not in reason
        if expected:
            assert rule.state == "STUCK"
            words = await client.analysis(rule.id)
            assert any(reason in words for reason in REASONS.values()), words
            assert str(damage.lake.state) not in words
    return right, stuck


async def _full_disk(damage: Damage, client: RucioClient, run: Run, count: int, chance: random.Random) -> None:
    """The disk is full when the files come, and has room again later: they come by themselves."""
    lake, root = damage.lake, damage.facts.root(SCRATCH)
    name = f"full.{run.seed}"
    _make(damage, run, name, count, chance, faulty=False)
    lake.stop("daemons")
    rule = await client.add_rule(Did("km3net", name), SCRATCH, 86400)
    ballast = root / "ballast"
    with ballast.open("wb") as file:
        room = os.statvfs(root)
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - 4096)
    for one in [found.id for found in await client.own_rules()]:
        await client.mark_in_use(await client.rule(one), time.time() + 3600)
    lake.start_daemons()
    async with asyncio.timeout(180):
        while "No space is left at SCRATCH." not in (found := await client.rule(rule)).error:
            assert found.state != "OK", "the disk was not full"
            await asyncio.sleep(0.2)
    assert "No space" in await client.analysis(rule)
    told = await client.failures(rule)
    assert told
    assert {failure.reason for failure in told} == {"No space is left at SCRATCH."}
    ballast.unlink()
    settled = await _settled(client, {f"km3net:{name}": rule}, 300)
    async with asyncio.timeout(300):
        while (await client.rule(rule)).state != "OK":
            await asyncio.sleep(0.5)
    del settled


async def _trial(damage: Damage, files: int) -> None:
    seed = int(os.environ.get("DMSP_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    print(f"\nDMSP_SOAK_SEED={seed} DMSP_SOAK_FILES={files}")
    chance = random.Random(seed)
    run = Run(seed)
    begin = time.monotonic()
    async with _client(damage) as client:
        # What is right before stays right.
        _make(damage, run, f"before.{seed}", 20, chance, faulty=False)
        before = f"km3net:before.{seed}"
        rules = {before: await client.add_rule(Did.parse(before), SCRATCH, 86400)}
        assert (await _settled(client, rules, 60))[before].state == "OK"
        for first in range(0, files, DATASET):
            _make(damage, run, f"run.{seed}.{first:06d}", min(DATASET, files - first), chance, faulty=True)
        for dataset in list(run.datasets)[1:]:
            rules[dataset] = await client.add_rule(Did.parse(dataset), SCRATCH, 86400)
        wanted = max(2, files * KILLS_PER_1000 // 1000)
        kills = await _kill_now_and_then(damage, wanted, chance)
        found = await _settled(client, rules, 120 + files / 5)
        right, stuck = await _look_at(damage, client, run, found)
        await _full_disk(damage, client, run, max(5, files // 100), chance)
        # Copies that never came leave nothing, but for a kill between the making of a directory and of a file in it.
        left = (await damage.check(older_than=0.0)).counts()
        assert set(left) <= {"orphan_directory"}
        assert left.get("orphan_directory", 0) <= kills
        # And when the sources are whole again, all of it arrives.
        for did in run.broken:
            damage.write(NORTH, did, run.content[did])
        for rule in found.values():
            if rule.state == "STUCK":
                await client.boost(rule.id)
        async with asyncio.timeout(120 + files / 5):
            whole = await _settled(client, rules, 120)
            while any(rule.state != "OK" for rule in whole.values()):
                await asyncio.sleep(0.5)
                whole = await _settled(client, rules, 120)
        run.broken.clear()
        await _look_at(damage, client, run, whole)
        report = await damage.check(older_than=0.0)
        assert report.problems == []
        assert report.files == len(run.content)
        took = time.monotonic() - begin
        print(f"{files} files, {kills} kills: {right} right at once, {stuck} with a reason, {took:.0f} s")


async def test_every_file_ends_right_or_with_a_reason(damage: Damage, small_disk: int) -> None:
    await _trial(damage, SHORT_RUN)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_ten_thousand_files(damage: Damage, small_disk: int) -> None:
    files = int(os.environ.get("DMSP_SOAK_FILES", "10000"))
    assert shutil.disk_usage(damage.lake.state).free > files * 30_000
    await _trial(damage, files)


async def test_a_wrong_source_is_left_at_once_for_the_good_one(damage: Damage, did: Any) -> None:
    damage.end_all()
    dataset = did("km3net")
    name = dataset.split(":")[1]
    files = {f"{name}.{n:02d}": os.urandom(3000 + n) for n in range(16)}
    dids = damage.dataset(dataset, files, NORTH, SOUTH)
    run = Run(0, content=dict(zip(dids, files.values(), strict=True)))
    for number, one in enumerate(dids):
        run.broken[one] = FAULTS[number % 4]
        _break(damage, one, run)
    root = damage.lake.root
    root.wait(root.rule(dataset), seconds=120)
    for one, content in run.content.items():
        assert damage.lake.place(SCRATCH, one).read_bytes() == content
    # within the first try
    assert (
        damage.lake.sql(f"select max(retry_count) from requests_history where name like '{name}%'") == "[(0,)]"
    )
