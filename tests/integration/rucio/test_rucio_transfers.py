"""Rules become files: transfers through Rucio's conveyor with our transfertool."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


def _files(lake: Any, dids: list[str]) -> list[Path]:
    return [place for did in dids if (place := lake.place("SCRATCH", did)).exists()]


def test_rule_makes_files_that_the_group_may_read(lake: Any, did: Any) -> None:
    dataset = did("km3net")
    name = dataset.split(":")[1]
    content = {f"{name}_{n}.dat": os.urandom(1000 + n) for n in range(20)}
    dids = lake.put(dataset, content)
    user = lake.user("km3net-user", "km3net")
    rule = user.wait(user.rule(dataset))
    assert rule["locks_ok_cnt"] == 20
    for one, data in zip(dids, content.values(), strict=True):
        place = lake.place("SCRATCH", one)
        assert place.read_bytes() == data
        info = place.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o640, 61902, 71902)
        parent = place.parent.stat()
        assert (stat.S_IMODE(parent.st_mode), parent.st_gid) == (0o2750, 71902)
    assert lake.parts() == []
    scope, file = dids[0].split(":")
    history = lake.root("GET", f"/requests/history/{scope}/{file}/SCRATCH")
    assert (history["transfertool"], history["external_host"]) == ("dmsp", "dmsp-box")


def test_one_small_file_arrives_soon(lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    lake.put(dataset, {dataset.split(":")[1] + ".dat": b"x" * 10_000})
    user = lake.user("collider-user", "collider")
    begin = time.monotonic()
    user.wait(user.rule(dataset))
    print(f"rule to OK: {time.monotonic() - begin:.2f} s")


def test_damaged_and_missing_sources_are_named_and_the_rest_arrives(lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    name = dataset.split(":")[1]
    dids = lake.put(dataset, {f"{name}_{n}": b"good" * 100 for n in range(5)})
    lake.place("SITE-NORTH", dids[0]).write_bytes(b"evil" * 100)
    lake.place("SITE-NORTH", dids[1]).unlink()
    root = lake.root
    rule = root.rule(dataset)
    lake.until(lambda: root.state(rule)["locks_stuck_cnt"] == 2, 30, "two stuck locks")
    stuck = root.wait(rule, "STUCK")
    assert stuck["locks_ok_cnt"] == 3
    assert (
        "The file is missing at SITE-NORTH." in stuck["error"] or "is damaged: its adler32 is" in stuck["error"]
    )
    analysis = root("GET", f"/rules/{rule}/analysis")
    assert {one["name"] for one in analysis["transfers"]} == {one.split(":")[1] for one in dids[:2]}
    assert str(lake.state) not in str(stuck["error"]) + str(analysis)
    # and it can be cured
    for one in dids[:2]:
        lake.place("SITE-NORTH", one).write_bytes(b"good" * 100)
    root("PUT", f"/rules/{rule}", {"options": {"boost_rule": True}})
    root.wait(rule)


def test_deleted_rule_leaves_the_disk_clean(lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    name = dataset.split(":")[1]
    dids = lake.put(dataset, {f"{name}/deep/{n}": b"x" * 5000 for n in range(10)})
    root = lake.root
    rule = root.rule(dataset)
    root.wait(rule)
    assert len(_files(lake, dids)) == 10
    begin = time.monotonic()
    root("PUT", f"/rules/{rule}", {"options": {"purge_replicas": True, "lifetime": 0}})
    scope_directory = lake.state / "storage" / "SCRATCH" / "lake" / "dmsp"
    digests = {lake.place("SCRATCH", one).relative_to(scope_directory).parts[:2] for one in dids}

    def gone() -> bool:
        return not _files(lake, dids) and not any((scope_directory / a / b).exists() for a, b in digests)

    lake.until(gone, 30)
    print(f"rule deleted to files gone: {time.monotonic() - begin:.2f} s")
    assert stat.S_IMODE(scope_directory.stat().st_mode) == 0o2750
    assert root.http.get(f"/rules/{rule}").status_code == 404


@pytest.fixture
def slow(lake: Any) -> Any:
    """Daemons that copy at about 100 MiB/s for one test."""
    lake.start_daemons(DMSP_RUCIO_COPY_PAUSE="0.01")
    yield
    lake.start_daemons()


def test_progress_of_a_large_file_is_visible(lake: Any, slow: None, did: Any) -> None:
    dataset = did("dmsp")
    size = 300 << 20
    file = lake.put(dataset, {dataset.split(":")[1] + ".big": bytes(size)})[0]
    user = lake.user("collider-user", "collider")
    rule = user.rule(dataset)
    scope, name = file.split(":")
    seen: set[int] = set()
    while user.state(rule)["state"] != "OK":
        answer = user.http.get(f"/requests/{scope}/{name}/SCRATCH")
        if answer.status_code == 200:
            seen.add((answer.json().get("attributes") or {}).get("bytes_done", 0))
        assert len(seen) < 1000
        time.sleep(0.1)
    assert len([value for value in seen if 0 < value < size]) >= 2, seen


def test_rule_deleted_in_mid_copy_leaves_nothing(lake: Any, slow: None, did: Any) -> None:
    dataset = did("dmsp")
    file = lake.put(dataset, {dataset.split(":")[1] + ".big": bytes(600 << 20)})[0]
    root = lake.root
    rule = root.rule(dataset)
    lake.until(lambda: lake.parts(), 20)
    root("PUT", f"/rules/{rule}", {"options": {"purge_replicas": True, "lifetime": 0}})
    lake.until(lambda: not lake.parts(), 20)
    lake.until(lambda: root.http.get(f"/rules/{rule}").status_code == 404, 60)
    scope, name = file.split(":")
    lake.until(lambda: "SCRATCH" not in str(root("GET", f"/replicas/{scope}/{name}")), 20)
    assert not lake.place("SCRATCH", file).exists()
    assert lake.place("SITE-NORTH", file).exists()


def test_killed_daemons_lose_nothing(lake: Any, did: Any) -> None:
    lake.start_daemons(DMSP_RUCIO_COPY_PAUSE="0.02")
    dataset = did("dmsp")
    name = dataset.split(":")[1]
    content = {f"{name}_{n}": b"y" * 20_000 for n in range(300)}
    content[f"{name}_big"] = bytes(200 << 20)
    dids = lake.put(dataset, content)
    root = lake.root
    rule = root.rule(dataset)
    lake.until(lambda: lake.parts() and len(_files(lake, dids)) > 10, 30)
    lake.stop("daemons", signal.SIGKILL)
    assert root.state(rule)["state"] == "REPLICATING"
    lake.start_daemons()
    state = root.wait(rule, seconds=90)
    assert state["locks_ok_cnt"] == 301
    assert len(_files(lake, dids)) == 301
    lake.until(lambda: not lake.parts(), 10)
    # Of Rucio's four tries the kill costs none or one.
    again = (
        f"select name, retry_count, err_msg from requests_history where name like '{name}%' and retry_count>1"
    )
    assert lake.sql(again) == "[]"


def test_daemons_stop_soon_in_mid_copy(lake: Any, did: Any) -> None:
    lake.start_daemons(DMSP_RUCIO_COPY_PAUSE="0.05")
    dataset = did("dmsp")
    lake.put(dataset, {dataset.split(":")[1] + ".big": bytes(300 << 20)})
    root = lake.root
    rule = root.rule(dataset)
    lake.until(lambda: lake.parts(), 20)
    assert lake.stop("daemons") < 6
    assert lake.parts() == []
    lake.start_daemons()
    root.wait(rule)


def test_messages_and_heartbeats_do_not_pile_up(lake: Any) -> None:
    lake.stop("daemons", signal.SIGKILL)
    lake.start_daemons()
    lake.until(lambda: lake.sql("select count(*) from messages") == "[(0,)]", 20)
    beats = lake.sql("select count(distinct pid), count(*), count(distinct executable) from heartbeats")
    assert beats.startswith("[(1, 17, 17)"), beats
