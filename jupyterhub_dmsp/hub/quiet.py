"""Keeps out of the log what JupyterHub would write there about a browser's session. Imports no Jupyter."""

from __future__ import annotations

import logging


class WithoutIds(logging.Filter):
    """JupyterHub's XSRF module logs, at every new cookie, the session's id, which is a cookie of the browser."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.module == "_xsrf_utils" and isinstance(record.args, tuple):
            record.args = tuple("[secret]" if isinstance(one, bytes) else one for one in record.args)
        return True


def install() -> None:
    """Filter what goes through tornado's application log, once."""
    log = logging.getLogger("tornado.application")
    if not any(isinstance(one, WithoutIds) for one in log.filters):
        log.addFilter(WithoutIds())
