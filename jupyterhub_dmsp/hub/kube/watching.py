"""Pods as they are: one that is being started, watched; and all that run, asked for seldom.

There is no standing watch whose end could take the hub along. A start follows its own pod while it lasts. Whether
servers still run is read from one list for all of them, as old as :data:`AGE` at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from jupyterhub_dmsp.hub.kube import states
from jupyterhub_dmsp.hub.kube.api import LISTED, Api, ApiError, Object
from jupyterhub_dmsp.hub.kube.manifests import MANAGER
from jupyterhub_dmsp.hub.kube.states import Fault, Step
from jupyterhub_dmsp.hub.launch import listening

AGE = 5.0
"""Seconds for which a list of pods is good enough."""

TICK = 1.0
"""Seconds between looks at faults that have to last."""

OURS = f"app.kubernetes.io/managed-by={MANAGER},app.kubernetes.io/component=session"


class Failed(Exception):
    """A start will not succeed; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail or fault.sentence)
        self.fault = fault


class Start:
    """One start, from the made pod to the server that listens."""

    def __init__(
        self, api: Api, name: str, uid: str, port: int, say: Callable[[Step], None], *, room: float
    ) -> None:
        self._api, self._name, self._uid, self._port, self._say = api, name, uid, port, say
        self._room = room
        self._pod: Object | None = None
        self._events: dict[str, Object] = {}
        self._gone = False
        self._changed = asyncio.Event()

    async def running(self) -> Object:
        """The pod, once its server listens. Lasts as long as it takes: who calls bounds it.

        Raises:
            Failed: when it will never run.
            ApiError: when the cluster does not let us watch.
        """
        tasks = [
            asyncio.create_task(
                self._api.follow("pods", self._pod_seen, fieldSelector=f"metadata.name={self._name}")
            ),
            asyncio.create_task(
                self._api.follow("events", self._event_seen, fieldSelector=f"involvedObject.uid={self._uid}")
            ),
        ]
        try:
            return await self._until_running(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_running(self, tasks: list[asyncio.Task[None]]) -> Object:
        loop = asyncio.get_running_loop()
        since: dict[str, float] = {}
        while True:
            self._changed.clear()
            if self._gone:
                raise Failed(Fault("The session's pod was deleted while it started."))
            if self._pod is not None:
                self._say(states.step(self._pod, self._ordered()))
                if await listening.listens(states.address(self._pod), self._port):
                    return self._pod
                fault = states.fault(self._pod, self._room)
                since = {fault.sentence: since.get(fault.sentence, loop.time())} if fault else {}
                if fault and loop.time() - since[fault.sentence] >= fault.patience:
                    raise Failed(fault)
            for task in tasks:
                if task.done():
                    task.result()  # it does not end but by an error
            with contextlib.suppress(TimeoutError):
                address = self._pod and states.address(self._pod)
                await asyncio.wait_for(self._changed.wait(), listening.PAUSE if address else TICK)

    def _ordered(self) -> list[Object]:
        """The events as they came; the API gives them in no order, and their times in whole seconds."""
        return sorted(self._events.values(), key=lambda e: int(e["metadata"]["resourceVersion"]))

    def _pod_seen(self, change: str, about: Object) -> None:
        for pod in about["items"] if change == LISTED else [about]:
            if pod["metadata"]["uid"] == self._uid:
                self._pod, self._gone = pod, change == "DELETED"
                break
        else:
            # Made before the watch began: what a list lacks has gone.
            self._gone |= change == LISTED
        self._changed.set()

    def _event_seen(self, change: str, about: Object) -> None:
        for event in about["items"] if change == LISTED else [about]:
            self._events[event["metadata"]["uid"]] = event
        self._changed.set()


class Running:
    """All sessions of a namespace, by the name of their pod."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = asyncio.Lock()
        self._read = float("-inf")
        self._pods: dict[str, Object] = {}

    async def get(self, name: str, uid: str) -> Object | None:
        """A pod; None when there is none, or another one of its name.

        A list is older than its question: a pod that it lacks, or knows as a former one, is asked for by itself.

        Raises:
            ApiError: when nobody can tell.
        """
        # One list at a time: who comes meanwhile takes what it brings.
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._read > AGE:
                found = await self._api.list("pods", labelSelector=OURS, resourceVersion="0")
                self._pods = {pod["metadata"]["name"]: pod for pod in found["items"]}
                self._read = now
        listed = self._pods.get(name)
        if listed is not None and listed["metadata"]["uid"] == uid:
            return listed
        pod = await self._api.get("pods", name)
        return pod if pod is not None and pod["metadata"]["uid"] == uid else None


async def gone(api: Api, name: str, uid: str, timeout: float) -> bool:
    """Wait until a pod has left the cluster; False when it is there after ``timeout`` seconds."""
    pause = 0.1
    try:
        async with asyncio.timeout(timeout):
            while True:
                pod = await _known(api, name)
                if pod is None or pod["metadata"]["uid"] != uid:
                    return True
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, TICK)
    except TimeoutError:
        return False


async def _known(api: Api, name: str) -> Object | None:
    """The pod; an API that does not answer now is asked again."""
    while True:
        try:
            return await api.get("pods", name)
        except ApiError as error:
            if error.status in (401, 403):
                raise
            await asyncio.sleep(TICK)
