"""Running a part of the box under its own uid, in a file system that holds only what the part needs.

As root every part (database, Rucio, its daemons, the issuer, the proxy) starts in a sandbox
(:mod:`jupyterhub_dmsp.sandbox.bwrap`): an ``/etc/passwd`` of its own (PostgreSQL insists on an entry for its uid), no
capabilities, no way to gain any, no sight of other processes. Nothing on the system is changed. The network and the
machine's name are the host's.
As an ordinary user parts run as that user and there is nothing to confine.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.bwrap import Bind, Identity, Sandbox, write_etc

_RESOLV = Path("/etc/resolv.conf")


def confine(
    command: Sequence[str],
    *,
    uid: int,
    gid: int,
    name: str,
    etc: Path,
    writable: Iterable[Path] = (),
    readable: Iterable[Path] = (),
) -> list[str]:
    """The argv that runs ``command`` as ``uid`` seeing only ``/usr``, a small ``/etc`` and the paths given.

    Start it with ``cwd="/"`` and an explicit environment: bubblewrap hands the environment on. It hands no signals
    on: send them to :func:`jupyterhub_dmsp.sandbox.process.main_of`. When whoever started it dies, the kernel ends
    bubblewrap and with it the process namespace: nothing is orphaned, whatever happens.

    Args:
        command: program and arguments; the program must be below ``/usr`` or one of the paths.
        uid: user id of the part; it needs no entry in the system's passwd.
        gid: its only group.
        name: name for uid and gid in the generated passwd and group files.
        etc: directory for the generated files, made when missing; keep one per part.
        writable: paths bound read-write at the same place.
        readable: paths bound read-only at the same place.

    Raises:
        DmspError: a path to bind does not exist.
    """
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig", "TERM", *command]
    binds = [*(Bind(str(path)) for path in readable), *(Bind(str(path), writable=True) for path in writable)]
    for bind in binds:
        path = Path(bind.source)
        if not path.is_absolute() or not path.exists():
            raise DmspError(f"A part of the box needs {path}, which does not exist.")
    who = Identity(name, uid, gid, {}, "/", "/usr/sbin/nologin")
    host = socket.gethostname()
    resolv = _RESOLV.read_text() if _RESOLV.is_file() else ""
    write_etc(etc, who, resolv=resolv, hosts={"::1": "localhost"})
    return Sandbox(who, etc, binds, hostname=host, privileged=True, die_with_parent=True).command(command)
