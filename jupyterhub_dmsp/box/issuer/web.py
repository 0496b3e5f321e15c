"""The protocol endpoints over HTTP: thin handlers that hand plain data to the worker thread."""

from __future__ import annotations

import asyncio
import contextvars
import http.client
import json
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

from tornado import web

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.box.issuer import claims, endpoints, exchange, grants
from jupyterhub_dmsp.box.issuer.config import GRANTS, Config
from jupyterhub_dmsp.box.issuer.keys import InvalidToken, Keys
from jupyterhub_dmsp.box.issuer.limiter import Limiter
from jupyterhub_dmsp.box.issuer.protocol import Core, Incoming, Reply
from jupyterhub_dmsp.box.issuer.store import Store

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
SESSION_COOKIE = "dmsp-issuer-session"
XSRF_COOKIE = "dmsp-issuer-xsrf"
DEVICE_REQUESTS = 60  # a minute and address: the endpoint asks no secret and each call writes a row


class Worker:
    """The one thread that owns the store; each call is one transaction."""

    def __init__(self, config: Config, store_factory: Callable[[], Store] | None = None) -> None:
        self._config = config
        self._factory = store_factory or (lambda: Store(config.storage / "issuer.sqlite"))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="issuer-core")
        self._core: Core | None = None

    async def open(self) -> None:
        """Read or make the keys, open the database, load the users."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._build)

    def _build(self) -> None:
        core = Core(self._config, self._factory(), Keys(self._config.storage))
        grants.register(core)
        core.register_grant(exchange.TokenExchange)
        endpoints.register(core)
        self._core = core

    async def run(self, step: Callable[Concatenate[Core, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``step(core, …)`` in the thread, all or nothing; what it logs belongs to the same request."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, context.run, self._step, step, args, kwargs
        )

    def _step(self, step: Callable[..., T], args: Any, kwargs: Any) -> T:
        if self._core is None:
            raise RuntimeError("The worker is not open.")
        with self._core.store.transaction():
            return step(self._core, *args, **kwargs)

    async def close(self) -> None:
        """Wait for the running step, then close the database."""
        if self._core is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._core.store.close)
        self._thread.shutdown(wait=False)


def form_origins(config: Config) -> list[str]:
    """Where a submitted form may end up: browsers apply form-action to the redirects after it too."""
    addresses = [a for client in config.clients for a in (*client.redirect_uris, *client.logout_uris)]
    return sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, addresses)})


class InFlight:
    """The requests that are being answered; :meth:`idle` is set when there are none."""

    def __init__(self) -> None:
        self._handlers: set[web.RequestHandler] = set()
        self.idle = asyncio.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, handler: web.RequestHandler) -> None:
        self._handlers.add(handler)
        self.idle.clear()

    def discard(self, handler: web.RequestHandler) -> None:
        self._handlers.discard(handler)
        if not self._handlers:
            self.idle.set()


class Base(web.RequestHandler):
    """What every answer has in common."""

    worker: Worker
    config: Config
    detail = ""
    """What the access log says of the request beside its path."""

    def initialize(self) -> None:
        self.worker = self.settings["worker"]
        self.config = self.settings["config"]

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        # Not no-referrer: browsers would then send `Origin: null` with our own forms.
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
        action = " ".join(["'self'", *form_origins(self.settings["config"])])
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
            f"frame-ancestors 'none'; form-action {action}",
        )

    def prepare(self) -> None:
        tracing.enter(self.request.headers.get(tracing.HEADER))
        self.settings["running"].add(self)

    def on_finish(self) -> None:
        self.settings["running"].discard(self)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Faults with their traceback, refusals not at all (the access log has them). Tornado's own version
        writes the whole address, and with it codes, states and hints."""
        if not isinstance(value, web.HTTPError) and typ is not None and value is not None:
            where = f"{self.request.method} {self.request.path}"
            log.error("%s failed.", where, exc_info=(typ, value, tb))

    def on_connection_close(self) -> None:
        self.settings["running"].discard(self)

    def incoming(self) -> Incoming:
        """The request as plain data; undecodable bytes become U+FFFD, which matches nothing."""
        request = self.request
        # Parameters of a POST count in its body only: RFC 6749 section 3.2, and URLs end up in logs.
        query = {} if request.method == "POST" else _text(request.query_arguments)
        return Incoming(
            method=request.method or "GET",
            path=request.path.removeprefix(self.config.base_path),
            query=query,
            body=_text(request.body_arguments),
            authorization=request.headers.get("Authorization", ""),
            session=self.get_cookie(SESSION_COOKIE) or "",
        )

    def reply(self, reply: Reply) -> None:
        self.set_status(reply.status)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        self.finish(json.dumps(reply.body) if reply.body != "" else "")


