"""How often something may be tried: sliding windows in memory, for the event loop's thread."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

CAPACITY = 10_000


class Limiter:
    """At most `limit` attempts for a key within `window` seconds.

    A restart forgets the attempts, which gives a guesser no more than another `limit` of them. Keys are bounded:
    when there are too many, the one that was idle longest goes.
    """

    def __init__(self, limit: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._window, self._clock = limit, window, clock
        self._attempts: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def wait(self, key: Hashable) -> float:
        """Seconds until the next attempt is allowed; 0 when it is now."""
        attempts = self._recent(key)
        if attempts is None or len(attempts) < self._limit:
            return 0.0
        return attempts[0] + self._window - self._clock()

    def hit(self, key: Hashable) -> None:
        """Count an attempt. Count before a slow check, not after it, or parallel attempts pass uncounted."""
        attempts = self._recent(key)
        if attempts is None:
            attempts = self._attempts[key] = deque()
        attempts.append(self._clock())
        self._attempts.move_to_end(key)
        while len(self._attempts) > CAPACITY:
            self._attempts.popitem(last=False)

    def refund(self, key: Hashable) -> None:
        """Take one attempt back: it was a success, and only failures are to add up."""
        attempts = self._attempts.get(key)
        if attempts:
            attempts.pop()

    def _recent(self, key: Hashable) -> deque[float] | None:
        attempts = self._attempts.get(key)
        if attempts is None:
            return None
        begin = self._clock() - self._window
        while attempts and attempts[0] <= begin:
            attempts.popleft()
        if not attempts:
            del self._attempts[key]
            return None
        return attempts
