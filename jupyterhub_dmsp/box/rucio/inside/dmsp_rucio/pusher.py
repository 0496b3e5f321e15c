"""Reports finished copies to Rucio, failures that may pass with a delay.

Rucio tries a failed transfer three times more without any pause: a full disk would be STUCK after a second. A copy
that failed for a passing reason is therefore reported 2, 6, 18 and 30 seconds later; a missing or damaged source is
reported at once, since waiting would not help and Rucio turns to another source.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time

from rucio.core.request import TransferStatsManager

from . import tool
from .copying import Job
from .pool import Pool

LOG = logging.getLogger("dmsp.pusher")
BATCH = 200


def delay(job: Job) -> float:
    """Seconds to hold back the report of a copy."""
    if job.error is None or not job.passing:
        return 0.0
    return float(min(30, 2 * 3**job.attempt))


class Pusher(threading.Thread):
    """Takes jobs from the pool, reports them, wakes the finisher."""

    def __init__(self, pool: Pool, wake: threading.Event, stop: threading.Event) -> None:
        super().__init__(name="pusher", daemon=True)
        self.copied = self.failed = 0
        self._pool, self._wake, self._ending = pool, wake, stop
        self._held: list[tuple[float, int, Job]] = []
        self._order = itertools.count()

    @property
    def waiting(self) -> int:
        """Reports not made yet."""
        return len(self._held) + self._pool.finished.qsize()

    def run(self) -> None:
        """Report until the process stops, and then what has finished by then."""
        with TransferStatsManager() as statistics:
            last_round = False
            while not last_round:
                last_round = self._ending.is_set()
                self._collect()
                due = self._due()
                if due:
                    self._push(due, statistics)

    def _hold(self, job: Job, seconds: float) -> None:
        heapq.heappush(self._held, (time.monotonic() + seconds, next(self._order), job))

    def _collect(self) -> None:
        patience = 0.5
        if self._held:
            patience = min(patience, max(0.0, self._held[0][0] - time.monotonic()))
        try:
            job = self._pool.finished.get(timeout=patience or 0.001)
            while True:
                self._hold(job, delay(job))
                job = self._pool.finished.get_nowait()
        except queue.Empty:
            return

    def _due(self) -> list[Job]:
        now = time.monotonic()
        due: list[Job] = []
        while self._held and self._held[0][0] <= now and len(due) < BATCH:
            due.append(heapq.heappop(self._held)[2])
        return due

    def _push(self, due: list[Job], statistics: TransferStatsManager) -> None:
        try:
            late = tool.push(due, statistics)
        except Exception as error:  # noqa: BLE001 - the database may be away: the reports must not be lost
            LOG.error("%d reports wait: %s", len(due), error)
            late = due
            self._ending.wait(1.0)
        for job in late:
            self._hold(job, 0.02)
        waiting = {id(job) for job in late}
        done = [job for job in due if id(job) not in waiting]
        failed = sum(1 for job in done if job.error)
        self.failed += failed
        self.copied += len(done) - failed
        if done:
            _tell(done)
            self._wake.set()


def _tell(done: list[Job]) -> None:
    """One event for each rule and round, however many files it has."""
    rules: dict[str, list[Job]] = {}
    for job in done:
        rules.setdefault(job.rule_id, []).append(job)
    for rule, jobs in rules.items():
        wrong = [job for job in jobs if job.error]
        if len(jobs) > len(wrong):
            size = sum(job.size for job in jobs if not job.error)
            LOG.info("rule %s: %d copies done, %d bytes", rule, len(jobs) - len(wrong), size)
        if wrong:
            LOG.warning("rule %s: %d copies failed, the first: %s", rule, len(wrong), wrong[0].error)
