"""``dmsp backup``: a box, running or not, in one file.

Kept: database, homes, secrets, ids, the hub's and the issuer's files, the files at the sites. Not kept, because it is
made anew: environments, scratch, logs, sessions, what the parts are configured with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyterhub_dmsp import __version__
from jupyterhub_dmsp.box.backup import archive, dump
from jupyterhub_dmsp.box.backup.walk import Walk
from jupyterhub_dmsp.box.state import State, port_is_free
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.ids import USERS_BASE, Ids
from jupyterhub_dmsp.settings import Lake

DATABASE, SETTINGS, NETWORK = "database.dump", "dmsp.yaml", "network.json"
#: What belongs to the box, and what in it is made anew.
OURS = {
    "ids": frozenset({".users.json.lock", ".groups.json.lock"}),
    "secrets": frozenset(),
    "issuer": frozenset({"config.json"}),
    "hub": frozenset({"facts.json", "jupyterhub_config.py", "issuer.json"}),
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Summary:
    """What a backup holds.

    Attributes:
        path: the file.
        size: of the file, in bytes.
        files: regular files in it.
        skipped: what could not be kept (sockets, pipes, what vanished meanwhile).
        changed: what was being written and may be between two states.
    """

    path: Path
    size: int
    files: int
    skipped: list[str]
    changed: list[str]


def create(state: State, path: Path, say: Say, *, with_data: bool = True) -> Summary:
    """Write a backup.

    Args:
        state: a box that runs, or does not; one that does not is locked meanwhile.
        path: the file, ``.tar.zst`` or ``.tar.gz``; it must not exist.
        say: told what is under way.
        with_data: keep the files at the sites too.

    Raises:
        DmspError: with one sentence; nothing is left at ``path``.
    """
    if not state.exists:
        raise DmspError(f"{state.path} holds no box.", "Name the directory with --state.")
    path = path.absolute()
    if os.path.lexists(path):
        raise DmspError(f"{path} exists already.", "Choose another name.")
    if path.is_relative_to(state.path):
        raise DmspError("A backup inside of the state would be lost with it.", "Choose another place.")
    if not path.parent.is_dir():
        raise DmspError(f"There is no directory {path.parent}.", "Make it, or choose another place.")
    try:
        if state.owner() is not None:
            return _create(state, path, say, with_data, runs=True)
        with state.locked():
            return _create(state, path, say, with_data, runs=False)
    except OSError as error:
        raise DmspError(f"The backup stopped: {error.strerror or error}.", "Nothing is left of it.") from error


def _create(state: State, path: Path, say: Say, with_data: bool, runs: bool) -> Summary:
    scratch, settings_file = _facts(state)
    # Beside the backup: there is room for it, and nowhere else need be.
    with (
        tempfile.TemporaryDirectory(prefix=".dmsp-backup-", dir=path.parent) as folder,
        archive.Writer(path) as writer,
    ):
        walk = Walk(writer)
        writer.text(archive.MANIFEST, json.dumps(_manifest(state, with_data, scratch), indent=1))
        say("copying the database")
        _database(state, Path(folder), walk, runs)
        _plain(state, walk, settings_file)
        walk.ours = True
        for name, leave_out in OURS.items():
            say(f"copying {name}")
            walk.tree(state / name, name, leave_out)
        walk.tree(state / "demo", "demo", frozenset() if with_data else frozenset({"staging"}))
        walk.ours = False
        walk.told = _teller(say)
        walk.tree(state / "homes", "homes")
        if with_data:
            walk.tree(state / "storage", "storage", frozenset({scratch}))
    return Summary(path, path.stat().st_size, walk.files, walk.skipped, writer.changed)


def _teller(say: Say) -> Callable[[int], None]:
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        if count - told >= 64 << 20:
            told = count
            say(f"copying files: {count / 1e9:.1f} GB")

    return tell


def _manifest(state: State, with_data: bool, scratch: str) -> dict[str, Any]:
    return {
        "schema": _schema(state),
        "program": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "root": os.geteuid() == 0,
        "with_data": with_data,
        "scratch": scratch,
    }


def _schema(state: State) -> int:
    return int(json.loads((state / "version.json").read_text())["schema"])


def _facts(state: State) -> tuple[str, Path | None]:
    """The name of the scratch storage, and the file of settings, as the box was last started."""
    try:
        facts = json.loads((state / "hub" / "facts.json").read_text())
        file = str(facts["settings_file"])
        return str(facts["box"]["scratch_rse"]), Path(file) if file else None
    except (OSError, ValueError, KeyError, TypeError):
        return Lake().scratch_rse, None


def _plain(state: State, walk: Walk, settings_file: Path | None) -> None:
    """The small files at the top, the subnet (it is part of the lake's address), the settings."""
    for name in ("version.json", "ports.json"):
        with contextlib.suppress(FileNotFoundError):
            walk.archive.text(name, (state / name).read_text(), 0o644)
    with contextlib.suppress(OSError, ValueError, KeyError):
        network = json.loads((state / "run" / NETWORK).read_text())
        walk.archive.text(NETWORK, json.dumps({"subnet": network["subnet"]}))
    if settings_file is not None:
        with contextlib.suppress(OSError):
            walk.archive.text(SETTINGS, settings_file.read_text())


def place_of(state: State, port: int, etc: Path) -> dump.Place:
    """Where a state has its database, to be reached or run at this port."""
    uid = Ids(state / "ids" / "users.json", USERS_BASE).get("_database") if os.geteuid() == 0 else os.geteuid()
    gid = uid if os.geteuid() == 0 else os.getegid()
    return dump.Place(state / "database", state / "secrets" / "database-password", port, uid, gid, etc)


def any_port() -> int:
    """A port that is free now, below the ephemeral range."""
    return next(port for port in range(25432, 32000) if port_is_free(port))


def _database(state: State, folder: Path, walk: Walk, runs: bool) -> None:
    """Dump it first: what the catalogue knows of then is copied later, or was deleted, which a restore notices."""
    target = folder / DATABASE
    if not (state / "database" / "data" / "PG_VERSION").exists():
        raise DmspError("This box has no database yet.", "`dmsp up` makes it.")
    if runs:
        port = int(json.loads((state / "ports.json").read_text())["database"])
        asyncio.run(dump.dump(place_of(state, port, folder / "etc"), target))
    else:
        asyncio.run(_dump_stopped(place_of(state, any_port(), folder / "etc"), target))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        walk.member(descriptor, DATABASE)
    finally:
        os.close(descriptor)


async def _dump_stopped(place: dump.Place, target: Path) -> None:
    async with dump.running(place):
        await dump.dump(place, target)
