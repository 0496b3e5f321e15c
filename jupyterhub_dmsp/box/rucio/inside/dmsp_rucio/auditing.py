"""Compares what the catalogue says is on a storage element with its disk.

Transfers, deletions and registrations go on meanwhile, so nothing is a fault that is not one at a second look. The disk
is listed before the catalogue is read; each file is then looked at by itself. Memory grows with the number of files
(some hundred bytes each), never with their size.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rucio.common.config import config_get
from rucio.common.constants import DEFAULT_VO
from rucio.common.types import InternalScope
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, ReplicaState
from rucio.db.sqla.session import db_session
from sqlalchemy import select, tuple_

from . import copying

#: Items in one query or one call of Rucio's.
BULK = 1000
#: Seconds between two words about progress.
SAY_EVERY = 0.5


class Replica(NamedTuple):
    """A file as the catalogue has it; ``path`` is relative to the storage element's root."""

    scope: str
    name: str
    size: int
    adler32: str | None
    path: str

    @property
    def did(self) -> str:
        """``scope:name``."""
        return f"{self.scope}:{self.name}"


@dataclass(slots=True)
class Problem:
    """A fault of one file or directory. ``kind`` is one of those in ``jupyterhub_dmsp.box.integrity.report``."""

    kind: str
    text: str
    path: str = ""
    replica: Replica | None = None
    outcome: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the outer process."""
        did = self.replica.did if self.replica else ""
        return {"kind": self.kind, "did": did, "path": self.path, "text": self.text, "outcome": self.outcome}


@dataclass(slots=True)
class Disk:
    """What is on the disk below the root: sizes and ages of regular files, and what should not be there."""

    files: dict[str, tuple[int, float]] = field(default_factory=dict)
    temporary: dict[str, float] = field(default_factory=dict)
    odd: dict[str, float] = field(default_factory=dict)
    empty: list[tuple[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class Order:
    """What is asked for; ages and waits in seconds."""

    rse: str
    scratch: str
    checksums: bool = True
    repair: bool = False
    give_up: bool = False
    older_than: float = 3600.0
    wait: float = 600.0
    threads: int = 2
    keep: tuple[str, ...] = ()


def say(**document: Any) -> None:
    """One line for the outer process."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def hash_path(scope: str, name: str) -> str:
    """Where Rucio's ``hash`` algorithm puts a file, relative to the root."""
    digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
    directory = scope.replace(".", "/") if scope.startswith(("user", "group")) else scope
    return f"{directory}/{digest[0:2]}/{digest[2:4]}/{name}"


def running_boot() -> str:
    """The mark in the temporary names of the daemons that run now; empty when none do."""
    try:
        said = json.loads(Path(config_get("dmsp", "health", check_config_table=False)).read_text())
    except (OSError, ValueError):
        return ""
    return str(said.get("boot") or "") if time.time() - said["now"] < 30 else ""


def list_disk(root: str) -> Disk:
    """Everything below ``root``; directories that hold nothing at all, deepest first."""
    found = Disk()

    def visit(directory: str, relative: str) -> bool:
        """Whether the directory holds anything."""
        holds = False
        try:
            entries = list(os.scandir(directory))
        except OSError:
            return True  # gone meanwhile, or not ours to judge: the check of owners and modes tells
        for entry in entries:
            path = f"{relative}{entry.name}"
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(info.st_mode):
                inside = visit(entry.path, f"{path}/")
                if not inside:
                    found.empty.append((path, info.st_mtime))
                holds = holds or inside
                continue
            holds = True
            age = max(info.st_mtime, info.st_ctime)
            if not stat.S_ISREG(info.st_mode):
                found.odd[path] = age
            elif entry.name.startswith(".") and entry.name.endswith(copying.SUFFIX):
                found.temporary[path] = age
            else:
                found.files[path] = (info.st_size, age)
        return holds

    visit(root, "")
    return found


