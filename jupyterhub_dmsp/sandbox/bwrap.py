"""Typed builder of a bubblewrap + setpriv command line.

One program is shown a file system of its own: ``/usr`` read-only, a small ``/etc``, empty ``/tmp`` and
``/dev/shm``, and what is bound into it. Started by root it then runs as another user without any capability;
started by an ordinary user it keeps that user in a user namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from jupyterhub_dmsp.sandbox.ids import replace

SYSTEM_ETC = (
    "alternatives", "bash.bashrc", "ca-certificates", "debian_version", "fonts", "gai.conf", "inputrc",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "os-release", "pki", "profile",
    "protocols", "python3", "python3.11", "services", "ssl", "terminfo", "timezone",
)  # fmt: skip
"""Entries of the machine's /etc that programs expect and that hold no secret; absent ones are left out."""

TMPFS = ("/tmp", "/dev/shm")  # noqa: S108
NAMESPACES = ("pid", "ipc", "uts")
NOBODY = 65534


@dataclass(frozen=True)
class Bind:
    """A host path seen inside.

    Attributes:
        source: path on the host.
        target: path inside; the same as ``source`` when empty.
        writable: may be written through.
        optional: left out when ``source`` does not exist.
        device: may be used as the device that it is.
    """

    source: str
    target: str = ""
    writable: bool = False
    optional: bool = False
    device: bool = False

    @property
    def inside(self) -> str:
        """Where it is seen."""
        return self.target or self.source

    def arguments(self) -> list[str]:
        """bubblewrap's option for it."""
        kind = "--dev-bind" if self.device else "--bind" if self.writable else "--ro-bind"
        option = kind + ("-try" if self.optional else "")
        return [option, self.source, self.inside]


@dataclass(frozen=True)
class Identity:
    """Who the program is.

    Attributes:
        name: user name, as the generated passwd says it.
        uid: numeric user id.
        gid: numeric primary group, which gets the user's name.
        groups: further groups, name to number.
        home: home directory inside.
        shell: login shell.
    """

    name: str
    uid: int
    gid: int
    groups: Mapping[str, int] = field(default_factory=dict)
    home: str = "/"
    shell: str = "/bin/bash"

    def setpriv(self) -> list[str]:
        """The command that becomes this identity, for good: no capability, and none by setuid programs."""
        numbers = sorted({self.gid, *self.groups.values()})
        return [
            "setpriv",
            *("--reuid", str(self.uid)),
            *("--regid", str(self.gid)),
            *("--groups", ",".join(map(str, numbers))),
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--ambient-caps=-all",
            "--no-new-privs",
        ]


