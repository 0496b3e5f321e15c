"""An attachment's record, and the file on which records, contents and bindings outlive the server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from jupyterhub_dmsp.lab.errors import Fault
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile

log = logging.getLogger(__name__)
T = TypeVar("T")
State = Literal["requested", "replicating", "landing", "ready", "stuck", "failed", "released"]
MOVING: frozenset[str] = frozenset({"requested", "replicating", "landing"})
RUNNING: frozenset[str] = MOVING | {"stuck"}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS attachment (id TEXT PRIMARY KEY, lake TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS content (id TEXT PRIMARY KEY, files BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS binding (
    notebook TEXT NOT NULL, variable TEXT NOT NULL, attachment TEXT NOT NULL, PRIMARY KEY (notebook, variable));
PRAGMA user_version = 1;
"""


def attachment_id(lake: str, did: Did) -> str:
    """The id of a DID's attachment: the same for the same DID of the same lake, for ever."""
    return hashlib.sha256(f"{lake} {did}".encode()).hexdigest()[:16]


@dataclass(slots=True)
class Attachment:
    """A DID that the user wants on scratch. Sizes are bytes, times are seconds since the epoch.

    Attributes:
        seq: grows with every change of this record, over restarts too.
        rule_made: whether we made the rule (and so may end it).
        links: directory of the readable view.
    """

    id: str
    did: str
    variable: str
    state: State = "requested"
    seq: int = 0
    lifetime: int = 0
    files_total: int = 0
    files_ready: int = 0
    bytes_total: int = 0
    bytes_ready: int = 0
    rate: float | None = None
    eta: float | None = None
    error: dict[str, str] | None = None
    rule_id: str | None = None
    rule_made: bool = False
    expires_at: float | None = None
    digest: str = ""
    links: str = ""
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)

    @property
    def parsed(self) -> Did:
        """The DID."""
        return Did.parse(self.did)

    def fail(self, fault: Fault | None) -> None:
        """Set or clear the error."""
        self.error = fault.as_dict() if fault else None

    def as_json(self) -> dict[str, Any]:
        """What the REST interface tells of it."""
        return {
            "id": self.id,
            "did": self.did,
            "state": self.state,
            "seq": self.seq,
            "files_total": self.files_total,
            "files_ready": self.files_ready,
            "bytes_total": self.bytes_total,
            "bytes_ready": self.bytes_ready,
            "rate_bytes_per_s": self.rate,
            "eta_s": self.eta,
            "error": self.error,
            "rule_id": self.rule_id,
            "expires_at": self.expires_at,
            "variable": self.variable,
            "digest": self.digest,
            "links": self.links,
            "updated_at": self.updated_at,
        }


