"""Puts right what :mod:`.auditing` found: wrong replicas through Rucio, what nobody knows by removing it.

A wrong replica is declared bad; Rucio's necromancer then copies it anew from another source, with its checksum. Where
there is no other source nothing is done unless it is asked for (``give_up``): Rucio would take the file out of all
its datasets, and what is left of it may be worth something.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rucio.common.constants import DEFAULT_VO
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import replica as replica_core
from rucio.core import rule as rule_core
from rucio.db.sqla import models
from rucio.db.sqla.constants import BadFilesStatus, DatabaseOperationType, LockState, ReplicaState
from rucio.db.sqla.session import db_session
from sqlalchemy import select, tuple_

from .auditing import Audit, Problem, Replica, bulks, say, states
from .protocol import prune

#: Kinds that Rucio can cure by a new copy.
WRONG = frozenset({"missing", "short", "long", "checksum", "unreadable", "bad"})
REASON = "found by dmsp scratch check"
CURED, LOST, REMOVED, FAILED, WAITING = "cured", "lost", "removed", "failed", "waiting"


class Cure:
    """One repair."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.order, self.rse_id, self.root = audit.order, audit.rse_id, audit.root
        self._account = InternalAccount("root", vo=DEFAULT_VO)

    def run(self) -> None:
        """Do what can be done; every problem then has its outcome."""
        for problem in self.audit.problems:
            if problem.kind not in WRONG:
                self._remove(problem)
        wrong = [p for p in self.audit.problems if p.kind in WRONG and p.replica is not None]
        elsewhere = self._elsewhere([p.replica for p in wrong if p.replica])
        curable = []
        for problem in wrong:
            if problem.replica is None:
                continue
            if problem.replica.did not in elsewhere:
                problem.outcome = LOST
                if not self.order.give_up:
                    problem.text += " There is no other copy."
                    continue
                problem.text += " There is no other copy: it was taken out of its datasets."
            curable.append(problem)
        for part in bulks(curable):
            self._declare([p.replica for p in part if p.replica and p.kind != "bad"])
        self._await([p for p in curable if p.outcome != LOST])

    def _remove(self, problem: Problem) -> None:
        path = PurePosixPath(self.root, problem.path)
        try:
            if problem.kind == "orphan_directory":
                Path(path).rmdir()
            else:
                Path(path).unlink()
                prune(PurePosixPath(self.root), path)
            problem.outcome = REMOVED
        except FileNotFoundError:
            problem.outcome = REMOVED
        except OSError as error:
            problem.outcome = FAILED
            problem.text += f" It cannot be removed: {os.strerror(error.errno or 5)}."

    def _elsewhere(self, wanted: Sequence[Replica]) -> set[str]:
        """DIDs that another storage element has, as far as the catalogue knows."""
        table = models.RSEFileAssociation
        found: set[str] = set()
        with db_session(DatabaseOperationType.READ) as session:
            for part in bulks(wanted):
                query = select(table.scope, table.name).where(
                    table.rse_id != self.rse_id,
                    table.state == ReplicaState.AVAILABLE,
                    tuple_(table.scope, table.name).in_(_names(part)),
                )
                found |= {f"{row.scope.external}:{row.name}" for row in session.execute(query)}
        return found

    def _declare(self, part: Sequence[Replica]) -> None:
        """Declare bad. What a site holds without any rule gets one first, or Rucio would only delete it there."""
        if not part:
            return
        locks = states(self.rse_id, part)
        with db_session(DatabaseOperationType.WRITE) as session:
            if self.order.rse != self.order.scratch:
                bare = [r for r in part if locks.get(r.did, (None, 1))[1] == 0]
                if bare:
                    self._keep(bare, session)
            rows: list[Any] = [
                {"scope": scope, "name": name, "rse_id": self.rse_id} for scope, name in _names(part)
            ]
            replica_core.declare_bad_file_replicas(
                rows, REASON, self._account, status=BadFilesStatus.BAD, force=True, session=session
            )

    def _keep(self, part: Sequence[Replica], session: Any) -> None:
        rule_core.add_rule(
            dids=[{"scope": scope, "name": name} for scope, name in _names(part)],
            account=self._account,
            copies=1,
            rse_expression=self.order.rse,
            grouping="NONE",
            weight=None,
            lifetime=None,
            locked=False,
            subscription_id=None,
            comment=REASON,
            session=session,
        )

    def _await(self, problems: list[Problem]) -> None:
        """Until each is right again, or Rucio says why not, or the time is over."""
        end = time.monotonic() + self.order.wait
        left = problems
        while left:
            left = self._look(left)
            done = len(problems) - len(left)
            say(progress={"what": "waiting for new copies", "done": done, "total": len(problems), "bytes": 0})
            if not left or time.monotonic() > end:
                break
            time.sleep(0.5)
        for problem in left:
            problem.outcome = WAITING
            problem.text += " Its new copy has not come yet."

    def _look(self, problems: list[Problem]) -> list[Problem]:
        """Those that are not settled yet."""
        found = states(self.rse_id, [p.replica for p in problems if p.replica])
        reasons = self._reasons([p.replica for p in problems if p.replica])
        left = []
        for problem in problems:
            replica = problem.replica
            if replica is None:
                continue
            state = found.get(replica.did, (None, 0))[0]
            if state is None:
                problem.outcome = REMOVED  # nobody held it, so Rucio has deleted it
            elif state == ReplicaState.AVAILABLE:
                again = self.audit.examine(replica, read=self.order.checksums)
                problem.outcome = FAILED if again else CURED
                problem.text = f"{again.text} The new copy is wrong too." if again else problem.text
            elif replica.did in reasons:
                problem.outcome = FAILED
                problem.text += f" No new copy: {reasons[replica.did]}"
            else:
                left.append(problem)
        return left

    def _reasons(self, wanted: Sequence[Replica]) -> dict[str, str]:
        """Why a new copy is stuck, in words that the users of its rule see too."""
        lock, rule = models.ReplicaLock, models.ReplicationRule
        found: dict[str, str] = {}
        with db_session(DatabaseOperationType.READ) as session:
            for part in bulks(wanted):
                query = (
                    select(lock.scope, lock.name, rule.error)
                    .join(rule, rule.id == lock.rule_id)
                    .where(
                        lock.rse_id == self.rse_id,
                        lock.state == LockState.STUCK,
                        tuple_(lock.scope, lock.name).in_(_names(part)),
                    )
                )
                for row in session.execute(query):
                    reason = str(row.error or "").removeprefix("RequestErrMsg.TRANSFER_FAILED:")
                    found[f"{row.scope.external}:{row.name}"] = reason or "Rucio gives no reason."
        return found


def _names(part: Sequence[Replica]) -> list[tuple[Any, str]]:
    return [(InternalScope(r.scope, vo=DEFAULT_VO), r.name) for r in part]
