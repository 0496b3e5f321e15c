"""Login at the community's issuer, and tokens that stay fresh for as long as people work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyterhub import version_info
from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler
from tornado import web
from tornado.httpclient import HTTPClientError
from traitlets import Any as AnyTrait
from traitlets import Dict, Enum, Float, Integer, List, Unicode, default

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub import keeping
from jupyterhub_dmsp.hub.admin.page import ADMIN_HANDLERS
from jupyterhub_dmsp.hub.errors import IssuerDown, LoginAgain, oauth_error, unreachable
from jupyterhub_dmsp.hub.login import ending, token
from jupyterhub_dmsp.hub.login.discovery import Endpoints, discover
from jupyterhub_dmsp.hub.login.limits import RateLimit
from jupyterhub_dmsp.hub.metrics import numbers
from jupyterhub_dmsp.identity import claims, shapes
from jupyterhub_dmsp.identity.errors import TokenMalformed, redact
from jupyterhub_dmsp.identity.tokens import CLOCK_TOLERANCE
from jupyterhub_dmsp.settings import EGI_NAMESPACES

REQUEST_TIMEOUT = 10.0
RECHECK = 15.0
"""Seconds in which one look at the issuer serves all of a user's requests."""


class Callback(OAuthCallbackHandler):
    """Where the issuer sends the browser back to. Codes and states stand in the address: no log shows it."""

    def _request_summary(self) -> str:
        return f"{self.request.method} {self.request.path} ({self.request.remote_ip})"

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """As tornado does, without the address of what it did not expect."""
        if isinstance(value, web.HTTPError):
            super().log_exception(typ, value, tb)
        else:
            self.log.error("Uncaught exception %s", self._request_summary(), exc_info=(typ, value, tb))


