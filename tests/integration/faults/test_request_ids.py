"""One id, from the browser through the Jupyter server and the hub to Rucio: found in each log, and by `dmsp logs`."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any

import pytest
from faults import refusal
from visitor import Visitor

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


async def _lines(faulty: Any, rid: str) -> list[str]:
    said: str = (await asyncio.to_thread(faulty.box.dmsp, "logs", "--request", rid)).stdout
    return said.splitlines()


async def test_one_id_in_every_log(faulty: Any, visitor: Visitor) -> None:
    """Rucio refuses the token once: so this very request has the session fetch one from the hub."""
    rid = f"browser-{uuid.uuid4().hex[:12]}"
    query = {"parent": "", "refresh": "true"}
    await visitor.lab("GET", "dmsp/v1/children", params={"parent": ""})
    with faulty.rucio.fault(refusal(401, "CannotAuthenticate"), path="^/scopes/$", times=1) as rule:
        url = f"{visitor.base}dmsp/v1/children"
        async with visitor.http.get(url, params=query, headers={"X-Request-ID": rid}) as answer:
            assert (answer.status, answer.headers["X-Request-ID"]) == (200, rid)
        async with asyncio.timeout(20):
            while not [
                call for call in faulty.rucio.calls("^/scopes/$") if call.request_id == rid and not call.fault
            ]:
                await asyncio.sleep(0.1)
        assert rule.hits == 1
    async with asyncio.timeout(20):
        while True:
            lines = await _lines(faulty, rid)
            logs = {line.split()[0] for line in lines}
            if {"rucio", "hub", f"sessions/{visitor.name}"} <= logs:
                break
            await asyncio.sleep(0.2)
    assert all(f"[rid={rid}]" in line for line in lines)
    assert any(re.search(rf"^hub .*token: user={visitor.name} audience=rucio", line) for line in lines), lines
    assert any(re.search(rf"^rucio .*GET /scopes/ 200 .*account={visitor.name} ", line) for line in lines), (
        lines
    )
    assert re.search(rf"^sessions/{visitor.name} .*CannotAuthenticate", "\n".join(lines), re.M), lines


async def test_an_attachment_has_its_own_id(faulty: Any, visitor: Visitor, make: Any) -> None:
    did, _ = await make(1000)
    rid = f"browser-{uuid.uuid4().hex[:12]}"
    headers = {"X-Request-ID": rid}
    status, body = await visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did)}, headers=headers)
    assert status == 201
    attached = await visitor.attach(str(did))
    assert attached["state"] == "ready", attached
    began = [line for line in await _lines(faulty, rid) if body["id"] in line]
    assert began, "the request's lines lead to the attachment"
    lines = "\n".join(await _lines(faulty, body["id"]))
    for call in (rf"GET /dids/dmsp/{re.escape(did.name)}/files", "POST /rules/", r"GET /rules/[0-9a-f]{32}"):
        assert re.search(rf"^rucio .*{call} 20\d ", lines, re.M), lines


async def test_ids_that_are_none_are_replaced(faulty: Any, visitor: Visitor) -> None:
    for offered in ("x", "a" * 65, "with space", "br[rid=other]", "%0aforged", "ümlaut", "-dash"):
        async with visitor.http.get(
            f"{visitor.base}dmsp/v1/bindings", params={"notebook": "a.ipynb"}, headers={"X-Request-ID": offered}
        ) as answer:
            assert answer.status == 200
            assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-ID"])
    code, said = await visitor.terminal(
        "curl -s -o /dev/null -H 'X-Request-ID: evil [rid=forged-by-me]' "
        "$(python3 -c \"import json; print(json.load(open('/etc/dmsp/session.json'))['lake']['rucio_url'])\")/scopes/"
        ' || python3 -c "import json, urllib.request as u; '
        "u.urlopen(u.Request(json.load(open('/etc/dmsp/session.json'))['lake']['rucio_url'] + '/scopes/',"
        " headers={'X-Request-ID': 'evil [rid=forged-by-me]'}))\""
    )
    assert "[rid=forged-by-me]" not in faulty.log("rucio"), (code, said)
    done = await asyncio.to_thread(faulty.box.dmsp, "logs", "--request", "[rid", check=False)
    assert done.returncode == 1
    assert "is not the id of a request" in done.stderr
