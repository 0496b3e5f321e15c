"""What all tests share: a running box, once for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from boxes import Box, make_box


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The demo box with all defaults."""
    yield from make_box()
