"""What this machine can and cannot do for a box, each with its remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.box.state import State, port_is_free
from jupyterhub_dmsp.profiles.needs import has_headers
from jupyterhub_dmsp.sandbox import cgroup

GIB = 1 << 30
NEEDED_DISK = 6 * GIB
FUSE = Path("/dev/fuse")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        name: what was looked at.
        ok: whether all is well.
        needed: whether the box cannot start without it.
        text: what was found.
        remedy: what to do, empty when all is well.
    """

    name: str
    ok: bool
    needed: bool
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, False, "Runs as root: every session gets its own user id and network.")
    return Finding(
        "root",
        False,
        False,
        "Runs as an ordinary user: the box is for a single user, sessions share your user id.",
        "Run it as root for several users.",
    )


def _program(name: str, package: str, purpose: str, needed: bool) -> Finding:
    if shutil.which(name):
        return Finding(name, True, needed, f"{name} is there ({purpose}).")
    return Finding(name, False, needed, f"{name} is missing ({purpose}).", f"apt install {package}")


def _namespaces() -> Finding:
    """Bubblewrap may be there and still be refused by the kernel's or a container's settings."""
    if not shutil.which("bwrap"):
        return Finding("namespaces", False, True, "Not tried without bubblewrap.", "apt install bubblewrap")
    command = ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return Finding("namespaces", False, True, "bubblewrap hangs.", "Look at the kernel's log.")
    if done.returncode == 0:
        return Finding("namespaces", True, True, "Sessions can have their own namespaces.")
    return Finding(
        "namespaces",
        False,
        True,
        f"The kernel refuses namespaces: {done.stderr.strip()[-120:]}.",
        "Run as root, allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or start the "
        "container with --privileged.",
    )


def _fuse() -> Finding:
    if os.geteuid() != 0:
        return Finding("fuse", True, False, "Not needed: as an ordinary user scratch is bound directly.")
    if FUSE.exists() and os.access(FUSE, os.R_OK | os.W_OK):
        return Finding("fuse", True, True, "/dev/fuse can be opened.")
    return Finding(
        "fuse",
        False,
        True,
        "/dev/fuse is missing or closed.",
        "modprobe fuse; in a container add --device /dev/fuse --cap-add SYS_ADMIN.",
    )


WITHOUT = {
    "memory": "a session can take all memory of this machine",
    "cpu": "a session can keep all processors busy",
    "pids": "processes are counted for each user by prlimit instead",
}
"""What follows where the controller of a limit is missing."""


def _limits() -> Finding:
    """Limits of the profiles, which control groups make."""
    if os.geteuid() != 0:
        text = "As an ordinary user the limits of the profiles on memory, cpu and processes do not hold."
        return Finding("limits", False, False, text, "Run it as root for limits.")
    missing = {name: reason for name, reason in cgroup.offered().items() if reason}
    if not missing:
        return Finding("limits", True, False, "The limits of the profiles on memory, cpu and processes hold.")
    said = "; ".join(f"{name} ({reason}): {WITHOUT[name]}" for name, reason in missing.items())
    remedy = (
        "Mount the control groups writable; in a container add --cgroupns=host "
        "-v /sys/fs/cgroup:/sys/fs/cgroup:rw."
    )
    return Finding("limits", False, False, f"Control groups are missing for {said}.", remedy)


def _headers() -> Finding:
    if has_headers():
        return Finding("c++ headers", True, False, "The C++ headers that ROOT needs are there.")
    return Finding(
        "c++ headers",
        False,
        False,
        "C++ headers are missing: the profile `root` cannot run.",
        "apt install g++",
    )


def _ports(public: int) -> Finding:
    if port_is_free(public):
        return Finding("ports", True, True, f"Port {public} is free.")
    return Finding("ports", False, True, f"Port {public} is taken.", "Choose another one with --port.")


def _disk(state: State) -> Finding:
    place = state.path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.0f} GiB are free at {place}."
    if free >= NEEDED_DISK:
        return Finding("disk", True, True, text)
    return Finding(
        "disk",
        False,
        True,
        f"{text} A box with all profiles takes {NEEDED_DISK // GIB} GiB.",
        "Make room, or name another place with --state.",
    )


def examine(state: State, public_port: int) -> list[Finding]:
    """Everything the doctor looks at; takes a second at most."""
    root = os.geteuid() == 0
    checks: list[Callable[[], Finding]] = [
        _root,
        lambda: _program("bwrap", "bubblewrap", "isolation of sessions", True),
        _namespaces,
        _fuse,
        lambda: _program("bindfs", "bindfs", "scratch in sessions", root),
        lambda: _program("fusermount3", "fuse3", "mounting and unmounting scratch", root),
        lambda: _program("ip", "iproute2", "networks of sessions", root),
        lambda: _program("nft", "nftables", "firewall of sessions", root),
        lambda: _program("setpriv", "util-linux", "dropping privileges", True),
        _limits,
        _headers,
        lambda: _ports(public_port),
        lambda: _disk(state),
    ]
    return [check() for check in checks]
