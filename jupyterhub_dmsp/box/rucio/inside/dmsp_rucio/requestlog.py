"""One line for each request to the Rucio server, and the id of the request on every line that belongs to it."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import flask  # type: ignore[import-not-found]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

HEADER = "X-Request-ID"
# As in jupyterhub_dmsp.tracing, which Rucio's environment does not have.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{3,63}")
_STRANGE = re.compile(r"[^\x21-\x7e]")


def identity(offered: str | None) -> str:
    """The id that a request brought; ``-`` for none, or for one that is not fit for a log."""
    return offered if offered and _ID.fullmatch(offered) else "-"


class RequestLog(Logger):
    """Gunicorn's logger with a short access line: no query (it may hold secrets), no addresses, no agents."""

    access_fmt = f"[%(asctime)s {time.strftime('%z')}] [%(process)d] [%(levelname)s] %(message)s"

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:  # noqa: ARG002
        """Method, path, status, bytes, milliseconds, account, id. What the supervisor asks is left out."""
        path = _STRANGE.sub("?", str(environ.get("RAW_URI", "")).partition("?")[0])[:500]
        status = str(resp.status).split(maxsplit=1)[0]
        if path == "/ping" and status == "200":
            return
        self.access_log.info(
            "%s %s %s %d bytes in %d ms account=%s [rid=%s]",
            _STRANGE.sub("?", str(environ.get("REQUEST_METHOD", "")))[:10],
            path,
            status,
            resp.sent or 0,
            request_time.total_seconds() * 1000,
            environ.get("issuer") or "-",
            identity(environ.get("HTTP_X_REQUEST_ID")),
        )


def mark_logs() -> None:
    """What Rucio logs while it serves a request ends in the request's id."""
    before = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = before(*args, **kwargs)
        if flask.has_request_context() and isinstance(made.msg, str):
            found = identity(flask.request.headers.get(HEADER))
            if found != "-":
                made.msg = f"{made.msg} [rid={found}]"
        return made

    logging.setLogRecordFactory(record)
