"""Idle sessions end, working ones do not; what a lost hub left ends too."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from jupyterhub_dmsp.hub.local import records

pytestmark = pytest.mark.root

IDLE = 12
USERS = ("km3net-user", "collider-user", "vre-admin")
# A profile that nobody starts: its short time makes the hub look once a second.
OFTEN = "profiles: {other: 20, deepsea: 0}"


@pytest.fixture(scope="module")
async def quick(make_stack: Callable[..., Any], tmp_path_factory: Any) -> AsyncIterator[Any]:
    """An installation that looks at its sessions all the time, and ends them once the tests say so."""
    settings = tmp_path_factory.mktemp("idle") / "dmsp.yaml"
    more = (
        f"c.LocalProfileSpawner.settings_file = {str(settings)!r}\n"
        'c.Spawner.environment = {"JUPYTERHUB_ACTIVITY_INTERVAL": "1"}\n'
        'c.Spawner.args = ["--DmspLab.activity_interval=1"]\n'
    )
    settings.write_text("idle: {timeout: 0}\n")
    async with make_stack(more=more) as running:
        running.settings = settings
        for user in USERS:
            async with running.browser() as browser:
                await browser.login(user)
        yield running


def rule(stack: Any, timeout: int) -> None:
    """After how many seconds sessions are idle, from now on."""
    stack.settings.write_text(f"idle: {{timeout: {timeout}, warning: 100, {OFTEN}}}\n")


async def active(stack: Any, user: str) -> str:
    """The hub's idea of when a session was active last."""
    async with stack.admin() as http:
        return str((await http.get(f"users/{user}")).json()["servers"][""]["last_activity"])


async def works(stack: Any, user: str, until: Any) -> None:
    """Wait until the hub has been told twice that something goes on."""
    for _ in range(2):
        before = await active(stack, user)

        async def newer(before: str = before) -> bool:
            return await active(stack, user) > before

        await until(newer, 60)


async def test_idle_ends_and_work_goes_on(quick: Any, notebook: Any, until: Any) -> None:
    rule(quick, 0)
    for user in USERS:
        assert (await quick.launch(user, "everybody"))[-1].get("ready")
    busy, leased, idle = USERS
    # A kernel that says nothing while it computes: only its state tells.
    one = await notebook(quick, busy)
    work = asyncio.create_task(one.run("import time; time.sleep(600)", timeout=600))
    folder = quick.state / "sessions" / leased / "run" / "dmsp" / "busy"
    await until(folder.is_dir, 20)
    lease = folder / "workflow"
    lease.touch()
    os.utime(lease, (time.time() + 600,) * 2)
    for user in (busy, leased):
        await works(quick, user, until)
    rule(quick, IDLE)
    await until(lambda: quick.stopped(idle), 90)
    assert f"Ending the session of {idle}: nothing happened in it" in quick.log("hub")
    async with quick.browser() as browser:
        await browser.login(idle)
        assert "Your last session was ended at" in (await browser.form()).text
    # The idle one is started once more and is the clock: when it ends, the others' time would be over too.
    await quick.launch(idle, "everybody")
    await until(lambda: quick.stopped(idle), 90)
    assert not await quick.stopped(busy)
    assert not await quick.stopped(leased)
    # What has kept them is gone: now they end.
    work.cancel()
    async with one.session.delete(f"{one.base}/api/kernels/{one.kernel['id']}") as answer:
        assert answer.status == 204
    lease.unlink()
    for user in (leased, busy):
        await until(lambda user=user: quick.stopped(user), 90)
        assert records.Record.read(quick.state, user) is None


async def test_other_times_for_a_profile_and_programs_in_the_background(
    quick: Any, notebook: Any, until: Any
) -> None:
    rule(quick, 0)
    never, computes, clock = USERS
    assert (await quick.launch(never, "deepsea"))[-1].get("ready")
    assert (await quick.launch(computes, "everybody"))[-1].get("ready")
    one = await notebook(quick, computes)
    code = "import subprocess as s, sys; s.Popen([sys.executable, '-c', 'while True: pass'], start_new_session=True)"
    await one.run(code)
    await one.close()
    await works(quick, computes, until)
    rule(quick, IDLE)
    await quick.launch(clock, "everybody")
    await until(lambda: quick.stopped(clock), 90)
    assert not await quick.stopped(computes)
    assert not await quick.stopped(never)
    for user in (never, computes):
        await quick.quit(user)


async def test_what_a_lost_hub_left_is_ended(quick: Any, until: Any) -> None:
    """The hub's database is gone, as after a restore of an older one; its sessions run on."""
    rule(quick, 0)
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
    assert (await quick.launch(user, "everybody"))[-1].get("ready")
    await quick.quit(user)
