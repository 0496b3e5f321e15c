"""What the hub does by itself while it runs: ends what a former hub left, looks at scratch, ends idle sessions.

What a former hub left are sessions that are in nobody's books, and logins whose end it had still to wait for.

Begun by our authenticator when the hub starts, else by the first of our spawners. Either may be used without the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

from jupyterhub import orm
from jupyterhub.app import JupyterHub

from jupyterhub_dmsp.hub.idle.culling import Culler
from jupyterhub_dmsp.hub.metrics import numbers
from jupyterhub_dmsp.hub.metrics.watching import farewells, known
from jupyterhub_dmsp.scratch.mount import Health, Mount

SCRATCH_EVERY = 30.0

ServerName = tuple[str, str]
"""A user's name, and the name of one of their servers."""


class House(Protocol):
    """What a spawner class knows of its place without a user; ``SpawnerClass.house(app)`` gives it, or None."""

    scratch: Path | None
    """The scratch mount as the hub sees it; None where it does not."""

    async def end_left(self, wanted: set[ServerName]) -> list[str]:
        """End sessions that run and belong to none of these servers; a sentence for each."""


class Keeping:
    """The tasks of one hub.

    Args:
        app: JupyterHub.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.log = app.log
        self.scratch: Health | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Start the tasks; they end with the hub."""
        offered = getattr(self.app.spawner_class, "house", None)
        house: House | None = offered(self.app) if offered else None
        if house is not None:
            self._task(self.end_left(house))
            if house.scratch is not None:
                self._task(self.watch_scratch(Mount(house.scratch, needed=True)))
        self._task(self.end_logins())
        self._task(Culler(self.app).run())

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wanted(self) -> set[ServerName]:
        """The servers that the hub's database knows as running, and those that are just being started."""
        rows = self.app.db.query(orm.Spawner).filter(orm.Spawner.server != None)  # noqa: E711 - SQL
        stored = {(row.user.name, row.name) for row in rows if row.user is not None}
        live = {(s.user.name, s.name) for s in list(known) if getattr(s, "user", None) is not None and s.active}
        return stored | live

    async def end_left(self, house: House) -> None:
        """End what runs and is in nobody's books, such as after the loss of the hub's database."""
        try:
            for sentence in await house.end_left(self.wanted()):
                self.log.warning("%s", sentence)
                numbers.ENDED.labels("left").inc()
        except Exception:
            self.log.exception("The look for left sessions failed")

    async def end_logins(self) -> None:
        """Wait once more for the ends of logins whose last server has stopped, perhaps just before the former hub."""
        endings = getattr(self.app.authenticator, "endings", None)
        if endings is None:
            return
        try:
            servers = [one for one in self.app.db.query(orm.Spawner) if one.user is not None]
            running = {one.user.name for one in servers if one.server is not None}
            stopped = {one.user for one in servers if one.last_activity is not None}
            for row in (one for one in stopped if one.encrypted_auth_state and one.name not in running):
                endings.at_stop(self.app.users[row])
        except Exception:
            self.log.exception("The look for logins to be ended failed")

    async def watch_scratch(self, mount: Mount) -> None:
        """Keep the metrics of the scratch mount."""
        while True:
            health = await mount.health()
            self.scratch = health
            numbers.SCRATCH_OK.set(health.state == "ok")
            numbers.SCRATCH_FREE.set(health.free_bytes if health.free_bytes is not None else float("nan"))
            numbers.SCRATCH_SIZE.set(health.total_bytes if health.total_bytes is not None else float("nan"))
            await asyncio.sleep(SCRATCH_EVERY)


def farewell(spawner: Any) -> str:
    """Why the hub ended this server the last time; empty when it did not."""
    return farewells.get((str(spawner.user.name), str(getattr(spawner, "name", ""))), "")


_keeping: Keeping | None = None


def current() -> Keeping | None:
    """The tasks of this process's hub; None before it has any."""
    return _keeping


def begin() -> None:
    """Start them, once, if a hub runs in this process."""
    global _keeping
    if _keeping is not None or not JupyterHub.initialized():
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    _keeping = Keeping(JupyterHub.instance())
    _keeping.begin()
