"""Refuses launch requests that are no text, before JupyterHub's own page decodes them outside of its error handling."""

from __future__ import annotations

from typing import Any

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from tornado import web


async def _prepare(self: Any) -> None:
    """400 for fields that are not UTF-8; they would end as a 500."""
    # First who asks: a page for nobody would replace the browser's XSRF cookie.
    await BaseHandler.prepare(self)
    for arguments in (self.request.query_arguments, self.request.body_arguments):
        for values in arguments.values():
            for value in values:
                try:
                    value.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise web.HTTPError(400, "The request is not UTF-8 text.") from error


def install() -> None:
    """Put the check before the launch page, once; a JupyterHub that prepares that page itself is left alone."""
    if "prepare" not in vars(SpawnHandler):
        SpawnHandler.prepare = _prepare
