"""Rucio's answers become typed errors with a sentence and an action; what may be repeated is repeated."""

from __future__ import annotations

import json

import httpx
import pytest
from pydantic import SecretStr

from jupyterhub_dmsp.lake import errors, transport
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import Failure, timestamp


class _Token:
    access_token = SecretStr("very-secret-token")


class _Source:
    def __init__(self) -> None:
        self.invalidated = 0

    async def get(self) -> _Token:
        return _Token()

    def invalidate(self) -> None:
        self.invalidated += 1


def _client(answer: httpx.AsyncBaseTransport) -> RucioClient:
    return RucioClient("http://rucio.test", "", "km3net-user", _Source(), http=answer)


def _rucio(status: int, name: str, text: str = "words") -> httpx.Response:
    body = {"ExceptionClass": name, "ExceptionMessage": text}
    return httpx.Response(status, content=json.dumps(body), headers={"ExceptionClass": name})


CASES = [
    (401, "CannotAuthenticate", errors.Unauthorised, "login"),
    (401, "AccessDenied", errors.Forbidden, "contact"),
    (403, "", errors.Forbidden, "contact"),
    (404, "DataIdentifierNotFound", errors.NotFound, "none"),
    (404, "RuleNotFound", errors.NotFound, "none"),
    (409, "InsufficientAccountLimit", errors.QuotaExceeded, "release"),
    (413, "", errors.QuotaExceeded, "release"),
    (409, "InsufficientTargetRSEs", errors.NoPlace, "contact"),
    (409, "InvalidRSEExpression", errors.NoPlace, "contact"),
    (409, "DuplicateRule", errors.Duplicate, "none"),
    (409, "DataIdentifierAlreadyExists", errors.Duplicate, "none"),
    (400, "ValueError", errors.Refused, "contact"),
    (429, "", errors.TooMany, "wait"),
    (500, "DatabaseException", errors.ServerFault, "retry"),
    (503, "DatabaseException", errors.RucioDown, "retry"),
    (502, "", errors.RucioDown, "retry"),
    (504, "", errors.RucioSlow, "retry"),
    (418, "", errors.Refused, "contact"),
]


