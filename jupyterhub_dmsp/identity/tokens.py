"""Access tokens: what they are here, where they come from, how they stay fresh.

A :class:`TokenSource` gives a token that can be used now. Sources that fetch (hub, file, command) are plain;
:class:`Refreshing` wraps any of them and does the caching, for one fetch at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from jupyterhub_dmsp.identity import claims
from jupyterhub_dmsp.identity.errors import (
    IdentityError,
    TokenCommandFailed,
    TokenExpired,
    TokenMalformed,
    TokenMissing,
    redact,
)

log = logging.getLogger(__name__)
MAX_BYTES = 64 * 1024
CLOCK_TOLERANCE = 5.0
"""Seconds by which the clock may be set back without a word: NTP does it all the time."""
RETRY = 5.0
"""Seconds for which a failed refresh is not tried again while the old token can still be used."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and when it ends.

    Attributes:
        access_token: hidden in ``repr``, logs and tracebacks.
        expires_at: epoch seconds.
        audience: the service that it is for.
    """

    access_token: SecretStr
    expires_at: float
    audience: str

    @classmethod
    def of(cls, text: str, expires_at: float, audience: str) -> Token:
        """A token from its text.

        Raises:
            TokenMalformed: the text is empty, or holds what cannot stand in a header (RFC 6750 section 2.1).
        """
        text = text.strip()
        if not text:
            raise TokenMalformed("The token is empty.")
        if len(text) > MAX_BYTES or not text.isascii() or not text.isprintable() or " " in text:
            raise TokenMalformed("The token holds characters that no token has.")
        return cls(SecretStr(text), expires_at, audience)

    @classmethod
    def from_jwt(cls, text: str, audience: str) -> Token:
        """A token whose end is read from itself; raises :class:`TokenMalformed` when it names none."""
        expires_at = claims.expiry(claims.read(text))
        if expires_at is None:
            raise TokenMalformed("The token does not say when it expires.")
        return cls.of(text, expires_at, audience)

    def reveal(self) -> str:
        """The token itself, for a header or a file, never for a log."""
        return self.access_token.get_secret_value()

    def headers(self) -> dict[str, str]:
        """``Authorization`` for a request (RFC 6750)."""
        return {"Authorization": f"Bearer {self.reveal()}"}

    def seconds_left(self, now: float | None = None) -> float:
        """Seconds until the end by the wall clock; negative when it is over."""
        return self.expires_at - (time.time() if now is None else now)


class TokenSource(Protocol):
    """Anything that gives a token for one audience."""

    async def get(self) -> Token:
        """A token that can be used now; raises :class:`IdentityError` when there is none to be had."""
        ...


def write_bearer_file(path: Path, token: Token) -> None:
    """Write a token where WLCG Bearer Token Discovery finds it (``BEARER_TOKEN_FILE``), 0600 and atomically.

    Readers see the old token or the new one, never half of one. No newline at the end: some readers do not strip.
    Blocking, but for one small file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(token.reveal())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


class FileTokenSource:
    """A token that somebody else keeps fresh in a file, such as a service's or an agent's.

    Args:
        path: the file; one JWT.
        audience: what the token is said to be for.
    """

    def __init__(self, path: Path, audience: str) -> None:
        self._path, self._audience = path, audience

    async def get(self) -> Token:
        """Read it now.

        Raises:
            TokenMissing: there is no such file, or it is empty.
            TokenMalformed: it is not a JWT with an end.
            TokenExpired: nobody kept it fresh.
        """
        try:
            text = await asyncio.to_thread(self._read)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise TokenMissing(f"The token file {self._path.name} cannot be read: {reason}.") from None
        if not text.strip():
            raise TokenMissing(f"The token file {self._path.name} is empty.")
        return _alive(Token.from_jwt(text, self._audience), f"the file {self._path.name}")

    def _read(self) -> str:
        with self._path.open(encoding="ascii") as stream:
            return stream.read(MAX_BYTES)


