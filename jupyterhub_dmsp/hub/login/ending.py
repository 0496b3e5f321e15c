"""The end of a login: its refresh token is revoked at the issuer (RFC 7009), and what is stored is forgotten.

Cookies are not touched. Who still has the hub open in a browser is shown the login at the next page, which the
issuer's own session mostly answers without asking for a password.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol
from urllib.parse import urlencode

from jinja2 import TemplateNotFound
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.utils import url_path_join
from oauthenticator.oauth2 import OAuthLogoutHandler
from tornado import web
from tornado.httpclient import HTTPClientError

LOGOUT, LAST_SERVER = "logout", "last-server"


class Logout(OAuthLogoutHandler):
    """JupyterHub's logout, and the end of the login where nothing needs it any more."""

    async def handle_logout(self) -> None:
        await super().handle_logout()
        if self.current_user is not None:
            await self.authenticator.endings.at_logout(self.current_user)


class LoggedIn(BaseHandler):
    """Where a login that was renewed from a notebook ends: that tab has done its work."""

    @web.authenticated
    async def get(self) -> None:
        try:
            self.finish(await self.render_template("logged_in.html"))
        except TemplateNotFound:
            # A hub that uses our authenticator and not our pages.
            self.redirect(url_path_join(self.hub.base_url, "home"))


class Ends(Protocol):
    """What is needed of the authenticator."""

    log: Any
    tokens: Any
    revoke_at: list[str]
    revoke_delay: float
    revocation_url: str
    user_auth_state_key: str
    client_id: str
    client_secret: str
    basic_auth: bool
    validate_server_cert: bool

    def lock(self, username: str) -> Any:
        """Guards a user's stored tokens."""

    def build_token_info_request_headers(self) -> dict[str, str]:
        """Headers by which this client is known to the issuer."""

    async def httpfetch(self, url: str, **kwargs: Any) -> Any:
        """A request to the issuer."""


class Endings:
    """Ends logins that nothing needs any more."""

    def __init__(self, authenticator: Ends) -> None:
        self.authenticator = authenticator
        self._waiting: dict[str, asyncio.Task[None]] = {}

    async def at_logout(self, user: Any) -> None:
        """Servers that go on running need their tokens; then the last one's stop is the end."""
        if LOGOUT in self.authenticator.revoke_at:
            await self.end(user, "logout")

    def at_stop(self, user: Any) -> None:
        """Wait a little: a server that is started again at once is the same work."""
        if LAST_SERVER not in self.authenticator.revoke_at:
            return
        self._wait_no_more(user.name)
        self._waiting[user.name] = asyncio.create_task(self._later(user, user.name))

    async def at_deletion(self, user: Any) -> None:
        """The user is being deleted; somebody else may have the name in a moment."""
        self._wait_no_more(user.name)
        await self.end(user, "the user is deleted", gone=True)

    def _wait_no_more(self, name: str) -> None:
        earlier = self._waiting.pop(name, None)
        if earlier:
            earlier.cancel()

    async def _later(self, user: Any, name: str) -> None:
        try:
            await asyncio.sleep(self.authenticator.revoke_delay)
            await self.end(user, "the last server has stopped")
        except asyncio.CancelledError:
            raise
        except Exception:
            self.authenticator.log.exception("The login of %s could not be ended", name)
        finally:
            if self._waiting.get(name) is asyncio.current_task():
                del self._waiting[name]

    async def end(self, user: Any, why: str, *, gone: bool = False) -> bool:
        """Revoke and forget, unless a server of the user runs or starts; whether it was done.

        What stays is who the name belongs to: nobody else may log in under it later. With ``gone`` the user is
        being deleted, and nothing is written.
        """
        own = self.authenticator
        async with own.lock(user.name):
            if not gone and any(spawner.active for spawner in user.spawners.values()):
                return False
            state = await user.get_auth_state()
            if not state or not state.get("access_token"):
                return False
            if not gone:
                about = state.get(own.user_auth_state_key) or {}
                await user.save_auth_state({own.user_auth_state_key: {"sub": about.get("sub")}})
            own.tokens.forget(user.name)
            # Looked at again with the next page, not only when it is due: the login page must come before a form.
            user._auth_refreshed = None
            await self._revoke(user.name, state, why)
            return True

    async def _revoke(self, name: str, state: dict[str, Any], why: str) -> None:
        """At the issuer; when it does not work the token ends by itself, and nobody has it any more."""
        own = self.authenticator
        token, hint = state.get("refresh_token"), "refresh_token"
        if not token:
            token, hint = state["access_token"], "access_token"
        if not own.revocation_url:
            own.log.info("Forgot the login of %s: %s", name, why)
            return
        form = {"token": token, "token_type_hint": hint}
        if not own.basic_auth:
            form |= {"client_id": own.client_id, "client_secret": own.client_secret}
        try:
            await own.httpfetch(
                own.revocation_url,
                method="POST",
                headers=own.build_token_info_request_headers(),
                body=urlencode(form).encode(),
                parse_json=False,
                validate_cert=own.validate_server_cert,
            )
        except (HTTPClientError, OSError, TimeoutError) as error:
            what = f"HTTP {error.code}" if isinstance(error, HTTPClientError) else type(error).__name__
            own.log.warning("Forgot the login of %s (%s), but its revocation failed: %s", name, why, what)
        else:
            own.log.info("Revoked the login of %s: %s", name, why)
