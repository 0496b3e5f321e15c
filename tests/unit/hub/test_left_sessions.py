"""Sessions that a former hub left: which are ended, and how one is found again whose start the hub did not survive."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub import orm

from jupyterhub_dmsp.hub import keeping
from jupyterhub_dmsp.hub.keeping import Keeping
from jupyterhub_dmsp.hub.local.house import LocalHouse, key_of
from jupyterhub_dmsp.hub.local.records import Record
from jupyterhub_dmsp.hub.local.spawner import LocalProfileSpawner
from jupyterhub_dmsp.sandbox.process import Process


@pytest.fixture
def sleepers() -> Iterator[Any]:
    """Processes that stand for sessions."""
    running = []

    def one() -> Process:
        popen = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        running.append(popen)
        found = Process.of(popen.pid)
        assert found is not None
        return found

    yield one
    for popen in running:
        popen.kill()
        popen.communicate()


def written(state: Path, user: str, server: str, process: Process) -> Record:
    key = key_of(user, server)
    (state / "sessions" / key).mkdir(parents=True)
    record = Record(key, user, "minimal", process, process, "10.0.0.9", 8888)
    record.write(state)
    return record


async def test_only_what_nobody_knows_is_ended(tmp_path: Path, sleepers: Any) -> None:
    known, named, left = (
        written(tmp_path, *who, sleepers()) for who in (("ann", ""), ("ann", "two"), ("bob", ""))
    )
    said = await LocalHouse(tmp_path, None, None).end_left({("ann", ""), ("ann", "two")})
    assert [sentence.split()[3].rstrip(",") for sentence in said] == ["bob"]
    assert known.alive()
    assert named.alive()
    assert not left.alive()
    assert Record.read(tmp_path, "bob") is None
    assert await LocalHouse(tmp_path, None, None).end_left({("ann", ""), ("ann", "two")}) == []


def test_wanted_are_the_servers_of_the_database_and_those_that_start(monkeypatch: pytest.MonkeyPatch) -> None:
    db = orm.new_session_factory("sqlite:///:memory:")()
    ann, bob = orm.User(name="ann"), orm.User(name="bob")
    db.add_all([ann, bob])
    for user, name, server in ((ann, "", orm.Server()), (ann, "two", None), (bob, "", None)):
        db.add(orm.Spawner(user=user, name=name, server=server))
    db.commit()
    hub = Keeping(SimpleNamespace(db=db, log=logging.getLogger("t")))
    # Other tests' spawners may still be there.
    monkeypatch.setattr(keeping, "known", [])
    assert hub.wanted() == {("ann", "")}
    starting = SimpleNamespace(user=bob, name="", active=True)
    monkeypatch.setattr(keeping, "known", [starting])
    assert hub.wanted() == {("ann", ""), ("bob", "")}


async def test_start_that_the_hub_did_not_survive_is_found(
    tmp_path: Path, sleepers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub has saved neither state nor address; the record is there."""
    record = written(tmp_path, "ann", "", sleepers())
    one = LocalProfileSpawner(state_dir=str(tmp_path))
    one.user = SimpleNamespace(name="ann", groups=[])
    server = SimpleNamespace(proto="http", base_url="/user/ann/", url="http://:0/user/ann/")
    monkeypatch.setattr(LocalProfileSpawner, "server", server)
    one.load_state({})
    assert one.record == record
    assert await one.poll() is None
    assert await one.get_url() == "http://10.0.0.9:8888/user/ann/"
