"""The pages that people see: login, device, logout, and errors of one sentence. They work without JavaScript."""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from authlib.oauth2 import OAuth2Error
from tornado import web

from jupyterhub_dmsp.box.issuer import accounts
from jupyterhub_dmsp.box.issuer.accounts import Account
from jupyterhub_dmsp.box.issuer.authorize import BadRequest, LoginNeeded, authorize, logged_in
from jupyterhub_dmsp.box.issuer.endpoints import normal_user_code
from jupyterhub_dmsp.box.issuer.keys import new_token
from jupyterhub_dmsp.box.issuer.limiter import Limiter
from jupyterhub_dmsp.box.issuer.protocol import Core, Incoming
from jupyterhub_dmsp.box.issuer.store import Device, Session
from jupyterhub_dmsp.box.issuer.web import SESSION_COOKIE, XSRF_COOKIE, Base

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).with_name("templates")
WRONG = "The user name or the password is wrong."
LOGOUT_FIELDS = ("id_token_hint", "client_id", "post_logout_redirect_uri", "state", "logout_hint")
SENTENCES = {
    400: "The request is not valid.",
    403: "This form is out of date or was sent from another site: go back, reload the page and try again.",
    404: "There is no such page here.",
    405: "This page cannot be used in that way.",
    429: "Too many requests: wait a minute and try again.",
}


def cookie_options(config: Any) -> dict[str, Any]:
    """How every cookie of ours is limited: to the issuer's path, unseen by scripts, not sent from other sites."""
    return {"path": config.base_path or "/", "httponly": True, "samesite": "Lax", "secure": config.secure}


class Page(Base):
    """A page: HTML, and forms only from ourselves."""

    def get_template_path(self) -> str:
        return str(TEMPLATES)

    def get_template_namespace(self) -> dict[str, Any]:
        config = self.config
        return super().get_template_namespace() | {
            "base": config.base_path,
            "site_name": config.site_name,
            "support": config.support,
        }

    def check_xsrf_cookie(self) -> None:
        """The double-submit cookie, and the Origin: cookies do not tell ports apart, so another server on
        this host (a notebook's, say) could plant a cookie of its own."""
        super().check_xsrf_cookie()
        origin = self.request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.request.host:
            raise web.HTTPError(403)

    def message(self, status: int, heading: str, message: str, link: str = "", link_text: str = "") -> None:
        self.set_status(status)
        self.render(
            "message.html",
            heading=heading,
            message=message,
            alert=status >= 400,
            link=link,
            link_text=link_text,
        )

    def write_error(self, status_code: int, **_: Any) -> None:
        fallback = "Something went wrong here; the log of the issuer has the details."
        self.message(status_code, "This did not work", SENTENCES.get(status_code, fallback))

    def need_login(self, path: str, parameters: dict[str, list[str]]) -> None:
        """Send the browser to the login page, to come back to `path`."""
        query = urlencode(parameters, doseq=True)
        target = f"{self.config.base_path}{path}" + (f"?{query}" if query else "")
        self.redirect(f"{self.config.base_path}/login?{urlencode({'next': target})}", status=303)

    def safe_next(self, target: str) -> str:
        """Where to go after the login: only to pages of ours that need one."""
        base = self.config.base_path
        allowed = target.startswith(f"{base}/authorize?") or target.split("?")[0] == f"{base}/device"
        return target if allowed and target.isprintable() else f"{base}/"


class Authorize(Page):
    """RFC 6749 section 3.1."""

    def check_xsrf_cookie(self) -> None:
        """A client may POST here (OpenID Connect Core 3.1.2.1); the answer goes to a registered address only."""

    async def get(self) -> None:
        incoming = self.incoming()
        try:
            reply = await self.worker.run(authorize, incoming)
        except BadRequest as error:
            self.message(400, "This did not work", str(error))
        except LoginNeeded:
            # Without `prompt`, or a prompt=login would ask for ever.
            self.need_login("/authorize", {k: v for k, v in incoming.query.items() if k != "prompt"})
        else:
            self.redirect(str(reply.location), status=303)

    def post(self) -> None:
        query = urlencode(dict(self.incoming().body), doseq=True)
        self.redirect(f"{self.config.base_path}/authorize?{query}", status=303)


