"""How far a replication is: files from the rule's locks, bytes from what has landed, rate and time left.

A poll costs one read of the rule (less than 1 kB), and for large files in flight one small request each, at most
:data:`MOST_REQUESTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.errors import LakeError
from jupyterhub_dmsp.lake.models import LakeFile, Rule
from jupyterhub_dmsp.scratch.mount import Mount, MountGone, Wanted

LARGE = 32 * 2**20
MOST_REQUESTS = 4
MOST_LOOKS = 1000
_HALF_LIFE = 5.0
_LOOK_EVERY = 1.0


@dataclass(slots=True)
class Progress:
    """Estimate of one attachment's progress, fed at each poll.

    Args:
        files: all files, with the paths where they will be.
    """

    files: Sequence[LakeFile]
    wanted: Sequence[Wanted]
    pending: list[int] = field(default_factory=list)
    landed_bytes: int = 0
    bytes_ready: int = 0
    files_ready: int = 0
    rate: float | None = None
    _last: tuple[float, int] | None = None
    _looked: float = float("-inf")

    def __post_init__(self) -> None:
        self.pending = sorted(range(len(self.files)), key=lambda i: -self.files[i].bytes)

    def land(self, positions: Sequence[int]) -> None:
        """These files are on the mount, whole."""
        gone = set(positions)
        self.landed_bytes += sum(self.files[i].bytes for i in self.pending if i in gone)
        self.pending = [i for i in self.pending if i not in gone]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(f.bytes for f in self.files)

    async def look(self, mount: Mount) -> None:
        """See which of the pending files have landed, the largest first, a bounded number at a time."""
        some = self.pending[:MOST_LOOKS]
        if not some:
            return
        try:
            found = await mount.look([self.wanted[i] for i in some])
        except MountGone:
            return
        self.land([some[i] for i in found.present])
        # Those that were looked at go to the end of their turn, so that in time all are.
        if len(self.pending) > MOST_LOOKS:
            still = set(self.pending)
            kept = [i for i in some if i in still]
            self.pending = self.pending[len(kept) :] + kept

    async def in_flight(self, client: RucioClient, rse: str) -> int:
        """Bytes of large files that are on their way."""
        large = sorted(
            (i for i in self.pending if self.files[i].bytes >= LARGE), key=lambda i: -self.files[i].bytes
        )
        done = 0
        for i in large[:MOST_REQUESTS]:
            try:
                found = await client.bytes_done(self.files[i].did, rse)
            except LakeError:
                continue
            done += min(found or 0, self.files[i].bytes)
        return done

    async def update(self, rule: Rule, now: float, client: RucioClient, mount: Mount, rse: str) -> None:
        """Take in a poll of the rule at time `now` (seconds, any clock)."""
        # Files land before Rucio counts them: looking costs it nothing.
        if rule.ok > len(self.files) - len(self.pending) or now - self._looked > _LOOK_EVERY:
            self._looked = now
            await self.look(mount)
        moving = await self.in_flight(client, rse) if rule.state == "REPLICATING" else 0
        landed = len(self.files) - len(self.pending)
        self.files_ready = min(len(self.files), max(rule.ok, landed))
        unseen = max(0, self.files_ready - landed)
        mean = sum(self.files[i].bytes for i in self.pending) / len(self.pending) if self.pending else 0
        estimate = min(self.total, int(self.landed_bytes + unseen * mean + moving))
        # Never backwards: estimates differ from poll to poll, the data do not leave again.
        self.bytes_ready = max(self.bytes_ready, estimate)
        self._speed(now)

    def _speed(self, now: float) -> None:
        if self._last is not None and now > self._last[0]:
            elapsed = now - self._last[0]
            current = (self.bytes_ready - self._last[1]) / elapsed
            if self.rate is None and not current:
                return  # nothing has moved yet: the wait counts towards the first rate
            weight = 0.5 ** (elapsed / _HALF_LIFE)
            self.rate = current if self.rate is None else weight * self.rate + (1 - weight) * current
        self._last = (now, self.bytes_ready)

    @property
    def eta(self) -> float | None:
        """Seconds left at this rate; None while nothing moves."""
        if not self.rate or self.rate < 1:
            return None
        return (self.total - self.bytes_ready) / self.rate
