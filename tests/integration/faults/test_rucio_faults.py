"""What a user sees of each fault of Rucio, through a whole box: a sentence, an action, a cause in the log, no hang."""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from faults import Answer, CutOff, Fault, Latency, Lost, Reset, Silence, garbage, refusal
from lakes import SCRATCH, administrator, place
from visitor import Visitor

from jupyterhub_dmsp.lake.errors import ACTIONS

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
READY = 120.0
"""Seconds within which an attachment is ready again once the fault has gone: the longest pause between two tries."""


@dataclass(frozen=True)
class Case:
    """A fault of Rucio for all that is asked of one dataset.

    Attributes:
        status: of our answer to a request that needs Rucio.
        alone: whether the attachment goes on by itself when the fault has gone; else the user presses Retry.
    """

    fault: Fault
    code: str
    action: str
    status: int
    alone: bool = True


CASES = {
    "down": Case(Reset(), "cut_off", "retry", 502),
    "gateway": Case(Answer(502), "rucio_down", "retry", 503),
    "silent": Case(Silence(), "rucio_slow", "retry", 504),
    "401": Case(refusal(401, "CannotAuthenticate"), "unauthorised", "login", 401),
    "403": Case(refusal(403), "forbidden", "contact", 403, alone=False),
    "denied": Case(refusal(401, "AccessDenied"), "forbidden", "contact", 403, alone=False),
    "404": Case(refusal(404, "DataIdentifierNotFound"), "not_found", "none", 404, alone=False),
    "413": Case(refusal(413), "quota", "release", 413, alone=False),
    "429": Case(refusal(429, **{"Retry-After": "1"}), "too_many", "wait", 429),
    "500": Case(refusal(500, "DatabaseException"), "rucio_fault", "retry", 502),
    "bare 500": Case(Answer(500, {"Content-Type": "text/html"}, b"<h1>Oops</h1>"), "rucio_fault", "retry", 502),
    "cut off": Case(CutOff(25), "cut_off", "retry", 502),
    "garbage": Case(garbage(), "cut_off", "retry", 502),
    "wrong JSON": Case(Answer(200, {}, b'{"neither": "rule", "nor": "file"}\n'), "cut_off", "retry", 502),
    "a page": Case(Answer(200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), "cut_off", "retry", 502),
}


async def _answers(visitor: Visitor, over: asyncio.Event) -> int:
    """Ask, again and again, what has nothing to do with Rucio; how often it was answered."""
    asked = 0
    while not over.is_set():
        async with asyncio.timeout(20):
            for path in ("api/status", "dmsp/v1/attachments", "api/contents"):
                status, body = await visitor.lab("GET", path)
                assert status == 200, (path, status, body)
                asked += 1
        await asyncio.sleep(0.5)
    return asked


async def _until(visitor: Visitor, ident: str, seconds: float, condition: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                status, found = await visitor.lab("GET", f"dmsp/v1/attachments/{ident}")
                assert status == 200, found
                if condition(found):
                    return found
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"still {found}") from None


def _sentence(error: dict[str, Any]) -> None:
    assert error["action"] in ACTIONS
    assert re.fullmatch(r"[A-Z“].*\.", error["message"], re.S), error
    assert not re.search(r"Traceback|httpx|Exception|0x|token=|eyJ", error["message"]), error


