"""After a restore: compare the catalogue with the disk, and let Rucio bring back what is missing.

``python -m dmsp_rucio.reconcile`` runs while nothing else of Rucio does. Files that a rule keeps and that are not on
the disk get Rucio's own treatment of a failed transfer: the replica is unavailable, its locks are stuck, the rule is
repaired, which queues new transfers from whatever site still has the file. What came back in the meantime (the storage
was copied in later) counts as available again, if its checksum is right. Nothing is ever taken from a dataset.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rucio.common.config import config_get
from rucio.core import rule as rules
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, LockState, ReplicaState
from rucio.db.sqla.session import db_session
from sqlalchemy import func, select, tuple_, update

import dmsp_log

from .copying import checksum, normal_checksum

LOG = logging.getLogger("dmsp.reconcile")
BATCH = 1000
#: Names that the report holds at most.
EXAMPLES = 20
#: A lock that was tried that long ago is tried again at once.
LONG_AGO = timedelta(days=60)
Key = tuple[Any, str]


@dataclass
class Found:
    """What one storage element lacks, and what it has against the catalogue's belief."""

    missing: list[Key] = field(default_factory=list)
    unkept: list[Key] = field(default_factory=list)
    back: list[Key] = field(default_factory=list)
    looked: int = 0


def place(root: Path, rse: str, scope: str, name: str) -> Path:
    """Where Rucio's ``hash`` algorithm puts a file."""
    digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
    folder = scope.replace(".", "/") if scope.startswith(("user", "group")) else scope
    return root / rse / "lake" / folder / digest[0:2] / digest[2:4] / name


def main() -> int:
    """Reconcile all storage elements; the report goes to standard output as JSON."""
    dmsp_log.start("reconcile")
    root = Path(config_get("dmsp", "storage", check_config_table=False))
    report: dict[str, Any] = {
        "looked": 0,
        "missing": 0,
        "copied_again": 0,
        "back": 0,
        "lost": 0,
        "examples": [],
    }
    affected: set[str] = set()
    for rse_id, rse in _elements():
        found = _look(root, rse_id, rse)
        report["looked"] += found.looked
        report["missing"] += len(found.missing) + len(found.unkept)
        report["back"] += len(found.back)
        for keys in _chunks([*found.missing, *found.unkept]):
            affected |= _mark_missing(rse_id, keys)
        for keys in _chunks(found.back):
            affected |= _mark_back(rse_id, keys)
        LOG.info(
            "%s: %d files looked for, %d missing, %d back",
            rse,
            found.looked,
            len(found.missing),
            len(found.back),
        )
    for rule_id in sorted(affected):
        _repair(rule_id)
    lost = _without_copy()
    report["lost"], report["examples"] = len(lost), lost[:EXAMPLES]
    report["copied_again"] = report["missing"] - report["lost"]
    print(json.dumps(report))  # noqa: T201
    return 0


def _elements() -> list[tuple[str, str]]:
    with db_session(DatabaseOperationType.READ) as session:
        table = models.RSE
        rows = session.execute(select(table.id, table.rse).where(table.deleted.is_(False))).all()
        return [(str(row.id), str(row.rse)) for row in rows]


def _look(root: Path, rse_id: str, rse: str) -> Found:
    table, found = models.RSEFileAssociation, Found()
    states = (ReplicaState.AVAILABLE, ReplicaState.UNAVAILABLE)
    query = select(table.scope, table.name, table.bytes, table.adler32, table.state, table.lock_cnt).where(
        table.rse_id == rse_id, table.state.in_(states)
    )
    with db_session(DatabaseOperationType.READ) as session:
        for row in session.execute(query.execution_options(yield_per=BATCH)):
            found.looked += 1
            path = place(root, rse, str(row.scope.external), row.name)
            here = _is_there(path, row.bytes)
            if row.state == ReplicaState.AVAILABLE and not here:
                (found.missing if row.lock_cnt else found.unkept).append((row.scope, row.name))
            elif row.state == ReplicaState.UNAVAILABLE and here and _is_right(path, row.adler32):
                found.back.append((row.scope, row.name))
    return found


def _is_there(path: Path, size: int | None) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat
    except OSError:
        return False
    return size is None or status.st_size == size


def _is_right(path: Path, adler32: str | None) -> bool:
    try:
        return adler32 is None or checksum(str(path)) == normal_checksum(adler32)
    except OSError:
        return False


def _chunks(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def _mark_missing(rse_id: str, keys: Sequence[Key]) -> set[str]:
    """The replicas are unavailable, what kept them is stuck; gives the rules to repair."""
    lock = models.ReplicaLock
    long_ago = datetime.now(UTC).replace(tzinfo=None) - LONG_AGO
    with db_session(DatabaseOperationType.WRITE) as session:
        _set_state(session, rse_id, keys, ReplicaState.UNAVAILABLE)
        session.execute(
            update(lock)
            .where(lock.rse_id == rse_id, tuple_(lock.scope, lock.name).in_(keys), lock.state == LockState.OK)
            .values(state=LockState.STUCK, repair_cnt=0, updated_at=long_ago)
            .execution_options(synchronize_session=False)
        )
        return _rules_of(session, rse_id, keys)


def _mark_back(rse_id: str, keys: Sequence[Key]) -> set[str]:
    with db_session(DatabaseOperationType.WRITE) as session:
        _set_state(session, rse_id, keys, ReplicaState.AVAILABLE)
        return _rules_of(session, rse_id, keys)


def _set_state(session: Any, rse_id: str, keys: Sequence[Key], state: ReplicaState) -> None:
    replica = models.RSEFileAssociation
    session.execute(
        update(replica)
        .where(replica.rse_id == rse_id, tuple_(replica.scope, replica.name).in_(keys))
        .values(state=state)
        .execution_options(synchronize_session=False)
    )


def _rules_of(session: Any, rse_id: str, keys: Sequence[Key]) -> set[str]:
    lock = models.ReplicaLock
    query = (
        select(lock.rule_id).where(lock.rse_id == rse_id, tuple_(lock.scope, lock.name).in_(keys)).distinct()
    )
    return {str(found) for found in session.execute(query).scalars()}


def _repair(rule_id: str) -> None:
    """Let Rucio's judge look at one rule now; what it cannot repair stays stuck, with its reason."""
    rule = models.ReplicationRule
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(
            update(rule)
            .where(rule.id == rule_id)
            .values(stuck_at=None)
            .execution_options(synchronize_session=False)
        )
        rules.repair_rule(rule_id, session=session)


def _without_copy() -> list[str]:
    """The files of which no storage element has a copy."""
    table = models.RSEFileAssociation
    available = func.count().filter(table.state == ReplicaState.AVAILABLE)
    query = select(table.scope, table.name).group_by(table.scope, table.name).having(available == 0)
    with db_session(DatabaseOperationType.READ) as session:
        return sorted(f"{row.scope.external}:{row.name}" for row in session.execute(query))


if __name__ == "__main__":
    sys.exit(main())