class Login(Page):
    def get(self) -> None:
        self._form(self.get_query_argument("next", ""), "")

    async def post(self) -> None:
        name = self.get_body_argument("username", "").strip().lower()[:64]
        # As typed: tornado would strip spaces, which may belong to a password.
        password = self.get_body_argument("password", "", strip=False)[:256]
        target = self.get_body_argument("next", "")
        wait = self._wait(name)
        if wait > 0:
            seconds = math.ceil(wait)
            self.set_header("Retry-After", str(seconds))
            log.warning("Login of %r from %s: too many attempts.", name, self.request.remote_ip)
            message = f"Too many attempts: wait {seconds} second{'' if seconds == 1 else 's'} and try again."
            self._form(target, name, message, 429)
            return
        account = await self._check(name, password)
        if account is None:
            log.warning("Login of %r from %s: refused.", name, self.request.remote_ip)
            self._form(target, name, WRONG, 403)
            return
        for limiter, key in self._limits(name):
            limiter.refund(key)
        log.info("Login of %r from %s.", name, self.request.remote_ip)
        await self._start_session(account)
        self.redirect(self.safe_next(target), status=303)

    def _limits(self, name: str) -> list[tuple[Limiter, Any]]:
        pair, user, address = self.settings["login_limiters"]
        ip = self.request.remote_ip
        return [(pair, (name, ip)), (user, name), (address, ip)]

    def _wait(self, name: str) -> float:
        """Seconds to wait; counts the attempt when there is nothing to wait for."""
        limits = self._limits(name)
        wait = max(limiter.wait(key) for limiter, key in limits)
        if wait <= 0:
            for limiter, key in limits:
                limiter.hit(key)
        return wait

    async def _check(self, name: str, password: str) -> Account | None:
        """The account if the password is right. An unknown user costs the same time as a known one."""
        account = await self.worker.run(lambda core: core.users.by_name(name))
        expected = account.password_hash if account else self.settings["decoy_hash"]
        right = await asyncio.get_running_loop().run_in_executor(
            self.settings["hashing"], accounts.verify, expected, password
        )
        return account if right else None

    async def _start_session(self, account: Account) -> None:
        """A new session under a new id: one that was planted before the login is worth nothing."""
        token, before = new_token(), self.get_cookie(SESSION_COOKIE)

        def step(core: Core) -> None:
            if before:
                core.store.end_session(before)
            core.store.add_session(token, account.sub, core.lifetimes.session)

        await self.worker.run(step)
        self.set_cookie(SESSION_COOKIE, token, expires_days=None, **cookie_options(self.config))

    def _form(self, target: str, username: str, error: str = "", status: int = 200) -> None:
        self.set_status(status)
        self.render("login.html", next=self.safe_next(target), username=username, error=error)


class Home(Page):
    """For those who come to the issuer's own address."""

    async def get(self) -> None:
        who = await self.worker.run(logged_in, self.incoming())
        base = self.config.base_path
        if who is None:
            self.message(200, "Logged out", "You are not logged in.", f"{base}/login", "Log in")
        else:
            text = f"You are logged in as {who[1].full_name} ({who[1].name})."
            self.message(200, "Logged in", text, f"{base}/logout", "Log out")


class DevicePage(Page):
    """RFC 8628 section 3.3: the user types or confirms the code that the device shows."""

    async def get(self) -> None:
        incoming = self.incoming()
        who = await self.worker.run(logged_in, incoming)
        if who is None:
            self.need_login("/device", dict(incoming.query))
            return
        self._form(who[1], self.get_query_argument("user_code", ""))

    async def post(self) -> None:
        incoming = self.incoming()
        who = await self.worker.run(logged_in, incoming)
        typed, decision = self.get_body_argument("user_code", ""), self.get_body_argument("decision", "")
        if who is None:
            self.need_login("/device", {"user_code": [typed]})
            return
        limiter: Limiter = self.settings["code_limiter"]
        wait = max(limiter.wait(who[1].sub), limiter.wait(self.request.remote_ip))
        if wait > 0:
            self.set_header("Retry-After", str(math.ceil(wait)))
            self._form(who[1], typed, f"Too many attempts: wait {math.ceil(wait)} seconds and try again.", 429)
            return
        for key in (who[1].sub, self.request.remote_ip):
            limiter.hit(key)
        if decision not in ("approved", "denied"):
            raise web.HTTPError(400)
        device = await self.worker.run(_decide, normal_user_code(typed), decision, who[0])
        if device is None:
            self._form(
                who[1], typed, "This code is unknown, expired or was used: check it, or start again.", 404
            )
            return
        title = next(
            (c.title or c.id for c in self.config.clients if c.id == device.client_id), device.client_id
        )
        if decision == "denied":
            self.message(200, "Refused", f"{title} was refused. You can close this page.")
        else:
            self.message(200, "Connected", f"{title} is connected. You can close this page.")

    def _form(self, account: Account, user_code: str, error: str = "", status: int = 200) -> None:
        self.set_status(status)
        self.render("device.html", account=account, user_code=user_code[:20], error=error)


