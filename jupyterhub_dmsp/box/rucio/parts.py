"""What to start for the embedded Rucio, in which environment, and how to know that it works."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from jupyterhub_dmsp.box.rucio.config import Files

#: On the ``PYTHONPATH`` of everything that runs in Rucio's environment.
INSIDE = Path(__file__).parent / "inside"
#: Lock of Rucio's environment, with hashes.
LOCK = Path(__file__).parent / "requirements.lock"
#: The daemons renew their health file every second; they are silent when it is older than this.
SILENT_AFTER = 15.0


def environment(directory: Path) -> dict[str, str]:
    """The whole environment of Rucio's processes; ``directory`` is Rucio's state directory."""
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": "/",
        "PYTHONPATH": str(INSIDE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "RUCIO_CONFIG": str(Files(directory).config),
    }


def readable(env: Path) -> list[Path]:
    """What a confined Rucio must see besides its state and storage: its environment, our code, its interpreter."""
    paths = [env, INSIDE]
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


def daemons_health(directory: Path, *, since: float = 0.0) -> DaemonsHealth:
    """Read the daemons' health file.

    Args:
        directory: Rucio's state directory.
        since: ignore what a process said that started before this time (seconds since 1970).
    """
    try:
        said: dict[str, Any] = json.loads(Files(directory).health.read_text())
    except (OSError, json.JSONDecodeError):
        return DaemonsHealth(ready=False, age=float("inf"))
    age = max(0.0, time.time() - said["now"])
    return DaemonsHealth(
        ready=said["ready"] and age < SILENT_AFTER and said["started"] >= since,
        age=age,
        copying=said["copying"],
        copied=said["copied"],
        failed=said["failed"],
        troubled={name: loop["error"] for name, loop in said["loops"].items() if loop["error"]},
        pid=said["pid"],
    )


async def daemons_ready(directory: Path, *, since: float = 0.0) -> bool:
    """Whether the daemons that started after ``since`` work."""
    return (await asyncio.to_thread(daemons_health, directory, since=since)).ready
