"""Files of the state that a power cut or a full disk left half written: looked at before the parts start.

What can be made anew is set aside (``<name>.damaged``) and made anew, with a line in the log; what cannot ends the
start with one sentence that names the file and the way out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.errors import DmspError

#: What is lost with it, for each file that is made anew.
JSON = {
    "issuer/users.json": "it is written anew from the passwords",
    "hub/issuer.json": "the issuer is asked again",
    "rucio/run/daemons.json": "the daemons say it again",
    "restored.json": "the lake is looked through again",
}
DATABASES = {
    "issuer/issuer.sqlite": "everybody logs in again",
    "hub/jupyterhub.sqlite": "everybody logs in again, and chooses a profile again",
}
_TOKEN, _HEX = re.compile(rb"^[A-Za-z0-9_-]{43}\s*$"), re.compile(rb"^[0-9a-f]{64}\s*$")
SECRETS = {
    "secrets/hub-client-secret": _TOKEN,
    "secrets/proxy-api-password": _TOKEN,
    "secrets/rucio-root-password": _TOKEN,
    "secrets/rucio-hub-password": _TOKEN,
    "secrets/hub-crypt-key": _HEX,
    "issuer/rotation.key": _HEX,
    "hub/cookie_secret": _HEX,
}
log = logging.getLogger("dmsp.box")


def check(state: State) -> list[str]:
    """Look at every file that the parts rely on; the caller holds the lock.

    Returns:
        The files that were set aside.

    Raises:
        DmspError: one is damaged that only a backup brings back.
    """
    _cannot_be_made_anew(state)
    aside: list[str] = []
    for name, loss in JSON.items():
        _judge(state, name, loss, _is_json, aside)
    for name, loss in DATABASES.items():
        _judge(state, name, loss, _is_database, aside)
    for name, pattern in SECRETS.items():
        _judge(state, name, "a new one is made", partial(_matches, pattern), aside)
    return aside


def _judge(state: State, name: str, loss: str, sound: Callable[[Path], bool], aside: list[str]) -> None:
    path = state / name
    if not path.exists() or _holds(sound, path):
        return
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.damaged{suffix}")  # noqa: PTH105 - names with a suffix
    aside.append(name)
    log.warning("%s was damaged and is set aside as %s.damaged: %s", name, path.name, loss)


def _holds(sound: Callable[[Path], bool], path: Path) -> bool:
    try:
        return sound(path)
    except sqlite3.OperationalError as error:  # locked, or the disk is full: nothing about what is in it
        raise DmspError(f"{path} cannot be looked into: {error}.", "Is another program using it?") from error
    except (ValueError, sqlite3.DatabaseError):
        return False
    except OSError as error:
        raise DmspError(f"{path} cannot be read: {error.strerror}.", "Is the disk in order?") from error


def _is_json(path: Path) -> bool:
    return isinstance(json.loads(path.read_text(encoding="utf-8")), dict | list)


def _is_database(path: Path) -> bool:
    if path.stat().st_size == 0:
        return True  # SQLite's own beginning
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        found: tuple[str] = db.execute("PRAGMA quick_check").fetchone()
        return found[0] == "ok"


def _cannot_be_made_anew(state: State) -> None:
    backup = "Restore it from a backup"
    wanted = [
        ("ids/users.json", int, f"{backup}: users' files carry its numbers."),
        ("ids/groups.json", int, f"{backup}, or remove it: numbers are given anew."),
        ("secrets/subjects.json", str, f"{backup}: Rucio knows the users by it."),
    ]
    for name, kind, remedy in wanted:
        path = state / name
        if path.exists() and not _holds(partial(_mapping, kind), path):
            raise DmspError(f"{path} is damaged.", remedy)
    secret = state / "secrets" / "database-password"
    if secret.exists() and not _TOKEN.match(secret.read_bytes()):
        raise DmspError(f"{secret} is damaged.", f"{backup}: the database opens with nothing else.")
    for file in sorted((state / "secrets").glob("user-*.password")):
        if not re.match(rb"^[!-~]{8,}\s*$", file.read_bytes()):
            raise DmspError(
                f"{file} is damaged.", "Write a password of 8 characters or more, or remove the file."
            )
    lake = state / "ids" / "lake"
    if lake.exists() and not re.match(rb"^https?://[^\s/]+:\d+\s*$|^$", lake.read_bytes()):
        raise DmspError(
            f"{lake} is damaged.", f"{backup}, or remove it: what is attached is then attached anew."
        )


def _mapping(kind: type, path: Path) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(found, dict) and all(isinstance(value, kind) for value in found.values())


def _matches(pattern: re.Pattern[bytes], path: Path) -> bool:
    return pattern.match(path.read_bytes()) is not None
