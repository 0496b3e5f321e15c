"""A database that was killed and came back costs no request an error."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jupyterhub_dmsp.box import database

pytestmark = pytest.mark.root


def test_no_request_meets_a_connection_that_has_ended(lake: Any) -> None:
    root = lake.root
    with ThreadPoolExecutor(8) as several:  # so that the pools of all workers have connections

        def ask(_: int) -> Any:
            return root("GET", "/accounts/root")

        list(several.map(ask, range(40)))
        lake.stop("database", signal.SIGKILL)
        lake.start("database")
        lake.until(lambda: asyncio.run(database.ready(lake.database_port)), 60, "the database")
        found = list(several.map(ask, range(40)))
    assert {one["account"] for one in found} == {"root"}
