"""``GET /rules/<id>/analysis`` with the reason of each file, in three queries for all of them.

Stock Rucio tells of each file's last transfer that it failed and not why (``last_error`` is its state), although the
words are beside it, in the history of requests, which it shows to administrators alone. It asks the database four
times a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, LockState, ReplicaState, RuleState
from rucio.db.sqla.session import db_session
from rucio.gateway import rule as gateway
from sqlalchemy import and_, func, select

_stock = gateway.examine_replication_rule
Key = tuple[Any, str]


def examine_replication_rule(rule_id: str, issuer: str, vo: str = "def") -> dict[str, Any]:
    """As Rucio's, which is asked about every rule that is not stuck.

    Returns:
        ``rule_error`` and ``transfers``: for each stuck lock its file, RSE, number of attempts, and of the last one the
        words of the error (``last_error``; the state where there are none), source and time; and where else it is.
    """
    ident = rule_id.replace("-", "").lower()
    if re.fullmatch(r"[0-9a-f]{32}", ident):
        with db_session(DatabaseOperationType.READ) as session:
            rule = models.ReplicationRule
            found = session.execute(select(rule.state, rule.error).where(rule.id == ident)).first()
            if found is not None and found.state == RuleState.STUCK:
                return {"rule_error": found.error, "transfers": _transfers(ident, session)}
    return dict(_stock(rule_id, issuer=issuer, vo=vo))


def _transfers(rule_id: str, session: Any) -> list[dict[str, Any]]:
    lock = models.ReplicaLock
    stuck = and_(lock.rule_id == rule_id, lock.state == LockState.STUCK)
    rses = {
        row.id: row
        for row in session.execute(select(models.RSE.id, models.RSE.rse, models.RSE.availability_read))
    }
    # The locks first: a lock is stuck and its request is history in one moment.
    files = select(lock.scope, lock.name, lock.rse_id).where(stuck).order_by(lock.scope, lock.name)
    rows = session.execute(files).all()
    last, sources = _last_requests(stuck, session), _sources(stuck, session)
    transfers = []
    for row in rows:
        key = (row.scope, row.name)
        request = last.get(key)
        source = rses.get(request.source_rse_id) if request else None
        transfers.append(
            {
                "scope": row.scope.external,
                "name": row.name,
                "rse_id": row.rse_id,
                "rse": rses[row.rse_id].rse,
                "attempts": request.attempts if request else 0,
                "last_error": (request.err_msg or str(request.state)) if request else str(None),
                "last_source": source.rse if source else None,
                "sources": [(rses[one].rse, bool(rses[one].availability_read)) for one in sources.get(key, ())],
                "last_time": request.created_at if request else None,
            }
        )
    return transfers


def _last_requests(stuck: Any, session: Any) -> dict[Key, Any]:
    """The last transfer of each stuck lock's file to its RSE, with the number of all."""
    past, lock = models.RequestHistory, models.ReplicaLock
    of_file = {"partition_by": (past.scope, past.name, past.dest_rse_id)}
    numbered = (
        select(
            past.scope,
            past.name,
            past.err_msg,
            past.state,
            past.source_rse_id,
            past.created_at,
            func.count().over(**of_file).label("attempts"),
            func.row_number().over(order_by=past.created_at.desc(), **of_file).label("turn"),
        )
        .join(lock, and_(lock.scope == past.scope, lock.name == past.name, lock.rse_id == past.dest_rse_id))
        .where(stuck)
        .subquery()
    )
    return {(row.scope, row.name): row for row in session.execute(select(numbered).where(numbered.c.turn == 1))}


def _sources(stuck: Any, session: Any) -> dict[Key, list[str]]:
    """The RSEs where each stuck lock's file is."""
    replica, lock = models.RSEFileAssociation, models.ReplicaLock
    query = (
        select(replica.scope, replica.name, replica.rse_id)
        .join(lock, and_(lock.scope == replica.scope, lock.name == replica.name))
        .where(stuck, replica.state == ReplicaState.AVAILABLE)
    )
    return _grouped(session.execute(query))


def _grouped(rows: Iterable[Any]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for row in rows:
        found.setdefault((row.scope, row.name), []).append(row.rse_id)
    return found
