"""A database that an earlier JupyterHub wrote, with its own code: today's hub brings it up to date and keeps a copy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupyterhub_dmsp.profiles.builder import find_uv

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
EARLIER = Path(__file__).parent / "earlier"
#: Of JupyterHub 5.4.
REVISION = "4621fec11365"


@pytest.fixture(scope="module")
def earlier() -> Path:
    """The Python of an environment with the earlier JupyterHub; made once, beside the tests' own."""
    place = Path(sys.prefix, "share", "dmsp-tests", "jupyterhub-5.4.0")
    if not place.exists():
        part = place.with_name(f"{place.name}.{os.getpid()}")
        uv, python = find_uv(), str(part / "bin" / "python")
        run([uv, "venv", "-q", "--relocatable", "--python", sys.executable, str(part)])
        run(
            [
                uv,
                "pip",
                "install",
                "-q",
                "--python",
                python,
                "--require-hashes",
                "-r",
                str(EARLIER / "requirements.lock"),
            ]
        )
        with contextlib.suppress(OSError):  # another run was quicker
            part.rename(place)
        shutil.rmtree(part, ignore_errors=True)
    return place / "bin" / "python"


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def query(database: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(database)) as db:
        return db.execute(statement).fetchall()


async def test_the_hub_upgrades_its_database_itself(make_stack: Callable[..., Any], earlier: Path) -> None:
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    async with make_stack(env={"PATH": path}) as stack:
        (database,) = (stack.state / "hub").glob("jupyterhub.sqlite")
        today = query(database, "SELECT version_num FROM alembic_version")
        await stack.stop("hub")
        database.unlink()
        token = await asyncio.to_thread(run, [str(earlier), "-I", str(EARLIER / "write.py"), str(database)])
        assert query(database, "SELECT version_num FROM alembic_version") == [(REVISION,)] != today
        await stack.start_hub()
        assert query(database, "SELECT version_num FROM alembic_version") == today
        (copy,) = (stack.state / "hub").glob("jupyterhub.sqlite.*")
        assert query(copy, "SELECT version_num FROM alembic_version") == [(REVISION,)]
        assert query(copy, "SELECT name FROM users") == [("km3net-user",)]
        headers = {"Authorization": f"token {token}"}
        async with httpx.AsyncClient(timeout=30, trust_env=False, headers=headers) as http:
            answer = await http.get(f"{stack.public}hub/api/user")
        assert (answer.status_code, answer.json()["name"]) == (200, "km3net-user"), answer.text
        assert "/dmsp/km3net" in answer.json()["groups"]
        async with stack.browser() as browser:
            assert (await browser.login("km3net-user")).status_code == 200
        await stack.stop("hub")
        await stack.start_hub()
        assert len(list((stack.state / "hub").glob("jupyterhub.sqlite.*"))) == 1, (
            "the second start upgrades nothing"
        )
