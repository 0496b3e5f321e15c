"""A box to break, for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from boxes import Box, running_or_new

#: Seconds that the daemons wait after each MiB: the transfers last for some seconds.
PAUSE = "0.4"


@pytest.fixture(scope="module")
def own_box() -> Iterator[Box]:
    """A box to break, with slow transfers; a running one while a test is written (``DMSP_KILL_STATE=DIR``)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMSP_RUCIO_COPY_PAUSE", PAUSE)
        yield from running_or_new("DMSP_KILL_STATE")
