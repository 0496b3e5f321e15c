"""A lake of its own for tests that damage it; each puts it right again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import free_port
from damage import Damage
from testlake import keep_logs, make_lake


@pytest.fixture(scope="session")
def damage() -> Iterator[Damage]:
    """A lake, with hands to damage and to check it."""
    if os.geteuid() != 0:
        pytest.fail("the lake's tests need root")
    state = Path(tempfile.mkdtemp(prefix="dmsp-damage-"))
    hands: Damage | None = None
    try:
        hands = Damage(make_lake(state, free_port(2)))
        yield hands
    finally:
        if hands:
            hands.lake.end()
        keep_logs(state)
        if not os.environ.get("DMSP_KEEP"):
            shutil.rmtree(state, ignore_errors=True)
