"""The hub's access log, with the ids of requests."""

from __future__ import annotations

from typing import Any

from jupyterhub.log import log_request as _log_request

from jupyterhub_dmsp import tracing


def log_request(handler: Any) -> None:
    """JupyterHub's line for a request, which ends in the request's id where it has brought a valid one."""
    offered = handler.request.headers.get(tracing.HEADER, "")
    if tracing.current() or not tracing.valid(offered):
        _log_request(handler)
        return
    with tracing.use(offered):
        _log_request(handler)
