"""The database of a box as one file that any later PostgreSQL reads: ``pg_dump`` and ``pg_restore``.

A dump, not a copy of PostgreSQL's files: it is one consistent snapshot of a running database, and it survives a change
of PostgreSQL's major version.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_dmsp.box import database
from jupyterhub_dmsp.box.confine import confine
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.process import Process, main_of
from jupyterhub_dmsp.sandbox.run import outcome

NAME = "postgres"
TIMEOUT = 3600.0
STARTS_WITHIN = 60.0


@dataclass(frozen=True)
class Place:
    """Where a database is and who runs it."""

    directory: Path
    password: Path
    port: int
    uid: int
    gid: int
    etc: Path


@contextlib.asynccontextmanager
async def running(place: Place) -> AsyncGenerator[None, None]:
    """A PostgreSQL of our own on a database that nobody else runs; ended afterwards.

    Raises:
        DmspError: it does not start.
    """
    command = confine(
        database.command(place.directory, place.port),
        uid=place.uid,
        gid=place.gid,
        name="database",
        writable=[place.directory],
        readable=database.readable(),
        etc=place.etc,
    )
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=database.environment(),
            start_new_session=True,
        )
        try:
            await _ready(process, place.port)
            yield
        finally:
            await _end(process)


async def _ready(process: asyncio.subprocess.Process, port: int) -> None:
    try:
        async with asyncio.timeout(STARTS_WITHIN):
            while not await database.ready(port):
                if process.returncode is not None:
                    raise DmspError(
                        "The database does not start.", "`dmsp up` and `dmsp logs database` say why."
                    )
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DmspError("The database does not start within a minute.", "Is the disk very slow?") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    outer = Process.of(process.pid) if process.returncode is None else None
    if outer is not None:
        (main_of(outer) or outer).send(database.STOP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def dump(place: Place, target: Path) -> None:
    """Write the running database to a file (0600)."""
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        # Not compressed here: the archive is.
        await _run(place, "pg_dump", "-Fc", "-Z0", "--no-owner", output=output.fileno())


async def load(place: Place, source: Path) -> None:
    """Fill a new, running database from a dump: all of it or nothing."""
    with source.open("rb") as file:
        options = ("--no-owner", "--exit-on-error", "--single-transaction", "-d", NAME)
        await _run(place, "pg_restore", *options, stdin=file.fileno())


async def _run(
    place: Place,
    program: str,
    *options: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    output: int | None = None,
) -> None:
    """Run a client of PostgreSQL; the password goes through a 0600 file."""
    with tempfile.NamedTemporaryFile("w", prefix="dmsp-") as secret:
        secret.write(f"127.0.0.1:*:*:{database.USER}:{place.password.read_text().strip()}\n")
        secret.flush()
        where = ("-h", "127.0.0.1", "-p", str(place.port), "-U", database.USER, "-w")
        name = (NAME,) if program == "pg_dump" else ()
        process = await asyncio.create_subprocess_exec(
            str(database.binaries() / program),
            *where,
            *options,
            *name,
            stdin=stdin,
            stdout=asyncio.subprocess.DEVNULL if output is None else output,
            stderr=asyncio.subprocess.PIPE,
            env={**database.environment(), "PGPASSFILE": secret.name},
            cwd="/",
        )
        try:
            code, _, said = await outcome(process, TIMEOUT)
        except TimeoutError:
            raise DmspError(f"The database was not copied within {TIMEOUT / 60:.0f} minutes.") from None
    if code:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise DmspError(f"The database could not be copied: {last or program + ' failed'}.")
