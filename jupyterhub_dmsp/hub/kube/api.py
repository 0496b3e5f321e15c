"""What we ask of the cluster's API: plain objects in and out, a timeout on everything, one sentence for each fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.kube.access import Access

Object = dict[str, Any]

LISTED = "LISTED"
TIMEOUT = 10.0
WATCH = 60
"""Seconds after which the server ends a watch; the next one begins with a list, so nothing is missed for longer."""
PAUSE = 1.0
"""Seconds before something that failed is tried again."""


class ApiError(DmspError):
    """The API refused, or did not answer.

    Attributes:
        status: of the answer; 0 when there was none.
        reason: the API's word for it, such as ``AlreadyExists``.
    """

    def __init__(self, message: str, status: int = 0, reason: str = "") -> None:
        self.status, self.reason = status, reason
        super().__init__(message)


class Api:
    """The objects of one namespace. Belongs to the event loop that uses it first."""

    def __init__(self, access: Access, namespace: str = "") -> None:
        self.namespace = namespace or access.namespace
        self._access = access
        self._client: httpx.AsyncClient | None = None

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            # No proxy from the environment: what is asked here holds tokens.
            self._client = httpx.AsyncClient(
                base_url=self._access.url,
                verify=self._access.tls,
                timeout=TIMEOUT,
                trust_env=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=10),
            )
        return self._client

    def _path(self, kind: str, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self.namespace}/{kind}"
        return f"{path}/{name}" if name else path

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def get(self, kind: str, name: str) -> Object | None:
        """An object, None when there is none of this name."""
        try:
            return await self._ask("GET", self._path(kind, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, **query: str) -> Object:
        """A list with its ``items`` and the version that a watch goes on from."""
        return await self._ask("GET", self._path(kind), query=query)

    async def create(self, kind: str, body: Object) -> Object:
        """Make an object; gives it as the cluster keeps it."""
        return await self._ask("POST", self._path(kind), body)

    async def delete(self, kind: str, name: str, *, uid: str = "", grace: int | None = None) -> bool:
        """Begin to delete an object; whether there was one.

        Args:
            kind: such as ``pods``.
            name: its name.
            uid: only if it is this one: a later one of the same name stays.
            grace: seconds that its processes have; None for what it says itself.
        """
        options: Object = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._ask("DELETE", self._path(kind, name), options)
        except ApiError as error:
            # 409: it is another one by now.
            if error.status in (404, 409):
                return False
            raise
        return True

    async def follow(self, kind: str, seen: Callable[[str, Object], None], **query: str) -> None:
        """Tell of every object and of every change to it, until cancelled.

        Connections that break and servers that are away for a while are tried again.

        Args:
            kind: such as ``pods``.
            seen: called with :data:`LISTED` and a list of all, and then with ``ADDED``, ``MODIFIED`` or ``DELETED`` and
                an object; lists come again and again.
            query: which ones, such as ``fieldSelector``.

        Raises:
            ApiError: when the API refuses.
        """
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                found = await self.list(kind, **query)
                seen(LISTED, found)
                version = str(found["metadata"]["resourceVersion"])
                async for change, item in self._watch(kind, version, query):
                    seen(change, item)
            except ApiError as error:
                if error.status in (401, 403):
                    raise
            # A server that ends every watch at once, or answers with faults, is not asked as fast as it can answer.
            await asyncio.sleep(max(0.0, begun + PAUSE - loop.time()))

    async def _watch(
        self, kind: str, version: str, query: Mapping[str, str]
    ) -> AsyncIterator[tuple[str, Object]]:
        parameters = {**query, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH)}
        timeout = httpx.Timeout(TIMEOUT, read=WATCH + TIMEOUT)
        try:
            async with self._http().stream(
                "GET", self._path(kind), params=parameters, headers=self._access.headers(), timeout=timeout
            ) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise _refused(answer)
                async for line in answer.aiter_lines():
                    change = json.loads(line)
                    if change["type"] == "ERROR":  # the version is too old by now: the list is read again
                        return
                    yield change["type"], change["object"]
        except (httpx.HTTPError, ValueError) as error:
            raise ApiError("The cluster's API broke off.") from error

    async def _ask(
        self, method: str, path: str, body: Object | None = None, query: Mapping[str, str] | None = None
    ) -> Object:
        try:
            answer = await self._http().request(
                method, path, json=body, params=query, headers=self._access.headers()
            )
        except httpx.HTTPError as error:
            raise ApiError("The cluster's API does not answer.") from error
        if answer.is_error:
            raise _refused(answer)
        found: Object = answer.json()
        return found


def _refused(answer: httpx.Response) -> ApiError:
    try:
        status = answer.json()
        message, reason = str(status["message"]), str(status.get("reason", ""))
    except (ValueError, LookupError, TypeError):
        message, reason = f"status {answer.status_code}", ""
    return ApiError(f"The cluster refused: {message[:500]}", answer.status_code, reason)
