"""Login at the community's issuer, and tokens that stay fresh for as long as people work."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from oauthenticator.generic import GenericOAuthenticator
from tornado import web
from tornado.httpclient import HTTPClientError
from traitlets import Any as AnyTrait
from traitlets import Integer, List, Unicode, default

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub import keeping
from jupyterhub_dmsp.hub.admin import numbers
from jupyterhub_dmsp.hub.admin.page import ADMIN_HANDLERS
from jupyterhub_dmsp.hub.errors import IssuerDown, LoginAgain, unreachable
from jupyterhub_dmsp.hub.login import token
from jupyterhub_dmsp.identity import claims
from jupyterhub_dmsp.identity.tokens import CLOCK_TOLERANCE

REQUEST_TIMEOUT = 10.0
RECHECK = 15.0
"""Seconds in which one look at the issuer serves all of a user's requests."""


class DMSPAuthenticator(GenericOAuthenticator):
    """OIDC login with groups, refresh ahead of expiry, and exchange of tokens (RFC 8693).

    All that touches a user's refresh token happens under one lock for that user, with the stored state read and
    saved inside it: a refresh token that works once is used once, however many requests arrive at its expiry.
    """

    token_leeway = Integer(
        30,
        min=1,
        config=True,
        help="""Refresh when fewer seconds are left on an access token.

        For tokens that live shorter than twice that, half of their life. Default: 30.
        """,
    )
    exchange_audiences = List(
        Unicode(),
        config=True,
        help="""Audiences for which a user's server may obtain tokens. Default: none.""",
    )
    groups_claim = Unicode(
        "wlcg.groups",
        config=True,
        help="""Name of the claim that lists groups; dots in it do not nest. Default: ``wlcg.groups``.""",
    )
    provision = AnyTrait(
        None,
        allow_none=True,
        config=True,
        help="""Called at each login, and when the groups of a user changed.

        ``async def provision(username: str, claims: dict, groups: list[str]) -> None``. If it raises, the login is
        refused with its sentence. Default: None.
        """,
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._checked: dict[str, float] = {}
        self.tokens = token.TokenService(self)
        tracing.log_like(self.log)

    @default("auth_state_groups_key")
    def _default_groups_key(self) -> Any:
        # A string would be split at its dots, and the claim's name has one.
        return self.groups_of

    @default("http_request_kwargs")
    def _default_timeouts(self) -> dict[str, float]:
        return {"connect_timeout": REQUEST_TIMEOUT, "request_timeout": REQUEST_TIMEOUT}

    async def httpfetch(self, url: str, *args: Any, **kwargs: Any) -> Any:
        """Every question to the issuer carries the id of the request that it is asked for."""
        kwargs["headers"] = {**kwargs.get("headers", {}), **tracing.headers()}
        return await super().httpfetch(url, *args, **kwargs)

    def lock(self, username: str) -> asyncio.Lock:
        """The lock that guards this user's stored tokens."""
        return self._locks[username]

    def get_handlers(self, app: Any) -> list[Any]:
        """The login handlers, and the token endpoint."""
        keeping.begin()
        return [*super().get_handlers(app), (r"/api/dmsp/token", token.TokenHandler), *ADMIN_HANDLERS]

    def groups_of(self, auth_state: Mapping[str, Any]) -> list[str]:
        """Groups in what userinfo said; else in the access token, which came from the issuer itself."""
        found = auth_state[self.user_auth_state_key].get(self.groups_claim)
        if found is None:
            found = claims.read(auth_state["access_token"]).get(self.groups_claim, [])
        if isinstance(found, str):
            found = [found]
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            self.log.error("The claim %s is not a list of names: no groups", self.groups_claim)
            return []
        return found

    def build_auth_state_dict(self, token_info: dict[str, Any], user_info: dict[str, Any]) -> dict[str, Any]:
        """What is kept, encrypted, about a login: the stock state and absolute times."""
        now = int(time.time())
        token_info.setdefault("obtained_at", now)
        token_info.setdefault("expires_at", now + int(token_info.get("expires_in") or 0))
        state: dict[str, Any] = super().build_auth_state_dict(token_info, user_info)
        return state | {"obtained_at": token_info["obtained_at"], "expires_at": token_info["expires_at"]}

    def leeway(self, state: Mapping[str, Any]) -> float:
        """Seconds before expiry at which this token counts as old."""
        life = state.get("expires_at", 0) - state.get("obtained_at", 0)
        return min(float(self.token_leeway), life / 2)

    def is_fresh(self, state: Mapping[str, Any]) -> bool:
        """Whether the access token is good for longer than the leeway, and was not obtained in the future.

        The clock was set back then: whoever checks ``iat`` refuses the token.
        """
        now = time.time()
        if state.get("obtained_at", 0) > now + CLOCK_TOLERANCE:
            return False
        return bool(state.get("expires_at", 0) - now > self.leeway(state))

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> Any:
        """Stock login with sentences for what goes wrong, and one name for one person."""
        tracing.enter(handler.request.headers.get(tracing.HEADER) if hasattr(handler, "request") else None)
        try:
            model = await super().authenticate(handler, data, **kwargs)
        except Exception as error:
            if not unreachable(error):
                raise
            self.log.warning("Login failed: the issuer does not answer (%s)", type(error).__name__)
            raise web.HTTPError(503, str(IssuerDown())) from error
        known = handler.find_user(model["name"])
        before = await known.get_auth_state() if known else None
        now, then = (_subject(self, state) for state in (model["auth_state"], before))
        if then and now != then:
            self.log.error("Login refused: %s was another subject at the issuer before", model["name"])
            raise web.HTTPError(403, f"The name {model['name']} belongs to somebody else here.")
        return model

    async def run_post_auth_hook(self, handler: Any, auth_model: Any) -> Any:
        """After everything else has agreed: prepare what the user needs elsewhere."""
        model = await super().run_post_auth_hook(handler, auth_model)
        if model:
            state = model["auth_state"]
            try:
                await self._provision(model)
            except DmspError as error:
                self.log.warning("Login of %s refused: %s", model["name"], error)
                raise web.HTTPError(503, str(error)) from error
            except Exception as error:
                self.log.exception("Provisioning of %s failed", model["name"])
                raise web.HTTPError(503, "Your account could not be prepared; try again later.") from error
            state["provisioned_groups"] = model.get("groups") or []
            self.tokens.forget(model["name"])
        return model

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> Any:  # noqa: ARG002
        """Fresh tokens and groups, or False when the user must log in again.

        Returns True instead of a model unless groups or admin changed: everything else is saved here, inside the
        lock, and a model saved later by the caller could overwrite a newer token.
        """
        if not self.enable_auth_state:
            return True
        async with self.lock(user.name):
            state = await user.get_auth_state()
            if not state:
                return False
            recent = time.monotonic() - self._checked.get(user.name, -RECHECK) < RECHECK
            if recent and self.is_fresh(state):
                return True
            try:
                model = await self._renew(user, state)
            except LoginAgain:
                return False
            except IssuerDown:
                # A token that has not expired yet is as good as before.
                return state.get("expires_at", 0) > time.time()
            settled = await self._settle(user, state, model)
            # Only now: a renewal for the token endpoint has not looked at groups, and must not count as a look.
            self._checked[user.name] = time.monotonic()
            return settled

    async def fresh_state(self, user: Any) -> dict[str, Any]:
        """The stored state with an access token that is not about to expire. Call it inside the user's lock.

        Raises:
            LoginAgain: no token can be had for this login.
            IssuerDown: the issuer does not answer, and the token has expired.
        """
        state: dict[str, Any] | None = await user.get_auth_state()
        if not state:
            raise LoginAgain
        if self.is_fresh(state):
            return state
        try:
            model = await self._renew(user, state)
        except IssuerDown:
            if state.get("expires_at", 0) > time.time() + 1:
                return state
            raise
        renewed: dict[str, Any] = model["auth_state"]
        return renewed

    async def post_token(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """POST to the issuer's token endpoint as this client; see :mod:`jupyterhub_dmsp.identity.exchange`."""
        own = {} if self.basic_auth else {"client_id": self.client_id, "client_secret": self.client_secret}
        answer: dict[str, Any] = await self.get_token_info(None, {**parameters, **own})
        return answer

    async def _renew(self, user: Any, state: dict[str, Any]) -> dict[str, Any]:
        """The model of a user from the issuer, with a new token if the old one is about to expire; saved."""
        info = dict(state["token_response"])
        try:
            if not self.is_fresh(state):
                info = await self._refreshed(user.name, state)
            try:
                model = await self._token_to_auth_model(info)
            except HTTPClientError as error:
                # The issuer may have withdrawn a token before its time; a refresh tells.
                if unreachable(error) or info["access_token"] != state["access_token"]:
                    raise
                model = await self._token_to_auth_model(await self._refreshed(user.name, state))
        except (HTTPClientError, OSError, TimeoutError) as error:
            if unreachable(error):
                self.log.warning("No answer from the issuer for %s (%s)", user.name, type(error).__name__)
                raise IssuerDown from error
            self.log.warning("The issuer refuses %s: login required", user.name)
            raise LoginAgain from error
        found: dict[str, Any] = model["auth_state"]
        found["provisioned_groups"] = state.get("provisioned_groups", [])
        # First of all: the old refresh token may be worth nothing now.
        await user.save_auth_state(found)
        if not (self.allow_all or await self.check_allowed(user.name, model)):
            self.log.warning("%s may no longer use this hub", user.name)
            raise LoginAgain
        return dict(model)

    @numbers.refresh
    async def _refreshed(self, username: str, state: dict[str, Any]) -> dict[str, Any]:
        """Token response of the refresh grant (RFC 6749, 6)."""
        old = state.get("refresh_token")
        if not old:
            raise LoginAgain
        info: dict[str, Any] = await self.get_token_info(None, self.build_refresh_token_request_params(old))
        # An issuer that does not rotate may leave it out.
        info.setdefault("refresh_token", old)
        self.log.info("Refreshed the token of %s", username)
        return info

    async def _settle(self, user: Any, before: dict[str, Any], model: dict[str, Any]) -> Any:
        """What follows from what the issuer says now: groups, admin rights, provisioning."""
        groups = sorted(model.get("groups") or [])
        if groups != sorted(before.get("provisioned_groups", [])):
            self.tokens.forget(user.name)  # their claims are those of yesterday
            try:
                await self._provision(model)
            except Exception as error:  # noqa: BLE001 - whatever it was, the login stands and the next refresh tries again
                self.log.error("Provisioning of %s failed: %s", user.name, error)
            else:
                model["auth_state"]["provisioned_groups"] = groups
                await user.save_auth_state(model["auth_state"])
        changed = groups != sorted(group.name for group in user.groups) or (
            model["admin"] is not None and model["admin"] != user.admin
        )
        return model if changed else True

    async def _provision(self, model: dict[str, Any]) -> None:
        if self.provision is not None:
            found = model["auth_state"][self.user_auth_state_key]
            await self.provision(model["name"], dict(found), list(model.get("groups") or []))


def _subject(authenticator: DMSPAuthenticator, state: Mapping[str, Any] | None) -> str:
    """``sub`` of a stored or new login; empty when unknown."""
    return str((state or {}).get(authenticator.user_auth_state_key, {}).get("sub") or "")
