"""``GET /hub/api/dmsp/token?audience=…``: a short-lived token for a user's own server.

The server shows its hub token, which carries the scope for this and little more. The refresh token stays in the hub.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from logging import Logger
from typing import Any, Protocol

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.user import User
from tornado import web
from tornado.httpclient import HTTPClientError

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.errors import ClocksDiffer, IssuerDown, LoginAgain, Refused, oauth_error, unreachable
from jupyterhub_dmsp.hub.login import sharing
from jupyterhub_dmsp.hub.metrics import numbers
from jupyterhub_dmsp.identity import claims, exchange
from jupyterhub_dmsp.identity.errors import TokenMalformed
from jupyterhub_dmsp.identity.tokens import CLOCK_TOLERANCE, Token

SCOPE = "custom:dmsp:token"
"""Needed to ask; given to servers by ``Spawner.server_token_scopes``."""
REFUSAL = "X-DMSP-Refusal"
"""Header that tells a server why it is refused, where logging in again would not help."""
SKEW = 60.0
"""Seconds by which the issuer's clock may differ from ours before the log says so."""


@dataclass(frozen=True)
class Kept:
    """A token, when it came and the moment from which it counts as old, both in Unix time."""

    token: Token
    since: float
    old_at: float


class Logins(Protocol):
    """What is needed of the authenticator: its users' logins, and its way to the issuer."""

    token_leeway: int
    exchange_scopes: dict[str, str]
    log: Logger

    def lock(self, username: str) -> AbstractAsyncContextManager[Any]:
        """Guards a user's stored tokens."""

    async def fresh_state(self, user: Any) -> dict[str, Any]:
        """The stored tokens, the access token not about to expire.

        Raises:
            LoginAgain: no token can be had for this login.
            IssuerDown: the issuer does not answer.
        """

    async def post_token(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """POST to the issuer's token endpoint."""


class TokenService:
    """Tokens for other audiences, kept until shortly before they expire.

    Requests for the same user wait for one another, so one exchange serves all that arrived meanwhile.
    """

    def __init__(self, authenticator: Logins) -> None:
        self.authenticator = authenticator
        self._kept: dict[tuple[str, str], Kept] = {}

    def forget(self, username: str) -> None:
        """Drop what is kept for a user, such as after a new login with other groups."""
        for key in [key for key in self._kept if key[0] == username]:
            del self._kept[key]

    async def get(self, user: Any, audience: str) -> tuple[Token, bool]:
        """A token for ``audience``, and whether it was exchanged just now.

        Raises:
            LoginAgain, IssuerDown: see :meth:`Logins.fresh_state`.
            DmspError: the issuer refuses the exchange, or what it gives is over already by our clock.
        """
        kept = self._young(user.name, audience)
        if kept:
            return kept, False
        async with self.authenticator.lock(user.name):
            kept = self._young(user.name, audience)
            if kept:
                return kept, False
            return await self._exchange(user, audience)

    def _young(self, username: str, audience: str) -> Token | None:
        kept = self._kept.get((username, audience))
        # One that came in the future: the clock was set back, and whoever checks `iat` refuses it.
        return kept.token if kept and kept.since - CLOCK_TOLERANCE <= time.time() < kept.old_at else None

    @numbers.exchange
    async def _exchange(self, user: Any, audience: str) -> tuple[Token, bool]:
        try:
            state = await self.authenticator.fresh_state(user)
            scope = self.authenticator.exchange_scopes.get(audience) or None
            form = exchange.parameters(state["access_token"], audience, scope)
            answer = await self.authenticator.post_token(form)
        except (IssuerDown, HTTPClientError, OSError, TimeoutError) as error:
            if isinstance(error, IssuerDown) or unreachable(error):
                return self._last_resort(user.name, audience, error), False
            if isinstance(error, HTTPClientError) and oauth_error(error) in (
                "invalid_grant",
                "invalid_request",
            ):
                # RFC 8693, 2.2.2: the subject token is not good any more, such as after a revocation.
                raise LoginAgain from error
            raise Refused(audience) from error
        token = exchange.token_from_response(answer, audience)
        now = time.time()
        life = token.expires_at - now
        self._compare_clocks(token, now)
        old_at = token.expires_at - min(float(self.authenticator.token_leeway), life / 2)
        self._kept[user.name, audience] = Kept(token, now, old_at)
        return token, True

    def _compare_clocks(self, token: Token, now: float) -> None:
        """Say when the issuer's clock and ours differ; raises :class:`ClocksDiffer` when that spoils the token."""
        try:
            issued = claims.number(claims.read(token.access_token), "iat")
        except TokenMalformed:
            issued = None  # An opaque token does not tell.
        ahead = now - issued if issued is not None else 0.0
        if abs(ahead) > SKEW:
            self.authenticator.log.warning("Our clock is %.0f s ahead of the issuer's", ahead)
        if token.expires_at <= now:
            raise ClocksDiffer(ahead)

    def _last_resort(self, username: str, audience: str, error: Exception) -> Token:
        """While the issuer is away, a token that is old but not expired is still good."""
        kept = self._kept.get((username, audience))
        if kept and kept.token.expires_at > time.time() + 1:
            return kept.token
        raise IssuerDown from error


class _Refusal(web.HTTPError):
    """An error with headers, which JupyterHub's handlers send along."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str]) -> None:
        super().__init__(status, sentence)
        self.headers = headers


class TokenHandler(APIHandler):
    """200 ``{"access_token", "expires_at", "audience"}``; errors as JupyterHub's API says them.

    400 audience not offered · 403 not a server's token, or a shared server · 409 log in again · 429 too often ·
    503 the issuer does not answer.
    """

    def set_default_headers(self) -> None:
        """Nothing of this is ever kept by a cache, refusals included; all of it has the request's id."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        if tracing.current():
            self.set_header(tracing.HEADER, tracing.current())

    async def prepare(self) -> None:
        """Take up the id that the session's request has."""
        self.set_header(tracing.HEADER, tracing.enter(self.request.headers.get(tracing.HEADER)))
        await super().prepare()

    def on_finish(self) -> None:
        """Count the answer."""
        super().on_finish()
        numbers.answered(self.get_status())

    async def get(self) -> None:
        """Answer with a token for the audience asked."""
        user, server = self._asker()
        self._may_have_more(user.name)
        audience = self.get_query_argument("audience", "")
        if audience not in self.authenticator.exchange_audiences:
            raise web.HTTPError(400, "This audience is not offered here; ask for one of identity.audiences.")
        self._is_alone(user, server, audience)
        started = time.monotonic()
        try:
            token, exchanged = await self.authenticator.tokens.get(user, audience)
        except LoginAgain as error:
            raise self._refusal(409, user.name, audience, error) from error
        except IssuerDown as error:
            raise self._refusal(503, user.name, audience, error) from error
        except DmspError as error:
            raise self._refusal(502, user.name, audience, error) from error
        self.log.info(
            "token: user=%s audience=%s %s left=%ds in %.0f ms server=%s",
            user.name,
            audience,
            "exchanged" if exchanged else "kept",
            token.expires_at - time.time(),
            (time.monotonic() - started) * 1000,
            server or "(default)",
        )
        answer = {"access_token": token.reveal(), "expires_at": token.expires_at, "audience": audience}
        self.finish(json.dumps(answer))

    def _asker(self) -> tuple[User, str]:
        """The user whose server asks, and the server's name; anybody and anything else is refused.

        ``@needs_scope`` would fail here: custom scopes are not defined yet when this module is imported.
        """
        user = self.current_user
        if not getattr(self, "_token_authenticated", False) or not isinstance(user, User):
            raise web.HTTPError(403, "Only a user's own server may ask for tokens.")
        if SCOPE not in self.parsed_scopes:
            raise web.HTTPError(403, f"The scope {SCOPE} is missing.")
        mine = f"access:servers!server={user.name}/"
        servers = [scope.removeprefix(mine) for scope in self.get_token().scopes if scope.startswith(mine)]
        if len(servers) != 1:
            raise web.HTTPError(403, "Only a user's own server may ask for tokens.")
        return user, servers[0]

    def _may_have_more(self, username: str) -> None:
        """429 to who asks too often; kept tokens are cheap, and still a loop somewhere must not occupy the hub."""
        wait = self.authenticator.requests.wait(username, self.authenticator.token_requests)
        if wait > 0:
            raise _Refusal(
                429,
                "Your servers ask for tokens too often. Try again in a moment.",
                {"Retry-After": str(math.ceil(wait))},
            )

    def _is_alone(self, user: User, server: str, audience: str) -> None:
        """403 while somebody else can enter the server: whatever it holds would be theirs too."""
        why = sharing.shared(self.db, user.orm_user, server)
        if why:
            self.log.warning("token: user=%s audience=%s refused 403: the server %s", user.name, audience, why)
            said = f"This server {why}, so it gets no tokens of yours. End that to go on."
            raise _Refusal(403, said, {REFUSAL: "shared"})

    def _refusal(self, status: int, username: str, audience: str, error: DmspError) -> web.HTTPError:
        self.log.warning("token: user=%s audience=%s refused %d: %s", username, audience, status, error.message)
        return web.HTTPError(status, str(error))