async def _suffer(faulty: Any, visitor: Visitor, did: Any, case: Case) -> None:
    with faulty.rucio.fault(case.fault, path=f"^/dids/{did.scope}/{re.escape(did.name)}") as rule:
        rid = f"fault-{uuid.uuid4().hex[:8]}"
        status, attached = await visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
        assert status == 201, attached
        asked = visitor.lab("GET", "dmsp/v1/did", params={"did": str(did)}, headers={"X-Request-ID": rid})
        seen = _until(visitor, attached["id"], 100, lambda a: a["error"])
        (status, body), found = await asyncio.gather(asked, seen)
        assert rule.hits > 0
        assert (status, body["error"]["code"], body["error"]["action"]) == (case.status, case.code, case.action)
        assert body["error"]["request_id"] == rid
        _sentence(body["error"])
        error = found["error"]
        assert (error["code"], error["action"]) == (case.code, case.action), found
        assert found["state"] in ("requested", "failed"), found
        _sentence(error)
        said = faulty.events(f"sessions/{visitor.name}", rid)
        assert any(text.startswith(f"refused: {case.code} ") for text in said), "the cause stands in the log"
        assert any(did.name in text for text in faulty.events(f"sessions/{visitor.name}", attached["id"]))
    if not case.alone:
        await _until(visitor, attached["id"], 20, lambda a: a["state"] == "failed")
        status, _ = await visitor.lab("POST", f"dmsp/v1/attachments/{attached['id']}/retry", json={})
        assert status == 200
    ready = await _until(visitor, attached["id"], READY, lambda a: a["state"] == "ready")
    assert ready["error"] is None, ready


async def test_each_fault_has_a_sentence_and_passes(faulty: Any, visitor: Visitor, make: Any) -> None:
    """All at once, each for a dataset of its own; meanwhile the session answers everything else."""
    dids = {name: (await make(1000, 2000))[0] for name in CASES}
    over = asyncio.Event()
    others = asyncio.create_task(_answers(visitor, over))
    results = await asyncio.gather(
        *(_suffer(faulty, visitor, dids[name], case) for name, case in CASES.items()), return_exceptions=True
    )
    over.set()
    assert await others > 10
    wrong = {name: result for name, result in zip(CASES, results, strict=True) if result is not None}
    assert not wrong, "\n".join(f"{name}: {error}" for name, error in wrong.items())


async def test_a_rule_whose_answer_was_lost_is_found_again(faulty: Any, visitor: Visitor, make: Any) -> None:
    did, _ = await make(1000)
    with faulty.rucio.fault(Lost(), path="^/rules/$", methods=["POST"], times=1) as rule:
        attached = await visitor.attach(str(did))
        assert rule.hits == 1
    assert attached["state"] == "ready", attached
    # The rule had its effect before anybody knew of it: what is there is ready first, and pinned after.
    attached = await _until(visitor, attached["id"], 30, lambda a: a["rule_id"] and not a["error"])
    async with administrator(faulty.box) as rucio:
        assert [r.id for r in await rucio.rules_of(did) if r.rse_expression == SCRATCH] == [attached["rule_id"]]


async def test_faults_while_it_replicates_cost_nothing(faulty: Any, visitor: Visitor, make: Any) -> None:
    """Polls of the rule fail in several ways, one after the other: the attachment says so and arrives."""
    did, _ = await make(*[1000] * 40)
    path = r"^/rules/[0-9a-f]{32}$"
    status, body = await visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
    assert status == 201
    with faulty.rucio.fault(Answer(503), path=path, methods=["GET"]) as rule:
        found = await _until(visitor, body["id"], 60, lambda a: a["error"])
        assert (found["state"], found["error"]["code"]) == ("replicating", "rucio_down"), found
        assert rule.hits > 0
    with faulty.rucio.fault(garbage(), path=path, methods=["GET"]):
        await _until(visitor, body["id"], 60, lambda a: a["error"] and a["error"]["code"] == "cut_off")
    ready = await _until(visitor, body["id"], READY, lambda a: a["state"] == "ready")
    assert (ready["error"], ready["files_ready"]) == (None, 40)


async def test_a_slow_rucio_is_only_slow(faulty: Any, visitor: Visitor, make: Any) -> None:
    did, _ = await make(1000)
    with faulty.rucio.fault(Latency(1.0)) as rule:
        attached = await visitor.attach(str(did))
        assert rule.hits >= 3
    assert (attached["state"], attached["error"]) == ("ready", None), attached


