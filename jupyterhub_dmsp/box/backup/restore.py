"""``dmsp restore``: a box from a backup, all of it or nothing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.box import database, migrations
from jupyterhub_dmsp.box.backup import archive, dump
from jupyterhub_dmsp.box.backup.create import DATABASE, NETWORK, SETTINGS, any_port, place_of
from jupyterhub_dmsp.box.returning import MARKER
from jupyterhub_dmsp.box.state import PORT_NAMES, SCHEMA, State, port_is_free, write_private
from jupyterhub_dmsp.errors import DmspError

#: What may stand at the top of an archive.
KNOWN = {
    *(archive.MANIFEST, archive.SUMS, DATABASE, NETWORK, SETTINGS, "version.json", "ports.json"),
    *("ids", "secrets", "issuer", "hub", "demo", "homes", "storage"),
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Restored:
    """What was restored, and what the admin should know before `dmsp up`."""

    path: Path
    made: str
    notes: list[str] = field(default_factory=list)


def restore(path: Path, state: State, say: Say, *, port: int | None = None) -> Restored:
    """Make a state from a backup.

    Args:
        path: the backup.
        state: where to; the directory must be new or empty.
        say: told what is under way.
        port: choose other ports from here on for those that are taken on this machine; None to keep all.

    Raises:
        DmspError: with one sentence; nothing is left behind.
    """
    manifest = archive.read_manifest(path)
    _check_manifest(path, manifest)
    _check_target(state)
    part = state.path.with_name(f".{state.path.name}.{secrets.token_hex(4)}.restore")
    try:
        state.path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        say("reading and checking the files")
        archive.check(path, part)
        _check_content(path, part)
        say("filling the database")
        asyncio.run(_fill_database(State(part)))
        _settle(State(part), manifest)
        # Before the ports may change: the lake is named after the address that its users know.
        migrations.upgrade(State(part), say)
        notes = _ports(State(part), port)
        part.chmod(0o711)
        part.rename(state.path)
    except OSError as error:
        raise DmspError(f"The restore stopped: {error.strerror or error}.", "Nothing is left of it.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if (state / "hub" / SETTINGS).exists():
        notes.append(f"It ran with settings of its own: start it with --config {state / 'hub' / SETTINGS}.")
    return Restored(state.path, str(manifest.get("made", "")), notes)


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    if manifest["schema"] > SCHEMA:
        raise DmspError(
            f"The backup {path.name} has version {manifest['schema']}, this program reads up to {SCHEMA}.",
            "Use a newer jupyterhub-dmsp.",
        )
    if bool(manifest.get("root")) != (os.geteuid() == 0):
        who = "root" if manifest.get("root") else "an ordinary user"
        raise DmspError(
            f"The backup {path.name} was made by {who}: its files have other owners.", f"Restore it as {who}."
        )


def _check_target(state: State) -> None:
    if not os.path.lexists(state.path):
        return
    if not state.path.is_dir() or state.path.is_symlink():
        raise DmspError(f"{state.path} is not a directory.", "Name another one with --state.")
    if any(state.path.iterdir()):
        raise DmspError(f"{state.path} is not empty.", "Name a new or empty directory with --state.")


def _check_content(path: Path, part: Path) -> None:
    names = {entry.name for entry in part.iterdir()}
    if names - KNOWN:
        raise archive.Damaged(path, f"it holds {min(names - KNOWN)!r}, which no box has")
    for name in (DATABASE, "version.json", "secrets/database-password", "ids" if os.geteuid() == 0 else "hub"):
        if not (part / name).exists():
            raise archive.Damaged(path, f"{name} is missing")


async def _fill_database(state: State) -> None:
    etc = state / ".etc"
    place = place_of(state, any_port(), etc)
    # The part's own user must be able to go through.
    state.path.chmod(0o711)
    await database.prepare(place.directory, place.password, uid=place.uid, gid=place.gid, etc=etc)
    async with dump.running(place):
        await dump.load(place, state / DATABASE)
    (state / DATABASE).unlink()
    shutil.rmtree(etc, ignore_errors=True)


def _settle(state: State, manifest: dict[str, Any]) -> None:
    """The last touches: subnet, settings, and the mark by which the lake is looked through."""
    for name in (archive.MANIFEST, archive.SUMS):
        (state / name).unlink(missing_ok=True)
    (state / "run").mkdir(mode=0o700)
    if (state / NETWORK).exists():
        (state / NETWORK).rename(state / "run" / NETWORK)
    if (state / SETTINGS).exists():
        (state / SETTINGS).rename(state / "hub" / SETTINGS)
    mark = {"made": manifest.get("made"), "restored": datetime.now(UTC).isoformat(timespec="seconds")}
    write_private(state / MARKER, json.dumps(mark))


def _ports(state: State, base: int | None) -> list[str]:
    """Keep the ports: the issuer's is part of every identity. What is taken is told, or chosen anew."""
    file = state / "ports.json"
    ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    taken = {name: number for name, number in ports.items() if name in PORT_NAMES and not port_is_free(number)}
    if not taken:
        return []
    named = ", ".join(f"{number} ({name})" for name, number in taken.items())
    if base is None:
        return [
            f"Ports are taken on this machine: {named}. "
            "End what uses them before `dmsp up`, or restore with --port to have others chosen."
        ]
    wanted = base + 1
    for name in taken:
        while wanted in ports.values() or not port_is_free(wanted):
            wanted += 1
        ports[name] = wanted
    write_private(file, json.dumps(ports, indent=1) + "\n", 0o644)
    notes = [f"Other ports were chosen for {named}."]
    if "issuer" in taken:
        notes.append(
            "The issuer has another address now: people log in again, which makes them known to Rucio anew."
        )
    return notes
