"""One event for each request to the Rucio server, and the id of the request on every one that belongs to it."""

from __future__ import annotations

import logging
import re
from typing import Any

import flask  # type: ignore[import-not-found]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

import dmsp_log

HEADER = "X-Request-ID"
_STRANGE = re.compile(r"[^\x21-\x7e]")


def identity(offered: str | None) -> str:
    """The id that a request brought; empty for none, or for one that is not fit for a log."""
    return offered if offered and dmsp_log.valid(offered) else ""


def current() -> str:
    """The id of the request that this thread serves; empty for none."""
    return identity(flask.request.headers.get(HEADER)) if flask.has_request_context() else ""


class RequestLog(Logger):
    """Gunicorn's logger with a short access line: no query (it may hold secrets), no addresses, no agents."""

    def setup(self, cfg: Any) -> None:
        """Gunicorn's set-up, with our level and form."""
        level = dmsp_log.start("rucio", rid=current)
        super().setup(cfg)
        self.error_log.setLevel(max(level, logging.INFO))
        self.access_log.setLevel(max(level, logging.INFO))

    def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
        del fmt
        super()._set_handler(log, output, dmsp_log.Formatter(), stream)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:  # noqa: ARG002
        """Method, path, status, bytes, milliseconds, account, id. What the supervisor asks is left out."""
        path = _STRANGE.sub("?", str(environ.get("RAW_URI", "")).partition("?")[0])[:500]
        status = str(resp.status).split(maxsplit=1)[0]
        if path == "/ping" and status == "200":
            return
        user = environ.get("issuer") or ""
        self.access_log.info(
            "%s %s %s %d bytes in %d ms account=%s",
            _STRANGE.sub("?", str(environ.get("REQUEST_METHOD", "")))[:10],
            path,
            status,
            resp.sent or 0,
            request_time.total_seconds() * 1000,
            user or "-",
            extra={"user": user, "rid": identity(environ.get("HTTP_X_REQUEST_ID"))},
        )
