"""Short system commands, awaited: nothing here blocks an event loop, and nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from jupyterhub_dmsp.sandbox.errors import CommandFailed, ToolMissing

TIMEOUT = 20.0
REAPED_WITHIN = 3.0


async def outcome(
    process: asyncio.subprocess.Process, timeout: float, data: bytes | None = None
) -> tuple[int, bytes, bytes]:
    """Wait for the end of a process; it is killed and reaped when that takes too long, or the caller is cancelled.

    Args:
        process: just started.
        timeout: seconds.
        data: for its standard input, which is closed afterwards.

    Returns:
        Its exit code, and what came through the pipes of its standard output and error (empty where there is none).

    Raises:
        TimeoutError: it had not ended in time.
    """
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(data)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # Not for ever: one that hangs in the kernel, at a mount that is dead, does not even end when it is killed.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REAPED_WITHIN):
                    await process.wait()
    assert process.returncode is not None
    return process.returncode, out or b"", err or b""


async def attempt(argv: Sequence[str], text: str = "") -> tuple[int, str, str]:
    """Run a command; its exit code, standard output and standard error. ``text`` goes to its standard input.

    Raises:
        ToolMissing: there is no such program.
        CommandFailed: it did not end within :data:`TIMEOUT` seconds.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise ToolMissing(argv[0]) from None
    try:
        code, out, err = await outcome(process, TIMEOUT, text.encode())
    except TimeoutError:
        raise CommandFailed(" ".join(argv), f"no answer in {TIMEOUT:g} s") from None
    return code, out.decode(errors="replace"), err.decode(errors="replace")


async def run(argv: Sequence[str], text: str = "") -> str:
    """Run a command that must succeed; its standard output. Raises :class:`CommandFailed`."""
    code, out, err = await attempt(argv, text)
    if code:
        raise CommandFailed(" ".join(argv), err or out or f"exit code {code}")
    return out
