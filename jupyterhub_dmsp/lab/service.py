"""All parts of the Lab side put together for one user."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.identity.keeper import BearerKeeper
from jupyterhub_dmsp.lab import tokens
from jupyterhub_dmsp.lab.attachments import Attachments
from jupyterhub_dmsp.lab.bindings import Bindings
from jupyterhub_dmsp.lab.errors import Fault, fault_of
from jupyterhub_dmsp.lab.events import CONTENTS, Events, Logger
from jupyterhub_dmsp.lab.flow import Tools
from jupyterhub_dmsp.lab.manifest import Manifests
from jupyterhub_dmsp.lab.records import Attachment, Records
from jupyterhub_dmsp.lab.session import Session
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.listing import ListingIndex
from jupyterhub_dmsp.lake.listing_store import ListingRow
from jupyterhub_dmsp.scratch.links import Links
from jupyterhub_dmsp.scratch.mount import Mount, MountGone, Wanted
from jupyterhub_dmsp.scratch.paths import OutsideMount, Paths

log = logging.getLogger(__name__)
_ASK_AGAIN = 15.0
ELSEWHERE = 2.0
"""Seconds between two looks whether another session of the user has attached or released something."""


class Service:
    """The lake, scratch and the attachments of one user.

    Args:
        session: who and where.
        runtime: directory of mode 0700 for what lives as long as the server.
        data: directory of mode 0700 for what outlives it.
        root: the directory that notebooks' paths are relative to.
        logger: Jupyter's event logger.
    """

    def __init__(self, session: Session, runtime: Path, data: Path, root: Path, logger: Logger) -> None:
        self.session = session
        self.runtime = runtime
        lake = session.lake
        self._source = tokens.source_of(session.token)
        self.keeper: BearerKeeper | None = tokens.keeper_of(session.token, self._source)
        self.client = RucioClient(lake.rucio_url, lake.auth_url, session.account, self._source)
        self.paths = Paths(Path(lake.mount), lake.prefix)
        self.mount = Mount(Path(lake.mount))
        self.manifests = Manifests(runtime)
        self._records = Records(data / "attachments.sqlite", lake.key)
        self.bindings = Bindings(self._records, runtime, root)
        links = Links(Path.home() / "datasets")
        tools = Tools(
            self.client,
            lake.scratch_rse,
            self.paths,
            self.mount,
            self._records,
            self.manifests,
            links,
            self._attachment_changed,
        )
        self.attachments = Attachments(tools, lake.key, lake.rule_lifetime)
        self.events = Events(logger, self.attachments.epoch)
        self.index = ListingIndex(runtime, self.client, lake.scratch_rse, session.scopes, self.events.listing)
        if CONTENTS in logger.schemas:
            logger.add_listener(schema_id=CONTENTS, listener=self._file_changed)
        self._lake_checked = float("-inf")
        self._lake_fault: Fault | None = None
        self._started = asyncio.Event()
        self._elsewhere: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up attachments and bindings, start keeping the bearer-token file."""
        if self.keeper is not None:
            self.keeper.start()
        await self.bindings.load()
        await self.attachments.start()
        self._elsewhere = asyncio.create_task(self._follow_elsewhere(), name="dmsp-elsewhere")
        self._started.set()

    async def _follow_elsewhere(self) -> None:
        """Do after what the user's other sessions write down. A look costs no read of any record."""
        while True:
            await asyncio.sleep(ELSEWHERE)
            try:
                if await self._records.changed_elsewhere():
                    await self.attachments.take_over()
                    await self.bindings.load()
            except (DmspError, OSError, sqlite3.Error):
                log.exception("what other sessions wrote is not known")

    async def started(self) -> None:
        """Wait until :meth:`start` is done."""
        async with asyncio.timeout(30):
            await self._started.wait()

    async def stop(self) -> None:
        """Stop all; nothing is lost."""
        self.events.close()
        if self._elsewhere is not None:
            self._elsewhere.cancel()
            await asyncio.gather(self._elsewhere, return_exceptions=True)
        await self.attachments.stop()
        await self.index.close()
        if self.keeper is not None:
            await self.keeper.stop()
        await self.client.close()
        await self._records.close()
        self.mount.close()

    async def _file_changed(self, *, logger: object, schema_id: str, data: dict[str, Any]) -> None:  # noqa: ARG002
        """Bindings follow their notebook."""
        match data["action"]:
            case "delete":
                await self.bindings.forget(data["path"].lstrip("/"))
            case "rename":
                await self.bindings.move(data["source_path"].lstrip("/"), data["path"].lstrip("/"))

    def _attachment_changed(self, attachment: Attachment) -> None:
        self.attachments.note(attachment)
        self.events.attachment(attachment)

    async def lake_fault(self) -> Fault | None:
        """What is wrong between us and Rucio, asked at most every 15 s."""
        if time.monotonic() - self._lake_checked > _ASK_AGAIN:
            self._lake_checked = time.monotonic()
            try:
                async with asyncio.timeout(10):
                    account = await self.client.whoami()
                self._lake_fault = None
                if account != self.session.account:
                    text = f"The data lake knows this login as {account}, not as {self.session.account}."
                    self._lake_fault = Fault("account", text, "contact")
            except TimeoutError:
                self._lake_fault = Fault("rucio_slow", "The data lake takes long to answer.", "wait")
            except DmspError as error:
                self._lake_fault = fault_of(error)
        return self._lake_fault

    async def token_state(self) -> tuple[float | None, Fault | None]:
        """Until when the token lives (seconds since the epoch), and what is wrong with it."""
        try:
            token = await self._source.get()
        except DmspError as error:
            return None, fault_of(error)
        if self.keeper is not None and self.keeper.error is not None:
            # The user has logged in again: the file need not wait for the keeper's next attempt.
            self.keeper.wake()
        return token.expires_at, None

    async def availability(self, rows: Sequence[ListingRow]) -> list[str]:
        """Availability on scratch: of files by looking, of what is attached by its state, else as the lake says."""
        known = [row.availability or "unknown" for row in rows]
        wanted: list[Wanted] = []
        places: list[int] = []
        for place, row in enumerate(rows):
            if row.kind in {"dataset", "container"}:
                attached = self.attachments.of(f"{row.scope}:{row.name}")
                if attached is not None and attached.state == "ready":
                    known[place] = "all"
            elif row.kind == "file" and row.bytes is not None:
                try:
                    wanted.append(Wanted(self.paths.of(row.scope, row.name), row.bytes))
                except OutsideMount:
                    continue
                places.append(place)
        if wanted:
            try:
                look = await self.mount.look(wanted)
            except MountGone:
                return known
            for positions, state in ((look.present, "all"), (look.absent, "none"), (look.wrong, "part")):
                for position in positions:
                    known[places[position]] = state
        return known


def let_kernels_import() -> None:
    """Without a profile's environment: let kernels find ``dmsp`` by PYTHONPATH, and the runtime directory."""
    directory = str(Path(__file__).parent.parent / "kernel")
    present = os.environ.get("PYTHONPATH", "")
    if directory not in present.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (present, directory)))
