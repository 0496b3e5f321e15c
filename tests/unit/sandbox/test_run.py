"""Commands are awaited for so long and no longer; nothing of them is left, whoever gives up first."""

from __future__ import annotations

import asyncio
import sys

import pytest

from jupyterhub_dmsp.sandbox.errors import CommandFailed, ToolMissing
from jupyterhub_dmsp.sandbox.process import Process
from jupyterhub_dmsp.sandbox.run import attempt, outcome, run

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(900)"
)


async def started(code: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)


async def test_what_it_said_and_how_it_ended() -> None:
    process = await started("import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(3)")
    assert await outcome(process, 30, b"hello") == (3, b"HELLO", b"")


async def test_too_long() -> None:
    process = await started(STUBBORN)
    assert Process.of(process.pid) is not None
    with pytest.raises(TimeoutError):
        await outcome(process, 0.2)
    assert process.returncode == -9
    assert Process.of(process.pid) is None


async def test_the_caller_gives_up() -> None:
    process = await started(STUBBORN)
    waiting = asyncio.create_task(outcome(process, 900))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert process.returncode == -9


async def test_commands() -> None:
    assert await attempt(["cat"], "ä") == (0, "ä", "")
    with pytest.raises(CommandFailed, match="no such thing"):
        await run(["sh", "-c", "echo no such thing >&2; exit 1"])
    with pytest.raises(ToolMissing):
        await run(["dmsp-no-such-program"])
