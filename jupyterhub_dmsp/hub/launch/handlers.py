"""Launch requests that JupyterHub's own handlers answer with a 500, though it is the request that is wrong."""

from __future__ import annotations

from typing import Any

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from tornado import web

_spawn_single_user = BaseHandler.spawn_single_user


async def _prepare(self: Any) -> None:
    """400 for fields that are not UTF-8: JupyterHub decodes them outside of its error handling."""
    # First who asks: a page for nobody would replace the browser's XSRF cookie.
    await BaseHandler.prepare(self)
    for arguments in (self.request.query_arguments, self.request.body_arguments):
        for values in arguments.values():
            for value in values:
                try:
                    value.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise web.HTTPError(400, "The request is not UTF-8 text.") from error


async def _spawn(self: Any, user: Any, server_name: str = "", *args: Any, **kwargs: Any) -> Any:
    """409 for the second of two starts at once: JupyterHub renews the login between its look and its mark."""
    try:
        return await _spawn_single_user(self, user, server_name, *args, **kwargs)
    except RuntimeError as error:
        pending = server_name in user.spawners and user.spawners[server_name].pending
        if not pending:
            raise
        raise web.HTTPError(409, f"This server is pending {pending} already.") from error


def install() -> None:
    """Put the checks in place, once; a JupyterHub that prepares the launch page itself is left alone."""
    BaseHandler.spawn_single_user = _spawn
    if "prepare" not in vars(SpawnHandler):
        SpawnHandler.prepare = _prepare
