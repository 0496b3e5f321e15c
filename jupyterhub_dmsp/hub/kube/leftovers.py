"""Pods that nobody ends: those that could not be deleted when they should, and those that a killed hub left.

What a hub knows is in its database; a pod of ours that is not in there has no route and no valid token, and is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from logging import Logger

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.kube.api import Api, ApiError, Object
from jupyterhub_dmsp.hub.kube.manifests import HUB
from jupyterhub_dmsp.hub.kube.watching import OURS

AGAIN = 5.0
"""Seconds before the cluster is asked again."""

_tasks: set[asyncio.Task[None]] = set()


def end_later(api: Api, name: str, uid: str) -> None:
    """Delete a pod as soon as the cluster answers; its secret goes with it."""
    task = asyncio.create_task(_until_deleted(api, name, uid))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _until_deleted(api: Api, name: str, uid: str) -> None:
    while True:
        await asyncio.sleep(AGAIN)
        try:
            await api.delete("pods", name, uid=uid)
            return
        except DmspError as error:
            if isinstance(error, ApiError) and error.status in (401, 403):
                return


class Sweep:
    """Ends, once in a process, what a former hub left of starts that it did not live to see."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._done = False
        self.mine: set[str] = set()
        """Names of pods that this process makes, from before they are made."""

    async def once(self, hub: str, known: Callable[[], Collection[str]], log: Logger) -> None:
        """Look, unless somebody has. What fails now is looked for the next time.

        Args:
            hub: the label of this hub's pods.
            known: gives the uids of the pods that the hub knows.
            log: takes what is ended.
        """
        if self._done:
            return
        self._done = True
        try:
            found = await self._api.list("pods", labelSelector=f"{OURS},{HUB}={hub}")
            # Nothing is awaited between the list and this: what is not known then was there before us.
            uids = known()
            for pod in [pod for pod in found["items"] if self._left(pod, uids)]:
                about = pod["metadata"]
                log.warning("The pod %s is of no session that this hub knows; it is ended.", about["name"])
                await self._api.delete("pods", about["name"], uid=about["uid"])
        except DmspError as error:
            log.warning("What a former hub left is not known: %s", error)
            self._done = False

    def _left(self, pod: Object, known: Collection[str]) -> bool:
        about = pod["metadata"]
        return about["name"] not in self.mine and about["uid"] not in known
