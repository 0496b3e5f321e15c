"""Builds that the machine interrupts: uv killed under a hub that goes on, hub and uv killed together, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jupyterhub_dmsp.profiles.builder import MARKER
from jupyterhub_dmsp.profiles.environments import BuildFailed, Environments, EnvironmentSpec

BUILDER = """
import asyncio, sys
from pathlib import Path
from jupyterhub_dmsp.profiles.environments import Environments, EnvironmentSpec
spec = EnvironmentSpec("small", Path(sys.argv[2]), "3.11")
asyncio.run(Environments(Path(sys.argv[1])).ensure(spec, lambda p: print(p.stage, flush=True)))
"""


@pytest.fixture
def small(root: Path) -> Iterator[Path]:
    """A root on a disk of a few MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "dmsp-small", str(root)], check=True, timeout=30)
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True, timeout=30)


async def test_uv_is_killed_under_a_hub_that_goes_on(root: Path, spec: EnvironmentSpec) -> None:
    """One sentence for the user who waited; the next launch builds it."""
    environments = Environments(root)
    killed: list[int] = []

    async def hunt() -> None:
        while not killed:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if child.name() == "uv" and "pip" in child.cmdline():
                        child.kill()
                        killed.append(child.pid)
            await asyncio.sleep(0.002)

    hunter = asyncio.create_task(hunt())
    with pytest.raises(BuildFailed, match="The environment small cannot be built"):
        await environments.ensure(spec)
    await hunter
    assert not environments.path(spec).exists(), "nothing but the log is left"
    assert (await environments.ensure(spec) / MARKER).exists()


def builder(root: Path, spec: EnvironmentSpec) -> subprocess.Popen[str]:
    """Another process that builds the environment and says each stage."""
    argv = [sys.executable, "-c", BUILDER, str(root), str(spec.lock)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)


async def test_the_hub_is_killed_with_all_that_it_started(root: Path, spec: EnvironmentSpec) -> None:
    plain = EnvironmentSpec(spec.slug, spec.lock, spec.python)
    process = builder(root, spec)
    assert process.stdout is not None
    while (await asyncio.to_thread(process.stdout.readline)).strip() not in ("download", "install"):
        assert process.poll() is None
    started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in reversed(started):
        if one.is_running():
            one.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    environments = Environments(root)
    assert not environments.is_ready(plain)
    async with asyncio.timeout(120):
        path = await environments.ensure(plain)
    assert environments.is_ready(plain)
    assert (path / MARKER).exists()


async def test_a_full_disk_is_said_and_the_next_launch_builds(small: Path, spec: EnvironmentSpec) -> None:
    environments = Environments(small)
    with pytest.raises(BuildFailed, match=r"(?i)no space left"):
        await environments.ensure(spec)
    assert not environments.path(spec).exists()
    grow = ["mount", "-o", "remount,size=200m", str(small)]
    await asyncio.to_thread(subprocess.run, grow, check=True, timeout=30)
    assert (await environments.ensure(spec) / MARKER).exists()