def _decide(core: Core, user_code: str, decision: str, session: Session) -> Device | None:
    device = core.store.waiting_device(user_code)
    if device is not None:
        core.store.decide_device(device, decision, session)
    return device


class Logout(Page):
    """RP-initiated logout: at once with an id_token of the session's user, otherwise after a question."""

    async def get(self) -> None:
        await self._logout(asked=False)

    async def post(self) -> None:
        await self._logout(asked=True)

    async def _logout(self, *, asked: bool) -> None:
        incoming = self.incoming()
        try:
            location, account, done = await self.worker.run(_end_session, incoming, asked)
        except OAuth2Error:
            self.message(
                400, "This did not work", "The application that sent you here gave a token that is not ours."
            )
            return
        if not done:
            values = {**incoming.query, **incoming.body}
            fields = [(name, values[name][-1]) for name in LOGOUT_FIELDS if values.get(name)]
            self.render("logout.html", account=account, fields=fields)
            return
        self.clear_cookie(SESSION_COOKIE, **cookie_options(self.config))
        if location:
            self.redirect(location, status=303)
        else:
            self.message(200, "Logged out", "You are logged out.", f"{self.config.base_path}/login", "Log in")


def _end_session(core: Core, incoming: Incoming, asked: bool) -> tuple[str | None, Account | None, bool]:
    """Where to go, whose session it was, and whether it was ended."""
    request = core.validate_endpoint_request("end_session", incoming)
    who = logged_in(core, incoming)
    hinted = (request.id_token_claims or {}).get("sub")
    if not asked and who is not None and hinted != who[1].sub:
        return None, who[1], False
    if not asked and who is None and request.id_token_claims is None:
        # Nobody is logged in, nothing to ask; but send nobody away without their click either.
        return None, None, True
    if incoming.session:
        core.store.end_session(incoming.session)
    return request.redirect_uri, who[1] if who else None, True


class Style(Base):
    """The style sheet, from our own address: the policy allows no other."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/css; charset=utf-8")
        self.set_header("Cache-Control", "public, max-age=3600")
        self.finish(self.settings["style"])


class NotFound(Page):
    """Everything else."""

    def check_xsrf_cookie(self) -> None:
        """There is nothing to protect; 404 is the truer answer."""

    def prepare(self) -> None:
        raise web.HTTPError(404)


def settings(config: Any) -> dict[str, Any]:
    """Application settings that the pages need."""
    pair = Limiter(config.attempts, 60)
    # Many addresses against one user, and one address against many users, get room for real people first.
    user, address = Limiter(config.attempts * 4, 60), Limiter(config.attempts * 10, 60)
    return {
        "login_limiters": (pair, user, address),
        "code_limiter": Limiter(10, 60),
        "xsrf_cookies": True,
        "xsrf_cookie_name": XSRF_COOKIE,
        "xsrf_cookie_kwargs": cookie_options(config),
        "style": (TEMPLATES / "style.css").read_bytes(),
        "default_handler_class": NotFound,
    }


def routes(base: str) -> list[tuple[str, type[Base]]]:
    """The paths of this module below the issuer's path."""
    table: dict[str, type[Base]] = {
        "/?": Home,
        "/authorize": Authorize,
        "/login": Login,
        "/device": DevicePage,
        "/logout": Logout,
        "/style.css": Style,
    }
    return [(base + path, handler) for path, handler in table.items()]
