"""Whether a server listens, looked at often: JupyterHub's own looks grow to be seconds apart."""

from __future__ import annotations

import asyncio

PAUSE = 0.1
"""Seconds between looks."""

PATIENCE = 1.0
"""Seconds for one look."""


async def listens(address: str, port: int) -> bool:
    """Whether somebody takes connections there; False for an empty address."""
    if not address:
        return False
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
