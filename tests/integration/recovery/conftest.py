"""One box that may be broken, with slow transfers and a small disk for scratch; each test leaves it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from boxes import Box, make_box, running_or_new
from lakes import SCRATCH
from switches import SmallDisk

#: Seconds that the daemons wait after each MiB: the transfers last for some seconds.
PAUSE = "0.4"
SIZE = 400 << 20


def small_scratch(box: Box) -> SmallDisk:
    """Scratch gets a disk of its own, before the box starts: confined parts see no later mounts."""
    place = box.state / "storage" / SCRATCH
    place.mkdir(mode=0o755, parents=True)
    return SmallDisk(place, SIZE)


@pytest.fixture(scope="package")
def shared() -> Iterator[Box]:
    """The box; a running one while a test is written (``DMSP_RECOVERY_STATE=DIR``)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMSP_RUCIO_COPY_PAUSE", PAUSE)
        if "DMSP_RECOVERY_STATE" in os.environ:
            yield from running_or_new("DMSP_RECOVERY_STATE")
        else:
            yield from make_box(around=small_scratch)


@pytest.fixture(scope="module")
def own(shared: Box) -> Box:
    """The same, running."""
    if not shared.status["parts"]:
        shared.up()
    return shared