class CommandTokenSource:
    """A token that a command prints, such as ``oidc-token <account>``.

    Args:
        argv: the command and its arguments; no shell.
        audience: what the token is said to be for.
        timeout: seconds after which the command is ended.
    """

    def __init__(self, argv: Sequence[str], audience: str, timeout: float = 30.0) -> None:
        self._argv, self._audience, self._timeout = list(argv), audience, timeout

    async def get(self) -> Token:
        """Run the command.

        Raises:
            TokenCommandFailed: it is not there, failed or took too long.
            TokenMalformed: it printed something else than a JWT with an end.
            TokenExpired: it printed one that is over.
        """
        name = Path(self._argv[0]).name
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise TokenCommandFailed(f"The token command {name} cannot run: {error.strerror}.") from error
        try:
            async with asyncio.timeout(self._timeout):
                output, complaint = await process.communicate()
        except TimeoutError:
            raise TokenCommandFailed(f"The token command {name} took over {self._timeout:g} s.") from None
        finally:
            # Also when the caller was cancelled: leave no process behind, nor its children.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                await process.wait()
        if process.returncode != 0:
            reason = redact(complaint.decode("utf-8", "replace")) or f"exit code {process.returncode}"
            raise TokenCommandFailed(f"The token command {name} failed: {reason.rstrip('.')}.")
        text = output[:MAX_BYTES].decode("ascii", "replace")
        return _alive(Token.from_jwt(text, self._audience), f"the command {name}")


def _alive(token: Token, giver: str) -> Token:
    if token.seconds_left() <= 0:
        raise TokenExpired(f"The token from {giver} is expired.")
    return token


@dataclass(slots=True)
class _Cached:
    """A token with its end by both clocks.

    The wall clock may be set; the monotonic one stands still while a machine sleeps. A token is good for as
    long as *both* say so.
    """

    token: Token
    lifetime: float
    end: float
    offset: float

    def left(self, wall: float, monotonic: float) -> float:
        return min(self.token.expires_at - wall, self.end - monotonic)

    def is_of_the_future(self, wall: float, monotonic: float) -> bool:
        """The wall clock was set back since: whoever checks ``iat`` refuses the token."""
        return wall - monotonic < self.offset - CLOCK_TOLERANCE


class Refreshing:
    """Caches a source's token until `leeway` seconds before its end; one fetch at a time, whoever asks.

    - Of a token that lives shorter than the leeway, half its life is used: it is not fetched for every call.
    - A caller that is cancelled does not cancel the fetch for the others.
    - When a fetch fails and the old token is still good, the old one is given, the failure is logged, and it is
      tried again after :data:`RETRY` seconds. When the old one is over, the failure is raised.

    Args:
        source: where tokens come from.
        leeway: seconds before the end.
        wall, monotonic: clocks, for tests.
    """

    def __init__(
        self,
        source: TokenSource,
        leeway: float = 30.0,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._leeway = source, leeway
        self._wall, self._monotonic = wall, monotonic
        self._cached: _Cached | None = None
        self._flight: asyncio.Task[Token] | None = None
        self._not_before = 0.0

    async def get(self) -> Token:
        """The cached token, or a new one; raises :class:`IdentityError`."""
        cached = self._cached
        if cached is not None and self._fresh(cached):
            return cached.token
        if cached is not None and self._left(cached) > 0 and self._monotonic() < self._not_before:
            return cached.token
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch(), name="token-refresh")
            self._flight.add_done_callback(self._landed)
        try:
            return await asyncio.shield(self._flight)
        except IdentityError as error:
            # Looked at again: invalidate() may have been called meanwhile.
            cached = self._cached
            if cached is None or self._left(cached) <= 0:
                raise
            log.warning("No new token, the old one is used for %.0f s more: %s", self._left(cached), error)
            return cached.token

    def invalidate(self) -> None:
        """Forget the token, because whom it was shown to refused it."""
        self._cached = None

    def _left(self, cached: _Cached) -> float:
        return cached.left(self._wall(), self._monotonic())

    def _fresh(self, cached: _Cached) -> bool:
        if cached.is_of_the_future(self._wall(), self._monotonic()):
            return False
        return self._left(cached) > min(self._leeway, cached.lifetime / 2)

    async def _fetch(self) -> Token:
        try:
            token = await self._source.get()
        except IdentityError:
            self._not_before = self._monotonic() + RETRY
            raise
        # After the answer: it may have taken long.
        left = token.seconds_left(self._wall())
        with contextlib.suppress(TokenMalformed):
            # Our clock may be behind: nothing lives longer than from iat to exp. Opaque tokens do not tell.
            left = min(left, claims.lifetime(claims.read(token.access_token)) or left)
        if left <= 0:
            self._not_before = self._monotonic() + RETRY
            raise TokenExpired("The token that came is expired already.")
        now = self._monotonic()
        self._cached = _Cached(token, left, now + left, self._wall() - now)
        return token

    def _landed(self, flight: asyncio.Task[Token]) -> None:
        self._flight = None
        if not flight.cancelled():
            # Mark a failure as seen, also when every caller was cancelled.
            flight.exception()
