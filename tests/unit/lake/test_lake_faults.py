"""What a transport does when Rucio is silent, busy or talks nonsense, and the id that its requests carry."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake import errors, transport
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.listing import ListingIndex


class _Source:
    """A token, or the error that there is none."""

    access_token = SecretStr("very-secret-token")
    error: DmspError | None = None

    async def get(self) -> _Source:
        if self.error:
            raise self.error
        return self


def _client(answer: httpx.MockTransport, source: _Source | None = None) -> RucioClient:
    return RucioClient("http://rucio.test", "", "a", source or _Source(), http=answer)


async def test_the_id_goes_along() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("X-Request-ID"))
        return httpx.Response(200, content=b'["dmsp"]')

    async with _client(httpx.MockTransport(answer)) as client:
        with tracing.use("request-1"):
            await client.scopes()
        with tracing.use(""):
            await client.scopes()
    assert seen == ["request-1", None]


async def test_nobody_waits_behind_a_first_request_that_is_not_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first request with a new token goes alone, but not for longer than a moment."""
    monkeypatch.setattr(transport, "_INTRODUCTION", 0.05)
    arrived, over = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        arrived.release()
        await over.wait()
        return httpx.Response(200, content=b"[]")

    async with _client(httpx.MockTransport(answer)) as client:
        tasks = [asyncio.create_task(client.scopes()) for _ in range(5)]
        async with asyncio.timeout(5):
            for _ in tasks:
                await arrived.acquire()
        over.set()
        assert await asyncio.gather(*tasks) == [[]] * 5


async def test_a_write_is_repeated_when_the_token_alone_was_refused() -> None:
    answers = [
        httpx.Response(401, headers={"ExceptionClass": "CannotAuthenticate"}),
        httpx.Response(201, content=b'["id"]'),
    ]
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        return answers.pop(0)

    async with _client(httpx.MockTransport(answer)) as client:
        assert await client.add_rule(Did("dmsp", "a"), "SCRATCH", 60) == "id"
    assert sent == ["POST", "POST"]


async def test_a_busy_rucio_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(transport.asyncio, "sleep", sleep)
    answers = [("3", 429), ("1000000", 429), ("", 200)]

    def answer(_: httpx.Request) -> httpx.Response:
        after, status = answers.pop(0)
        return httpx.Response(status, headers={"Retry-After": after} if after else {}, content=b"[]")

    async with _client(httpx.MockTransport(answer)) as client:
        assert await client.scopes() == []
    assert pauses == [3.0, 10.0]


NONSENSE = [b"\x80\x81", b"{}", b"[1]", b'{"id": 7}', b'"text"', b"null", b"<html>", b'{"type": "NOTHING"}']


@pytest.mark.parametrize("body", NONSENSE)
async def test_nonsense_is_cut_off_and_nothing_else(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 1)
    async with _client(httpx.MockTransport(lambda _: httpx.Response(200, content=body))) as client:

        async def files() -> None:
            async for _ in client.files(Did("dmsp", "a")):
                pass

        for ask in (client.rule("r"), client.did(Did("dmsp", "a")), client.whoami(), files()):
            with pytest.raises(errors.CutOff):
                await ask
        with pytest.raises(errors.CutOff):
            await client.add_rule(Did("dmsp", "a"), "SCRATCH", 60)


async def test_a_listing_without_a_token_says_so(tmp_path: Path) -> None:
    """Whatever keeps it from being read, who waits for its rows is told."""
    source = _Source()
    source.error = DmspError("No token.", "Log in.")
    async with _client(httpx.MockTransport(lambda _: httpx.Response(200, content=b"[]")), source) as client:
        index = ListingIndex(tmp_path, client, "SCRATCH")
        for parent in ("", "dmsp", "dmsp:a"):
            async with asyncio.timeout(10):
                with pytest.raises(DmspError, match="No token"):
                    await index.page(parent)
        source.error = None
        assert (await index.page("")).rows == []
        await index.close()


def test_a_refusal_is_one_line() -> None:
    error = errors.from_answer(
        400, {"exceptionclass": "InvalidObject", "exceptionmessage": "bad\n\n  words\n"}, b""
    )
    assert error.message == "The data lake refused the request: bad words."