def _text(arguments: dict[str, list[bytes]]) -> dict[str, list[str]]:
    return {key: [value.decode("utf-8", "replace") for value in values] for key, values in arguments.items()}


class Api(Base):
    """Called by programs: JSON, no cookie counts, hence nothing to forge across sites."""

    def check_xsrf_cookie(self) -> None:
        """These endpoints authenticate by their own parameters, never by a cookie."""

    def write_error(self, status_code: int, **_: Any) -> None:
        error = "server_error" if status_code >= 500 else "invalid_request"
        self.set_header("Content-Type", "application/json")
        reason = http.client.responses.get(status_code, "Unknown")
        self.finish({"error": error, "error_description": reason})


class Metadata(Api):
    def get(self) -> None:
        self.set_header("Cache-Control", "public, max-age=300")
        self.finish(endpoints.metadata(self.config))


class Jwks(Api):
    async def get(self) -> None:
        keys = await self.worker.run(lambda core: core.keys.jwks)
        self.set_header("Cache-Control", "public, max-age=300")
        self.finish(keys)


class Token(Api):
    async def post(self) -> None:
        grant = self.get_body_argument("grant_type", "")
        self.detail = f"grant={grant.rpartition(':')[2]}" if grant in GRANTS else ""
        self.reply(await self.worker.run(Core.create_token_response, self.incoming()))


class Endpoint(Api):
    """One of Authlib's named endpoints."""

    name = ""

    async def post(self) -> None:
        self.reply(await self.worker.run(Core.create_endpoint_response, self.name, self.incoming()))


class Revoke(Endpoint):
    name = "revocation"


class Introspect(Endpoint):
    name = "introspection"


class DeviceAuthorization(Endpoint):
    name = "device_authorization"

    async def post(self) -> None:
        limiter: Limiter = self.settings["device_limiter"]
        wait = limiter.wait(self.request.remote_ip)
        if wait > 0:
            self.set_header("Retry-After", str(math.ceil(wait)))
            raise web.HTTPError(429)
        limiter.hit(self.request.remote_ip)
        await super().post()


class UserInfo(Api):
    """OpenID Connect Core section 5.3, bearer token in the header (RFC 6750 section 2.1)."""

    async def get(self) -> None:
        kind, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            self._refuse(401, "")
            return
        try:
            payload, account = await self.worker.run(Core.verify_access, token.strip())
        except InvalidToken as error:
            self._refuse(401, "invalid_token", str(error))
            return
        scope = str(payload.get("scope", ""))
        if "openid" not in scope.split():
            self._refuse(403, "insufficient_scope", "The token lacks the scope openid.")
            return
        self.finish(claims.about_user(account, scope))

    post = get

    def _refuse(self, status: int, error: str, description: str = "") -> None:
        details = f' error="{error}", error_description="{description}"' if error else ""
        self.set_header(
            "WWW-Authenticate", f'Bearer realm="{self.config.issuer}"{"," if details else ""}{details}'
        )
        self.set_status(status)
        self.finish(
            {"error": error or "invalid_request", "error_description": description or "No bearer token."}
        )


class Health(Api):
    async def get(self) -> None:
        await self.worker.run(lambda core: core.store.ping())
        self.finish({"status": "ok", "issuer": self.config.issuer})


def routes(base: str) -> list[tuple[str, type[Base]]]:
    """The paths of this module below the issuer's path `base`, and the well-known ones at the root."""
    table: dict[str, type[Base]] = {
        "/jwks": Jwks,
        "/token": Token,
        "/userinfo": UserInfo,
        "/revoke": Revoke,
        "/introspect": Introspect,
        "/device_authorization": DeviceAuthorization,
        "/health": Health,
    }
    # Discovery 1.0 appends the well-known path to the issuer, RFC 8414 section 3.1 inserts it before its path.
    # Rucio 41 finds its token endpoint with urljoin(), which drops the last part of an issuer's path: the bare form.
    well_known = {
        f"{prefix}/.well-known/{document}{suffix}"
        for document in ("openid-configuration", "oauth-authorization-server")
        for prefix, suffix in ((base, ""), ("", base), ("", ""))
    }
    return [(base + path, handler) for path, handler in table.items()] + [
        (path, Metadata) for path in sorted(well_known)
    ]
