"""One id, from the browser through the Jupyter server to hub, issuer and Rucio, and by its rule to the transfers."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any
from urllib.parse import quote

import events
import leaks
import pytest
from faults import refusal
from visitor import Visitor

from jupyterhub_dmsp.shared import dmsp_log

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


async def _events(faulty: Any, rid: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(events.of_request, faulty.box, rid)


def _said(found: list[dict[str, Any]], part: str) -> str:
    return "\n".join(event["message"] for event in found if event["part"] == part)


async def _refused_once(faulty: Any, visitor: Visitor, rid: str) -> None:
    """Rucio refuses the token once: so this very request has the session fetch one from the hub."""
    query = {"parent": "", "refresh": "true"}
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


async def test_one_id_in_every_log(faulty: Any, visitor: Visitor) -> None:
    session, rid = f"sessions/{visitor.name}", f"browser-{uuid.uuid4().hex[:12]}"
    await visitor.lab("GET", "dmsp/v1/children", params={"parent": ""})
    await _refused_once(faulty, visitor, rid)
    async with asyncio.timeout(30):
        while not {"rucio", "hub", session} <= {event["part"] for event in await _events(faulty, rid)}:
            await asyncio.sleep(0.2)
    found = await _events(faulty, rid)
    assert {event["rid"] for event in found} == {rid}
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    assert f"token: user={visitor.name} audience=rucio " in _said(found, "hub")
    assert re.search(rf"GET /scopes/ 200 .* account={visitor.name}$", _said(found, "rucio"), re.M)
    assert "CannotAuthenticate" in _said(found, session)
    users = {event["part"]: event.get("user") for event in found}
    assert (users["rucio"], users[session]) == (visitor.name, visitor.name)


async def test_from_the_hub_to_the_issuer(faulty: Any, visitor: Visitor) -> None:
    """A request for a token that the hub has to exchange, which one of a session is every few seconds."""

    def exchanged() -> list[str]:
        said = [dmsp_log.parse(line) for line in faulty.log("hub").splitlines()]
        mine = f"token: user={visitor.name} audience=rucio exchanged"
        return [event.rid for event in said if event and event.message.startswith(mine)]

    async with asyncio.timeout(60):
        while not (rids := exchanged()):
            await asyncio.sleep(0.5)
    found = await _events(faulty, rids[-1])
    assert re.search(r"^POST /oidc/token 200 .* grant=token-exchange$", _said(found, "issuer"), re.M), found
    assert {event["rid"] for event in found} == {rids[-1]}


async def test_from_an_attachment_to_its_transfers(faulty: Any, visitor: Visitor, make: Any) -> None:
    did, _ = await make(1000)
    rid = f"browser-{uuid.uuid4().hex[:12]}"
    headers = {"X-Request-ID": rid}
    status, body = await visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did)}, headers=headers)
    assert status == 201
    attached = await visitor.attach(str(did))
    assert attached["state"] == "ready", attached
    found = await _events(faulty, rid)
    assert {event["rid"] for event in found} == {rid, body["id"], ""}
    rucio = _said(found, "rucio")
    for call in (rf"GET /dids/dmsp/{re.escape(did.name)}/files", "POST /rules/", r"GET /rules/[0-9a-f]{32}"):
        assert re.search(rf"^{call} 20\d ", rucio, re.M), rucio
    made = re.search(rf"^rule ([0-9a-f]{{32}}) made: account={visitor.name}$", rucio, re.M)
    assert made, rucio
    daemons = _said(found, "daemons")
    assert re.search(rf"^rule {made[1]}: 1 copies begin as ", daemons, re.M), daemons
    assert re.search(rf"^rule {made[1]}: 1 copies done, 1000 bytes$", daemons, re.M), daemons
    own = await _events(faulty, body["id"])
    assert made[1] in _said(own, "daemons"), "the attachment's own id leads there too"
    people = (await asyncio.to_thread(faulty.box.dmsp, "logs", "--request", rid, "daemons")).stdout
    assert f" INFO daemons dmsp.pusher [rid=-] rule {made[1]}: 1 copies done" in people
    assert all(" daemons " in line for line in people.splitlines())


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
    assert not faulty.events("rucio", "forged-by-me"), (code, said)
    done = await asyncio.to_thread(faulty.box.dmsp, "logs", "--request", "[rid", check=False)
    assert done.returncode == 1
    assert "is not the id of a request" in done.stderr


async def test_each_line_is_an_event(faulty: Any, visitor: Visitor) -> None:
    """Of our own parts, after all that was done to them; `dmsp logs` reads the others' too."""
    event = dmsp_log.Event(0.0, "INFO", "hub", "x", "", "forged")
    status, _ = await visitor.lab("GET", "dmsp/v1/did", params={"did": f"dmsp:a\n{dmsp_log.as_json(event)}\n"})
    assert status == 400
    status, _ = await visitor.hub("GET", f"users/a%0A{quote(dmsp_log.as_json(event))}%0A")
    assert status == 404
    assert await asyncio.to_thread(events.strays, faulty.box, "json") == []
    written = (faulty.log("hub") + faulty.log(f"sessions/{visitor.name}")).splitlines()
    assert "forged" not in [found.message for line in written if (found := dmsp_log.parse(line))]
    shown = (await asyncio.to_thread(faulty.box.dmsp, "logs", "-n", "1000")).stdout
    assert {line.split()[2] for line in shown.splitlines() if line.startswith("20")} >= {
        "box",
        "issuer",
        "rucio",
        "daemons",
        "hub",
    }
    severe = (await asyncio.to_thread(faulty.box.dmsp, "logs", "--level", "error", "--json")).stdout
    assert " INFO " not in severe


def test_no_secret_in_json(faulty: Any, visitor: Visitor) -> None:
    """The shared box logs text: this is the other form."""
    assert leaks.in_logs(faulty.box, leaks.Finder(leaks.of_box(faulty.box))) == []
