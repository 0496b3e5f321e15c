"""Fill the demo lake: make files, put them on the site RSEs, register them.

Every step may be repeated, so an interrupted filling goes on where it was: the staged files stay (their checksums
are what Rucio knows) until the marker says that all is registered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jupyterhub_dmsp.box.demo import placing, staging
from jupyterhub_dmsp.box.demo.admin import ACCOUNT, admin_client, patiently
from jupyterhub_dmsp.box.demo.staging import Content, Dataset, Say
from jupyterhub_dmsp.box.rucio import storage
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import Duplicate
from jupyterhub_dmsp.lake.models import LakeFile, Row
from jupyterhub_dmsp.profiles.environments import Environments
from jupyterhub_dmsp.settings import Box

log = logging.getLogger(__name__)

DEFAULT_SITES = tuple(Box().site_rses)


async def fill(
    state: Path,
    rucio_url: str,
    environments: Environments,
    say: Say,
    *,
    sites: Sequence[str] = DEFAULT_SITES,
) -> None:
    """Fill the lake with the demo's content; does nothing when a marker says that it was done.

    Args:
        state: the box's state directory; ``demo/`` in it is ours.
        rucio_url: the Rucio server, running and bootstrapped (scopes, RSEs).
        environments: where the generator's environment is built.
        say: told what is under way, short enough for one line.
        sites: the site RSEs; with fewer than three the content moves closer together.

    Raises:
        DmspError: with one sentence; filling again goes on where it ended.
    """
    marker = _marker(state)
    content = await stage(state, environments, say, sites=sites)
    if content is None:
        return
    async with admin_client(state, rucio_url) as client:
        content = content.limited_to(set(await client.scopes()))
        await _Filling(client, content, state / "storage", tuple(sites), say).run()
    about = {"files": len(content.files), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    part = marker.with_suffix(".part")
    part.write_text(json.dumps(about), encoding="utf-8")
    part.replace(marker)
    await asyncio.to_thread(shutil.rmtree, content.folder)


async def stage(
    state: Path, environments: Environments, say: Say, *, sites: Sequence[str] = DEFAULT_SITES
) -> Content | None:
    """The first half of :func:`fill`, which needs no Rucio: make the files unless they are there.

    Started while Rucio is still coming up it takes half a minute from a cold start. Not together with ``fill``.

    Returns:
        What is ready to be placed; None when the lake has been filled already.
    """
    if _marker(state).exists():
        return None
    folder = state / "demo"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    content = await asyncio.to_thread(Content.read, folder / "staging")
    if content is None:
        owner = _owner(storage.root(state / "storage", sites[0]))
        content = await staging.make(environments, folder / "staging", owner, say)
    return content


def _marker(state: Path) -> Path:
    return state / "demo" / "filled.json"


def _owner(root: Path) -> tuple[int, int] | None:
    """Who owns an RSE's files; None when we are not root and everything is ours."""
    if os.geteuid() != 0:
        return None
    try:
        status = root.stat()
    except FileNotFoundError:
        raise DmspError(f"The storage of {root.parent.name} has not been made.") from None
    return status.st_uid, status.st_gid


class _Filling:
    """One filling of the lake with one content."""

    def __init__(
        self, client: RucioClient, content: Content, place: Path, sites: tuple[str, ...], say: Say
    ) -> None:
        self.client, self.content, self.storage = client, content, place
        self.sites, self.say = sites, say

    async def run(self) -> None:
        """All steps, each of which may be repeated."""
        where = self.content.sites_of(len(self.sites))
        for number, site in enumerate(self.sites):
            dids = [did for did, sites in where.items() if number in sites]
            self.say(f"placing {len(dids)} files at {site}")
            await asyncio.to_thread(self._place, site, number, dids, where)
            self.say(f"registering {len(dids)} files at {site}")
            files = [self._lake_file(did) for did in dids]
            await self.client.set_limit(ACCOUNT, site, -1)
            await patiently(partial(self.client.add_replicas, site, files))
        is_open = await self._add_collections()
        await self._describe()
        self.say("filling datasets and containers")
        for dataset in self.content.datasets:
            if is_open[dataset.did] and dataset.files:
                await patiently(partial(self.client.attach, dataset.did, dataset.files))
        for container in self.content.containers:
            await patiently(partial(self.client.attach, container.did, container.children))
        self.say("protecting the datasets at their sites")
        for dataset in self.content.datasets:
            await patiently(partial(self._protect, dataset))
            if is_open[dataset.did] and not dataset.open:
                await self.client.close_did(dataset.did)

    def _place(self, site: str, number: int, dids: list[Did], where: dict[Did, tuple[int, ...]]) -> None:
        root = storage.root(self.storage, site)
        for did in dids:
            checksum = self.content.by_did[did].adler32
            placing.place(self.content.path(did), root, did, link=where[did][0] == number, adler32=checksum)

    def _lake_file(self, did: Did) -> LakeFile:
        file = self.content.by_did[did]
        return LakeFile(did, file.bytes, file.adler32)

    async def _add_collections(self) -> dict[Did, bool]:
        """Make the datasets and containers that are not there; tells which are open."""
        kinds = {dataset.did: "DATASET" for dataset in self.content.datasets}
        kinds.update({container.did: "CONTAINER" for container in self.content.containers})
        rows = await self.client.metadata_bulk(list(kinds))
        present = {Did(row["scope"], row["name"]): bool(row.get("is_open")) for row in rows}
        missing = [(did, kind) for did, kind in kinds.items() if did not in present]
        self.say(f"making {len(missing)} datasets and containers")
        await self.client.add_dids(missing)
        return {did: present.get(did, True) for did in kinds}

    async def _describe(self) -> None:
        entries: list[tuple[Did, Row]] = [(file.did, file.meta) for file in self.content.files]
        entries += [(dataset.did, dataset.meta) for dataset in self.content.datasets]
        entries += [(container.did, container.meta) for container in self.content.containers]
        self.say(f"describing {len(entries)} entries")
        await patiently(partial(self.client.set_metadata, entries))

    async def _protect(self, dataset: Dataset) -> None:
        """A rule without an end for each site: what has no rule may be deleted when a site is full."""
        for number in sorted({site % len(self.sites) for site in dataset.sites}):
            body = {
                "dids": [dataset.did.as_dict()],
                "account": ACCOUNT,
                "copies": 1,
                "rse_expression": self.sites[number],
                "lifetime": None,
                "grouping": "DATASET",
                "comment": "Content of the demo lake",
            }
            try:
                await self.client.transport.write("POST", "/rules/", body)
            except Duplicate:
                log.debug("%s is protected at %s already", dataset.did, self.sites[number])
