"""Rucio's transfertool ``dmsp``: submits copies to a :class:`~.pool.Pool` of this process and reports them back.

Stock Rucio knows its transfertools by a table: :func:`register` puts ours into it, before a conveyor module is
imported. Reports are pushed (``rucio.core.transfer.update_transfer_state``, as Rucio's own receiver does): the stock
poller would look at a transfer only every ten minutes.
"""

# ruff: noqa: ARG002, ARG003 - the arguments are those of Rucio's interface
from __future__ import annotations

import itertools
import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rucio.core import request as requests
from rucio.core import transfer as transfers
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session
from rucio.transfertool.transfertool import TransferStatusReport, Transfertool, TransferToolBuilder
from sqlalchemy import select, update

from .copying import HASH_LEVELS, CopyError, Job, normal_checksum, safe_path
from .pool import Pool

#: Name in ``[conveyor] transfertool`` and in ``requests.transfertool``.
NAME = "dmsp"
#: ``requests.external_host`` of everything submitted here.
HOST = "dmsp-box"
#: Scheme of the protocol through which the daemons reach a storage element (see ``bootstrap``).
SCHEME = "posix"
#: Files in one call of ``submit``: they become SUBMITTED together, and none is reported before.
GROUP = 100
_POOLS: list[tuple[Pool, str]] = []
LOG = logging.getLogger("dmsp.tool")


class Report(TransferStatusReport):
    """The outcome of a copy as Rucio takes it. ``external_id`` must equal that of the row."""

    supported_db_fields = ["state", "external_id", "started_at", "transferred_at", "err_msg"]

    def __init__(self, job: Job) -> None:
        super().__init__(job.request_id)
        self.state = RequestState.FAILED if job.error else RequestState.DONE
        self.external_id = job.external_id
        self.started_at, self.transferred_at = job.started, job.finished
        self.err_msg = requests.get_transfer_error(self.state, job.error) if job.error else None

    def initialize(self, session: Any, logger: Any = logging.log) -> None:
        """Everything is known at birth."""

    def get_monitor_msg_fields(self, session: Any, logger: Any = logging.log) -> dict[str, Any]:
        """What Rucio adds to its message about the transfer."""
        return {"reason": self.err_msg, "protocol": SCHEME}


class BoxTransfertool(Transfertool):
    """Copies between storage elements of this machine."""

    external_name = NAME
    required_rse_attrs = ()
    supported_schemes = {SCHEME}

    @classmethod
    def submission_builder_for_path(cls, transfer_path: list[Any], logger: Any = logging.log) -> Any:
        """One hop at a time: later hops wait in the database."""
        hop = transfer_path[0]
        if hop.src.scheme != SCHEME or hop.dst.scheme != SCHEME:
            return [], None
        return [hop], TransferToolBuilder(cls, external_host=HOST)

    def group_into_submit_jobs(self, transfer_paths: Iterable[list[Any]]) -> list[dict[str, Any]]:
        """Groups of at most :data:`GROUP`."""
        hops = list(itertools.chain.from_iterable(transfer_paths))
        return [
            {"transfers": hops[first : first + GROUP], "job_params": {}} for first in range(0, len(hops), GROUP)
        ]

    def submit(self, transfers: Iterable[Any], job_params: dict[str, Any], timeout: int | None = None) -> str:
        """Queue the copies; returns their external id."""
        pool, root = _POOLS[-1]
        external_id = f"{pool.boot}-{uuid.uuid4().hex[:20]}"
        jobs = [job for hop in transfers if (job := _job(hop, external_id, pool, root))]
        for rule, count in Counter(job.rule_id for job in jobs).items():
            LOG.info("rule %s: %d copies begin as %s", rule, count, external_id)
        pool.add(jobs)
        return external_id

    def bulk_query(self, requests_by_eid: Any, timeout: int | None = None) -> dict[str, Any]:
        """Nobody polls here: None says that another process had it, {} that it is running."""
        boot = _POOLS[-1][0].boot
        return {eid: {} if eid.startswith(boot) else None for eid in requests_by_eid}

    def cancel(self, transfer_ids: Sequence[str], timeout: int | None = None) -> bool:
        """Rucio calls this for FTS3 only; the pool notices by itself when a request has gone."""
        return True

    def update_priority(self, transfer_id: str, priority: int, timeout: int | None = None) -> bool:
        """Copies run in the order in which they were submitted."""
        return True


def register(pool: Pool, root: str) -> None:
    """Make ``dmsp`` known to Rucio. ``root`` is the directory that holds the storage of all RSEs."""
    _POOLS.append((pool, root))
    transfers.TRANSFERTOOL_CLASSES_BY_NAME[NAME] = BoxTransfertool


