"""Limits for everything that a session starts: control groups where they are offered, else prlimit.

Both versions of control groups, no systemd needed. Which limits really hold is said (:attr:`Group.applied`,
:attr:`Group.refused`), never assumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "cpu", "pids")
PERIOD = 100_000
"""Microseconds over which a share of the processors is counted."""

_ENTER = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1" || exit 125; shift; n=$((n - 1)); done; exec "$@"'


@dataclass(frozen=True)
class Limits:
    """What a session may use.

    Attributes:
        memory: bytes; None for no limit.
        cpu: processors, such as 1.5; None for no limit.
        processes: processes and threads; None for no limit.
    """

    memory: int | None = None
    cpu: float | None = None
    processes: int | None = None

    def named(self) -> list[str]:
        """The limits that are set: names out of ``memory``, ``cpu``, ``processes``."""
        return [name for name in ("memory", "cpu", "processes") if getattr(self, name) is not None]


@dataclass
class Group:
    """The control group of one session, or the lack of one.

    Attributes:
        directories: one for each controller (version 1) or one (version 2); empty when nothing is offered.
        limits: what was asked.
        applied: names of the limits that hold.
        refused: names of the limits that do not, with the reason.
    """

    directories: list[Path]
    limits: Limits
    applied: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def command(self, program: Sequence[str]) -> list[str]:
        """``program`` so that it is inside from its first instruction, as are all its children."""
        fallback: list[str] = []
        if "processes" in self.refused and self.limits.processes is not None:
            # Counted for the numeric user id, which a session has for itself. RLIMIT_AS would forbid address
            # space, of which numerical libraries reserve far more than they use: no fallback for memory.
            fallback = ["prlimit", f"--nproc={self.limits.processes}", "--"]
        files = [str(directory / "cgroup.procs") for directory in self.directories]
        enter = ["/bin/sh", "-c", _ENTER, "sh", str(len(files)), *files] if files else []
        return [*enter, *fallback, *program]

    def describe(self) -> str:
        """One sentence that says what holds."""
        said = [f"limits on {', '.join(self.applied)}"] if self.applied else []
        said += [f"no limit on {name} ({reason})" for name, reason in self.refused.items()]
        return "; ".join(said) or "no limits"

    def processes(self) -> list[int]:
        """Process numbers inside."""
        found: set[int] = set()
        for directory in self.directories:
            with contextlib.suppress(OSError):
                found |= {int(number) for number in (directory / "cgroup.procs").read_text().split()}
        return sorted(found)

    def memory_used(self) -> int | None:
        """Bytes in use now; None when nobody counts them."""
        for directory in self.directories:
            for name in ("memory.current", "memory.usage_in_bytes"):
                with contextlib.suppress(OSError):
                    return int((directory / name).read_text())
        return None

    def cpu_used(self) -> float | None:
        """Processor time since the group was made, seconds; None when nobody counts it."""
        for directory in self.directories:
            with contextlib.suppress(OSError, ValueError, KeyError):
                lines = (directory / "cpu.stat").read_text().splitlines()
                return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6
        # Version 1 counts in a controller of its own, which need not be mounted here: ask the processes.
        numbers = self.processes()
        return sum(map(_cpu_ticks, numbers)) / os.sysconf("SC_CLK_TCK") if numbers else None

    async def remove(self, timeout: float = 5.0) -> bool:
        """Kill what is left inside and remove the group; whether it is gone. Safe to call twice."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            for number in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            if all(_removed(directory) for directory in self.directories):
                return True
            if loop.time() > deadline:
                return False
            # The kernel gives no event for "the last process was reaped" that works on both versions.
            await asyncio.sleep(0.01)


def create(name: str, limits: Limits, parent: str = "dmsp") -> Group:
    """Make the group ``<parent>/<name>`` below our own one and set its limits.

    Args:
        name: unique on this machine; slashes are not allowed.
        limits: what to apply.
        parent: group that holds ours.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError("not a group name")
    group = Group(existing_directories(name, parent, make=True), limits)
    two = (ROOT / "cgroup.controllers").exists()
    for wanted, values in _values(limits, two).items():
        try:
            for controller, file, value in values:
                _write(group.directories, controller, file, value)
        except OSError as error:
            group.refused[wanted] = error.strerror or str(error)
        else:
            group.applied.append(wanted)
    if "processes" in group.refused:
        group.refused["processes"] += ", counted by prlimit for the user instead"
    if not group.applied and not limits.named():
        group.refused.clear()
    return group


def existing(name: str, parent: str = "dmsp") -> Group:
    """The group as an earlier process made it, to count or remove it."""
    return Group(existing_directories(name, parent, make=False), Limits())


def existing_directories(name: str, parent: str, *, make: bool) -> list[Path]:
    """Directories of a group, made when asked; those that cannot be there are left out."""
    if (ROOT / "cgroup.controllers").exists():
        top = ROOT / parent
        candidates = [top / name]
        if make:
            _delegate(top)
    else:
        candidates = [base / parent / name for controller in CONTROLLERS if (base := _own(controller))]
    found = []
    for directory in dict.fromkeys(candidates):
        if make:
            with contextlib.suppress(OSError):
                directory.mkdir(parents=True, exist_ok=True)
        if (directory / "cgroup.procs").exists():
            found.append(directory)
    return found


def offered() -> dict[str, str]:
    """Which controllers could limit a session, with the reason where one cannot (empty: it can). Changes nothing."""
    if (ROOT / "cgroup.controllers").exists():
        known = (ROOT / "cgroup.controllers").read_text().split()
        places = {name: ROOT if name in known else None for name in CONTROLLERS}
    else:
        places = {name: _own(name) for name in CONTROLLERS}
    reasons = {}
    for name, place in places.items():
        writable = place is not None and os.access(place, os.W_OK)
        reasons[name] = "" if writable else "not offered" if place is None else "read-only"
    return reasons


def _delegate(top: Path) -> None:
    """Version 2: offer the controllers to the groups below ours."""
    for directory in (ROOT, top):
        with contextlib.suppress(OSError):
            directory.mkdir(exist_ok=True)
            (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))


def _own(controller: str) -> Path | None:
    """Version 1: directory of the group that we are in ourselves; a container may sit below the root."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            for base in (ROOT / controller, ROOT / names):
                for directory in (base / path.lstrip("/"), base):
                    if directory.is_dir():
                        return directory
    return None


def _values(limits: Limits, two: bool) -> dict[str, list[tuple[str, str, str]]]:
    """For each limit: controller, file and text to write."""
    made: dict[str, list[tuple[str, str, str]]] = {}
    if limits.memory is not None:
        file = "memory.max" if two else "memory.limit_in_bytes"
        made["memory"] = [("memory", file, str(limits.memory))]
    if limits.cpu is not None:
        quota = max(1000, int(limits.cpu * PERIOD))
        made["cpu"] = (
            [("cpu", "cpu.max", f"{quota} {PERIOD}")]
            if two
            else [("cpu", "cpu.cfs_period_us", str(PERIOD)), ("cpu", "cpu.cfs_quota_us", str(quota))]
        )
    if limits.processes is not None:
        made["processes"] = [("pids", "pids.max", str(limits.processes))]
    return made


def _write(directories: Sequence[Path], controller: str, file: str, value: str) -> None:
    for directory in directories:
        target = directory / file
        if target.exists():
            target.write_text(value)
            return
    raise FileNotFoundError(0, f"the {controller} controller is not offered")


def _cpu_ticks(number: int) -> int:
    """Processor time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