@dataclass(frozen=True)
class Sandbox:
    """What a program sees, and as whom it runs. :meth:`command` gives the command line.

    Attributes:
        identity: who it is.
        etc: directory on the host whose entries appear in /etc (see :func:`write_etc`).
        binds: what else it sees; later ones may lie inside earlier ones.
        hostname: name of the machine inside.
        directory: working directory at the start.
        network: path of a network namespace to enter first (root only); the machine's own when None.
        privileged: started by root. Otherwise a user namespace is made and ``identity`` is cosmetic.
        die_with_parent: end when the starter ends. Sessions do not: they outlive a killed hub.
        system_etc: names in the machine's /etc to show read-only.
        tmpfs: bytes that fit into each of /tmp and /dev/shm; half of the machine's memory when None.
    """

    identity: Identity
    etc: Path
    binds: Sequence[Bind] = ()
    hostname: str = "dmsp"
    directory: str = "/"
    network: Path | None = None
    privileged: bool = field(default_factory=lambda: os.geteuid() == 0)
    die_with_parent: bool = False
    system_etc: Sequence[str] = SYSTEM_ETC
    tmpfs: int | None = None

    def command(self, program: Sequence[str]) -> list[str]:
        """The whole command line that runs ``program`` inside. Start it with the working directory ``/``."""
        enter = ["nsenter", f"--net={self.network}"] if self.network else []
        become = self.identity.setpriv() if self.privileged else []
        return [*enter, "bwrap", *self._system(), *self._binds(), *self._namespaces(), "--", *become, *program]

    def _system(self) -> list[str]:
        made = ["--ro-bind", "/usr", "/usr"]
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            if Path("/", name).is_symlink():
                made += ["--symlink", f"usr/{name}", f"/{name}"]
            elif Path("/", name).is_dir():
                made += ["--ro-bind", f"/{name}", f"/{name}"]
        made += [*_directory("/etc"), "--dev", "/dev", "--proc", "/proc"]
        size = ["--size", str(self.tmpfs)] if self.tmpfs is not None else []
        for path in TMPFS:
            made += [*size, "--perms", "1777", "--tmpfs", path]
        made += [*_directory("/var"), "--symlink", "../tmp", "/var/tmp", *_directory("/run")]  # noqa: S108
        for name in self.system_etc:
            made += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        for entry in sorted(self.etc.iterdir()):
            made += ["--ro-bind", str(entry), f"/etc/{entry.name}"]
        return made

    def _binds(self) -> list[str]:
        ordered = sorted(
            (bind for bind in self.binds if not (bind.optional and not Path(bind.source).exists())),
            key=lambda bind: (bind.inside.count("/"), bind.inside),
        )
        made: list[str] = []
        for parent in _parents(bind.inside for bind in ordered):
            made += _directory(parent)
        for bind in ordered:
            made += bind.arguments()
        return made

    def _namespaces(self) -> list[str]:
        made = ["--remount-ro", "/", *(f"--unshare-{name}" for name in NAMESPACES), "--unshare-cgroup-try"]
        made += ["--hostname", self.hostname, "--chdir", self.directory]
        if not self.privileged:
            made += ["--unshare-user", "--uid", str(self.identity.uid), "--gid", str(self.identity.gid)]
        if self.die_with_parent:
            made.append("--die-with-parent")
        return made


def _directory(path: str) -> list[str]:
    return ["--perms", "0755", "--dir", path]


def _parents(targets: Iterable[str]) -> list[str]:
    """Every directory above the targets that must be made first: bubblewrap's implicit ones would be 0700."""
    targets = list(targets)
    found: set[str] = set()
    for target in targets:
        for parent in PurePosixPath(target).parents:
            text = str(parent)
            inside_bind = any(PurePosixPath(text).is_relative_to(other) for other in targets if other != target)
            if text not in ("/", "/usr", "/etc", *TMPFS) and not text.startswith("/usr/") and not inside_bind:
                found.add(text)
    return sorted(found, key=lambda path: (path.count("/"), path))


def write_etc(
    directory: Path, identity: Identity, *, resolv: str = "", hosts: Mapping[str, str] | None = None
) -> None:
    """Write passwd, group, hosts, nsswitch.conf and resolv.conf as a program inside shall see them.

    Args:
        directory: where; made, 0755. Other entries in it are left alone.
        identity: who the program is.
        resolv: text of resolv.conf; empty when names cannot be resolved inside.
        hosts: further names, address to name.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.chmod(0o755)
    who = identity
    users = [f"{who.name}:x:{who.uid}:{who.gid}::{who.home}:{who.shell}"]
    groups = [f"{who.name}:x:{who.gid}:", *(f"{n}:x:{g}:{who.name}" for n, g in sorted(who.groups.items()))]
    if who.uid != 0:
        users.insert(0, "root:x:0:0::/root:/usr/sbin/nologin")
        groups.insert(0, "root:x:0:")
    users.append(f"nobody:x:{NOBODY}:{NOBODY}::/:/usr/sbin/nologin")
    groups.append(f"nogroup:x:{NOBODY}:")
    names = {"127.0.0.1": "localhost", **(hosts or {})}
    texts = {
        "passwd": users,
        "group": groups,
        "hosts": [f"{address} {name}" for address, name in names.items()],
        "nsswitch.conf": ["passwd: files", "group: files", "hosts: files dns", "services: files"],
        "resolv.conf": resolv.splitlines(),
    }
    for name, lines in texts.items():
        replace(directory / name, "".join(f"{line}\n" for line in lines))
