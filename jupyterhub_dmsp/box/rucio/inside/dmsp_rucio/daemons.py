"""Rucio's daemons and the copying pool, as threads of one process: ``python -m dmsp_rucio.daemons``.

Rucio's own loops wait ten seconds at start and at least one in every cycle. These call the same ``run_once`` functions
(and the conveyor's fetch and handle functions) in loops of their own, woken when there is something to do: a small
file is on scratch well below a second after its rule was made. SIGTERM stops within five seconds; what was in flight
is queued again at the next start.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rucio.common.config import config_get, config_get_int

import dmsp_log

from . import caching, connections, evicting, housekeeping, quiet, tool
from .pool import Pool
from .pusher import Pusher

LOG = logging.getLogger("dmsp.daemons")
#: Test aid: seconds that a copy waits after every MiB.
PAUSE = "DMSP_RUCIO_COPY_PAUSE"
#: Seconds until the process ends after SIGTERM, whatever still runs.
STOP_WITHIN = 4.0
#: Copies handed to the pool at most; the rest waits in the database, where a deleted rule takes it away.
IN_FLIGHT = 2000
#: Seconds between two looks at how full scratch is.
EVICT_EVERY = 5.0
#: How long a judge leaves a rule alone whose rows somebody else held.
PUT_OFF = timedelta(seconds=2)
_STOP = threading.Event()

Step = Callable[[Any], bool]


@dataclass
class Beat:
    """How a loop is doing."""

    last: float = 0.0  # time of the last round that went well, seconds since 1970
    tick: float = 0.0  # the same by the clock that nobody sets (CLOCK_MONOTONIC, one for all processes)
    rounds: int = 0
    failures: int = 0
    error: str = ""


class Loop(threading.Thread):
    """Calls ``step(heartbeat_handler)`` for ever: at once while it says that there is more, else every ``interval``."""

    def __init__(self, name: str, step: Step, interval: float) -> None:
        super().__init__(name=name, daemon=True)
        self.beat = Beat()
        self.wake = threading.Event()
        self._step = step
        self._interval = interval

    def run(self) -> None:
        """The loop; a fault is logged and does not end it."""
        from rucio.daemons.common import HeartbeatHandler

        while not _STOP.is_set():
            try:
                with HeartbeatHandler(executable=f"dmsp-{self.name}", renewal_interval=30) as heartbeat:
                    self._rounds(heartbeat)
            except Exception:
                LOG.exception("%s cannot work", self.name)
                _STOP.wait(2)

    def _rounds(self, heartbeat: Any) -> None:
        while not _STOP.is_set():
            pause = self._interval
            try:
                if self._step(heartbeat):
                    pause = 0.0
                self.beat.last, self.beat.tick, self.beat.error = time.time(), time.monotonic(), ""
                self.beat.rounds += 1
            except Exception as error:
                self.beat.failures += 1
                self.beat.error = type(error).__name__
                LOG.exception("%s failed", self.name)
                pause = max(2.0, self._interval)
            if pause:
                self.wake.wait(pause)
            self.wake.clear()


def _soon(paused: dict[Any, datetime]) -> dict[Any, datetime]:
    """What Rucio's judges have put off: 10 to 40 minutes after a lock of the database was held for a moment.

    That is meant for an installation with many daemons; here the other transaction is over at once.
    """
    latest = datetime.now(UTC).replace(tzinfo=None) + PUT_OFF  # as Rucio keeps times
    for key, until in paused.items():
        paused[key] = min(until, latest)
    return paused


def _judges() -> dict[str, tuple[Step, float]]:
    from rucio.daemons.judge import cleaner, evaluator, injector, repairer

    paused: list[dict[Any, Any]] = [{} for _ in range(4)]
    return {
        "judge-evaluator": (
            lambda h: bool(
                evaluator.run_once(paused_dids=_soon(paused[0]), did_limit=1000, heartbeat_handler=h)
            ),
            0.5,
        ),
        "judge-cleaner": (
            lambda h: bool(cleaner.run_once(paused_rules=_soon(paused[1]), heartbeat_handler=h)),
            0.5,
        ),
        "judge-injector": (
            lambda h: bool(injector.run_once(paused_rules=_soon(paused[2]), heartbeat_handler=h)),
            1.0,
        ),
        "judge-repairer": (
            lambda h: bool(repairer.run_once(paused_rules=_soon(paused[3]), delta=600, heartbeat_handler=h)),
            5.0,
        ),
    }


def _deleters() -> dict[str, tuple[Step, float]]:
    from dogpile.cache import make_region
    from rucio.daemons.badreplicas import minos, minos_temporary_expiration, necromancer
    from rucio.daemons.reaper import reaper
    from rucio.daemons.undertaker import undertaker

    # With a cache the reaper leaves a storage element alone for two minutes after it found nothing to delete there.
    reaper.REGION = make_region().configure("dogpile.cache.null")
    paused: dict[Any, Any] = {}

    def reap(heartbeat: Any) -> bool:
        return not reaper.run_once(
            rses=[],
            include_rses=None,
            exclude_rses=None,
            vos=None,
            chunk_size=500,
            greedy=True,
            scheme=None,
            delay_seconds=60,
            auto_exclude_threshold=100,
            auto_exclude_timeout=600,
            heartbeat_handler=heartbeat,
        )

    return {
        "reaper": (reap, 1.0),
        "undertaker": (
            lambda h: bool(undertaker.run_once(paused_dids=_soon(paused), chunk_size=50, heartbeat_handler=h)),
            10.0,
        ),
        "necromancer": (lambda h: not necromancer.run_once(heartbeat_handler=h, bulk=1000), 3.0),
        "minos": (lambda h: not minos.run_once(heartbeat_handler=h, bulk=1000), 30.0),
        "minos-expiration": (
            lambda h: not minos_temporary_expiration.run_once(heartbeat_handler=h, bulk=1000),
            60.0,
        ),
    }


def _counters() -> dict[str, tuple[Step, float]]:
    from rucio.daemons.abacus import account, collection_replica, rse
    from rucio.daemons.transmogrifier import transmogrifier

    return {
        "abacus-rse": (lambda h: bool(rse.run_once(heartbeat_handler=h)), 4.0),
        "abacus-account": (lambda h: bool(account.run_once(heartbeat_handler=h)), 4.0),
        # Adds up the whole dataset each time: not more often than this, however much there is to do.
        "abacus-collection": (
            lambda h: collection_replica.run_once(heartbeat_handler=h, limit=1000) is None,
            3.0,
        ),
        "transmogrifier": (lambda h: not transmogrifier.run_once(heartbeat_handler=h, bulk=100), 30.0),
        "housekeeping": (lambda _: housekeeping.run_once(), 60.0),
    }


def _conveyor(pool: Pool) -> dict[str, tuple[Step, float]]:
    from rucio.core.topology import ExpiringObjectCache, Topology
    from rucio.daemons.conveyor import finisher, submitter

    topology = ExpiringObjectCache(ttl=30, new_obj_fnc=Topology)

    def submit(heartbeat: Any) -> bool:
        if pool.backlog >= IN_FLIGHT or not housekeeping.anything_queued():
            return False
        _, batch = submitter._fetch_requests(
            partition_hash_var=None,
            bulk=500,
            activity=None,
            rse_ids=None,
            request_type=[submitter.RequestType.TRANSFER],
            ignore_availability=False,
            filter_transfertool=None,
            metrics=submitter.METRICS,
            cached_topology=topology,
            set_last_processed_by=False,
            heartbeat_handler=heartbeat,
        )
        if not batch[1]:
            return False
        submitter._handle_requests(
            batch,
            transfertools=[tool.NAME],
            schemes=[tool.SCHEME],
            failover_schemes=[],
            max_sources=4,
            timeout=None,
            transfertool_kwargs={},
            metrics=submitter.METRICS,
        )
        housekeeping.requeue_half_submitted()
        return True

    def finish(heartbeat: Any) -> bool:
        _, batch = finisher._fetch_requests(
            db_bulk=500,
            set_last_processed_by=False,
            cached_topology=topology,
            heartbeat_handler=heartbeat,
            activity=None,
        )
        if batch[0]:
            finisher._handle_requests(batch, bulk=100, suspicious_patterns=[], retry_protocol_mismatches=False)
        return bool(batch[0])

    return {"conveyor-submitter": (submit, 0.15), "conveyor-finisher": (finish, 1.0)}


class Health(threading.Thread):
    """Writes the health file every second: who we are, when each loop last went well, what waits."""

    def __init__(self, path: Path, loops: dict[str, Loop], pool: Pool, pusher: Pusher) -> None:
        super().__init__(name="health", daemon=True)
        self._path, self._loops, self._pool, self._pusher = path, loops, pool, pusher
        self._born, self._first_tick = time.time(), time.monotonic()

    def run(self) -> None:
        """Write until the process stops."""
        while not _STOP.is_set():
            try:
                self.write()
            except OSError as error:
                LOG.warning("the health file cannot be written: %s", error.strerror)
            _STOP.wait(1.0)

    def write(self) -> None:
        """Write once, atomically."""
        conveyor = [loop for name, loop in self._loops.items() if name.startswith("conveyor")]
        document = {
            "pid": os.getpid(),
            "boot": self._pool.boot,
            "started": self._born,
            "now": time.time(),
            "tick": time.monotonic(),
            "first_tick": self._first_tick,
            "ready": all(loop.beat.rounds for loop in conveyor),
            "copying": self._pool.backlog,
            "reporting": self._pusher.waiting,
            "copied": self._pusher.copied,
            "failed": self._pusher.failed,
            "loops": {name: asdict(loop.beat) for name, loop in self._loops.items()},
        }
        draft = self._path.with_suffix(".part")
        draft.write_text(json.dumps(document))
        draft.replace(self._path)


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    os.umask(0o027)
    # Short tasks wait for the interpreter behind long ones: change over more often than every 5 ms.
    sys.setswitchinterval(0.0005)
    dmsp_log.start("daemons")
    # It is normal to have no subscription, and said at every round.
    logging.getLogger("dmsp-transmogrifier").addFilter(quiet.Without("No subscriptions defined"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _STOP.set())

    root = config_get("dmsp", "storage", check_config_table=False)
    threads = config_get_int("dmsp", "transfers", default=4, check_config_table=False)
    pool = Pool(threads, tool.RequestLedger(), pause=float(os.environ.get(PAUSE, "0")))
    tool.register(pool, root)
    connections.start()
    caching.start()
    housekeeping.forget_heartbeats()
    LOG.info("%d transfers of an earlier process are queued again", tool.requeue_abandoned())
    threading.Thread(target=housekeeping.sweep, args=(root, pool.boot), name="sweep", daemon=True).start()

    steps = {**_judges(), **_deleters(), **_counters(), **_conveyor(pool)}
    evictor = evicting.configured(root)
    steps["evictor"] = (lambda _: evictor.run_once(), EVICT_EVERY)
    loops = {name: Loop(name, step, interval) for name, (step, interval) in steps.items()}
    pusher = Pusher(pool, loops["conveyor-finisher"].wake, _STOP)
    health = Health(Path(config_get("dmsp", "health", check_config_table=False)), loops, pool, pusher)
    pool.start()
    for thread in (*loops.values(), pusher, health):
        thread.start()
    LOG.info("running with %d copies at a time", threads)
    _STOP.wait()
    _shut_down(pool, pusher, list(loops.values()))
    return 0


def _shut_down(pool: Pool, pusher: Pusher, loops: list[Loop]) -> None:
    end = time.monotonic() + STOP_WITHIN
    for loop in loops:
        loop.wake.set()
    pool.stop(STOP_WITHIN / 2)
    for thread in (pusher, *loops):
        thread.join(max(0.0, end - time.monotonic()))
    LOG.info("stopped")
    logging.shutdown()
    # A thread in a long database call must not keep the process: everything it does is a transaction.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
