"""Claims of every shape, exchange parameters and answers, and the hub as a source."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from jupyterhub_dmsp.identity import claims, exchange, hub_source
from jupyterhub_dmsp.identity.errors import (
    AudienceRefused,
    IssuerDown,
    NoSessionToken,
    TokenMalformed,
    TokenRefused,
    TokenWithheld,
)
from jupyterhub_dmsp.identity.hub_source import HubTokenSource
from jupyterhub_dmsp.lab.errors import fault_of


def jwt_of(payload):
    body = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


def test_read():
    payload = {"sub": "a", "name": "Zoë", "exp": 5}
    assert claims.read(jwt_of(payload)) == payload
    assert claims.read(SecretStr(jwt_of(payload) + "\n")) == payload


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.b.c.d", "a.!!!!.c", "a.e30=x.c", jwt_of([1]), jwt_of("text"), "a.gA.c", "." * 2]
)
def test_read_refuses(text):
    with pytest.raises(TokenMalformed) as caught:
        claims.read(text)
    assert caught.value.__cause__ is None


@settings(database=None, deadline=None)
@given(st.text())
def test_read_raises_one_kind_of_error(text):
    with contextlib.suppress(TokenMalformed):
        assert isinstance(claims.read(f"a.{text}.c"), dict)


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        (["/dmsp", "/dmsp/km3net"], ["/dmsp", "/dmsp/km3net"]),
        (["/dmsp", "/dmsp", ""], ["/dmsp"]),
        (["a group with spaces"], ["a group with spaces"]),
        ("/dmsp /dmsp/km3net", ["/dmsp", "/dmsp/km3net"]),
        ("/dmsp,/dmsp/km3net", ["/dmsp", "/dmsp/km3net"]),
        ([{"name": "km3net", "id": 1}, {"path": "/dmsp"}], ["km3net", "/dmsp"]),
        ([1, None, ["/nested"]], ["/nested"]),
        ({"name": "one"}, ["one"]),
        (None, []),
        (7, []),
    ],
)
def test_groups_of_every_shape(value, groups):
    assert claims.groups({"wlcg.groups": value}) == groups
    assert claims.groups({"eduperson_entitlement": value}, "eduperson_entitlement") == groups
    assert claims.groups({}) == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5.0),
        (5.5, 5.5),
        ("5", 5.0),
        (True, None),
        ("soon", None),
        (None, None),
        ("nan", None),
        (float("inf"), None),
        (-1, None),
        ([], None),
    ],
)
def test_expiry_of_every_shape(value, seconds):
    assert claims.expiry({"exp": value}) == seconds


def test_other_claims():
    payload = {
        "sub": "s",
        "iss": "i",
        "aud": "a",
        "scp": ["x", "y"],
        "preferred_username": 5,
        "iat": 10,
        "exp": 40,
    }
    assert claims.subject(payload) == "s"
    assert claims.issuer(payload) == "i"
    assert claims.audiences(payload) == ["a"]
    assert claims.audiences({"aud": ["a", "b"]}) == ["a", "b"]
    assert claims.scopes(payload) == ["x", "y"]
    assert claims.scopes({"scope": "openid profile"}) == ["openid", "profile"]
    assert claims.username(payload) == ""
    assert claims.lifetime(payload) == 30
    assert claims.lifetime({"exp": 5}) is None
    assert claims.lifetime({"iat": 9, "exp": 5}) is None


def test_exchange_parameters():
    form = exchange.parameters(SecretStr("subject"), "rucio", ["openid", "profile"])
    assert form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "subject",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": "rucio",
        "scope": "openid profile",
    }
    assert "scope" not in exchange.parameters("subject", "rucio")


def test_exchange_answers():
    opaque = exchange.token_from_response({"access_token": "opaque", "expires_in": 60}, "rucio", now=1000)
    assert opaque.expires_at == 1060
    both = exchange.token_from_response(
        {"access_token": jwt_of({"exp": 1030}), "expires_in": "60"}, "rucio", now=1000
    )
    assert both.expires_at == 1030
    alone = exchange.token_from_response({"access_token": jwt_of({"exp": 1030})}, "rucio")
    assert alone.expires_at == 1030
    for answer in ({}, {"access_token": 5}, {"access_token": "x"}, {"access_token": "x", "token_type": "DPoP"}):
        with pytest.raises(TokenMalformed):
            exchange.token_from_response(answer, "rucio")


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, {"error": "invalid_target"}, AudienceRefused),
        (400, {"error": "invalid_scope"}, AudienceRefused),
        (401, {"error": "invalid_client"}, AudienceRefused),
        (400, {"error": "invalid_grant"}, TokenRefused),
        (400, {"error": "invalid_request", "error_description": "subject_token: expired"}, TokenRefused),
        (403, None, TokenRefused),
        (429, {}, IssuerDown),
        (503, "<html>", IssuerDown),
    ],
)
def test_exchange_errors(status, answer, kind):
    error = exchange.error_from_response(status, answer, "rucio")
    assert type(error) is kind
    assert error.remedy
    secret = "x" * 50
    told = exchange.error_from_response(400, {"error_description": f"token {secret}"}, "rucio")
    assert secret not in str(told)


def hub(handler):
    return HubTokenSource(
        "http://hub/hub/api/dmsp/token", "hub-secret", "rucio", transport=httpx.MockTransport(handler)
    )


async def test_hub_source_asks_and_reads():
    end = time.time() + 60

    def handler(request):
        assert request.headers["Authorization"] == "token hub-secret"
        assert parse_qs(request.url.query.decode()) == {"audience": ["rucio"]}
        return httpx.Response(200, json={"access_token": "t", "expires_at": end, "audience": "rucio"})

    source = hub(handler)
    token = await source.get()
    assert token.reveal() == "t"
    assert token.expires_at == end
    assert "hub-secret" not in repr(vars(source))
    await source.aclose()
    await source.aclose()


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (httpx.Response(403, json={"message": "Your login is over."}), TokenRefused, "login is over"),
        (httpx.Response(302, headers={"Location": "/hub/login"}), TokenRefused, "HTTP 302"),
        (httpx.Response(400, json={"message": "Not offered."}), AudienceRefused, "Not offered"),
        (httpx.Response(404, text="<html>"), AudienceRefused, "HTTP 404"),
        (httpx.Response(429, json=[1]), IssuerDown, "HTTP 429"),
        (httpx.Response(502, json={"message": "The issuer is down."}), IssuerDown, "issuer is down"),
        (httpx.Response(200, text="<html>"), TokenMalformed, "no token"),
        (httpx.Response(200, json={"access_token": "t"}), TokenMalformed, "no token"),
        (httpx.ConnectError("refused"), IssuerDown, "cannot be reached"),
        (httpx.ReadTimeout("slow"), IssuerDown, "in time"),
    ],
)
async def test_hub_source_errors(answer, kind, text):
    def handler(request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(kind, match=text) as caught:
        await hub(handler).get()
    assert "hub-secret" not in str(caught.value)


async def test_a_shared_server_is_told_so_and_not_to_log_in():
    said = "This server is shared with others, so it gets no tokens of yours. End that to go on."

    def handler(request):
        body = {"status": 403, "message": said}
        return httpx.Response(403, headers={"X-DMSP-Refusal": "shared"}, json=body)

    with pytest.raises(TokenWithheld) as raised:
        await hub(handler).get()
    assert str(raised.value) == said
    assert raised.value.transient
    assert fault_of(raised.value).as_dict() == {"code": "shared", "message": said, "action": "none"}


async def test_session_token_holder(monkeypatch):
    monkeypatch.setattr(hub_source, "_session_token", None)
    source = HubTokenSource("http://hub/", hub_source.session_api_token, "rucio")
    with pytest.raises(NoSessionToken):
        await source.get()
    hub_source.set_session_api_token(" secret \n")
    assert hub_source.session_api_token().get_secret_value() == "secret"
    assert "secret" not in repr(hub_source.session_api_token())
    hub_source.set_session_api_token("")
    with pytest.raises(NoSessionToken):
        hub_source.session_api_token()