def replicas(rse_id: str) -> Iterator[tuple[Replica, ReplicaState]]:
    """All replicas of a storage element, streamed from the database."""
    table = models.RSEFileAssociation
    columns = (table.scope, table.name, table.bytes, table.adler32, table.state)
    with db_session(DatabaseOperationType.READ) as session:
        query = select(*columns).where(table.rse_id == rse_id).execution_options(yield_per=5000)
        for row in session.execute(query):
            scope = str(row.scope.external)
            yield (
                Replica(scope, row.name, row.bytes, row.adler32, hash_path(scope, row.name)),
                row.state,
            )


def states(rse_id: str, wanted: Sequence[Replica]) -> dict[str, tuple[ReplicaState, int]]:
    """State and number of locks of those that are still in the catalogue, by DID."""
    table = models.RSEFileAssociation
    found: dict[str, tuple[ReplicaState, int]] = {}
    with db_session(DatabaseOperationType.READ) as session:
        for part in bulks(wanted):
            names = [(InternalScope(r.scope, vo=DEFAULT_VO), r.name) for r in part]
            query = select(table.scope, table.name, table.state, table.lock_cnt).where(
                table.rse_id == rse_id, tuple_(table.scope, table.name).in_(names)
            )
            for row in session.execute(query):
                found[f"{row.scope.external}:{row.name}"] = (row.state, row.lock_cnt)
    return found


def bulks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """The items in portions of :data:`BULK`."""
    return (items[first : first + BULK] for first in range(0, len(items), BULK))


