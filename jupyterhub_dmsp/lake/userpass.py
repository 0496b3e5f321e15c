"""Tokens for a service account that logs in to Rucio with a password (``GET /auth/userpass``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from jupyterhub_dmsp.lake.errors import CutOff, RucioDown, RucioSlow, from_answer, make
from jupyterhub_dmsp.lake.models import timestamp


@dataclass(frozen=True, slots=True)
class RucioToken:
    """A token that Rucio issued itself."""

    access_token: SecretStr
    expires_at: float


class UserPassSource:
    """A token source that logs in with a password and renews a minute before the end.

    Args:
        auth_url: Rucio's authentication server.
        account: the Rucio account.
        username: the identity's name.
        password: called at each login, so that the secret is read from its place and not kept.
    """

    def __init__(self, auth_url: str, account: str, username: str, password: Callable[[], str]) -> None:
        self._url = auth_url.rstrip("/") + "/auth/userpass"
        self._account, self._username, self._password = account, username, password
        self._token: RucioToken | None = None
        # Guards _token: one login at a time, the others wait for its result.
        self._lock = asyncio.Lock()

    def invalidate(self) -> None:
        """Log in anew at the next call."""
        self._token = None

    async def get(self) -> RucioToken:
        """A token with at least a minute left; raises :class:`LakeError`."""
        async with self._lock:
            if self._token is None or self._token.expires_at < time.time() + 60:
                self._token = await self._login()
            return self._token

    async def _login(self) -> RucioToken:
        headers = {
            "X-Rucio-Account": self._account,
            "X-Rucio-Username": self._username,
            "X-Rucio-Password": self._password(),
        }
        try:
            async with httpx.AsyncClient(timeout=httpx.Timeout(20.0, connect=5.0), trust_env=False) as http:
                answer = await http.get(self._url, headers=headers)
        except httpx.ConnectError as error:
            raise make(RucioDown, "login") from error
        except httpx.TimeoutException as error:
            raise make(RucioSlow, "login") from error
        except httpx.TransportError as error:
            raise make(CutOff, "login") from error
        if answer.status_code >= 300:
            lower = {k.lower(): v for k, v in answer.headers.items()}
            raise from_answer(answer.status_code, lower, answer.content)
        token = answer.headers.get("x-rucio-auth-token", "")
        expires = timestamp(answer.headers.get("x-rucio-auth-token-expires"))
        if not token:
            raise make(CutOff, "login without a token")
        return RucioToken(SecretStr(token), expires if expires is not None else time.time() + 3600)
