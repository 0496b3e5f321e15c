"""Running a part of the box under its own uid, in a file system that holds only what the part needs.

As root every part (database, Rucio, its daemons, the issuer, the proxy) starts through bubblewrap and setpriv: a
mount namespace of its own, an ``/etc/passwd`` of its own (PostgreSQL insists on an entry for its uid), no
capabilities, no way to gain any, no sight of other processes. Nothing on the system is changed. The network is the
host's.
As an ordinary user parts run as that user and there is nothing to confine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError

#: What programs look up in /etc; everything else there stays out of sight.
ETC = (
    "alternatives",
    "ca-certificates",
    "gai.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "protocols",
    "python3.11",
    "resolv.conf",
    "services",
    "ssl",
    "timezone",
)
_MERGED = ("lib", "lib32", "lib64", "bin", "sbin")


def confine(
    command: Sequence[str],
    *,
    uid: int,
    gid: int,
    name: str,
    etc: Path,
    groups: Iterable[int] = (),
    writable: Iterable[Path] = (),
    readable: Iterable[Path] = (),
) -> list[str]:
    """The argv that runs ``command`` as ``uid`` seeing only ``/usr``, a small ``/etc`` and the paths given.

    Start it with ``cwd="/"`` and an explicit environment: bubblewrap hands the environment on. It hands no signals
    on: send them to :func:`main_pid`. When whoever started it dies, the kernel ends bubblewrap and with it the
    process namespace: nothing is orphaned, whatever happens.

    Args:
        command: program and arguments; the program must be below ``/usr`` or one of the paths.
        uid: user id of the part; it needs no entry in the system's passwd.
        gid: primary group.
        name: name for uid and gid in the generated passwd and group files.
        etc: directory for the generated files, made when missing; keep one per part.
        groups: supplementary groups.
        writable: paths bound read-write at the same place.
        readable: paths bound read-only at the same place.

    Raises:
        DmspError: a path to bind does not exist.
    """
    if os.geteuid() != 0:
        return list(command)
    _identities(etc, name, uid, gid)
    argv = ["bwrap", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for link in _MERGED:
        host = Path("/", link)
        if host.is_symlink():
            argv += ["--symlink", str(host.readlink()), str(host)]
        elif host.is_dir():
            argv += ["--ro-bind", str(host), str(host)]
    argv += ["--dev", "/dev", "--proc", "/proc", *_tmpfs("/tmp"), *_tmpfs("/dev/shm")]  # noqa: S108
    argv += _directory(Path("/etc"))
    for entry in ETC:
        argv += ["--ro-bind-try", f"/etc/{entry}", f"/etc/{entry}"]
    for entry in ("passwd", "group", "hosts", "nsswitch.conf"):
        argv += ["--ro-bind", str(etc / entry), f"/etc/{entry}"]
    argv += _binds([*((p, "--ro-bind") for p in readable), *((p, "--bind") for p in writable)])
    argv += ["--remount-ro", "/", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--chdir", "/", "--"]
    argv += ["setpriv", "--reuid", str(uid), "--regid", str(gid)]
    listed = ",".join(str(group) for group in groups)
    argv += ["--groups", listed] if listed else ["--clear-groups"]
    argv += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
    return [*argv, "--", *command]


def main_pid(pid: int) -> int:
    """The process id of the confined program, given that of its bubblewrap; ``pid`` itself where nothing is confined.

    Raises:
        ProcessLookupError: the process is gone, or bubblewrap has not started the program yet.
    """
    while True:
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() not in ("bwrap", "setpriv"):
                return pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            raise ProcessLookupError(f"process {pid} is gone") from None
        if not children:
            raise ProcessLookupError(f"process {pid} has not started its program yet")
        pid = int(children[0])


def _identities(etc: Path, name: str, uid: int, gid: int) -> None:
    etc.mkdir(mode=0o755, parents=True, exist_ok=True)
    files = {
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\n{name}:x:{uid}:{gid}::/:/usr/sbin/nologin\n"
        "nobody:x:65534:65534::/:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{name}:x:{gid}:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    for entry, text in files.items():
        file = etc / entry
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        file.chmod(0o644)


def _tmpfs(place: str) -> list[str]:
    return ["--perms", "1777", "--tmpfs", place]


def _directory(place: Path) -> list[str]:
    return ["--perms", "0755", "--dir", str(place)]


def _binds(wanted: list[tuple[Path, str]]) -> list[str]:
    """Binds in the order of their depth, so that one below another wins, each with parents others may pass."""
    argv: list[str] = []
    made = {Path("/"), Path("/tmp"), Path("/dev"), Path("/etc"), Path("/proc"), Path("/usr")}  # noqa: S108
    bound: list[Path] = []
    for path, how in sorted(wanted, key=lambda item: (len(item[0].parts), item[0], item[1])):
        if not path.is_absolute() or not path.exists():
            raise DmspError(f"A part of the box needs {path}, which does not exist.")
        for parent in reversed(path.parents):
            inside = any(parent == other or other in parent.parents for other in bound)
            if parent not in made and not inside and Path("/usr") not in parent.parents:
                # Parents that bubblewrap makes by itself have mode 0700 and shut the part out.
                argv += _directory(parent)
                made.add(parent)
        argv += [how, str(path), str(path)]
        bound.append(path)
    return argv
