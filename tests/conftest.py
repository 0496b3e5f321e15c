"""What all tests share: a running box, once for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from boxes import Box, running_or_new


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The demo box with all defaults; a running one while a test is written (``DMSP_TEST_STATE=DIR``)."""
    yield from running_or_new("DMSP_TEST_STATE")
