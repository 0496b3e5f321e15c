"""HTTP to Rucio: the token, timeouts, retries of idempotent reads, streams, and counters.

Rucio takes a JWT straight in ``X-Rucio-Auth-Token`` and streams lists as ``application/x-json-stream`` (one
JSON document a line).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import httpx

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.lake.errors import (
    CutOff,
    RucioDown,
    RucioSlow,
    ServerFault,
    TooMany,
    Unauthorised,
    from_answer,
    make,
)
from jupyterhub_dmsp.lake.models import Counters, Row

log = logging.getLogger(__name__)
ATTEMPTS = 3
JSON_STREAM = "application/x-json-stream"
PATIENCE = 45.0
"""Seconds without a byte after which Rucio counts as too slow; less than browsers wait for their server."""
_INTRODUCTION = 15.0
_LONGEST_PAUSE = 10.0
_BATCH = 1000
_BATCH_EVERY = 0.1


class Secret(Protocol):
    """A value that does not show itself in logs."""

    def get_secret_value(self) -> str: ...


class BearerToken(Protocol):
    """A token with its secret text."""

    @property
    def access_token(self) -> Secret: ...


class TokenSource(Protocol):
    """Gives a token that is valid now, refreshing as needed."""

    async def get(self) -> BearerToken: ...


@runtime_checkable
class Renewable(Protocol):
    """A token source that can be told that its token was refused."""

    def invalidate(self) -> object: ...


class Transport:
    """One connection pool to a Rucio server, used by one account.

    Args:
        url: base URL of the Rucio server.
        tokens: where the token of each request comes from.
        timeout: seconds to wait for the next bytes of an answer.
        http: an httpx transport instead of the network (tests of error handling).
    """

    def __init__(
        self,
        url: str,
        tokens: TokenSource,
        timeout: float = PATIENCE,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.counters = Counters()
        self._tokens = tokens
        # Rucio stores a token that it sees for the first time. Two requests that bring the same new one at the same
        # moment collide there, and one is answered with 401: so the first request with a token goes alone.
        self._known_token = ""
        self._introduction = asyncio.Lock()
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, connect=5.0, pool=timeout),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=4.0),
            headers={"User-Agent": "jupyterhub-dmsp", "Accept-Encoding": "gzip"},
            transport=http,
            trust_env=urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def read(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """JSON of an idempotent GET, tried up to three times; raises :class:`LakeError`."""
        body = await self._retried("GET", path, params, None, "application/json")
        return _document(body)

    async def location(self, path: str) -> str:
        """Where a GET redirects to; redirects are never followed, they would carry the token along."""
        async with self._response("GET", path, None, None, "*/*", redirect=True) as response:
            return str(response.headers.get("location", ""))

    async def rows(self, path: str, params: Mapping[str, str] | None = None, body: object = None) -> list[Row]:
        """All rows of a short JSON stream (a POST that only reads, when a body is given)."""
        method = "GET" if body is None else "POST"
        raw = await self._retried(method, path, params, body, JSON_STREAM)
        return [_row(line) for line in raw.split(b"\n") if line.strip()]

    async def write(self, method: str, path: str, body: object, *, repeat: bool = False) -> Any:
        """Send a change; JSON of the answer, None when it has none.

        Args:
            repeat: the change may be made twice without harm: it is tried up to three times, else once.
        """
        send = self._retried if repeat else self._once
        raw = await send(method, path, None, body, "*/*")
        return _document(raw) if raw.strip().startswith((b"[", b"{")) else None

    async def batches(
        self, path: str, params: Mapping[str, str] | None = None, body: object = None
    ) -> AsyncIterator[list[Row]]:
        """Rows of a long JSON stream as they arrive, in lists; not repeated once the first has come.

        Raises:
            CutOff: the stream broke off; what came before has been yielded.
        """
        method = "GET" if body is None else "POST"
        async with self._response(method, path, params, body, JSON_STREAM) as response:
            rest, rows, told = b"", list[Row](), time.monotonic()
            try:
                async for chunk in response.aiter_bytes():
                    self.counters.received += len(chunk)
                    *lines, rest = (rest + chunk).split(b"\n")
                    rows += [_row(line) for line in lines if line.strip()]
                    # Rucio sends a chunk a row: rows are handed on by the thousand, or ten times a second.
                    if len(rows) >= _BATCH or (rows and time.monotonic() - told > _BATCH_EVERY):
                        yield rows
                        rows, told = [], time.monotonic()
            except httpx.TransportError:
                if rows:
                    yield rows
                raise
            if rest.strip():
                rows.append(_row(rest))
            if rows:
                yield rows

    async def _retried(
        self, method: str, path: str, params: Mapping[str, str] | None, body: object, accept: str
    ) -> bytes:
        for attempt in range(1, ATTEMPTS):
            try:
                return await self._once(method, path, params, body, accept)
            except (RucioDown, CutOff, TooMany, ServerFault) as error:
                log.info("Rucio: %s %s, attempt %d: %s", method, _pattern(path), attempt, error.reason)
                pause = 0.2 * 4 ** (attempt - 1) * random.uniform(0.7, 1.3)  # noqa: S311
                await asyncio.sleep(max(pause, min(error.retry_after, _LONGEST_PAUSE)))
        return await self._once(method, path, params, body, accept)

    async def _once(
        self, method: str, path: str, params: Mapping[str, str] | None, body: object, accept: str
    ) -> bytes:
        async with self._response(method, path, params, body, accept) as response:
            data = await response.aread()
            self.counters.received += len(data)
            return data

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: object,
        accept: str,
        *,
        redirect: bool = False,
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a request; once more with another token when Rucio does not accept the first.

        That may have expired on the way, or have met its own introduction. Who is refused so has changed nothing:
        writes are repeated too.
        """
        async with AsyncExitStack() as stack:
            ask = partial(self._answer, method, path, params, body, accept, redirect)
            try:
                response = await stack.enter_async_context(ask())
            except Unauthorised as error:
                log.info("Rucio: %s %s, token refused: %s", method, _pattern(path), error.reason)
                if isinstance(self._tokens, Renewable):
                    self._tokens.invalidate()
                await asyncio.sleep(0.2 * random.uniform(0.7, 1.3))  # noqa: S311
                response = await stack.enter_async_context(ask())
            yield response

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: object,
        accept: str,
        redirect: bool,
    ) -> AsyncIterator[httpx.Response]:
        token = (await self._tokens.get()).access_token.get_secret_value()
        headers = {"X-Rucio-Auth-Token": token, "Accept": accept, **tracing.headers()}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        self.counters.calls += 1
        self.counters.sent += len(content or b"")
        name = f"{method} {_pattern(path)}"
        self.counters.by_path[name] = self.counters.by_path.get(name, 0) + 1
        try:
            async with AsyncExitStack() as stack:
                alone = await stack.enter_async_context(AsyncExitStack())
                if token != self._known_token:
                    await self._wait_for_turn(alone)
                if token == self._known_token:
                    await alone.aclose()
                request = self._http.stream(
                    method, self.url + path, params=params, headers=headers, content=content
                )
                response = await stack.enter_async_context(request)
                if response.status_code >= (400 if redirect else 300):
                    raise from_answer(
                        response.status_code,
                        {k.lower(): v for k, v in response.headers.items()},
                        await response.aread(),
                    )
                self._known_token = token
                await alone.aclose()
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise make(RucioDown, type(error).__name__) from error
        except httpx.TimeoutException as error:
            raise make(RucioSlow, type(error).__name__) from error
        except (httpx.TransportError, httpx.DecodingError, httpx.StreamError) as error:
            raise make(CutOff, f"{type(error).__name__}: {error}") from error

    async def _wait_for_turn(self, alone: AsyncExitStack) -> None:
        """Go first with a new token, or after the one that does.

        Not for long: behind a Rucio that answers nothing, all who wait would time out one after the other.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INTRODUCTION):
                await alone.enter_async_context(self._introduction)


def _pattern(path: str) -> str:
    """A path without its identifiers, for counters and logs: /dids/*/*/files."""
    parts = path.strip("/").split("/")
    known = {
        "files",
        "dids",
        "meta",
        "rules",
        "locks",
        "analysis",
        "search",
        "parents",
        "datasets",
        "protocols",
    }
    return "/" + "/".join(part if i == 0 or part in known else "*" for i, part in enumerate(parts))


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise make(CutOff, "not JSON") from error


def _row(line: bytes) -> Row:
    row = _document(line)
    if not isinstance(row, dict):
        raise make(CutOff, "not a row")
    return row
