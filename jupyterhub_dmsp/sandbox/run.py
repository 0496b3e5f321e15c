"""Short system commands, awaited: nothing here blocks an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from jupyterhub_dmsp.sandbox.errors import CommandFailed, ToolMissing

TIMEOUT = 20.0


async def attempt(argv: Sequence[str], text: str = "") -> tuple[int, str, str]:
    """Run a command; its exit code, standard output and standard error. ``text`` goes to its standard input."""
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
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate(text.encode())
    except TimeoutError:
        raise CommandFailed(" ".join(argv), f"no answer in {TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


async def run(argv: Sequence[str], text: str = "") -> str:
    """Run a command that must succeed; its standard output. Raises :class:`CommandFailed`."""
    code, out, err = await attempt(argv, text)
    if code:
        raise CommandFailed(" ".join(argv), err or out or f"exit code {code}")
    return out
