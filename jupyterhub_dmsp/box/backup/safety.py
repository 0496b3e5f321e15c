"""A copy of the running database before Rucio changes its tables."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from jupyterhub_dmsp.box.backup import dump
from jupyterhub_dmsp.box.backup.create import place_of
from jupyterhub_dmsp.box.migrations import SAFETY
from jupyterhub_dmsp.box.state import State

log = logging.getLogger("dmsp.box")


async def keep_database(state: State, port: int) -> None:
    """Dump it to ``upgrades/``; raises :class:`DmspError` when that fails, and then nothing may be upgraded."""
    folder = state / SAFETY
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"database-{datetime.now(UTC):%Y%m%dT%H%M%S}.dump"
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    await dump.dump(place_of(state, port, state / "run" / "etc" / "dump"), part)
    part.rename(target)
    log.info("another version of Rucio made the database: kept as %s, upgrading", target)
