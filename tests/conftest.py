"""What all tests share: a running box, once for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import Box, make_box


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The demo box with all defaults; a running one while a test is written (``DMSP_TEST_STATE=DIR``)."""
    state = os.environ.get("DMSP_TEST_STATE")
    if state:
        running = Box(Path(state), 0)
        running.port = int(running.status["address"].rsplit(":", 1)[1].strip("/"))
        yield running
    else:
        yield from make_box()
