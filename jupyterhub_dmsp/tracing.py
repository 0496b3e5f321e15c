"""Request ids: one name for all that a single request of a user sets off, in every log that it passes.

A browser's request to the Jupyter server has an id, brought along in ``X-Request-ID`` or made there. It travels in a
context variable through tasks, and in the same header to the hub, the issuer and Rucio. Log records that are written
meanwhile carry it: see :mod:`jupyterhub_dmsp.shared.dmsp_log`; in the form of somebody else's application they end in
``[rid=<id>]``. What goes on in the background has an id of its own: an attachment's is the attachment's.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from jupyterhub_dmsp.shared import dmsp_log

HEADER = "X-Request-ID"
_current: ContextVar[str] = ContextVar("dmsp_request_id", default="")


def valid(text: str) -> bool:
    """Whether this may be the id of a request: 4 to 64 letters, digits, dots, dashes and underscores."""
    return dmsp_log.valid(text)


def new() -> str:
    """An id that nobody has had."""
    return secrets.token_hex(8)


def current() -> str:
    """The id of what is going on now; empty when it has none."""
    return _current.get()


def enter(offered: str | None = None) -> str:
    """Take up the id that a request brought, or a new one where it brought none that is valid; gives it.

    It holds for the rest of the task: call it at the beginning of the task of a request.
    """
    chosen = offered if offered is not None and valid(offered) else new()
    _current.set(chosen)
    return chosen


@contextlib.contextmanager
def use(identity: str) -> Iterator[None]:
    """Have this id while the block lasts."""
    token = _current.set(identity)
    try:
        yield
    finally:
        _current.reset(token)


def headers() -> dict[str, str]:
    """What hands the id on with a request to another service."""
    identity = _current.get()
    return {HEADER: identity} if identity else {}


class _Marking:
    """Makes log records as before, and writes the id behind their text."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._before(*args, **kwargs)
        identity = _current.get()
        if identity and isinstance(record.msg, str):
            # No % in an id: it cannot disturb the values that are put in later.
            record.msg = f"{record.msg} [rid={identity}]"
        return record


def mark_logs() -> None:
    """From now on every log record of this process that belongs to a request says so, in whatever form it logs."""
    if dmsp_log.started():
        return
    before = logging.getLogRecordFactory()
    if not isinstance(before, _Marking):
        logging.setLogRecordFactory(_Marking(before))


def log_like(logger: logging.Logger, name: str = "jupyterhub_dmsp") -> None:
    """Have our own modules log where an application does, in its form; INFO and above. Idempotent.

    For an application that is not ours to configure: where the process logs in our form nothing is left to do.
    """
    if dmsp_log.started():
        return
    ours = logging.getLogger(name)
    if not ours.handlers and logger.handlers:
        for handler in logger.handlers:
            ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
    mark_logs()
