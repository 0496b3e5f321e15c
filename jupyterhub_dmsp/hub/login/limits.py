"""How often somebody may ask: one bucket a user, filled at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable

MANY = 1000
"""Buckets kept before the full ones are thrown away."""


class RateLimit:
    """So many requests at once, and as many a minute in the long run.

    Args:
        clock: monotonic seconds; another one for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, name: str, per_minute: int) -> float:
        """Take one: 0.0 when it may be, else the seconds until the next one. 0 a minute is no limit."""
        if per_minute <= 0:
            return 0.0
        now, rate = self._clock(), per_minute / 60
        left, since = self._buckets.get(name, (float(per_minute), now))
        left = min(float(per_minute), left + (now - since) * rate)
        taken = left >= 1
        self._buckets[name] = (left - taken, now)
        if len(self._buckets) > MANY:
            self._buckets = {n: b for n, b in self._buckets.items() if b[0] + (now - b[1]) * rate < per_minute}
        return 0.0 if taken else (1 - left) / rate
