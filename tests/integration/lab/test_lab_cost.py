"""What an attach costs Rucio: calls and bytes, counted by the client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from jupyterhub_dmsp.lab.attachments import Attachments
from jupyterhub_dmsp.lab.flow import Tools
from jupyterhub_dmsp.lab.manifest import Manifests
from jupyterhub_dmsp.lab.records import Records
from jupyterhub_dmsp.lake.accounts import Provisioner
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import Forbidden, NotFound
from jupyterhub_dmsp.lake.userpass import UserPassSource
from jupyterhub_dmsp.scratch.links import Links
from jupyterhub_dmsp.scratch.mount import Mount
from jupyterhub_dmsp.scratch.paths import Paths, hash_path

pytestmark = pytest.mark.root


class _Token:
    def __init__(self, text: str) -> None:
        self.access_token = SecretStr(text)


class _Source:
    def __init__(self, text: str) -> None:
        self._token = _Token(text)

    async def get(self) -> _Token:
        return self._token


@pytest.fixture
async def me(lake: Any) -> AsyncIterator[RucioClient]:
    account = f"c{os.urandom(3).hex()}"
    lake.user(account, "km3net")
    async with RucioClient(lake.url, "", account, _Source(lake.issuer.token(account))) as client:
        yield client


@pytest.fixture
async def manager(lake: Any, me: RucioClient, tmp_path: Path) -> AsyncIterator[Attachments]:
    mount = lake.state / "storage" / "SCRATCH" / "lake"
    records = Records(tmp_path / "a.sqlite", lake.url)
    tools = Tools(
        me,
        "SCRATCH",
        Paths(mount),
        Mount(mount),
        records,
        Manifests(tmp_path / "run"),
        Links(tmp_path / "datasets"),
        lambda attachment: manager.note(attachment),
    )
    manager = Attachments(tools, lake.url, 3600)
    yield manager
    await manager.stop()
    await records.close()


async def _ready(manager: Attachments, ident: str) -> None:
    async with asyncio.timeout(120):
        while manager.get(ident).state != "ready":
            assert manager.get(ident).state in {"requested", "replicating", "landing"}, manager.get(ident)
            await asyncio.sleep(0.05)


async def test_calls_and_bytes(lake: Any, me: RucioClient, manager: Attachments, did: Any) -> None:
    text = did("km3net")
    count = 300
    lake.put(text, {f"{text.split(':')[1]}.{n:04d}": b"%08d" % n for n in range(count)})
    attachment, _ = await manager.attach(Did.parse(text))
    await _ready(manager, attachment.id)
    calls = dict(me.counters.by_path)
    polls = calls.pop("GET /rules/*")
    assert calls == {"GET /dids/*/*/files": 1, "POST /rules": 1}
    proportional = me.counters.received
    before = me.counters.calls, me.counters.received
    await me.rule(attachment.rule_id or "")
    poll = me.counters.received - before[1]
    assert poll < 1000
    assert proportional < count * 200 + (polls + 1) * 1000
    # Again, ready: one small call.
    before = me.counters.calls, me.counters.received
    await manager.attach(Did.parse(text))
    assert me.counters.calls - before[0] == 1
    assert me.counters.received - before[1] < 1000
    # Again, and asked to be kept longer: two.
    before = me.counters.calls, me.counters.received
    await manager.attach(Did.parse(text), lifetime=7200)
    assert me.counters.calls - before[0] == 2


async def test_known_to_rucio_but_not_to_us(lake: Any, me: RucioClient, manager: Attachments, did: Any) -> None:
    text = did("dmsp")
    lake.put(text, {f"{text.split(':')[1]}.{n}": b"x" * n for n in range(1, 4)})
    rule = await me.add_rule(Did.parse(text), "SCRATCH", 600)
    async with asyncio.timeout(60):
        while (await me.rule(rule)).state != "OK":
            await asyncio.sleep(0.1)
    calls = me.counters.calls
    attachment, _ = await manager.attach(Did.parse(text))
    await _ready(manager, attachment.id)
    async with asyncio.timeout(20):
        while attachment.rule_id is None:
            await asyncio.sleep(0.02)
        while "GET /rules/*" not in me.counters.by_path or attachment.seq < 3:
            await asyncio.sleep(0.02)
    assert attachment.rule_id == rule
    assert not attachment.rule_made
    # files; POST (duplicate), find, extend; look
    assert me.counters.calls - calls <= 5
    found = await me.rule(rule)
    assert found.expires_at is not None
    assert found.created_at is not None
    assert found.expires_at - found.created_at > 3000
    # What we did not make we do not end.
    await manager.release(attachment.id)
    assert (await me.rule(rule)).state == "OK"


async def test_the_path_is_rucios(lake: Any, me: RucioClient) -> None:
    for scope in ("km3net", f"user.{me.account}"):
        pfns = lake.root("GET", f"/rses/SCRATCH/lfns2pfns?lfn={scope}:some.file")
        assert next(iter(pfns.values())).endswith(hash_path(scope, "some.file"))


async def test_reading(lake: Any, me: RucioClient, did: Any) -> None:
    text = did("km3net")
    which = Did.parse(text)
    files = lake.put(text, {f"{which.name}.{n}": b"x" * 10 for n in range(3)})
    assert await me.whoami() == me.account
    assert {"km3net", "dmsp", "collider"} <= set(await me.scopes())
    info = await me.did(which)
    assert (info.kind, info.bytes, info.length, info.open) == ("dataset", 30, 3, True)
    inside = [entry for entries in [batch async for batch in me.contents(which)] for entry in entries]
    assert sorted(str(entry.did) for entry in inside) == files
    found = [entry for entries in [batch async for batch in me.search("km3net")] for entry in entries]
    assert which in {entry.did for entry in found}
    assert (await me.parents(Did.parse(files[0])))[0].did == which
    replicas = await me.file_replicas([Did.parse(files[0])])
    assert replicas[0]["states"] == {"SITE-NORTH": "AVAILABLE"}
    usage = {u.rse: u for u in await me.usage(me.account)}
    assert usage["SCRATCH"].limit == 10**13
    assert {"scheme", "prefix", "domains"} <= set((await me.protocols("SCRATCH"))[0])
    assert (await me.metadata(which))["did_type"] == "DATASET"
    with pytest.raises(NotFound):
        await me.did(Did("km3net", "no-such-thing"))
    with pytest.raises(Forbidden):
        await me.add_scope("root", "mine")


async def test_provisioning(lake: Any) -> None:
    name = f"p{os.urandom(3).hex()}"
    source = UserPassSource(lake.url, "dmsp-hub", "dmsp-hub", lambda: lake.secret("dmsp-hub"))
    issuer = lake.issuer.url
    async with RucioClient(lake.url, lake.url, "dmsp-hub", source) as hub:
        provisioner = Provisioner(hub, issuer, {"SCRATCH": 5000})
        await provisioner.ensure(name, f"sub-{name}", issuer, f"{name}@localhost", ["km3net", "dmsp"])
        await provisioner.ensure(name, f"sub-{name}", issuer, f"{name}@localhost", ["collider", "dmsp"])
        assert set(await hub.attributes(name)) == {"experiment-collider", "experiment-dmsp"}
        assert (await hub.limits(name))["SCRATCH"] == 5000
    async with RucioClient(lake.url, "", name, _Source(lake.issuer.token(f"sub-{name}"))) as user:
        assert await user.whoami() == name
        assert f"user.{name}" in await user.scopes()


async def test_writing(lake: Any, did: Any) -> None:
    from jupyterhub_dmsp.lake.models import LakeFile

    text = Did.parse(did("dmsp"))
    source = UserPassSource(lake.url, "root", "root", lambda: lake.secret("root"))
    async with RucioClient(lake.url, lake.url, "root", source) as root:
        files = [LakeFile(Did("dmsp", f"{text.name}.{n}"), 5, "0a0b0c0d") for n in range(1200)]
        container = Did("dmsp", f"{text.name}.ct")
        await root.add_replicas("SITE-NORTH", files)
        await root.add_dids([(text, "DATASET"), (container, "CONTAINER")])
        await root.attach(text, [f.did for f in files])
        await root.attach(text, [f.did for f in files[:5]])
        await root.attach(container, [text])
        await root.set_metadata([(text, {"detector": "ORCA", "run": 42})])
        metadata = await root.metadata(text)
        assert (metadata["detector"], metadata["run"]) == ("ORCA", 42)
        info = await root.did(container)
        assert (info.kind, info.length, info.bytes) == ("container", 1200, 6000)
        assert sum([len(batch) async for batch in root.files(container)]) == 1200
