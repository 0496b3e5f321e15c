"""A lake for the tests of single rooms, once for the whole run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boxes import free_port
from testlake import Lake, keep_logs, make_lake


@pytest.fixture(scope="session")
def lake() -> Iterator[Lake]:
    """The running lake."""
    if os.geteuid() != 0:
        pytest.fail("the lake's tests need root")
    state = Path(tempfile.mkdtemp(prefix="dmsp-lake-"))
    running: Lake | None = None
    try:
        running = make_lake(state, free_port(2))
        yield running
    finally:
        if running:
            running.end()
        keep_logs(state)
        if not os.environ.get("DMSP_KEEP"):
            shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def did(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Names that no other test has: ``did("km3net")`` -> ``km3net:<test>.<random>``."""
    return lambda scope: f"{scope}:{request.node.name.split('[')[0]}.{os.urandom(4).hex()}"
