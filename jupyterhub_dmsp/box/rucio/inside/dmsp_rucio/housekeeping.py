"""What keeps the embedded Rucio tidy: rows that nobody would remove, transfers that nobody would resume."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session
from sqlalchemy import delete, select, update

from . import copying, tool

LOG = logging.getLogger("dmsp.housekeeping")
#: How long expired tokens and the history of transfers are kept.
KEEP_TOKENS = timedelta(hours=1)
KEEP_HISTORY = timedelta(days=90)
#: Each renewal of a session's "in use" leaves a row.
KEEP_RULE_CHANGES = timedelta(days=7)


def forget_heartbeats() -> None:
    """Remove the heartbeats of dead processes: Rucio would give them a share of the work for minutes."""
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(delete(models.Heartbeat).execution_options(synchronize_session=False))


def anything_queued() -> bool:
    """Whether a transfer waits; a hundred times cheaper than the submitter's own query."""
    table = models.Request
    with db_session(DatabaseOperationType.READ) as session:
        query = select(table.id).where(table.state == RequestState.QUEUED).limit(1)
        return session.execute(query).first() is not None


def requeue_half_submitted() -> int:
    """Queue again what is SUBMITTING while nobody submits; the submitter calls it after each batch.

    Rucio drops a whole group when the request of one file in it has just been deleted, and would look at the others
    after two hours.
    """
    table = models.Request
    with db_session(DatabaseOperationType.WRITE) as session:
        result = session.execute(
            update(table)
            .where(table.state == RequestState.SUBMITTING, table.external_host == tool.HOST)
            .values(state=RequestState.QUEUED, external_id=None, source_rse_id=None, last_processed_by=None)
            .execution_options(synchronize_session=False)
        )
        if result.rowcount:
            LOG.info("%d half submitted transfers are queued again", result.rowcount)
        return int(result.rowcount)


def run_once() -> bool:
    """Remove messages (no broker takes them here), expired tokens and old history; False: nothing more to do."""
    now = datetime.now(UTC).replace(tzinfo=None)
    history, changes = models.RequestHistory, models.ReplicationRuleHistoryRecent
    with db_session(DatabaseOperationType.WRITE) as session:
        for statement in (
            delete(models.Message),
            delete(models.Token).where(models.Token.expired_at < now - KEEP_TOKENS),
            delete(history).where(history.updated_at < now - KEEP_HISTORY),
            delete(changes).where(changes.updated_at < now - KEEP_RULE_CHANGES),
        ):
            session.execute(statement.execution_options(synchronize_session=False))
    return False


def sweep(root: str, boot: str) -> None:
    """Remove the temporary files of dead processes."""
    count = copying.sweep(root, boot)
    if count:
        LOG.info("%d unfinished copies of an earlier process were removed", count)
