"""Keeps room on scratch: above the high mark rules are released, least recently used first, down to the low mark.

What a running session has attached is *in use*: its Lab writes until when into the rule (``meta``, see
``jupyterhub_dmsp.lake.rules``) and renews it. Such a rule is released only when nothing else is left and scratch is
still above the high mark, and never without notice: the time of its end is written into the rule (``eol_at``) first,
the Lab shows it, and takes it back when there is room again. Locked rules are never released.

Each round also tells everybody how full scratch is (``GET /rses/<scratch>/usage``), limits what new rules may bring
(Rucio's ``MaxSpaceAvailable``), and hurries rules that were stuck for want of space once there is some.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rucio.common.config import config_get, config_get_int
from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import RucioException
from rucio.core import rse as rse_core
from rucio.core import rse_counter
from rucio.core import rule as rule_core
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, LockState, ReplicaState, RuleState
from rucio.db.sqla.session import db_session
from sqlalchemy import and_, delete, func, not_, select, update
from sqlalchemy.exc import DatabaseError

LOG = logging.getLogger("dmsp.evicting")
#: Source of the numbers in ``GET /rses/<scratch>/usage``.
SOURCE = "dmsp"
#: What a rule says that is stuck because the disk was full (see ``copying``).
NO_SPACE = "No space is left"
#: Seconds between two attempts to hurry such a rule.
HURRY_EVERY = 30.0
#: Section of Rucio's configuration with the notices that were given: the rule's id and the time.
NOTICES = "dmsp-notices"
#: Seconds between two sums over all replicas; between them Rucio's counters are believed.
COMPARE_EVERY = 600.0
#: States of replicas whose file is not on the disk.
NOT_THERE = (
    ReplicaState.COPYING,
    ReplicaState.UNAVAILABLE,
    ReplicaState.BAD,
    ReplicaState.TEMPORARY_UNAVAILABLE,
)


@dataclass(frozen=True)
class Marks:
    """When to begin and to end. ``limit`` is bytes, None: what the disk has; marks are per cent; notice is seconds."""

    limit: int | None
    high: int
    low: int
    notice: int

    @classmethod
    def configured(cls) -> Marks:
        """From the section ``dmsp`` of ``rucio.cfg``."""
        text = config_get("dmsp", "scratch_limit", default="", raise_exception=False, check_config_table=False)
        high, low, notice = (
            config_get_int("dmsp", f"scratch_{name}", default=value, check_config_table=False)
            for name, value in (("high", 90), ("low", 80), ("notice", 900))
        )
        return cls(int(text) if text else None, high, low, notice)


@dataclass(frozen=True)
class Room:
    """Bytes: what scratch can hold, what rules hold there, what the disk has left."""

    capacity: int
    used: int
    files: int
    disk_free: int


@dataclass(frozen=True)
class Held:
    """A rule that holds data on scratch; times in seconds since 1970."""

    id: str
    did: str
    account: str
    made: float
    in_use_until: float
    in_use: bool
    ends: float | None

    @property
    def turn(self) -> tuple[float, ...]:
        """Sorts: what is not in use by its last use, then what has notice, then the rest by its age."""
        if not self.in_use:
            return (0, max(self.made, self.in_use_until))
        return (1, self.made) if self.ends is None else (0.5, self.ends)


class Evictor:
    """One storage element's; :meth:`run_once` is a step of the daemons."""

    def __init__(self, rse: str, root: str, marks: Marks) -> None:
        self._rse_id = str(rse_core.get_rse_id(rse, vo=DEFAULT_VO))
        self._root, self._marks = root, marks
        self._hurried: dict[str, float] = {}
        self._notices = Notices()
        self._compared = float("-inf")

    def run_once(self) -> bool:
        """Measure, tell, release; False: nothing more to do at once."""
        room = self.measure()
        self._publish(room)
        if room.used > room.capacity * self._marks.high / 100:
            room = self._make_room(room)
        if room.used <= room.capacity * self._marks.high / 100:
            self._notices.take_back()
        self._hurry(room)
        return False

    def measure(self) -> Room:
        """As it is now. Replicas that wait for their deletion count as gone, those on their way as there."""
        if time.monotonic() - self._compared > COMPARE_EVERY:
            self._compare()
        with db_session(DatabaseOperationType.READ) as session:
            counted, files, gone, gone_files, absent = _numbers(self._counted(), session)
        disk = os.statvfs(self._root)
        free = disk.f_bavail * disk.f_frsize
        capacity = free + counted - gone - absent
        if self._marks.limit is not None:
            capacity = min(capacity, self._marks.limit)
        return Room(capacity, counted - gone, files - gone_files, free)

    def _counted(self) -> list[Any]:
        """Bytes and files by Rucio's counters, bytes and files of them that are going, bytes that have not come.

        What is read of the table of replicas is found by an index, and is what changes, not what there is. In one
        statement, so that all of it is of the same moment.
        """
        usage, later, replica = models.RSEUsage, models.UpdatedRSECounter, models.RSEFileAssociation
        mine = replica.rse_id == self._rse_id
        going = and_(replica.tombstone <= _utc(time.time()), replica.lock_cnt == 0)
        # A tombstone that is NULL makes the comparison NULL and not false.
        coming = and_(replica.state.in_(NOT_THERE), func.coalesce(not_(going), True))

        def sums(column: Any, counter: Any) -> Any:
            so_far = (
                select(counter).where(usage.rse_id == self._rse_id, usage.source == "rucio").scalar_subquery()
            )
            # Rucio adds these up some seconds later.
            rest = select(func.sum(column)).where(later.rse_id == self._rse_id).scalar_subquery()
            return func.coalesce(so_far, 0) + func.coalesce(rest, 0)

        return [
            sums(later.bytes, usage.used),
            sums(later.files, usage.files),
            select(func.coalesce(func.sum(replica.bytes), 0)).where(mine, going).scalar_subquery(),
            select(func.count()).select_from(replica).where(mine, going).scalar_subquery(),
            select(func.coalesce(func.sum(replica.bytes), 0)).where(mine, coming).scalar_subquery(),
        ]

    def _compare(self) -> None:
        """Put Rucio's counters right where the replicas themselves say otherwise: nothing else ever would.

        Rucio measures new rules by them.
        """
        replica = models.RSEFileAssociation
        mine = replica.rse_id == self._rse_id
        there = [
            select(func.coalesce(func.sum(replica.bytes), 0)).where(mine).scalar_subquery(),
            select(func.count()).select_from(replica).where(mine).scalar_subquery(),
        ]
        with db_session(DatabaseOperationType.WRITE) as session:
            counted, files, _, _, _, bytes_there, files_there = _numbers([*self._counted(), *there], session)
            lack = {"files": files_there - files, "bytes_": bytes_there - counted}
            if any(lack.values()):
                LOG.warning("Rucio's counters of scratch lacked %(bytes_)d bytes and %(files)d files", lack)
                rse_counter.increase(self._rse_id, session=session, **lack)
        self._compared = time.monotonic()

    def _publish(self, room: Room) -> None:
        free = max(0, room.capacity - room.used)
        with db_session(DatabaseOperationType.WRITE) as session:
            rse_core.set_rse_usage(self._rse_id, SOURCE, room.used, free, room.files, session=session)
            rse_core.set_rse_limits(self._rse_id, "MaxSpaceAvailable", room.capacity, session=session)

    def held(self) -> list[Held]:
        """The rules with locks on scratch that may be released, in the order of their turn."""
        rule, lock = models.ReplicationRule, models.ReplicaLock
        here = select(lock.rule_id).where(lock.rse_id == self._rse_id).distinct()
        columns = (rule.id, rule.scope, rule.name, rule.account, rule.created_at, rule.meta, rule.eol_at)
        query = select(*columns).where(rule.id.in_(here), rule.locked.is_(False), rule.child_rule_id.is_(None))
        with db_session(DatabaseOperationType.READ) as session:
            rows = session.execute(query).all()
        now, found = time.time(), []
        for row in rows:
            until = in_use_until(row.meta)
            found.append(
                Held(
                    id=row.id,
                    did=f"{row.scope.external}:{row.name}",
                    account=row.account.external,
                    made=row.created_at.replace(tzinfo=UTC).timestamp(),
                    in_use_until=until,
                    in_use=until > now,
                    ends=row.eol_at.replace(tzinfo=UTC).timestamp() if row.eol_at else None,
                )
            )
        return sorted(found, key=lambda one: one.turn)

    def _make_room(self, room: Room) -> Room:
        """Release what is not in use down to the low mark, give notice to the rest down to the high mark."""
        rules = self.held()
        for one in rules:
            if room.used <= room.capacity * self._marks.low / 100:
                return room
            if not one.in_use and self._release(one):
                room = self.measure()
        expected, enough = room.used, room.capacity * self._marks.high / 100
        for one in rules:
            if expected <= enough:
                break
            if not one.in_use:
                continue
            if one.ends is None:
                self._give_notice(one)
            elif one.ends <= time.time() and self._release(one):
                room = self.measure()
                expected = room.used
                continue
            expected -= self._frees(one)
        return room

    def _frees(self, one: Held) -> int:
        """Bytes that only this rule holds."""
        lock, table = models.ReplicaLock, models.RSEFileAssociation
        query = (
            select(func.coalesce(func.sum(table.bytes), 0))
            .join(
                lock,
                and_(lock.scope == table.scope, lock.name == table.name, lock.rse_id == table.rse_id),
            )
            .where(lock.rule_id == one.id, table.rse_id == self._rse_id, table.lock_cnt <= 1)
        )
        with db_session(DatabaseOperationType.READ) as session:
            return int(session.execute(query).scalar_one())

    def _release(self, one: Held) -> bool:
        try:
            with db_session(DatabaseOperationType.WRITE) as session:
                rule_core.delete_rule(one.id, purge_replicas=True, nowait=True, session=session)
        except (RucioException, DatabaseError) as error:
            LOG.info("rule %s cannot be released now: %s", one.id, type(error).__name__)
            return False
        LOG.info("released to make room: rule %s on %s of %s", one.id, one.did, one.account)
        return True

    def _give_notice(self, one: Held) -> None:
        ends = _utc(round(time.time() + self._marks.notice))
        self._notices.give(one.id, ends)
        LOG.info("notice to rule %s on %s of %s, which is in use", one.id, one.did, one.account)

    def _hurry(self, room: Room) -> None:
        """Have rules tried again that were stuck on a full disk, as far as there is room for them."""
        rule, lock = models.ReplicationRule, models.ReplicaLock
        query = (
            select(rule.id, func.sum(lock.bytes).label("bytes"))
            .join(lock, lock.rule_id == rule.id)
            .where(
                rule.state == RuleState.STUCK,
                rule.error.like(f"%{NO_SPACE}%"),
                lock.state == LockState.STUCK,
                lock.rse_id == self._rse_id,
            )
            .group_by(rule.id)
        )
        with db_session(DatabaseOperationType.READ) as session:
            stuck = session.execute(query).all()
        left, now = room.disk_free, time.monotonic()
        self._hurried = {one: when for one, when in self._hurried.items() if now - when < HURRY_EVERY}
        for row in stuck:
            left -= int(row.bytes)
            if left < 0:
                return
            if row.id not in self._hurried:
                self._hurried[row.id] = now
                with db_session(DatabaseOperationType.WRITE) as session:
                    rule_core.update_rule(row.id, {"boost_rule": True}, session=session)
                LOG.info("rule %s is tried again: there is room", row.id)