async def test_listing_through_faults(faulty: Any, visitor: Visitor) -> None:
    """A list that was read stays when it cannot be read again; a stream that broke off shows what came."""
    query = {"parent": "km3net", "refresh": "true"}
    status, page = await visitor.lab("GET", "dmsp/v1/children", params=query)
    assert status == 200
    async with asyncio.timeout(30):
        while not page["complete"]:
            _, page = await visitor.lab("GET", "dmsp/v1/children", params={"parent": "km3net"})
    with faulty.rucio.fault(Answer(503), path="/search$"):
        status, again = await visitor.lab("GET", "dmsp/v1/children", params=query)
        assert (status, again["rows"]) == (200, page["rows"])
    with faulty.rucio.fault(CutOff(1500), path="/search$"):
        status, part = await visitor.lab("GET", "dmsp/v1/children", params={"parent": "collider"})
        assert (status, part["error"]["code"]) in ((200, "cut_off"), (502, "cut_off")), part
        _sentence(part["error"])


async def test_a_stuck_rule_is_told_and_cured(faulty: Any, visitor: Visitor, make: Any) -> None:
    """A source that is not there, in a dataset whose other files are: partly available."""
    did, files = await make(1000, 2000, 3000)
    missing = place(faulty.box, "SITE-NORTH", files[1].did)
    aside = missing.with_name("aside")
    missing.rename(aside)
    attached = await visitor.attach(str(did))
    assert (attached["state"], attached["error"]["code"]) == ("stuck", "stuck"), attached
    assert attached["error"]["action"] == "retry"
    assert "1 of 3 files do not arrive" in attached["error"]["message"]
    assert attached["files_ready"] == 2
    assert str(faulty.box.state) not in attached["error"]["message"]
    aside.rename(missing)
    status, _ = await visitor.lab("POST", f"dmsp/v1/attachments/{attached['id']}/retry", json={})
    assert status == 200
    ready = await _until(visitor, attached["id"], READY, lambda a: a["state"] == "ready")
    assert (ready["error"], ready["files_ready"]) == (None, 3)


async def test_a_suspended_rule_waits_for_the_operators(faulty: Any, visitor: Visitor, make: Any) -> None:
    did, files = await make(1000)
    source = place(faulty.box, "SITE-NORTH", files[0].did)
    aside = source.with_name("aside")
    source.rename(aside)
    attached = await visitor.attach(str(did))
    assert attached["state"] == "stuck", attached
    async with administrator(faulty.box) as rucio:
        path = f"/rules/{attached['rule_id']}"
        await rucio.transport.write("PUT", path, {"options": {"state": "SUSPENDED"}})
        found = await _until(visitor, attached["id"], 30, lambda a: a["error"]["code"] == "suspended")
        assert (found["state"], found["error"]["action"]) == ("stuck", "contact")
        aside.rename(source)
        await rucio.transport.write("PUT", path, {"options": {"state": "STUCK"}})
        await rucio.transport.write("PUT", path, {"options": {"boost_rule": True}})
    await _until(visitor, attached["id"], READY, lambda a: a["state"] == "ready")


async def test_an_empty_dataset(visitor: Visitor, make: Any) -> None:
    did, _ = await make()
    attached = await visitor.attach(str(did))
    error = attached["error"]
    assert (attached["state"], error["code"], error["action"]) == ("failed", "empty", "none")


async def test_two_tabs_and_two_notebooks_of_the_same_dataset(faulty: Any, visitor: Visitor, make: Any) -> None:
    did, _ = await make(1000, 2000)
    async with Visitor(visitor.address, visitor.name, visitor.password) as second:
        async with second.http.get(f"{second.base}lab") as answer:
            assert answer.status == 200
        with faulty.rucio.fault(Latency(0.3)):
            one, two = await asyncio.gather(
                visitor.attach(str(did), variable="one", notebook="one.ipynb"),
                second.attach(str(did), variable="two", notebook="two.ipynb"),
            )
        assert one["id"] == two["id"]
        assert one["state"] == two["state"] == "ready"
        kernels = [await visitor.kernel(path="one.ipynb"), await second.kernel(path="two.ipynb")]
        assert [await k.run(f"len({name})") for k, name in zip(kernels, ("one", "two"), strict=True)] == [
            "2",
            "2",
        ]
        for kernel in kernels:
            await kernel.shutdown()
    async with administrator(faulty.box) as rucio:
        assert len([r for r in await rucio.rules_of(did) if r.rse_expression == SCRATCH]) == 1