class Audit:
    """One look at a storage element."""

    def __init__(self, order: Order, rse_id: str, root: str) -> None:
        self.order, self.rse_id, self.root = order, rse_id, root
        self.files = self.bytes = self.read = 0
        self.problems: list[Problem] = []
        self._said = 0.0

    def run(self) -> list[Problem]:
        """Look, and look again at what seems wrong."""
        begin = time.time()
        self._progress("listing the disk", 0, 0, now=True)
        disk = list_disk(self.root)
        suspects, to_read = self._compare(disk)
        if self.order.checksums:
            suspects += self._checksums(to_read)
        self.problems += self._still_wrong(suspects)
        self.problems += self._strays(disk, begin - self.order.older_than)
        return self.problems

    def _progress(self, what: str, done: int, total: int, *, now: bool = False) -> None:
        if now or time.monotonic() - self._said > SAY_EVERY:
            self._said = time.monotonic()
            say(progress={"what": what, "done": done, "total": total, "bytes": self.read})

    def _compare(self, disk: Disk) -> tuple[list[Problem], list[Replica]]:
        """Catalogue against listing; takes what the catalogue knows out of ``disk.files``."""
        suspects: list[Problem] = []
        to_read: list[Replica] = []
        for replica, state in replicas(self.rse_id):
            self._progress("reading the catalogue", self.files, 0)
            here = disk.files.pop(replica.path, None)
            if state == ReplicaState.BAD:
                text = "It was declared bad and is not cured yet."
                suspects.append(Problem("bad", text, replica.path, replica))
            if state != ReplicaState.AVAILABLE:
                continue
            self.files += 1
            self.bytes += replica.size
            problem = self._size_problem(replica, here[0] if here else None)
            if problem:
                suspects.append(problem)
            elif replica.adler32:
                to_read.append(replica)
        return suspects, to_read

    @staticmethod
    def _size_problem(replica: Replica, size: int | None) -> Problem | None:
        if size is None:
            return Problem("missing", "It is in the catalogue and not on the disk.", replica.path, replica)
        if size != replica.size:
            kind = "short" if size < replica.size else "long"
            text = f"It has {size} bytes, the catalogue says {replica.size}."
            return Problem(kind, text, replica.path, replica)
        return None

    def examine(self, replica: Replica, *, read: bool) -> Problem | None:
        """Look at one file; ``read``: its checksum too."""
        path = f"{self.root}/{replica.path}"
        try:
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode):
                return Problem("missing", "What is there is not a file.", replica.path, replica)
            problem = self._size_problem(replica, info.st_size)
            if problem or not read or not replica.adler32:
                return problem
            value = copying.checksum(path)
        except FileNotFoundError:
            return self._size_problem(replica, None)
        except OSError as error:
            text = f"It cannot be read: {os.strerror(error.errno or 5)}."
            return Problem("unreadable", text, replica.path, replica)
        if value != copying.normal_checksum(replica.adler32):
            text = f"Its adler32 is {value}, the catalogue says {replica.adler32}."
            return Problem("checksum", text, replica.path, replica)
        return None

    def _checksums(self, to_read: Sequence[Replica]) -> list[Problem]:
        suspects: list[Problem] = []
        done = 0
        with ThreadPoolExecutor(self.order.threads, thread_name_prefix="audit") as pool:
            pending: set[Future[Problem | None]] = set()
            of: dict[Future[Problem | None], Replica] = {}
            for replica in to_read:
                if len(pending) >= self.order.threads * 8:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    done += self._collect(finished, of, suspects)
                    self._progress("reading files", done, len(to_read))
                future = pool.submit(self.examine, replica, read=True)
                pending.add(future)
                of[future] = replica
            done += self._collect(wait(pending).done, of, suspects)
        self._progress("reading files", done, len(to_read), now=True)
        return suspects

    def _collect(
        self,
        finished: set[Future[Problem | None]],
        of: dict[Future[Problem | None], Replica],
        suspects: list[Problem],
    ) -> int:
        for future in finished:
            self.read += of.pop(future).size
            problem = future.result()
            if problem:
                suspects.append(problem)
        return len(finished)

    def _still_wrong(self, suspects: Sequence[Problem]) -> list[Problem]:
        """Those that are in the catalogue as before and as wrong as before."""
        known = states(self.rse_id, [p.replica for p in suspects if p.replica])
        found = []
        for problem in suspects:
            if problem.replica is None:
                continue
            state = known.get(problem.replica.did, (None, 0))[0]
            if problem.kind == "bad":
                if state == ReplicaState.BAD:
                    found.append(problem)
            elif state == ReplicaState.AVAILABLE:
                again = self.examine(problem.replica, read=problem.kind in ("checksum", "unreadable"))
                if again:
                    found.append(again)
        return found

    def _strays(self, disk: Disk, before: float) -> list[Problem]:
        """What is on the disk and should not be: only what was last touched before that time."""
        boot = running_boot()
        found = []
        for path, age in disk.temporary.items():
            ours = bool(boot) and path.rpartition("/")[2].startswith(f"{copying.PREFIX}{boot}-")
            if not ours and age < before:
                found.append(Problem("temporary", "A copy that was never finished.", path))
        for path, age in disk.odd.items():
            if age < before:
                found.append(Problem("odd", "Neither a file nor a directory.", path))
        dark = [path for path, (_, age) in disk.files.items() if age < before]
        for part in bulks(dark):
            found += [
                Problem("dark", f"{disk.files[path][0]} bytes that the catalogue does not know.", path)
                for path in sorted(set(part) - self._registered(part))
            ]
        for path, age in disk.empty:
            if age < before and not self._is_kept(path):
                found.append(Problem("orphan_directory", "An empty directory.", path))
        return found

    def _registered(self, paths: Sequence[str]) -> set[str]:
        """Those that have come into the catalogue since it was read."""
        wanted: dict[tuple[str, str], str] = {}
        for path in paths:
            parts = path.split("/")
            for depth in range(1, len(parts) - 2):
                name = "/".join(parts[depth + 2 :])
                for scope in {"/".join(parts[:depth]), ".".join(parts[:depth])}:
                    if hash_path(scope, name) == path:
                        wanted[(scope, name)] = path
        table = models.RSEFileAssociation
        names = [(InternalScope(scope, vo=DEFAULT_VO), name) for scope, name in wanted]
        with db_session(DatabaseOperationType.READ) as session:
            query = select(table.scope, table.name).where(
                table.rse_id == self.rse_id, tuple_(table.scope, table.name).in_(names)
            )
            return {wanted[(row.scope.external, row.name)] for row in session.execute(query)}

    def _is_kept(self, path: str) -> bool:
        """Directories of scopes stay, and what leads to them."""
        return any(kept == path or kept.startswith(f"{path}/") for kept in self.order.keep)
