"""What a user sees when tokens end and the issuer is away or refuses: through a whole box with short-lived tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from faults import Answer, Reset, Silence
from visitor import Visitor

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
REFUSED = Answer(400, {"Content-Type": "application/json"}, json.dumps({"error": "invalid_grant"}).encode())
AT_TOKENS = r"^/oidc/(token|userinfo)$"


async def _status_until(visitor: Visitor, condition: Any, seconds: float = 120) -> dict[str, Any]:
    body: dict[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                status, body = await visitor.lab("GET", "dmsp/v1/status")
                assert status == 200, body
                if condition(body["token"]["error"]):
                    return body
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"still {body['token']}") from None


@pytest.mark.parametrize(
    ("fault", "code", "action", "state"),
    [
        pytest.param(Silence(), "issuer_down", "retry", "requested", id="silent"),
        pytest.param(REFUSED, "login", "login", "failed", id="refused"),
    ],
)
async def test_tokens_that_cannot_be_renewed(
    faulty: Any, visitor: Visitor, make: Any, fault: Any, code: str, action: str, state: str
) -> None:
    """Nothing happens as long as the old token lives; then one sentence; then it goes on by itself."""
    did, _ = await make(1000)
    with faulty.issuer.fault(fault, path=AT_TOKENS) as rule:
        # While the token that the session has is good, nobody notices.
        status, page = await visitor.lab(
            "GET", "dmsp/v1/children", params={"parent": "dmsp", "refresh": "true"}
        )
        assert (status, page["error"]) == (200, None)
        body = await _status_until(visitor, lambda error: error)
        error = body["token"]["error"]
        assert (error["code"], error["action"]) == (code, action)
        assert error["message"].endswith(".")
        assert rule.hits > 0
        status, attached = await visitor.lab("POST", "dmsp/v1/attachments", json={"did": str(did)})
        assert status == 201, attached
        async with asyncio.timeout(60):
            while not attached["error"]:
                await asyncio.sleep(0.3)
                _, attached = await visitor.lab("GET", f"dmsp/v1/attachments/{attached['id']}")
        assert (attached["state"], attached["error"]["code"]) == (state, code), attached
        status, body = await visitor.lab("GET", "dmsp/v1/did", params={"did": str(did)})
        assert (status, body["error"]["code"]) == (503 if action == "retry" else 401, code), body
        status, _ = await visitor.lab("GET", "api/kernelspecs")
        assert status == 200
    if action == "login":
        # "Log in again" in the browser: the issuer still knows the user, so there is no form to fill in.
        async with visitor.http.get(
            f"{visitor.address}hub/oauth_login", params={"next": "/hub/home"}
        ) as answer:
            assert (answer.status, str(answer.url)) == (200, f"{visitor.address}hub/home")
    ready = (
        await visitor.attach(str(did))
        if attached["state"] != "failed"
        else await _ready(visitor, attached["id"])
    )
    assert (ready["state"], ready["error"]) == ("ready", None), ready
    await _status_until(visitor, lambda error: not error)


async def _ready(visitor: Visitor, ident: str) -> dict[str, Any]:
    found: dict[str, Any] = {"state": ""}
    async with asyncio.timeout(90):
        while found["state"] != "ready":
            await asyncio.sleep(0.5)
            _, found = await visitor.lab("GET", f"dmsp/v1/attachments/{ident}")
    return found


async def test_a_login_while_the_issuer_is_away(faulty: Any) -> None:
    """One sentence on the page, and nothing else breaks."""
    name, box = "collider-user", faulty.box
    visitor = Visitor(box.address, name, box.passwords[name])
    with faulty.issuer.fault(Reset(), path="^/oidc/token$") as rule, pytest.raises(AssertionError, match="503"):
        async with visitor:
            pass
    assert rule.hits > 0
    await visitor.__aexit__(None, None, None)
    async with Visitor(box.address, name, box.passwords[name]) as again:
        status, user = await again.hub("GET", f"users/{name}")
        assert (status, user["name"]) == (200, name)
