"""Rucio as its account ``root``, and patience with it: every call of the filling may be repeated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.errors import CutOff, RucioDown, RucioSlow, ServerFault, TooMany
from jupyterhub_dmsp.lake.userpass import UserPassSource

log = logging.getLogger(__name__)

ACCOUNT = "root"
SECRET = "rucio-root-password"  # noqa: S105 - the name of the file
ATTEMPTS = 5


def admin_client(state: Path, rucio_url: str) -> RucioClient:
    """Rucio as its account ``root``; the password is read from the state's secrets at each login."""
    secret = state / "secrets" / SECRET

    def password() -> str:
        try:
            return secret.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise DmspError(f"The secret {SECRET} cannot be read: {error.strerror}.") from error

    return RucioClient(rucio_url, rucio_url, ACCOUNT, UserPassSource(rucio_url, ACCOUNT, ACCOUNT, password))


async def patiently(call: Callable[[], Awaitable[None]]) -> None:
    """Make a call that may be repeated; again when Rucio is busy, restarting or lost a race in its database.

    A bulk call is one transaction: it left everything or nothing.

    Raises:
        LakeError: what the last attempt met.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return await call()
        except (CutOff, RucioDown, RucioSlow, ServerFault, TooMany) as error:
            log.warning("Rucio, attempt %d of %d: %s (%s)", attempt, ATTEMPTS, error.message, error.reason)
            await asyncio.sleep(0.5 * 2**attempt)
    return await call()