def _job(hop: Any, external_id: str, pool: Pool, root: str) -> Job | None:
    request = hop.rws
    job = Job(
        request_id=request.request_id,
        rule_id=request.rule_id or "-",
        external_id=external_id,
        source="",
        destination="",
        source_rse=hop.src.rse.name,
        destination_rse=hop.dst.rse.name,
        size=request.byte_count or 0,
        adler32=normal_checksum(request.adler32),
        attempt=request.retry_count or 0,
        levels=HASH_LEVELS + request.name.count("/"),
    )
    try:
        job.source = safe_path(hop.source_url(hop.src), root)
        job.destination = safe_path(hop.dest_url, root)
        job.others = [
            (safe_path(hop.source_url(source), root), source.rse.name)
            for source in hop.sources
            if source.rse.name != job.source_rse
        ]
    except CopyError as error:
        job.fail(error)
        pool.finished.put(job)
        return None
    return job


class RequestLedger:
    """The pool's view of Rucio's ``requests`` table."""

    def wanted(self, jobs: Sequence[Job]) -> set[str]:
        """Ids of the requests that exist and are not another attempt's."""
        with db_session(DatabaseOperationType.READ) as session:
            return _present(jobs, session)

    def holding(self, jobs: Sequence[Job], action: Callable[[Sequence[Job]], None]) -> None:
        """Hold the rows (FOR KEY SHARE) while ``action`` runs; rows that are being deleted count as gone.

        The deletion of a rule deletes the request and hands the replica to the reaper in one transaction. Whoever
        holds the row therefore lands the file before the reaper can look for it.
        """
        with db_session(DatabaseOperationType.WRITE) as session:
            present = _present(jobs, session, lock=True)
            action([job for job in jobs if job.request_id in present])

    def publish(self, jobs: Sequence[Job]) -> None:
        """Bytes so far, to ``requests.attributes``: ``GET /requests/<scope>/<name>/<rse>`` shows them to everybody."""
        table = models.Request
        with db_session(DatabaseOperationType.WRITE) as session:
            for job in jobs:
                row = session.execute(
                    select(table.attributes).where(table.id == job.request_id).with_for_update()
                ).scalar_one_or_none()
                if row is None:
                    continue
                attributes = {**(json.loads(row) if isinstance(row, str) else row), "bytes_done": job.done}
                requests.update_request(job.request_id, attributes=attributes, session=session)


def _present(jobs: Sequence[Job], session: Any, *, lock: bool = False) -> set[str]:
    table = models.Request
    query = select(table.id, table.external_id).where(table.id.in_([job.request_id for job in jobs]))
    if lock:
        query = query.with_for_update(read=True, key_share=True, skip_locked=True)
    # external_id is empty between Rucio's SUBMITTING and SUBMITTED.
    external = {job.request_id: job.external_id for job in jobs}
    return {row.id for row in session.execute(query) if row.external_id in (None, external[row.id])}


def push(jobs: Sequence[Job], statistics: Any) -> list[Job]:
    """Report finished copies to Rucio in one transaction; returns those whose row is not SUBMITTED yet."""
    table = models.Request
    late: list[Job] = []
    with db_session(DatabaseOperationType.WRITE) as session:
        ids = [job.request_id for job in jobs]
        rows = dict(
            session.execute(select(table.id, table.external_id).where(table.id.in_(ids))).tuples().all()
        )
        for job in jobs:
            if job.request_id not in rows:
                continue  # its rule has gone
            if rows[job.request_id] is None:
                late.append(job)
            elif rows[job.request_id] == job.external_id:
                transfers.update_transfer_state(Report(job), statistics, session=session)
    # Rucio logs a fault of the database there and goes on: look whether the reports arrived.
    pushed = {job.request_id: job for job in jobs if job not in late}
    with db_session(DatabaseOperationType.READ) as session:
        still = select(table.id, table.external_id).where(
            table.id.in_(list(pushed)), table.state == RequestState.SUBMITTED
        )
        late += [
            pushed[row.id] for row in session.execute(still) if row.external_id == pushed[row.id].external_id
        ]
    return late


def requeue_abandoned() -> int:
    """Give back what a process that died had submitted: call it once, before the first submission."""
    table = models.Request
    states = [RequestState.SUBMITTING, RequestState.SUBMITTED]
    with db_session(DatabaseOperationType.WRITE) as session:
        result = session.execute(
            update(table)
            .where(table.external_host == HOST, table.state.in_(states))
            .values(state=RequestState.QUEUED, external_id=None, source_rse_id=None, last_processed_by=None)
            .execution_options(synchronize_session=False)
        )
        return int(result.rowcount)
