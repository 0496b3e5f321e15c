"""Two users with running sessions: one who has things, one who tries to reach them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from attacks import world as worlds
from attacks.world import World
from boxes import Box


@pytest.fixture(scope="package")
async def world(box: Box) -> AsyncIterator[World]:
    """Both sessions, and everything that the tries are about."""
    async with worlds.making(box) as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The search for secrets comes last of all: it looks at what every other test has left in the logs."""
    items.sort(key=lambda item: item.path.name == "test_security_secrets.py")
