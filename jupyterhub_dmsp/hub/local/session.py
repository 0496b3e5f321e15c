"""What one session is made of: its directories and files, what it sees, its environment. Imports no Jupyter."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from jupyterhub_dmsp.hub.launch.description import CONFIG, describe, mode_of, runtime_of, variables
from jupyterhub_dmsp.profiles.launch import Launch
from jupyterhub_dmsp.sandbox.bwrap import Bind, Identity, Sandbox, write_etc
from jupyterhub_dmsp.sandbox.ids import replace
from jupyterhub_dmsp.settings import Experiment, Settings

PACKAGE = Path(__file__).resolve().parents[2]
TOKEN_FILE = "hub-token"  # noqa: S105 - a file's name


@dataclass(frozen=True)
class Session:
    """A session about to start.

    Attributes:
        state: state directory of the installation.
        key: its folder in ``sessions/``: the user's name, with a named server's name behind a dot.
        identity: who runs in it.
        launch: what is launched, every choice made.
        environment: folder of the profile's environment.
        experiments: the user's experiments.
        settings: ``dmsp.yaml``.
        lake: what is known about the lake beyond the settings, such as ``rucio_url`` as sessions reach it.
        binds: further host paths, seen read-only at the same place.
        devices: devices of the machine that it may use.
    """

    state: Path
    key: str
    identity: Identity
    launch: Launch
    environment: Path
    experiments: Sequence[Experiment]
    settings: Settings
    lake: Mapping[str, Any] = field(default_factory=dict)
    binds: Sequence[str] = ()
    devices: Sequence[Path] = ()

    @property
    def folder(self) -> Path:
        """Where its files are on the host; for the owner of the state directory only."""
        return self.state / "sessions" / self.key

    @property
    def runtime(self) -> str:
        """``XDG_RUNTIME_DIR`` inside."""
        return runtime_of(self.identity)

    def description(self, token_url: str) -> dict[str, Any]:
        """The content of ``/etc/dmsp/session.json``: what the lab side needs to know. No secret is in it."""
        return describe(
            user=self.identity.name,
            launch=self.launch,
            experiments=self.experiments,
            settings=self.settings,
            lake=self.lake,
            token_url=token_url,
            environment=str(self.environment),
        )

    def variables(self, site: str = "") -> dict[str, str]:
        """Environment variables of the session; none of them is a secret."""
        own = {
            "PATH": f"{self.environment}/bin:{sys.prefix}/bin:/usr/bin:/bin",
            "JUPYTER_PATH": f"{self.environment}/share/jupyter",
            "JUPYTER_PREFER_ENV_PATH": "1",
        }
        return self.launch.variables | own | variables(self.identity, self.key, self.settings, site)

    def write(self, token: str, files: Mapping[str, str], description: Mapping[str, Any], resolv: str) -> None:
        """Make directories and files; blocks. The runtime directory starts empty.

        Args:
            token: the hub's token for this server; it goes into a file that only the user can read.
            files: name to text, seen below ``/etc/dmsp``.
            description: see :meth:`description`.
            resolv: text of resolv.conf.
        """
        who = self.identity
        self.folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        home, run, etc = self.state / "homes" / who.name, self.folder / "run", self.folder / "etc"
        home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _own(home, who, 0o700)
        # What a former session left there was written by the user: a symlink could stand where we write.
        shutil.rmtree(run, ignore_errors=True)
        _own(run, who, 0o700)
        shutil.rmtree(etc, ignore_errors=True)
        write_etc(etc, who, resolv=resolv)
        config = etc / PurePosixPath(CONFIG).name
        config.mkdir(mode=0o755)
        texts = {"session.json": json.dumps(dict(description), indent=1), **files}
        for name, text in texts.items():
            if "/" in name:
                raise ValueError(f"{name} must be a plain file name")
            replace(config / name, text, 0o644)
        descriptor = os.open(run / TOKEN_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            _chown(descriptor, who)
            file.write(token)

    def sandbox(self, network: Path | None, memory: int | None = None) -> Sandbox:
        """What the session sees, and as whom it runs.

        Args:
            network: its network namespace; None for the machine's own.
            memory: bytes that it may use. Half of them fit into /tmp, and half into /dev/shm: a file there that would
                be too big is an error of whoever writes it, and not the end of the session.
        """
        who, state = self.identity, self.state
        same = [sys.prefix, str(PACKAGE), str(self.environment), *self.binds]
        if not sys.base_prefix.startswith("/usr"):
            same.append(sys.base_prefix)
        binds = [Bind(path) for path in dict.fromkeys(same)]
        binds += [
            Bind(str(state / "homes" / who.name), who.home, writable=True),
            Bind(str(self.folder / "run"), self.runtime, writable=True),
        ]
        if mode_of(self.launch, self.settings) == "replica":
            binds.append(self._scratch())
        binds += [
            Bind(mount.host, mount.path, writable=not mount.read_only, optional=mount.optional)
            for mount in self.launch.mounts
            if mount.host
        ]
        binds += [Bind(str(device), device=True) for device in self.devices]
        half = memory // 2 if memory is not None else None
        return Sandbox(who, self.folder / "etc", binds, directory=who.home, network=network, tmpfs=half)

    def _scratch(self) -> Bind:
        """Scratch, read-only: through the FUSE mount that enforces groups, or the storage where no root can mount."""
        mount, lake = PurePosixPath(self.settings.lake.mount), self.settings.lake.scratch_rse
        if os.geteuid() != 0:
            return Bind(str(self.state / "storage" / lake / "lake"), str(mount), optional=True)
        # The parent of the mount point: a mount that died is mounted again inside running sessions too.
        return Bind(str(self.state / "scratch"), str(mount.parent), optional=True)


def _own(directory: Path, who: Identity, mode: int) -> None:
    """Make a directory that belongs to the user; an existing one is only checked to be a directory."""
    directory.mkdir(mode=mode, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, mode)
        _chown(descriptor, who)
    finally:
        os.close(descriptor)


def _chown(descriptor: int, who: Identity) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, who.uid, who.gid)
