"""The state directory of a box: its layout, version, lock, ports and generated secrets."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from jupyterhub_dmsp import __version__
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.process import Process

#: Raise it together with a step in :mod:`jupyterhub_dmsp.box.migrations`.
SCHEMA = 2
PRIVATE = ("secrets", "run", "logs", "hub", "demo")
PUBLIC = ("envs", "storage", "scratch", "homes", "sessions", "ids", "rucio", "issuer", "proxy")
PORT_NAMES = ("issuer", "database", "rucio", "hub", "proxy_api", "front")
_OWN = {"version.json", "lock", "ports.json", "restored.json", "database", "upgrades", *PRIVATE, *PUBLIC}


def default_path() -> Path:
    """Where a box lives when nobody says otherwise: ``/var/lib/dmsp`` for root, else the user's data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/dmsp")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "dmsp"


def write_private(path: Path, text: str, mode: int = 0o600, *, durable: bool = True) -> None:
    """Write a file atomically; it never exists with a wider mode than ``mode``.

    Args:
        path: the file.
        text: its whole content.
        mode: its mode.
        durable: bring it to the disk first, so that a power cut leaves the old text or the new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could bind this TCP port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class State:
    """One box's directory. Creating the object touches nothing; :meth:`open` makes or checks the layout."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def exists(self) -> bool:
        return (self / "version.json").exists()

    def open(self) -> None:
        """Make the directory or check that this version can use it; raises :class:`DmspError` otherwise."""
        self._check_version()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        except OSError as error:
            raise DmspError(
                f"The state directory {self.path} cannot be made: {error.strerror}.",
                "Name another one with --state.",
            ) from error
        self.path.chmod(0o711)
        for name in PRIVATE:
            (self / name).mkdir(mode=0o700, exist_ok=True)
            (self / name).chmod(0o700)
        for name in PUBLIC:
            (self / name).mkdir(mode=0o755, exist_ok=True)
        if not self.exists:
            self.write_schema(SCHEMA)

    def _check_version(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise DmspError(f"{self.path} is not a directory.", "Name another one with --state.")
        if not self.exists:
            foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in _OWN)
            if foreign:
                raise DmspError(
                    f"{self.path} holds other things (such as {foreign[0]!r}), it is no state of a box.",
                    "Name an empty or new directory with --state.",
                )
            return
        if self.schema() > SCHEMA:
            raise DmspError(
                f"The state in {self.path} has version {self.schema()}, this program uses version {SCHEMA}.",
                "Use the program that made it, or another directory with --state.",
            )

    def schema(self) -> int:
        """The version of the layout; one that is older than :data:`SCHEMA` is brought up to date by `dmsp up`."""
        file = self / "version.json"
        try:
            schema = json.loads(file.read_text())["schema"]
        except (OSError, ValueError, KeyError, TypeError):
            schema = None
        if not isinstance(schema, int) or schema < 1:
            raise DmspError(
                f"{file} cannot be understood.", f'Write {{"schema": {SCHEMA}}} into it, or restore a backup.'
            )
        return schema

    def write_schema(self, schema: int) -> None:
        """Say which version the layout has now."""
        write_private(
            self / "version.json", json.dumps({"schema": schema, "created_by": __version__}) + "\n", 0o644
        )

    def lake_id(self, address: str) -> str:
        """The name of the lake, under which sessions keep what is attached. It never changes.

        Args:
            address: Rucio's address as sessions see it; the name of a lake that has none yet.
        """
        file = self / "ids" / "lake"
        known = file.read_text().strip() if file.exists() else ""
        if not known:
            write_private(file, address + "\n", 0o644)
        return known or address

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the box's lock: one ``up`` on a state at a time. Raises :class:`DmspError` when it is taken."""
        descriptor = os.open(self / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DmspError(
                    f"A box already runs on {self.path}.", "`dmsp status` shows it, `dmsp down` ends it."
                ) from None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(asdict(Process.here())).encode())
            try:
                yield
            finally:
                # Whoever held it may live on: it must not be taken for a running box.
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def owner(self) -> psutil.Process | None:
        """The process that holds the lock, or None: number and start must agree, so that a later one does not count.

        The start is told in ticks since the boot: seconds since 1970 change whenever the clock is set.
        """
        try:
            held = json.loads((self / "lock").read_text())
            pid, started = held["pid"], held["started"]
            process = psutil.Process(pid)
            if isinstance(started, float):
                # A box of before an upgrade says it in seconds since 1970, and left that behind at its end.
                return process if abs(process.create_time() - started) < 0.01 and self._locked() else None
            return process if Process(pid, started).alive() else None
        except (OSError, ValueError, KeyError, TypeError, OverflowError, psutil.Error):
            return None

    def _locked(self) -> bool:
        """Whether somebody holds the lock."""
        with (self / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def secret(self, name: str) -> Path:
        """The file of a generated secret; made at the first call, 0600."""
        path = self / "secrets" / name
        self._make_secret(path, secrets.token_urlsafe(32))
        return path

    def hex_secret(self, name: str) -> Path:
        """As :meth:`secret`, 32 bytes in hexadecimal (what JupyterHub's keys want)."""
        path = self / "secrets" / name
        self._make_secret(path, secrets.token_hex(32))
        return path

    @staticmethod
    def _make_secret(path: Path, fresh: str) -> None:
        if not path.exists():
            write_private(path, fresh)
        elif not path.read_bytes().strip():
            raise DmspError(f"The secret {path} is empty.", "Restore it from a backup: `dmsp restore`.")

    def ports(self, public: int) -> dict[str, int]:
        """The box's own ports. Chosen once, so that addresses stay (the issuer's is part of every identity).

        Args:
            public: the port at which people reach the VRE; it may change from start to start.
        """
        file = self / "ports.json"
        ports = self._known_ports(file)
        wanted = public + 1
        for name in PORT_NAMES:
            if name in ports:
                continue
            while wanted in ports.values() or not port_is_free(wanted):
                wanted += 1
            ports[name] = wanted
            wanted += 1
        write_private(file, json.dumps(ports, indent=1) + "\n", 0o644)
        for name, port in {"public": public, **ports}.items():
            if not port_is_free(port):
                way = (
                    "Choose another one with --port."
                    if name == "public"
                    else f"End that program, or remove {file} so that other ports are chosen."
                )
                raise DmspError(f"Port {port} ({name}) is taken by another program.", way)
        return {"public": public, **ports}

    @staticmethod
    def _known_ports(file: Path) -> dict[str, int]:
        try:
            known = json.loads(file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            known = None
        if not isinstance(known, dict) or not all(isinstance(port, int) for port in known.values()):
            raise DmspError(
                f"{file} is damaged.", "Remove it: other ports are chosen, and people log in again."
            )
        return known

    def write_status(self, status: dict[str, Any]) -> None:
        """Publish what the supervisor knows, for ``dmsp status``."""
        write_private(self / "run" / "status.json", json.dumps(status), durable=False)

    def read_status(self) -> dict[str, Any]:
        """The last published status; empty when there is none."""
        try:
            status = json.loads((self / "run" / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    def remove(self) -> None:
        """Remove everything the box made; the caller has made sure that nothing runs or is mounted."""
        for name in _OWN:
            path = self / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()
