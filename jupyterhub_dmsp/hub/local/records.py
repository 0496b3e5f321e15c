"""What is written down about each running session, so that it can be ended without the hub. Imports no Jupyter."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyterhub_dmsp.sandbox import cgroup, ids, process
from jupyterhub_dmsp.sandbox.network import Network
from jupyterhub_dmsp.sandbox.process import Process

FILE = "record.json"


@dataclass(frozen=True)
class Record:
    """One running session.

    Attributes:
        key: name of its folder in ``sessions/``.
        user: whose it is.
        profile: what was launched.
        outer: bubblewrap outside.
        init: process 1 inside; the same as ``outer`` until it is known.
        address: where its server listens.
        port: and on which port.
        memory: bytes that it may use; 0 in what an earlier version wrote.
        gpus: numbers of the graphics processors that it has for itself.
    """

    key: str
    user: str
    profile: str
    outer: Process
    init: Process
    address: str
    port: int
    memory: int = 0
    gpus: Sequence[int] = ()

    @classmethod
    def read(cls, state: Path, key: str) -> Record | None:
        """The record of a session; None when there is none."""
        try:
            data = json.loads((state / "sessions" / key / FILE).read_text())
            outer, init = Process(**data.pop("outer")), Process(**data.pop("init"))
            return cls(outer=outer, init=init, gpus=tuple(data.pop("gpus", ())), **data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, state: Path) -> None:
        """Write it down, for the owner of the state directory only."""
        ids.replace(state / "sessions" / self.key / FILE, json.dumps(asdict(self), indent=1), 0o600)

    def alive(self) -> bool:
        """Whether anything of the session still runs."""
        return self.outer.alive() or self.init.alive()


def group_name(state: Path, key: str) -> str:
    """Name of a session's control group: two installations may have users of the same name."""
    return f"{hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]}-{key}"


_read: dict[Path, tuple[int, Record]] = {}
"""Records as they were read, with the time of their files: written once, they are looked at with every start."""


def all_records(state: Path) -> Iterator[Record]:
    """Every session that is written down, whether it still runs or not."""
    for file in sorted((state / "sessions").glob(f"*/{FILE}")):
        try:
            written = file.stat().st_mtime_ns
        except OSError:
            continue
        kept = _read.get(file)
        if kept is None or kept[0] != written:
            record = Record.read(state, file.parent.name)
            if record is None:
                continue
            kept = _read[file] = (written, record)
        yield kept[1]


async def end_session(
    record: Record, state: Path, network: Network | None, grace: float = process.GRACE
) -> None:
    """End a session and take away all that was made for it: processes, control group, namespace, its secrets."""
    await process.end(record.outer, record.init, grace)
    await clear_session(state, record.key, network)


async def clear_session(state: Path, key: str, network: Network | None) -> None:
    """Take away what a session without processes leaves. Safe to call twice."""
    if os.geteuid() == 0:
        await cgroup.existing(group_name(state, key)).remove()
    if network is not None:
        await network.detach(key)
    folder = state / "sessions" / key
    await asyncio.to_thread(_remove_files, folder)


def _remove_files(folder: Path) -> None:
    for file in (folder / FILE, folder / "run" / "hub-token"):
        with contextlib.suppress(OSError):
            file.unlink()


async def end_sessions(state: Path, grace: float = process.GRACE) -> list[str]:
    """End all sessions of an installation, whether a hub runs or not; the users whose sessions ran."""
    network = Network.load(state) if os.geteuid() == 0 else None
    records = list(all_records(state))
    running = [record.user for record in records if record.alive()]
    await asyncio.gather(*(end_session(record, state, network, grace) for record in records))
    return running