class DMSPAuthenticator(GenericOAuthenticator):
    """OIDC login with groups, refresh ahead of expiry, and exchange of tokens (RFC 8693).

    All that touches a user's refresh token happens under one lock for that user, with the stored state read and
    saved inside it: a refresh token that works once is used once, however many requests arrive at its expiry.
    """

    login_service = Unicode(
        config=True,
        help="""What the login button calls the identity provider. Default: the name of its host.""",
    )
    logout_handler = ending.Logout
    callback_handler = Callback
    issuer = Unicode(
        "",
        config=True,
        help="""The OIDC issuer, exactly as it stands in ``iss``.

        Its endpoints are then found by discovery, unless they are set. Default: none, they have to be set.
        """,
    )
    discovery_file = Unicode(
        "dmsp_issuer.json",
        config=True,
        help="""Where the issuer's endpoints are remembered, for a start of the hub while the issuer is down.

        Relative to the hub's working directory, as its database. Default: ``dmsp_issuer.json``.
        """,
    )
    revocation_url = Unicode(
        config=True,
        help="""Where tokens are revoked (RFC 7009). Default: what the issuer's discovery document says.""",
    )
    claims_preset = Enum(
        shapes.PRESET_NAMES,
        "wlcg",
        config=True,
        help="""What the issuer's claims look like: ``iam``, ``wlcg``, ``keycloak``, ``egi`` or ``generic``.

        It decides how groups are read, and the defaults of ``username_claim`` and ``scope``. Default: ``wlcg``.
        """,
    )
    entitlement_namespaces = List(
        Unicode(),
        list(EGI_NAMESPACES),
        config=True,
        help="""Namespaces of entitlements (AARC-G069) that count as groups, with the preset ``egi``.

        Entitlements of any other are ignored: everybody may name groups in a namespace of their own.
        """,
    )
    revoke_at = List(
        Enum((ending.LOGOUT, ending.LAST_SERVER)),
        [ending.LOGOUT, ending.LAST_SERVER],
        config=True,
        help="""When a login's tokens are revoked at the issuer and forgotten here.

        ``logout``: when somebody logs out and has no server running. ``last-server``: when the last server of a
        user has stopped and none has started for ``revoke_delay`` seconds. Default: both.
        """,
    )
    revoke_delay = Float(
        300.0,
        min=0,
        config=True,
        help="""Seconds from the stop of a user's last server to the end of the login. Default: 300.""",
    )
    token_requests = Integer(
        120,
        min=0,
        config=True,
        help="""How often in a minute one user's servers may ask for tokens; 0: no limit. Default: 120.""",
    )
    exchange_scopes = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        config=True,
        help="""The scopes, separated by spaces, that are asked for an audience's tokens.

        For audiences that are not named here, or with an empty text: all that the login has. Default: none.
        """,
    )
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
        "",
        config=True,
        help="""Name of the claim that lists groups; dots in it do not nest. Default: what the preset reads.""",
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
        self._refused: dict[str, int] = {}
        self.tokens = token.TokenService(self)
        self.requests = RateLimit()
        self._endpoints: Endpoints | None = None
        self.endings = ending.Endings(self)
        tracing.log_like(self.log)

    @default("auth_state_groups_key")
    def _default_groups_key(self) -> Any:
        # A string would be split at its dots, and the claim's name has one.
        return self.groups_of

    @default("enable_auth_state")
    def _default_auth_state(self) -> bool:
        # Without it there is nothing to refresh or to exchange.
        return True

    @default("manage_groups")
    def _default_manage_groups(self) -> bool:
        return True

    @default("basic_auth")
    def _default_basic_auth(self) -> bool:
        # The one way that every issuer has to know (RFC 6749, 2.3.1).
        return True

    @default("auth_refresh_age")
    def _default_refresh_age(self) -> int:
        return 60

    @default("username_claim")
    def _default_username_claim(self) -> str:
        return shapes.PRESETS[self.claims_preset].username_claim

    @default("scope")
    def _default_scope(self) -> list[str]:
        return list(shapes.PRESETS[self.claims_preset].scopes)

    @default("authorize_url")
    def _default_authorize_url(self) -> str:
        return self._endpoint("authorization_endpoint")

    @default("token_url")
    def _default_token_url(self) -> str:
        return self._endpoint("token_endpoint")

    @default("userdata_url")
    def _default_userdata_url(self) -> str:
        return self._endpoint("userinfo_endpoint")

    @default("revocation_url")
    def _default_revocation_url(self) -> str:
        return self._endpoint("revocation_endpoint")

    @default("login_service")
    def _default_login_service(self) -> str:
        return urlsplit(self.issuer or self.authorize_url).hostname or "the identity provider"

    def _endpoint(self, name: str) -> str:
        if not self.issuer:
            return ""
        if self._endpoints is None:
            self._endpoints = discover(self.issuer, Path(self.discovery_file))
        return str(getattr(self._endpoints, name))

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
        # Asked now: an issuer that is not there stops the start, and not the first person who logs in.
        if not (self.authorize_url and self.token_url):
            raise DmspError("The authenticator knows no identity provider.", "Set c.DMSPAuthenticator.issuer.")
        keeping.begin()
        return [
            *super().get_handlers(app),
            (r"/api/dmsp/token", token.TokenHandler),
            (r"/dmsp/logged-in", ending.LoggedIn),
            *ADMIN_HANDLERS,
        ]

    def groups_of(self, auth_state: Mapping[str, Any]) -> list[str]:
        """Groups in what userinfo said, the id_token, or the access token: all three came from the issuer itself."""
        reading = shapes.Reading(self.client_id, self.groups_claim, tuple(self.entitlement_namespaces))
        return shapes.groups(self.claims_preset, self._said(auth_state), reading)

    def _said(self, auth_state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """What the issuer said of a user; opaque tokens say nothing."""
        found: list[Mapping[str, Any]] = [auth_state.get(self.user_auth_state_key) or {}]
        for name in ("id_token", "access_token"):
            with contextlib.suppress(TokenMalformed):
                found.append(claims.read(auth_state.get(name) or ""))
        return found

    def user_info_to_username(self, user_info: dict[str, Any]) -> str:
        """The user's name, or a sentence that does not repeat what is known of the person."""
        claim = self.username_claim
        name = claim(user_info) if callable(claim) else user_info.get(claim)
        if not isinstance(name, str) or not name:
            self.log.error("No name in the claim %s; userinfo has: %s", claim, ", ".join(sorted(user_info)))
            raise web.HTTPError(403, "The identity provider does not tell your user name.")
        return name

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
            if unreachable(error):
                self.log.warning("Login failed: the issuer does not answer (%s)", type(error).__name__)
                raise web.HTTPError(503, str(IssuerDown())) from error
            if not isinstance(error, HTTPClientError):
                raise
            said = redact(oauth_error(error, "error_description") or oauth_error(error) or str(error.code))
            self.log.warning("Login failed: the issuer refuses it (%s)", said)
            raise web.HTTPError(403, f"The identity provider refused the login: {said}.") from error
        known = handler.find_user(model["name"])
        before = await known.get_auth_state() if known else None
        now, then = (_subject(self, state) for state in (model["auth_state"], before))
        if then and now != then:
            self.log.error("Login refused: %s was another subject at the issuer before", model["name"])
            raise web.HTTPError(403, f"The name {model['name']} belongs to somebody else here.")
        return model

    def post_spawn_stop(self, user: Any, spawner: Any) -> None:
        """After a server has stopped: perhaps it was the user's last."""
        super().post_spawn_stop(user, spawner)
        self.endings.at_stop(user)

    async def delete_user(self, user: Any) -> None:
        """A user is deleted: their login ends."""
        super().delete_user(user)
        await self.endings.at_deletion(user)

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
            if not state or not state.get("access_token"):
                return _cannot_log_in(handler)
            recent = time.monotonic() - self._checked.get(user.name, -RECHECK) < RECHECK
            if recent and self.is_fresh(state):
                return True
            try:
                model = await self._renew(user, state)
            except LoginAgain:
                return _cannot_log_in(handler)
            except IssuerDown:
                # A token that has not expired yet is as good as before.
                return state.get("expires_at", 0) > time.time() or _cannot_log_in(handler)
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
        if not state or not state.get("access_token"):
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
        if not old or self._refused.get(username) == hash(old):
            raise LoginAgain
        try:
            info: dict[str, Any] = await self.get_token_info(None, self.build_refresh_token_request_params(old))
        except HTTPClientError as error:
            if oauth_error(error) == "invalid_grant":
                # For good (RFC 6749, 5.2): the issuer is not asked again with every page and every token.
                self._refused[username] = hash(old)
            raise
        # An issuer that does not rotate may leave it out.
        info.setdefault("refresh_token", old)
        if state.get("id_token"):
            info.setdefault("id_token", state["id_token"])
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


def _cannot_log_in(handler: Any) -> bool:
    """Whether a request whose user has no login any more goes on nevertheless.

    One with a token cannot be sent to the login page. JupyterHub 6 lets it go on by itself; 5 would take who asks for
    nobody, and a server could not even learn that its user has to log in.
    """
    return bool(version_info[0] < 6 and getattr(handler, "_token_authenticated", False))
