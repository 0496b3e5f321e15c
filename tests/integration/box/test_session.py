"""What a scientist's session can do, and what another experiment's member cannot: through a whole, real box."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from boxes import Box
from lakes import SCRATCH, administrator, make_dataset, place
from visitor import Visitor, form_of

from jupyterhub_dmsp.lake.did import Did

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]
NUMU = "km3net:mc.numu-CC.genhen.offline"


async def visiting(box: Box, name: str, profile: str) -> AsyncIterator[Visitor]:
    async with Visitor(box.address, name, box.passwords[name]) as visitor:
        await visitor.start(profile)
        yield visitor
        await visitor.stop()


@pytest.fixture(scope="module")
async def member(box: Box) -> AsyncIterator[Visitor]:
    """The KM3NeT member, in the profile of that experiment."""
    async for visitor in visiting(box, "km3net-user", "km3net"):
        yield visitor


@pytest.fixture(scope="module")
async def outsider(box: Box) -> AsyncIterator[Visitor]:
    """A member of another experiment."""
    async for visitor in visiting(box, "collider-user", "minimal"):
        yield visitor


def test_every_part_is_healthy(box: Box) -> None:
    parts = {part["name"]: part for part in box.status["parts"]}
    assert set(parts) >= {"database", "issuer", "rucio", "daemons", "scratch", "proxy", "hub", "content"}
    assert {part["state"] for part in parts.values()} == {"healthy"}
    assert all(part["rss_bytes"] > 0 for part in parts.values() if part["pid"])


def test_second_up_on_the_same_state_is_refused(box: Box) -> None:
    done = box.dmsp("up", "--port", "18996", check=False)
    assert done.returncode == 1
    assert "A box already runs on" in done.stderr
    assert "dmsp down" in done.stderr
    assert {part["state"] for part in box.status["parts"]} == {"healthy"}


async def test_replication_goes_through_rucio_and_the_reaper_cleans(box: Box, member: Visitor) -> None:
    """The rule, its locks, the history of the request, the replica; then the end of the rule and of the file."""
    did = Did("km3net", f"test.replication.{uuid.uuid4().hex[:8]}")
    async with administrator(box) as rucio:
        files = await make_dataset(box, rucio, did, [10_000, 2_000_000, 0])
        stored = [place(box, SCRATCH, file.did) for file in files]
        assert not any(path.exists() for path in stored), "it must not be on scratch yet"
        attached = await member.attach(str(did))
        assert attached["state"] == "ready", attached

        rule = await rucio.rule(attached["rule_id"])
        assert (rule.state, rule.account, rule.rse_expression) == ("OK", "km3net-user", SCRATCH)
        locks = [lock async for batch in rucio.locks(rule.id) for lock in batch]
        assert {(lock.did, lock.rse, lock.state) for lock in locks} == {(f.did, SCRATCH, "OK") for f in files}
        replicas = await rucio.file_replicas([file.did for file in files], SCRATCH)
        assert {row["states"][SCRATCH] for row in replicas} == {"AVAILABLE"}
        history = [await rucio.transport.read(f"/requests/history/{f.did.quoted}/{SCRATCH}") for f in files]
        assert {row["state"] for row in history} == {"DONE"}, history
        assert {row["rule_id"] for row in history} == {rule.id}
        assert {row["source_rse"] for row in history} <= {"SITE-NORTH", "SITE-SOUTH", "SITE-WEST"}
        assert {row["external_host"] for row in history} == {"dmsp-box"}, "our transfertool copied it"
        assert [path.stat().st_size for path in stored] == [file.bytes for file in files]
        assert {path.stat().st_mode & 0o777 for path in stored} == {0o640}

        status, released = await member.lab(
            "DELETE", f"dmsp/v1/attachments/{attached['id']}", params={"purge": "true"}
        )
        assert (status, released["state"]) == (200, "released"), released
        async with asyncio.timeout(120):
            while any(path.exists() for path in stored):
                await asyncio.sleep(0.2)
        assert await rucio.file_replicas([files[0].did]), "the copy at the site stays"


async def test_other_profiles_and_scopes_for_another_experiment(member: Visitor, outsider: Visitor) -> None:
    for visitor, expected in ((member, {"minimal", "km3net", "root"}), (outsider, {"minimal", "root"})):
        status, body = await visitor.lab("GET", "dmsp/v1/children", params={"parent": ""})
        assert status == 200
        scopes = {row["scope"] for row in body["rows"]}
        assert ("km3net" in scopes) == ("km3net" in expected)
        assert ("collider" in scopes) == ("km3net" not in expected)
        assert "dmsp" in scopes


async def test_forbidden_profile_is_refused_by_the_hub(box: Box) -> None:
    """Not only missing in the form: refused when asked for by form and by REST; and the hub goes on."""
    name = "collider-user"
    async with Visitor(box.address, name, box.passwords[name]) as visitor:
        async with visitor.http.get(f"{box.address}hub/spawn/{name}/second") as answer:
            page = await answer.text()
        if 'name="profile"' in page:
            assert 'value="km3net"' not in page
            action, fields = form_of(page, str(answer.url))
            async with visitor.http.post(action, data={**fields, "profile": "km3net"}) as answer:
                assert answer.status in (400, 403)
                assert "km3net" in await answer.text()
        for profile in ["km3net", "nonsense", "../root", "x" * 10_000, 7, None, ["root"]]:
            body = {"profile": profile}
            status, said = await visitor.hub("POST", f"users/{name}/server", json=body)
            assert status in (400, 403), (profile, status, said)
    assert box.part("hub")["state"] == "healthy"


async def test_outsider_is_refused_by_rucio_and_by_the_file_system(member: Visitor, outsider: Visitor) -> None:
    attached = await member.attach(NUMU)
    assert attached["state"] == "ready", attached
    manifest = json.loads(
        (await member.terminal(f"cat $DMSP_RUNTIME/attachments/{attached['id']}/manifest.json"))[1]
    )
    path = manifest["files"][0]["path"]

    assert (await member.terminal(f"head -c 4 {path}"))[0] == 0, "positive control"
    code, said = await outsider.terminal(f"head -c 4 {path}")
    assert code != 0
    assert "Permission denied" in said

    refused = await outsider.lab("POST", "dmsp/v1/attachments", json={"did": NUMU})
    if refused[0] in (200, 201):
        attachment = await outsider.attach(NUMU)
        assert attachment["state"] == "failed"
        error = attachment["error"]
    else:
        assert refused[0] == 403
        error = refused[1]["error"]
    assert error["message"]
    code, said = await outsider.terminal(f"rucio rule add --copies 1 --rses {SCRATCH} {NUMU}")
    assert code != 0, said
    code, said = await member.terminal("rucio whoami && rucio rule list --account km3net-user")
    assert code == 0, said


async def test_rucio_client_in_a_terminal(box: Box, member: Visitor) -> None:
    code, said = await member.terminal("rucio whoami")
    assert code == 0
    assert "km3net-user" in said
    code, said = await member.terminal("rucio did list 'dmsp:*' --filter type=all")
    assert code == 0
    assert "tutorial.first-steps" in said
    attached = await member.attach("dmsp:tutorial.first-steps")
    assert attached["state"] == "ready", attached
    code, said = await member.terminal(
        "cd $(mktemp -d) && rucio download dmsp:tutorial.first-steps && find . -type f | sort"
    )
    assert code == 0, said
    assert "zee-tutorial.root" in said.rsplit("rucio download", 1)[-1]


async def test_attach_from_python_and_papermill(member: Visitor) -> None:
    program = (
        "import dmsp; d = dmsp.attach('dmsp:tutorial.first-steps'); print(len(d), all(open(p,'rb') for p in d))"
    )
    code, said = await member.terminal(f'python -c "{program}"')
    assert code == 0, said
    assert "3 True" in said
    cells = ["import dmsp", "data = dmsp.attach('dmsp:tutorial.first-steps')", "print('files:', len(data))"]
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"c{i}",
                "source": c,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for i, c in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    body = {"type": "notebook", "format": "json", "content": notebook}
    status, saved = await member.lab("PUT", "api/contents/batch.ipynb", json=body)
    assert status in (200, 201), saved
    code, said = await member.terminal(
        "papermill --no-progress-bar batch.ipynb out.ipynb && grep -c 'files: 3' out.ipynb"
    )
    assert code == 0, said


async def test_bytes_move_for_one_large_file(box: Box, member: Visitor) -> None:
    """1 GiB in one file: what the progress bar shows moves, between nothing and all."""
    did = Did("dmsp", f"test.one-gib.{uuid.uuid4().hex[:8]}")
    async with administrator(box) as rucio:
        await make_dataset(box, rucio, did, [1 << 30])
    status, body = await member.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
    assert status == 201, body
    seen = set()
    async with asyncio.timeout(300):
        while body["state"] not in ("ready", "failed", "stuck"):
            seen.add(body["bytes_ready"])
            await asyncio.sleep(0.2)
            _, body = await member.lab("GET", f"dmsp/v1/attachments/{body['id']}")
    assert body["state"] == "ready", body
    assert body["bytes_ready"] == body["bytes_total"] == 1 << 30
    assert any(0 < amount < 1 << 30 for amount in seen), seen
    await member.lab("DELETE", f"dmsp/v1/attachments/{body['id']}", params={"purge": "true"})


async def test_scope_with_many_dids(box: Box, member: Visitor) -> None:
    """`dmsp demo --scale`: all reachable and sorted, the first rows at once."""
    box.dmsp("demo", "--scale", "3000", timeout=300)
    query = {"parent": "", "refresh": "true"}
    _, page = await member.lab("GET", "dmsp/v1/children", params=query)
    async with asyncio.timeout(60):  # the old list is shown until the new one is read
        while "scale" not in [row["scope"] for row in page["rows"]]:
            await asyncio.sleep(0.1)
            _, page = await member.lab("GET", "dmsp/v1/children", params={"parent": ""})
    query = {"parent": "scale", "limit": "200", "offset": "0", "sort": "name"}
    _, page = await member.lab("GET", "dmsp/v1/children", params=query)
    async with asyncio.timeout(60):
        while not page["complete"]:
            await asyncio.sleep(0.1)
            _, page = await member.lab("GET", "dmsp/v1/children", params=query)
    assert page["total"] >= 2900
    assert len(page["rows"]) == 200
    _, last = await member.lab("GET", "dmsp/v1/children", params={**query, "offset": str(page["total"] - 1)})
    names = [row["name"] for row in [*page["rows"], *last["rows"]]]
    assert names == sorted(names)
    assert len(last["rows"]) == 1


async def test_no_token_in_any_environment_or_command_line(box: Box, member: Visitor) -> None:
    """Of the whole box and its sessions: none of the secrets stands where `ps e` or a log would show it."""
    await member.kernel()
    bearer = (await member.terminal("cat $BEARER_TOKEN_FILE"))[1].strip()
    assert bearer.count(".") == 2
    secrets = [path.read_text().strip() for path in (box.state / "secrets").iterdir() if path.is_file()]
    secrets = [secret for secret in [*secrets, bearer] if len(secret) >= 12 and not secret.startswith("{")]
    where = [("log", path, path.read_bytes()) for path in (box.state / "logs").rglob("*.log")]
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            try:
                where.append((name, process, (process / name).read_bytes()))
            except OSError:
                continue
    for kind, place_, content in where:
        assert not any(secret.encode() in content for secret in secrets), f"a secret in the {kind} of {place_}"
        if kind == "environ":
            assert b"JUPYTERHUB_API_TOKEN=" not in content or str(box.state).encode() not in content
