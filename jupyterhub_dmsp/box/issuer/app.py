"""The issuer's server: from a configuration to a listening socket, and back."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tornado import httpserver, netutil, web

from jupyterhub_dmsp.box.issuer import accounts, pages
from jupyterhub_dmsp.box.issuer import web as api
from jupyterhub_dmsp.box.issuer.config import Config, ConfigError
from jupyterhub_dmsp.box.issuer.limiter import Limiter
from jupyterhub_dmsp.box.issuer.store import Store

log = logging.getLogger(__name__)
# Every five seconds, whether it lives: of no interest while it does.
_ASKED_BY_THE_BOX = ("/health", "/.well-known/openid-configuration")
access_log = logging.getLogger("dmsp.issuer.access")
MAX_BODY = 64 * 1024
CLEAN_EVERY = 60.0
STOP_WITHIN = 5.0
HASHERS = 2  # threads; argon2 takes 19 MiB each


def log_access(handler: web.RequestHandler) -> None:
    """One line a request: the path without its query, where codes and states stand; the grant that was asked for."""
    request, status = handler.request, handler.get_status()
    level = logging.ERROR if status >= 500 else logging.INFO
    if status == 200 and request.path.endswith(_ASKED_BY_THE_BOX):
        level = logging.DEBUG
    milliseconds = 1000 * request.request_time()
    detail = getattr(handler, "detail", "")
    access_log.log(
        level,
        "%s %s %d %.0f ms %s%s",
        request.method,
        request.path,
        status,
        milliseconds,
        request.remote_ip,
        f" {detail}" if detail else "",
    )


class Server:
    """The running issuer.

    Args:
        config: see :mod:`jupyterhub_dmsp.box.issuer.config`.
        store_factory: another database, for tests with a clock of their own.
    """

    def __init__(self, config: Config, store_factory: Callable[[], Store] | None = None) -> None:
        self.config = config
        self.worker = api.Worker(config, store_factory)
        self._hashing = ThreadPoolExecutor(max_workers=HASHERS, thread_name_prefix="issuer-hash")
        self._running = api.InFlight()
        self._http: httpserver.HTTPServer | None = None
        self._cleaner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store and listen.

        Raises:
            ConfigError: the port is taken, or a file cannot be used.
        """
        await self.worker.open()
        decoy = await asyncio.get_running_loop().run_in_executor(self._hashing, accounts.decoy_hash)
        try:
            sockets = netutil.bind_sockets(self.config.port, self.config.host)
        except OSError as error:
            await self.worker.close()
            where = f"{self.config.host}:{self.config.port}"
            raise ConfigError(f"The issuer cannot listen on {where}: {error.strerror}.") from error
        self._http = httpserver.HTTPServer(
            self._application(decoy),
            max_body_size=MAX_BODY,
            max_header_size=MAX_BODY,
            idle_connection_timeout=120,
            body_timeout=30,
        )
        self._http.add_sockets(sockets)
        self._cleaner = asyncio.create_task(self._clean(), name="issuer-clean")

    def _application(self, decoy: str) -> web.Application:
        base = self.config.base_path
        settings: dict[str, Any] = {
            "worker": self.worker,
            "config": self.config,
            "hashing": self._hashing,
            "decoy_hash": decoy,
            "running": self._running,
            "device_limiter": Limiter(api.DEVICE_REQUESTS, 60),
            "log_function": log_access,
            **pages.settings(self.config),
        }
        return web.Application([*pages.routes(base), *api.routes(base)], **settings)

    async def _clean(self) -> None:
        """Remove what is over, for as long as the server runs."""
        while True:
            try:
                gone = await self.worker.run(lambda core: core.store.clean())
            except sqlite3.Error as error:
                log.warning("Expired rows could not be removed: %s.", error)
            else:
                log.debug("%d expired rows removed.", gone)
            await asyncio.sleep(CLEAN_EVERY)

    async def stop(self) -> None:
        """Take no new requests, let the running ones finish, close."""
        if self._http is not None:
            self._http.stop()
            try:
                await asyncio.wait_for(self._running.idle.wait(), STOP_WITHIN)
            except TimeoutError:
                log.warning("%d requests did not finish in time.", len(self._running))
            await self._http.close_all_connections()
        if self._cleaner is not None:
            self._cleaner.cancel()
            await asyncio.gather(self._cleaner, return_exceptions=True)
        await self.worker.close()
        self._hashing.shutdown(wait=False, cancel_futures=True)
