"""Room for sessions on this machine: memory, graphics processors and disk, and who has taken what. No Jupyter."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.profiles.launch import Capacity, Launch
from jupyterhub_dmsp.profiles.schema import in_words

MIB = 1024**2
LEAST = 256 * MIB
"""What a server and one kernel take before anybody computes."""
DEVICES = Path("/dev")
_GPU = re.compile(r"^nvidia([0-9]{1,2})$")
_GPU_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps")
_NO_LIMIT = 1 << 60


class NoRoom(DmspError):
    """A session does not fit now; the message says how much is free and what to choose."""


@dataclass(frozen=True)
class Share:
    """What one session has for itself."""

    memory: int = 0
    gpus: tuple[int, ...] = ()


@dataclass
class Room:
    """What this machine has for sessions, and what is promised to those that are just starting.

    Sessions that run are counted by their records, which outlive the hub; those between the check and the record
    are counted here. One instance in one process and for one state directory.

    Attributes:
        state: state directory of the installation.
        overcommit: how many times the machine's memory may be promised; None for any number.
    """

    state: Path
    overcommit: float | None = None
    _promised: dict[str, Share] = field(default_factory=dict)

    def capacity(self, without: str = "") -> Capacity:
        """What is free; ``without`` is a session that does not count. Reads files."""
        taken = list(self._taken(without))
        free = self._unpromised(taken)
        # More may be promised than there is; what people are told is there.
        return Capacity(None if free is None else min(free, available_memory()), None, len(_left(taken)))

    @contextmanager
    def promise(self, key: str, launch: Launch) -> Iterator[Share]:
        """Keep a session's share while it starts; its record holds it after that.

        Raises:
            NoRoom: it does not fit.
        """
        # Nothing is awaited between looking and taking: two starts never get the same.
        # Whether each of many sessions still runs is asked only when it matters: a start must not cost more for each.
        taken = list(self._taken(key, sure=launch.gpus > 0))
        free = self._unpromised(taken)
        if free is not None and launch.limits.memory_bytes > free:
            taken = list(self._taken(key))
        self._check_memory(launch, taken)
        left = _left(taken)
        if launch.gpus > len(left):
            raise NoRoom(_no_gpu(launch.gpus, len(left)))
        share = Share(launch.limits.memory_bytes, tuple(left[: launch.gpus]))
        self._promised[key] = share
        try:
            yield share
        finally:
            self._promised.pop(key, None)

    def _taken(self, without: str, *, sure: bool = True) -> Iterator[Share]:
        """The shares of all sessions but one; unless ``sure``, perhaps of some that have ended a moment ago."""
        for key, share in self._promised.items():
            if key != without:
                yield share
        for record in records.all_records(self.state):
            if record.key != without and record.key not in self._promised and (not sure or record.alive()):
                yield Share(record.memory, tuple(record.gpus))

    def _unpromised(self, taken: Collection[Share]) -> int | None:
        """Bytes that one more session may have: never more than the machine has."""
        if self.overcommit is None:
            return None
        has = machine_memory()
        return max(0, min(has, int(has * self.overcommit) - sum(share.memory for share in taken)))

    def _check_memory(self, launch: Launch, taken: Collection[Share]) -> None:
        free = self._unpromised(taken)
        if free is None:
            return
        wanted = launch.limits.memory_bytes
        if wanted > free:
            raise NoRoom(
                f"There is no room for a session with {in_words(wanted)} of memory: {in_words(free)} is left."
                f" {_instead(launch, free)}"
            )
        if available_memory() < LEAST:
            # Within what is promised, but the others use what they were promised.
            raise NoRoom(
                f"The running sessions use nearly all memory: {in_words(available_memory())} is left."
                " Try again when others have finished."
            )


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container that we are in, has."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _NO_LIMIT:
            found.append(int(text))
    return min(found)


def available_memory() -> int:
    """Bytes that programs could take now without others being swapped out (proc(5), meminfo)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return min(int(value.split()[0]) * 1024, machine_memory())
    return machine_memory()


def gpus() -> list[int]:
    """Numbers of the graphics processors whose devices are here."""
    try:
        names = [entry.name for entry in DEVICES.iterdir()]
    except OSError:
        return []
    return sorted(int(match[1]) for name in names if (match := _GPU.match(name)))


def gpu_devices(numbers: Collection[int]) -> list[Path]:
    """What a session needs to see of its graphics processors; empty when it has none."""
    if not numbers:
        return []
    wanted = [f"nvidia{number}" for number in numbers] + list(_GPU_SHARED)
    return [DEVICES / name for name in wanted if (DEVICES / name).exists()]


def disk(homes: Path, home: Path) -> tuple[int, bool]:
    """Bytes that a home can still hold, and whether they are its own: a quota, or a disk for itself. Reads disks."""
    nearest = homes
    while not nearest.exists():
        nearest = nearest.parent
    shared = os.statvfs(nearest)
    mine = os.statvfs(home) if home.is_dir() else shared
    own = (mine.f_fsid, mine.f_blocks) != (shared.f_fsid, shared.f_blocks)
    # No inode left is as good as no byte left; some file systems count none at all.
    room = mine.f_bavail * mine.f_frsize if mine.f_favail or not mine.f_files else 0
    return room, own


def _left(taken: Collection[Share]) -> list[int]:
    used = {number for share in taken for number in share.gpus}
    return [number for number in gpus() if number not in used]


def _no_gpu(wanted: int, left: int) -> str:
    has = "no graphics processor is" if not left else "one is" if left == 1 else f"{left} are"
    return f"There is no room for a session with {wanted} graphics processor{'s'[: wanted > 1]}: {has} free."


def _instead(launch: Launch, free: int) -> str:
    smaller = [memory for memory in launch.profile.choices.memory if _bytes(launch, memory) <= free]
    if smaller:
        return (
            f"Choose {in_words(_bytes(launch, smaller[-1]))} or less, or try again when others have finished."
        )
    return "Try again when others have finished, or stop another session of yours."


def _bytes(launch: Launch, memory: str) -> int:
    return launch.limits.model_copy(update={"memory": memory}).memory_bytes
