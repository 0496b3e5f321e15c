"""The unix socket on which the user's own kernels reach the lake: no browser, no login, only the same user."""

from __future__ import annotations

import os
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application

from jupyterhub_dmsp.lab.handlers import kernel_handlers
from jupyterhub_dmsp.lab.service import Service

NAME = "lake.sock"


class KernelSocket:
    """Serves a part of the REST interface on ``$DMSP_RUNTIME/lake.sock`` (0600 in a directory of mode 0700)."""

    def __init__(self, service: Service) -> None:
        self.path: Path = service.runtime / NAME
        self._server = HTTPServer(Application(kernel_handlers(), dmsp_service=service), max_body_size=1_000_000)

    def start(self) -> None:
        """Listen; a socket that a killed server left is replaced."""
        before = os.umask(0o177)
        try:
            self._server.add_socket(bind_unix_socket(str(self.path), mode=0o600))
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        self._server.stop()
        await self._server.close_all_connections()
        self.path.unlink(missing_ok=True)