class Records:
    """SQLite behind one worker thread; 0600, every change is on disk when the call returns.

    All sessions of a user write the same file. :meth:`changed_elsewhere` tells one of them of the others' changes.

    Args:
        path: the database file.
        lake: name of the lake; records of other lakes are left alone.
    """

    def __init__(self, path: Path, lake: str) -> None:
        self._path = path
        self._lake = lake
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="dmsp-records")
        self._db: sqlite3.Connection | None = None
        self._version = -1

    async def close(self) -> None:
        """Close the file."""

        def close() -> None:
            if self._db is not None:
                self._db.close()
                self._db = None

        await self._run(close)
        self._worker.shutdown(wait=False)

    async def _run(self, job: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job, *arguments)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = self._open()
            except sqlite3.OperationalError:
                raise  # locked, or no room: that says nothing about what is in it
            except sqlite3.DatabaseError as error:
                # Half written, such as by a full disk: without it the user can work, and attach again.
                log.warning("%s was damaged (%s) and is set aside", self._path.name, error)
                for suffix in ("", "-journal"):
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"{self._path}{suffix}").replace(f"{self._path}.damaged{suffix}")
                self._db = self._open()
        return self._db

    def _open(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        self._path.chmod(0o600)
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            db.executescript(_SCHEMA)
            (found,) = db.execute("PRAGMA quick_check").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    async def load(self) -> list[Attachment]:
        """All attachments of this lake."""

        def job() -> list[Attachment]:
            self._version = self._data_version()  # first: what is written meanwhile is read again
            rows = self._connection().execute("SELECT record FROM attachment WHERE lake = ?", (self._lake,))
            return [Attachment(**json.loads(text)) for (text,) in rows]

        return await self._run(job)

    async def get(self, ident: str) -> Attachment:
        """One attachment, which must be written down."""

        def job() -> Attachment:
            query = "SELECT record FROM attachment WHERE id = ?"
            (text,) = self._connection().execute(query, (ident,)).fetchone()
            return Attachment(**json.loads(text))

        return await self._run(job)

    def _data_version(self) -> int:
        (found,) = self._connection().execute("PRAGMA data_version").fetchone()
        return int(found)

    async def changed_elsewhere(self) -> bool:
        """Whether another session of the user has written anything since :meth:`load`."""
        return await self._run(self._data_version) != self._version

    async def save(self, attachment: Attachment) -> bool:
        """Write a record. Not when another session has released it, or attached the same DID later: then False."""
        text = json.dumps(asdict(attachment))

        def job() -> bool:
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                row = db.execute("SELECT record FROM attachment WHERE id = ?", (attachment.id,)).fetchone()
                if row and _newer(json.loads(row[0]), attachment):
                    return False
                db.execute(
                    "INSERT INTO attachment VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                    (attachment.id, self._lake, text),
                )
                return True
            finally:
                db.execute("COMMIT")

        return await self._run(job)

    async def save_content(self, ident: str, files: Sequence[LakeFile]) -> None:
        """Remember the files of an attachment."""

        def job() -> None:
            rows = [(f.did.scope, f.did.name, f.bytes, f.adler32) for f in files]
            blob = zlib.compress(json.dumps(rows).encode(), 1)
            self._connection().execute("INSERT OR REPLACE INTO content VALUES (?, ?)", (ident, blob))

        await self._run(job)

    async def content(self, ident: str) -> list[LakeFile]:
        """The files of an attachment; none when they were never read."""

        def job() -> list[LakeFile]:
            row = self._connection().execute("SELECT files FROM content WHERE id = ?", (ident,)).fetchone()
            rows = json.loads(zlib.decompress(row[0])) if row else []
            return [LakeFile(Did(scope, name), size, sum_) for scope, name, size, sum_ in rows]

        return await self._run(job)

    async def forget_content(self, ident: str) -> None:
        """Drop the files of an attachment."""
        await self._run(lambda: self._connection().execute("DELETE FROM content WHERE id = ?", (ident,)))

    async def bindings(self) -> list[tuple[str, str, str]]:
        """All (notebook, variable, attachment)."""
        query = "SELECT notebook, variable, attachment FROM binding ORDER BY notebook, rowid"
        return await self._run(lambda: self._connection().execute(query).fetchall())

    async def bind(self, notebook: str, variable: str, ident: str) -> None:
        """Remember that a notebook's variable holds an attachment."""
        query = (
            "INSERT INTO binding VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET attachment = excluded.attachment"
        )
        await self._run(lambda: self._connection().execute(query, (notebook, variable, ident)))

    async def unbind(self, notebook: str, variable: str) -> bool:
        """Forget a binding; False when there was none."""
        query = "DELETE FROM binding WHERE notebook = ? AND variable = ?"
        return await self._run(lambda: self._connection().execute(query, (notebook, variable)).rowcount > 0)


def _newer(found: dict[str, Any], attachment: Attachment) -> bool:
    """Whether what is written down is a later attachment of the same DID, or the end of this very one."""
    ended = found["state"] == "released" and attachment.state != "released"
    return bool(
        found["created_at"] > attachment.created_at or (found["created_at"] == attachment.created_at and ended)
    )
