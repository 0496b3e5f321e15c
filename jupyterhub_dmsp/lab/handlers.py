"""Both doors to :mod:`api`: Jupyter's handlers for browsers, and plain ones for the kernels' socket."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import RequestHandler, authenticated

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lab.api import ROUTES, Call, Function, Route
from jupyterhub_dmsp.lab.errors import BadRequest, Fault, answer, fault_of
from jupyterhub_dmsp.lab.service import Service

log = logging.getLogger(__name__)
AUTH_RESOURCE = "dmsp"
_LARGEST = 1_000_000


def _body(handler: RequestHandler) -> dict[str, Any]:
    if not handler.request.body:
        return {}
    if len(handler.request.body) > _LARGEST:
        raise BadRequest("The request is too large.")
    try:
        data = json.loads(handler.request.body)
    except ValueError:
        raise BadRequest("The request's body is not JSON.") from None
    if not isinstance(data, dict):
        raise BadRequest("The request's body must be an object.")
    return data


async def perform(
    handler: RequestHandler, service: Service | None, function: Function, path: dict[str, str]
) -> None:
    """Call an operation and write its answer, or its error as JSON; one line in the log."""
    began = time.monotonic()
    request_id = tracing.enter(handler.request.headers.get(tracing.HEADER))
    try:
        if service is None:
            fault = Fault(
                "starting", "The data lake part of this server is not running; its log says why.", "contact"
            )
            status: int
            status, result = 503, answer(fault, request_id)
        else:
            await service.started()
            query = {name: handler.get_query_argument(name) for name in handler.request.query_arguments}
            status, result = await function(Call(service, path, query, _body(handler)))
    except DmspError as error:
        fault = fault_of(error)
        log.warning("refused: %s %s", fault.code, getattr(error, "reason", "") or error)
        status, result = fault.status, answer(fault, request_id)
    except Exception:
        # The last wall before the user: the cause goes to the log, a sentence to the browser.
        log.exception("the request failed")
        fault = Fault("internal", f"This failed unexpectedly (request {request_id}).", "contact")
        status, result = 500, answer(fault, request_id)
    took = (time.monotonic() - began) * 1000
    # What only reads is told by Jupyter's own access log, where a hub's session has one.
    level = logging.DEBUG if handler.request.method == "GET" and status < 400 else logging.INFO
    log.log(level, "%s %s %d in %.0f ms", handler.request.method, handler.request.path, status, took)
    handler.set_status(status)
    handler.set_header("Cache-Control", "no-store")
    handler.set_header(tracing.HEADER, request_id)
    if result is None:
        handler.finish()
        return
    handler.set_header("Content-Type", "application/json")
    handler.finish(json.dumps(result))


class _Lab(APIHandler):
    """A handler for one path; its functions by method are in `functions`."""

    auth_resource = AUTH_RESOURCE
    functions: dict[str, Function] = {}

    async def _do(self, method: str, path: dict[str, str]) -> None:
        await perform(self, self.settings.get("dmsp_service"), self.functions[method], path)

    @authenticated
    @authorized
    async def get(self, **path: str) -> None:
        await self._do("GET", path)

    @authenticated
    @authorized
    async def post(self, **path: str) -> None:
        await self._do("POST", path)

    @authenticated
    @authorized
    async def put(self, **path: str) -> None:
        await self._do("PUT", path)

    @authenticated
    @authorized
    async def delete(self, **path: str) -> None:
        await self._do("DELETE", path)


class _Kernel(RequestHandler):
    """The same on the socket, which only its owner can open: there is nobody to log in."""

    functions: dict[str, Function] = {}

    async def _do(self, method: str, path: dict[str, str]) -> None:
        await perform(self, self.settings["dmsp_service"], self.functions[method], path)

    def check_xsrf_cookie(self) -> None:
        """No browser can reach a unix socket."""

    async def get(self, **path: str) -> None:
        await self._do("GET", path)

    async def post(self, **path: str) -> None:
        await self._do("POST", path)

    async def put(self, **path: str) -> None:
        await self._do("PUT", path)

    async def delete(self, **path: str) -> None:
        await self._do("DELETE", path)


def _by_path(routes: tuple[Route, ...]) -> dict[str, dict[str, Function]]:
    paths: dict[str, dict[str, Function]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = route.function
    return paths


def _regex(path: str) -> str:
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[0-9a-f]{16})", path)


def _handlers(base: type[RequestHandler], routes: tuple[Route, ...], prefix: str) -> list[tuple[str, Any]]:
    made: list[tuple[str, Any]] = []
    for path, functions in _by_path(routes).items():
        methods = (*functions, "HEAD", "OPTIONS")
        body = {"functions": functions, "SUPPORTED_METHODS": methods, "__doc__": f"Serves {path}."}
        made.append((url_path_join(prefix, _regex(path)), type(f"{base.__name__}Handler", (base,), body)))
    return made


def lab_handlers(base_url: str) -> list[tuple[str, Any]]:
    """Handlers below ``{base_url}dmsp/v1`` for the Jupyter server."""
    return _handlers(_Lab, ROUTES, url_path_join(base_url, "dmsp", "v1"))


def kernel_handlers() -> list[tuple[str, Any]]:
    """Handlers below ``/dmsp/v1`` for the socket."""
    return _handlers(_Kernel, tuple(route for route in ROUTES if route.kernel), "/dmsp/v1")
