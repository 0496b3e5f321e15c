"""Idle sessions end, working ones do not; what a lost hub left ends too."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.hub.local import records

pytestmark = pytest.mark.root

IDLE = 6
USERS = ("km3net-user", "collider-user", "vre-admin")


@pytest.fixture(scope="module")
async def quick(make_stack: Callable[..., Any], tmp_path_factory: Any) -> AsyncIterator[Any]:
    """An installation that ends sessions after some seconds, except those of one profile."""
    settings = tmp_path_factory.mktemp("idle") / "dmsp.yaml"
    settings.write_text(f"idle: {{timeout: {IDLE}, warning: 4, profiles: {{deepsea: 0}}}}\n")
    more = (
        f"c.LocalProfileSpawner.settings_file = {str(settings)!r}\n"
        'c.Spawner.environment = {"JUPYTERHUB_ACTIVITY_INTERVAL": "1"}\n'
    )
    async with make_stack(more=more) as running:
        for user in USERS:
            async with running.browser() as browser:
                await browser.login(user)
        yield running


def leases(stack: Any, user: str) -> Path:
    return Path(stack.state / "sessions" / user / "run" / "dmsp" / "busy")


async def test_idle_ends_and_work_goes_on(quick: Any, notebook: Any, until: Any) -> None:
    for user in USERS:
        assert (await quick.launch(user, "everybody"))[-1].get("ready")
    busy, leased, idle = USERS
    # A kernel that says nothing while it computes: only its state tells.
    one = await notebook(quick, busy)
    work = asyncio.create_task(one.run("import time; time.sleep(600)", timeout=600))
    lease = leases(quick, leased) / "workflow"
    await until(lease.parent.is_dir, 20)
    lease.touch()
    os.utime(lease, (time.time() + 600,) * 2)
    await until(lambda: quick.stopped(idle), 90)
    log = quick.log("hub")
    assert f"Ending the session of {idle}" in log
    assert f"The session of {idle} will end in" in log
    # More than the idle time later the others still run: the idle one is started and ended once more meanwhile.
    async with quick.browser() as browser:
        await browser.login(idle)
        assert "Your last session was ended at" in (await browser.form()).text
    await quick.launch(idle, "everybody")
    await until(lambda: quick.stopped(idle), 60)
    assert not await quick.stopped(busy)
    assert not await quick.stopped(leased)
    # What has kept them is gone: now they end.
    work.cancel()
    async with one.session.delete(f"{one.base}/api/kernels/{one.kernel['id']}") as answer:
        assert answer.status == 204
    lease.unlink()
    await until(lambda: quick.stopped(leased), 60)
    await until(lambda: quick.stopped(busy), 60)
    for user in USERS:
        assert records.Record.read(quick.state, user) is None


async def test_other_times_for_a_profile_and_programs_in_the_background(
    quick: Any, notebook: Any, until: Any
) -> None:
    never, works = USERS[0], USERS[1]
    assert (await quick.launch(never, "deepsea"))[-1].get("ready")
    assert (await quick.launch(works, "everybody"))[-1].get("ready")
    one = await notebook(quick, works)
    command = (
        "import subprocess; p = subprocess.Popen(['python3', '-c', 'while True: pass'], start_new_session=True)"
    )
    await one.run(command)
    await one.close()
    # A third session is the clock: it ends when its time is over, so theirs would be.
    await quick.launch(USERS[2], "everybody")
    await until(lambda: quick.stopped(USERS[2]), 60)
    assert not await quick.stopped(works)
    assert not await quick.stopped(never)
    for user in (never, works):
        await quick.quit(user)


async def test_what_a_lost_hub_left_is_ended(quick: Any, until: Any) -> None:
    """The hub's database is gone, as after a restore of an older one; its sessions run on."""
    left, user = USERS[0], USERS[1]
    await quick.launch(left, "deepsea")
    record = quick.record(left)
    await quick.stop("hub", kill=True)
    for file in (quick.state / "hub").glob("jupyterhub.sqlite*"):
        file.unlink()
    assert record.alive()
    await quick.start_hub()
    await until(lambda: not record.alive(), 30)
    assert f"Ended the session {left}" in quick.log("hub")
    await until(lambda: records.Record.read(quick.state, left) is None, 10)
    async with quick.browser() as browser:
        await browser.login(user)
    assert (await quick.launch(user, "deepsea"))[-1].get("ready")
    await quick.quit(user)
