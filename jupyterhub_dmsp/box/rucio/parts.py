"""What to start for the embedded Rucio, in which environment, and how to know that it works."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from jupyterhub_dmsp.box.rucio.config import Files
from jupyterhub_dmsp.shared import dmsp_log

#: On the ``PYTHONPATH`` of everything that runs in Rucio's environment.
INSIDE = Path(__file__).parent / "inside"
#: Likewise: what Rucio's environment shares with ours.
SHARED = Path(dmsp_log.__file__).parent
#: Lock of Rucio's environment, with hashes.
LOCK = Path(__file__).parent / "requirements.lock"
#: What the bootstrap ends with when another version of Rucio made the tables (``dmsp_rucio.bootstrap``).
OTHER_VERSION = 3
#: The daemons renew their health file every second; they are silent when it is older than this.
SILENT_AFTER = 15.0
#: Seconds that a loop may fail, or be silent in one round, before the daemons count as broken.
FAILING_AFTER, STUCK_AFTER = 120.0, 1800.0
NEEDED_LOOPS = ("judge-evaluator", "conveyor-submitter", "conveyor-finisher")
#: Passed on to the daemons where the box's own environment has it: tests slow copies down with it.
TEST_AIDS = ("DMSP_RUCIO_COPY_PAUSE",)


def environment(directory: Path) -> dict[str, str]:
    """The whole environment of Rucio's processes; ``directory`` is Rucio's state directory."""
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": "/",
        "PYTHONPATH": f"{INSIDE}:{SHARED}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "RUCIO_CONFIG": str(Files(directory).config),
    }


def test_aids() -> dict[str, str]:
    """What tests want of the daemons; empty otherwise."""
    return {name: os.environ[name] for name in TEST_AIDS if name in os.environ}


def readable(env: Path) -> list[Path]:
    """What a confined Rucio must see besides its state and storage: its environment, our code, its interpreter."""
    paths = [env, INSIDE, SHARED]
    base = (env / "bin" / "python").resolve()
    if not base.is_relative_to("/usr") and not base.is_relative_to(env):
        paths.append(base.parents[1])
    return paths


def bootstrap_command(env: Path) -> list[str]:
    """Makes schema, accounts and RSEs and ends; ``Plan.document(...)`` as JSON goes to its standard input."""
    return [str(env / "bin" / "python"), "-m", "dmsp_rucio.bootstrap"]


def server_command(env: Path, binds: Iterable[tuple[str, int]], *, workers: int = 2) -> list[str]:
    """The Rucio server (gunicorn). SIGTERM stops it.

    Args:
        env: Rucio's environment.
        binds: addresses and ports; loopback, and the session bridge.
        workers: processes; each handles eight requests at a time in threads, one of them in Python.
    """
    options = ["--config", "python:dmsp_rucio.serving", "--no-control-socket", "--workers", str(workers)]
    for host, port in binds:
        options += ["--bind", f"{host}:{port}"]
    program = [str(env / "bin" / "python"), "-m", "gunicorn"]
    return [*program, *options, "dmsp_rucio.application:application"]


def daemons_command(env: Path) -> list[str]:
    """Rucio's daemons and the transfers, in one process. SIGTERM stops it within five seconds."""
    return [str(env / "bin" / "python"), "-m", "dmsp_rucio.daemons"]


def audit_command(env: Path) -> list[str]:
    """Compares a storage element with the catalogue and ends; what to do goes to its standard input as JSON."""
    return [str(env / "bin" / "python"), "-m", "dmsp_rucio.checking"]


async def server_ready(url: str) -> bool:
    """Whether the Rucio server answers ``GET /ping``."""
    try:
        async with httpx.AsyncClient(timeout=3, trust_env=False) as client:
            return (await client.get(f"{url}/ping")).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class DaemonsHealth:
    """What the daemons say about themselves.

    Attributes:
        ready: transfers are being looked after.
        age: seconds since they last said something.
        copying: files queued for copying or being copied.
        copied: files copied since the start.
        failed: copies that failed since the start.
        troubled: loops whose last round failed, with the kind of error.
        pid: process id.
    """

    ready: bool
    age: float
    copying: int = 0
    copied: int = 0
    failed: int = 0
    troubled: dict[str, str] | None = None
    pid: int = 0


def _said(directory: Path) -> dict[str, Any] | None:
    """The daemons' health file; None when there is none that can be read."""
    try:
        said: dict[str, Any] = json.loads(Files(directory).health.read_text())
    except (OSError, ValueError):
        return None
    return said


def daemons_health(directory: Path) -> DaemonsHealth:
    """Read the daemons' health file; ``directory`` is Rucio's state directory."""
    said = _said(directory)
    if said is None:
        return DaemonsHealth(ready=False, age=float("inf"))
    # An earlier version said no tick: whoever wrote that does not run any more.
    age = max(0.0, time.monotonic() - said.get("tick", float("-inf")))
    return DaemonsHealth(
        ready=said["ready"] and age < SILENT_AFTER,
        age=age,
        copying=said["copying"],
        copied=said["copied"],
        failed=said["failed"],
        troubled={name: loop["error"] for name, loop in said["loops"].items() if loop["error"]},
        pid=said["pid"],
    )


async def daemons_ready(directory: Path) -> bool:
    """Whether the daemons work; whoever starts them removes the health file first."""
    return (await asyncio.to_thread(daemons_health, directory)).ready


def _wrong(directory: Path, now: float) -> str:
    """What is wrong with the daemons, from their health file; ``now`` by the clock that nobody sets."""
    said = _said(directory)
    if said is None:
        return "their health file cannot be read"
    silent = now - said["tick"]
    if silent > SILENT_AFTER:
        return f"have been silent for {silent:.0f} s"
    for name, loop in said["loops"].items():
        quiet = said["tick"] - max(loop["tick"], said["first_tick"])
        if loop["error"] and quiet > FAILING_AFTER and name in NEEDED_LOOPS:
            return f"{name} has failed for {quiet:.0f} s ({loop['error']})"
        if quiet > STUCK_AFTER:
            return f"{name} has not finished a round for {quiet:.0f} s"
    return ""


async def daemons_wrong(directory: Path) -> str:
    """What is wrong with running daemons, in words; "" when nothing is.

    They are silent, a loop hangs, or one that transfers and rules need fails at every round. Trouble of another loop is
    for the log: starting again would not cure it and would interrupt transfers.
    """
    return await asyncio.to_thread(_wrong, directory, time.monotonic())