@pytest.mark.parametrize(("status", "name", "kind", "action"), CASES)
async def test_each_answer_has_a_type_a_sentence_and_an_action(
    status: int, name: str, kind: type[errors.LakeError], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 1)
    async with _client(httpx.MockTransport(lambda _: _rucio(status, name))) as client:
        with pytest.raises(errors.LakeError) as caught:
            await client.rule("abc")
    assert type(caught.value) is kind
    assert caught.value.action == action
    assert action in errors.ACTIONS
    assert str(caught.value).endswith(".")
    assert "secret" not in str(caught.value) + caught.value.reason


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (httpx.ConnectError("refused"), errors.RucioDown),
        (httpx.ConnectTimeout("slow"), errors.RucioDown),
        (httpx.ReadTimeout("slow"), errors.RucioSlow),
        (httpx.RemoteProtocolError("incomplete chunked read"), errors.CutOff),
    ],
)
async def test_faults_of_the_network(
    fault: Exception, kind: type[errors.LakeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 1)

    def answer(_: httpx.Request) -> httpx.Response:
        raise fault

    async with _client(httpx.MockTransport(answer)) as client:
        with pytest.raises(kind):
            await client.rule("abc")


async def test_reads_are_repeated_and_writes_are_not() -> None:
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        if request.method == "GET" and len(calls) == 2:
            return httpx.Response(200, content=b'["dmsp"]')
        return _rucio(503, "")

    async with _client(httpx.MockTransport(answer)) as client:
        assert await client.scopes() == ["dmsp"]
        assert calls == ["GET", "GET"]
        with pytest.raises(errors.RucioDown):
            await client.add_rule(Did("dmsp", "a"), "SCRATCH", 60)
    assert calls == ["GET", "GET", "POST"]


async def test_a_refused_token_is_renewed_once() -> None:
    source = _Source()
    mock = httpx.MockTransport(lambda _: _rucio(401, "CannotAuthenticate"))
    async with RucioClient("http://rucio.test", "", "a", source, http=mock) as client:
        with pytest.raises(errors.Unauthorised):
            await client.scopes()
    assert source.invalidated == 1
    assert client.counters.calls == 2


async def test_redirects_are_not_followed_with_the_token() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(303, headers={"Location": "http://elsewhere.test/km3net-user"})

    async with _client(httpx.MockTransport(answer)) as client:
        assert await client.whoami() == "km3net-user"
        with pytest.raises(errors.LakeError):
            await client.scopes()
    assert all(url.startswith("http://rucio.test/") for url in seen)


async def test_a_stream_that_breaks_off_is_told_after_its_rows() -> None:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            yield b'{"scope": "dmsp", "name": "a", "bytes": 1}\n{"scope": "dmsp", "na'
            raise httpx.RemoteProtocolError("incomplete chunked read")

    async with _client(httpx.MockTransport(lambda _: httpx.Response(200, stream=Broken()))) as client:
        names: list[str] = []

        async def read() -> None:
            async for files in client.files(Did("dmsp", "ds")):
                names.extend(f.did.name for f in files)

        with pytest.raises(errors.CutOff):
            await read()
    assert names == ["a"]


@pytest.mark.parametrize("body", [b"not json\n", b"[1]\n", b'{"half": \n'])
async def test_nonsense_in_a_stream_is_cut_off(body: bytes) -> None:
    async with _client(httpx.MockTransport(lambda _: httpx.Response(200, content=body))) as client:
        with pytest.raises(errors.CutOff):
            async for _ in client.files(Did("dmsp", "ds")):
                pass


async def test_rows_split_anywhere_are_whole() -> None:
    text = b"".join(b'{"scope": "dmsp", "name": "n%d", "bytes": %d}\n' % (i, i) for i in range(50))

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            for start in range(0, len(text), 7):
                yield text[start : start + 7]

    async with _client(httpx.MockTransport(lambda _: httpx.Response(200, stream=Slow()))) as client:
        found = [f async for files in client.files(Did("dmsp", "ds")) for f in files]
    assert [f.bytes for f in found] == list(range(50))
    assert client.counters.received == len(text)


def test_dates_of_rucio() -> None:
    assert timestamp("Sun, 22 Nov 2026 19:25:00 UTC") == 1795375500.0
    assert timestamp("2026-11-22T19:25:00") == 1795375500.0
    assert timestamp(None) is None
    with pytest.raises(errors.CutOff):
        timestamp("yesterday")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"attempts": 2, "last_error": "RequestErrMsg.TRANSFER_FAILED:It is missing."}, "It is missing."),
        ({"attempts": 1, "last_error": "It is missing."}, "It is missing."),
        (
            {"attempts": 4, "last_error": "RequestState.FAILED", "last_source": "WEST"},
            "4 transfers failed, the last from WEST; the data lake does not say why.",
        ),
        ({"attempts": 1, "last_error": "RequestState.NO_SOURCES"}, "No site has a copy that can be read."),
        ({"attempts": 0, "last_error": "None"}, "No site has a copy that can be read."),
        (
            {"attempts": 0, "last_error": "None", "sources": [["WEST", True]]},
            "It is not on its way; the data lake does not say why.",
        ),
    ],
)
def test_a_file_that_does_not_arrive_has_a_reason_at_any_rucio(told: dict[str, object], reason: str) -> None:
    assert Failure.of({"scope": "a", "name": "b", **told}) == Failure(Did("a", "b"), reason)
    with pytest.raises(errors.CutOff):
        Failure.of({"scope": "a", **told})


def test_a_rule_that_met_another_one_is_to_be_waited_for() -> None:
    error = errors.from_answer(409, {"exceptionclass": "ReplicationRuleCreationTemporaryFailed"}, b"")
    assert (error.code, error.action, error.status) == ("changing", "wait", 503)
