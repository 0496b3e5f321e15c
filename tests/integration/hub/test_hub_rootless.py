"""Without root: one user, one session at a time, still in a sandbox, and the launch page says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from boxes import can_run_as

UID = 61950
pytestmark = [
    pytest.mark.root,  # to become the ordinary user
    pytest.mark.skipif(not can_run_as(UID), reason="the checkout lies where other users may not enter"),
]


@pytest.fixture(scope="module")
async def rootless(make_stack: Callable[..., Any]) -> AsyncIterator[Any]:
    async with make_stack(user=UID) as running:
        yield running


async def test_one_session_at_a_time(rootless: Any, notebook: Any) -> None:
    for user in ("km3net-user", "collider-user"):
        async with rootless.browser() as browser:
            await browser.login(user)
            assert "runs without root: one session at a time" in (await browser.form()).text
    events = await rootless.launch("km3net-user")
    assert events[-1].get("ready"), events
    server = rootless.tree("km3net-user")[2]
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}" in status
    one = await notebook(rootless, "km3net-user")
    seen = await one.run(
        "import os; print(os.listdir('/home'), os.environ['HOME'], os.listdir('/scratch/lake'))"
    )
    assert seen == "['km3net-user'] /home/km3net-user ['file']"
    async with rootless.admin() as api:
        refused = await api.post("users/collider-user/server", json={"profile": "everybody"})
    assert refused.status_code == 409
    assert "A session of km3net-user is running" in refused.json()["message"]
    await rootless.quit("km3net-user")
    assert not server.alive()
    events = await rootless.launch("collider-user")
    assert events[-1].get("ready"), events
    await rootless.quit("collider-user")