class Notices:
    """The ends (``eol_at``) that were written into rules here, and no others: administrators may set some too.

    They outlive the process in Rucio's table of configuration, which none but administrators may change.
    """

    def __init__(self) -> None:
        table = models.Config
        with db_session(DatabaseOperationType.READ) as session:
            rows = session.execute(select(table.opt, table.value).where(table.section == NOTICES)).all()
        self._given = {str(row.opt): datetime.fromisoformat(row.value) for row in rows}

    def give(self, rule_id: str, ends: datetime) -> None:
        """Write into a rule without an end when it will be released; UTC without a zone."""
        rule = models.ReplicationRule
        with db_session(DatabaseOperationType.WRITE) as session:
            session.execute(
                update(rule)
                .where(rule.id == rule_id, rule.eol_at.is_(None))
                .values(eol_at=ends)
                .execution_options(synchronize_session=False)
            )
            session.merge(models.Config(section=NOTICES, opt=str(rule_id), value=ends.isoformat()))
        self._given[str(rule_id)] = ends

    def take_back(self) -> None:
        """There is room: no rule has an end any more that it had from here."""
        if not self._given:
            return
        rule, table = models.ReplicationRule, models.Config
        with db_session(DatabaseOperationType.WRITE) as session:
            for rule_id, ends in self._given.items():
                session.execute(
                    update(rule)
                    .where(rule.id == rule_id, rule.eol_at == ends)
                    .values(eol_at=None)
                    .execution_options(synchronize_session=False)
                )
            session.execute(
                delete(table).where(table.section == NOTICES).execution_options(synchronize_session=False)
            )
        LOG.info("%d notices taken back: there is room", len(self._given))
        self._given = {}


def in_use_until(meta: Any) -> float:
    """Until when a running session uses the rule's data, seconds since 1970; 0.0: nobody says so."""
    try:
        document = meta
        while isinstance(document, str):  # what came with the rule is a JSON text in a JSON text
            document = json.loads(document)
        return float(document["dmsp"]["in_use_until"])
    except (ValueError, TypeError, KeyError):
        return 0.0  # users may write anything there


def configured(root: str) -> Evictor:
    """The box's; ``root`` holds the storage of all RSEs."""
    rse = str(config_get("dmsp", "scratch", check_config_table=False))
    return Evictor(rse, os.path.join(root, rse, "lake"), Marks.configured())  # noqa: PTH118


def _numbers(columns: Sequence[Any], session: Any) -> list[int]:
    return [int(value) for value in session.execute(select(*columns)).one()]


def _utc(seconds: float) -> datetime:
    """As Rucio keeps times: UTC without a zone."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).replace(tzinfo=None)
