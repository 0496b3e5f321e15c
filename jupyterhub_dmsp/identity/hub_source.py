"""Tokens from the hub, for a user's session: ``GET /hub/api/dmsp/token?audience=…``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from pydantic import SecretStr

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.identity import claims
from jupyterhub_dmsp.identity.errors import (
    AudienceRefused,
    IdentityError,
    IssuerDown,
    NoSessionToken,
    TokenMalformed,
    TokenRefused,
    TokenWithheld,
    redact,
)
from jupyterhub_dmsp.identity.tokens import Token

# The session's own hub token. A module's variable and not the environment, which every kernel and terminal
# inherits: the launcher sets it before the server starts, and only code of this process reads it.
_session_token: SecretStr | None = None


def set_session_api_token(token: str | SecretStr) -> None:
    """Keep the hub API token of this process; the launcher of the session calls it once."""
    global _session_token
    text = token.get_secret_value() if isinstance(token, SecretStr) else token
    _session_token = SecretStr(text.strip()) if text.strip() else None


def session_api_token() -> SecretStr:
    """The hub API token of this process; raises :class:`NoSessionToken` when there is none."""
    if _session_token is None:
        raise NoSessionToken
    return _session_token


class HubTokenSource:
    """Asks the hub each time; wrap it in :class:`~jupyterhub_dmsp.identity.tokens.Refreshing`.

    Args:
        url: of the hub's token endpoint.
        api_token: the session's hub token, or what gives it (:func:`session_api_token`).
        audience: the service that tokens are wanted for, such as ``rucio``.
        timeout: seconds for a request.
        transport: another one, for tests.
    """

    def __init__(
        self,
        url: str,
        api_token: SecretStr | str | Callable[[], SecretStr],
        audience: str,
        *,
        timeout: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url, self._audience = url, audience
        if callable(api_token):
            self._api_token = api_token
        else:
            fixed = SecretStr(api_token) if isinstance(api_token, str) else api_token
            self._api_token = lambda: fixed
        self._timeout, self._transport = timeout, transport
        self._client: httpx.AsyncClient | None = None

    async def get(self) -> Token:
        """A token for the audience.

        Raises:
            IssuerDown: the hub does not answer, or not now.
            TokenRefused: the login is over.
            TokenWithheld: somebody else can enter this server.
            AudienceRefused: the hub gives no token for this audience.
            TokenMalformed: the hub answered something else.
            NoSessionToken: this process is not a session of a hub.
        """
        headers = {"Authorization": f"token {self._api_token().get_secret_value()}", **tracing.headers()}
        try:
            answer = await self._http().get(self._url, params={"audience": self._audience}, headers=headers)
        except httpx.TimeoutException as error:
            raise IssuerDown("The hub did not answer in time.") from error
        except httpx.HTTPError as error:
            raise IssuerDown("The hub cannot be reached.") from error
        except httpx.InvalidURL as error:
            raise IssuerDown("The address of the hub's token endpoint is not valid.") from error
        if answer.status_code != httpx.codes.OK:
            raise self._error(answer)
        return self._token(answer)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            # The hub is a neighbour: no proxy of the environment's. A redirect would be to a login page.
            self._client = httpx.AsyncClient(
                timeout=self._timeout, transport=self._transport, trust_env=False, follow_redirects=False
            )
        return self._client

    def _token(self, answer: httpx.Response) -> Token:
        body = _json(answer)
        text, end = body.get("access_token"), claims.number(body, "expires_at")
        if not isinstance(text, str) or end is None:
            raise TokenMalformed("The hub's answer holds no token.")
        return Token.of(text, end, str(body.get("audience") or self._audience))

    def _error(self, answer: httpx.Response) -> IdentityError:
        said = redact(str(_json(answer).get("message") or f"HTTP {answer.status_code}")).rstrip(".")
        if answer.status_code == 429 or answer.status_code >= 500:
            return IssuerDown(f"The hub cannot give a token now: {said}.")
        if answer.status_code in (400, 404):
            return AudienceRefused(f"The hub gives no token for {self._audience}: {said}.")
        if answer.headers.get("X-DMSP-Refusal") == "shared":
            return TokenWithheld(f"{said}.")
        return TokenRefused(f"The hub refused a token: {said}.")


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
