"""Answers for the pods of the test cluster: reads what a kubelet would mount, and serves in place of Jupyter."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from cluster.running import Cluster

Object = dict[str, Any]

SILENT = ("images.example/greedy",)
"""Images whose server never comes to listen."""


@dataclass
class Pod:
    """A running pod, as its containers would see it.

    Attributes:
        about: the object.
        volumes: of those with a secret in them, file name to text.
        stop: ends its server.
    """

    about: Object
    volumes: dict[str, dict[str, str]]
    site: web.AppRunner | None = None

    @property
    def container(self) -> Object:
        """The session's container."""
        found: Object = self.about["spec"]["containers"][0]
        return found

    @property
    def environment(self) -> dict[str, str]:
        """Its environment."""
        return {entry["name"]: entry.get("value", "") for entry in self.container["env"]}

    @property
    def token(self) -> str:
        """What the launcher finds in the runtime directory."""
        return self.volumes["handed"]["hub-token"]

    def seen(self, path: str) -> dict[str, str]:
        """Files of a secret that the session's container sees at this mount."""
        mount = next(m for m in self.container["volumeMounts"] if m["mountPath"] == path)
        files = self.volumes[mount["name"]]
        return {mount["subPath"]: files[mount["subPath"]]} if "subPath" in mount else files


@dataclass
class Kubelet:
    """Follows all pods of the cluster."""

    cluster: Cluster
    pods: dict[str, Pod] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow."""
        self._http = self.cluster.client()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End all servers."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for name in list(self.pods):
            await self._ended(name)
        await self._http.aclose()

    async def _follow(self) -> None:
        path = f"/api/v1/namespaces/{self.cluster.namespace}"
        while True:
            with contextlib.suppress(httpx.HTTPError):
                async with self._http.stream(
                    "GET", f"{path}/pods", params={"watch": "1"}, timeout=None
                ) as answer:
                    async for line in answer.aiter_lines():
                        change = json.loads(line)
                        pod = change["object"]
                        running = change["type"] != "DELETED" and pod["status"].get("phase") == "Running"
                        if running and not pod["metadata"].get("deletionTimestamp"):
                            await self._running(path, pod)
                        elif change["type"] == "DELETED" or pod["status"].get("phase") == "Failed":
                            await self._ended(pod["metadata"]["name"])
            await asyncio.sleep(0.1)

    async def _running(self, path: str, about: Object) -> None:
        name = about["metadata"]["name"]
        if name in self.pods:
            return
        pod = Pod(about, await self._mount(path, about))
        self.pods[name] = pod
        if about["spec"]["containers"][0]["image"] in SILENT:
            return
        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", self._answer)
        pod.site = web.AppRunner(application)
        await pod.site.setup()
        port = pod.container["ports"][0]["containerPort"]
        await web.TCPSite(pod.site, about["status"]["podIP"], port).start()

    async def _ended(self, name: str) -> None:
        pod = self.pods.pop(name, None)
        if pod is not None and pod.site is not None:
            await pod.site.cleanup()

    async def _mount(self, path: str, about: Object) -> dict[str, dict[str, str]]:
        """Each secret volume of a pod; a kubelet waits for a secret that is not there yet."""
        found: dict[str, dict[str, str]] = {}
        for volume in about["spec"]["volumes"]:
            if "secret" not in volume:
                continue
            async with asyncio.timeout(10):
                while (
                    answer := await self._http.get(f"{path}/secrets/{volume['secret']['secretName']}")
                ).status_code != 200:
                    await asyncio.sleep(0.05)
            data = answer.json()["data"]
            items = volume["secret"]["items"]
            found[volume["name"]] = {
                item["path"]: base64.b64decode(data[item["key"]]).decode() for item in items
            }
        return found

    @staticmethod
    async def _answer(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path}, headers={"X-JupyterHub-Version": "6.1.0"})
