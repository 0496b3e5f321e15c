"""A bounded pool of copying threads. It asks its :class:`Ledger` whether a copy is still wanted, and knows no Rucio.

Guarantees:
    - at most ``threads`` copies run at once; one thread is kept for small files when there are several;
    - a file gets its name only while its request is held in the ledger: a rule deleted in mid-copy leaves nothing;
    - the data of a file is on the disk before the file has its name;
    - every job that is added comes out of :attr:`Pool.finished` once, unless the pool is stopped.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from .copying import CopyError, Job, discard, fill_from_any, land

LOG = logging.getLogger("dmsp.pool")
#: Files up to this size are brought to the disk in batches of :data:`BATCH`, larger ones each by itself.
SMALL = 8 << 20
BATCH = 50
#: Seconds between looks at running copies: are they still wanted, how many bytes are there.
WATCH = 1.0
_syncfs = ctypes.CDLL(None, use_errno=True).syncfs


class Ledger(Protocol):
    """Where requests are kept."""

    def wanted(self, jobs: Sequence[Job]) -> set[str]:
        """Ids of those requests that still exist."""

    def holding(self, jobs: Sequence[Job], action: Callable[[Sequence[Job]], None]) -> None:
        """Call ``action`` with the jobs that are still wanted; they cannot be withdrawn while it runs."""

    def publish(self, jobs: Sequence[Job]) -> None:
        """Make the bytes copied so far visible."""


class Pool:
    """Threads that copy."""

    def __init__(self, threads: int, ledger: Ledger, *, pause: float = 0.0) -> None:
        self.boot = uuid.uuid4().hex[:8]
        self.finished: queue.Queue[Job] = queue.Queue()
        self._ledger = ledger
        self._pause = pause
        self._small: deque[list[Job]] = deque()
        self._large: deque[list[Job]] = deque()
        self._running: set[Job] = set()
        self._backlog = 0
        self._stopping = False
        self._change = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"copy-{number}", daemon=True)
            for number in range(threads)
        ]
        self._watcher = threading.Thread(target=self._watch, name="copy-watch", daemon=True)

    def start(self) -> None:
        """Start copying."""
        for thread in (*self._threads, self._watcher):
            thread.start()

    def stop(self, timeout: float) -> None:
        """Abandon what is running, remove its temporary files, and wait up to ``timeout`` seconds for the threads."""
        with self._change:
            self._stopping = True
            for job in self._running:
                job.cancelled = True
            self._change.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue copies."""
        small: list[Job] = []
        with self._change:
            for job in jobs:
                self._backlog += 1
                if job.size > SMALL:
                    self._large.append([job])
                else:
                    small.append(job)
            # Batches no larger than what keeps every thread busy: a handful of files is not for one thread alone.
            step = min(BATCH, max(1, -(-len(small) // len(self._threads))))
            for first in range(0, len(small), step):
                self._small.append(small[first : first + step])
            self._change.notify_all()

    @property
    def backlog(self) -> int:
        """Jobs that are queued or running."""
        return self._backlog

    def _next(self, number: int) -> list[Job] | None:
        may_take_large = number > 0 or len(self._threads) == 1
        with self._change:
            while not self._stopping:
                if self._small:
                    batch = self._small.popleft()
                elif self._large and may_take_large:
                    batch = self._large.popleft()
                else:
                    self._change.wait()
                    continue
                self._running.update(batch)
                return batch
        return None

    def _work(self, number: int) -> None:
        while (batch := self._next(number)) is not None:
            try:
                self._copy(batch)
            except Exception as error:  # noqa: BLE001 - a fault of the database must not end a copying thread
                LOG.error("a batch of %d copies failed: %s", len(batch), error)
                for job in batch:
                    discard(job)
                    if job.error is None:
                        job.fail(CopyError("The transfer was interrupted.", passing=True))
            with self._change:
                self._running.difference_update(batch)
                self._backlog -= len(batch)
                stopping = self._stopping
            for job in batch:
                job.finished = _now()
                if not stopping or job.error is None:
                    self.finished.put(job)

    def _copy(self, batch: list[Job]) -> None:
        wanted = self._ledger.wanted(batch)
        filled: list[Job] = []
        for job in batch:
            job.started = _now()
            try:
                if job.request_id not in wanted or job.cancelled:
                    raise CopyError("The transfer was cancelled.")
                if fill_from_any(job, self.boot, sync=job.size > SMALL, pause=self._pause):
                    filled.append(job)
            except CopyError as error:
                job.fail(error)
        if not filled:
            return
        if filled[0].size <= SMALL:
            _sync(os.path.dirname(filled[0].destination))  # noqa: PTH120
        landed: set[Job] = set()

        def name(held: Sequence[Job]) -> None:
            for job in held:
                landed.add(job)
                try:
                    land(job)
                except CopyError as error:
                    job.fail(error)

        self._ledger.holding(filled, name)
        for job in filled:
            if job not in landed:
                discard(job)
                job.fail(CopyError("The transfer was cancelled."))

    def _watch(self) -> None:
        while not self._stopping:
            time.sleep(WATCH)
            with self._change:
                running = [job for job in self._running if job.started and job.size > SMALL]
            if not running:
                continue
            try:
                wanted = self._ledger.wanted(running)
                for job in running:
                    job.cancelled = job.cancelled or job.request_id not in wanted
                self._ledger.publish([job for job in running if not job.cancelled])
            except Exception as error:  # noqa: BLE001 - the next look is in a second
                LOG.warning("running copies could not be looked at: %s", error)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)  # Rucio keeps naive UTC


def _sync(directory: str) -> None:
    """One ``syncfs`` for a batch of small files costs less than an ``fdatasync`` for each."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if _syncfs(descriptor):
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(descriptor)
