"""A real lake, filled once with the demo's content (interrupted and taken up again on the way)."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.box import demo
from jupyterhub_dmsp.profiles.environments import Environments


class Filled:
    """The lake after filling, and what was said meanwhile."""

    def __init__(self, lake: Any) -> None:
        self.lake = lake
        self.sites: tuple[str, ...] = lake.plan.sites
        self.environments = Environments(Path(tempfile.gettempdir()) / f"dmsp-test-envs-{os.geteuid()}")
        self.said: list[list[str]] = []

    async def fill(self, interrupt_at: str = "") -> None:
        """Fill; end the filling like a kill when it says what starts with ``interrupt_at``."""
        said: list[str] = []
        self.said.append(said)
        reached = asyncio.Event()

        def say(message: str) -> None:
            said.append(message)
            if interrupt_at and message.startswith(interrupt_at):
                reached.set()

        filling = asyncio.create_task(
            demo.fill(self.lake.state, self.lake.url, self.environments, say, sites=self.sites)
        )
        if interrupt_at:
            waiting = asyncio.create_task(reached.wait())
            await asyncio.wait([filling, waiting], return_when=asyncio.FIRST_COMPLETED)
            assert reached.is_set(), said
            filling.cancel()
            await asyncio.wait([filling])
            assert filling.cancelled()
        else:
            await filling


@pytest.fixture(scope="session")
async def filled(lake: Any) -> Filled:
    """The demo's content in the lake."""
    lake.state.chmod(0o711)
    (lake.state / "secrets" / "rucio-root-password").write_text(lake.secret("root"))
    content = Filled(lake)
    for place in ("making Z samples", "registering 1", "filling datasets"):
        await content.fill(interrupt_at=place)
    await content.fill()
    return content
