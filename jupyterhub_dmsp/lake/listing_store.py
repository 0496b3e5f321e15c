"""The listing index on disk: SQLite, read and written by one worker thread so that no event loop waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jupyterhub_dmsp.lake.models import Entry

T = TypeVar("T")
SORTS = {
    "name": "name COLLATE NOCASE {0}, name {0}",
    "bytes": "bytes {0} NULLS LAST, name",
    "length": "length {0} NULLS LAST, name",
    "created": "created {0} NULLS LAST, name",
}
_SCHEMA = """
CREATE TABLE listing (id INTEGER PRIMARY KEY, parent TEXT NOT NULL, used REAL NOT NULL);
CREATE TABLE row (
    id INTEGER PRIMARY KEY, listing INTEGER NOT NULL, kind TEXT NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL,
    bytes INTEGER, length INTEGER, availability TEXT, created REAL, nested INTEGER NOT NULL DEFAULT 0,
    enriched REAL NOT NULL DEFAULT 0, UNIQUE (listing, scope, name));
CREATE INDEX by_name ON row (listing, nested, name COLLATE NOCASE, name);
"""


@dataclass(slots=True)
class ListingRow:
    """A row as it is shown."""

    kind: str
    scope: str
    name: str
    bytes: int | None
    length: int | None
    availability: str | None
    created: float | None
    enriched: float = 0.0


@dataclass(frozen=True, slots=True)
class Detail:
    """What is learned of a row after it was listed; None leaves the value as it is."""

    scope: str
    name: str
    bytes: int | None = None
    length: int | None = None
    availability: str | None = None
    created: float | None = None


def like(pattern: str) -> str:
    """An SQL LIKE pattern: `*` and `?` as in a shell; a text without them matches anywhere in a name."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    if "*" in pattern or "?" in pattern:
        return escaped.replace("*", "%").replace("?", "_")
    return f"%{escaped}%"


class ListingStore:
    """Rows of listings in a file that only its owner can read; a cache, made anew at every start.

    Args:
        path: the database file, in a directory of mode 0700.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="dmsp-listing")
        self._db: sqlite3.Connection | None = None

    async def run(self, job: Callable[..., T], *arguments: Any) -> T:
        """Do a job in the worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, job, *arguments)

    async def close(self) -> None:
        """Close the database and end the thread."""
        await self.run(self._close)
        self._worker.shutdown(wait=False)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._path.unlink(missing_ok=True)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            self._path.touch(mode=0o600)
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = MEMORY")
            db.execute("PRAGMA synchronous = OFF")
            db.executescript(_SCHEMA)
            self._db = db
        return self._db

    def new(self, parent: str) -> int:
        """Start a listing; gives its number."""
        cursor = self._connection().execute(
            "INSERT INTO listing (parent, used) VALUES (?, ?)", (parent, time.time())
        )
        return int(cursor.lastrowid or 0)

    def drop(self, listing: int) -> None:
        """Forget a listing."""
        db = self._connection()
        db.execute("DELETE FROM row WHERE listing = ?", (listing,))
        db.execute("DELETE FROM listing WHERE id = ?", (listing,))

    def add(self, listing: int, entries: Sequence[Entry]) -> int:
        """Add rows (a DID that is there already stays as it is); gives how many rows there are."""
        db = self._connection()
        db.execute("BEGIN")
        db.executemany(
            "INSERT OR IGNORE INTO row (listing, kind, scope, name, bytes, length) VALUES (?, ?, ?, ?, ?, ?)",
            [(listing, e.kind, e.did.scope, e.did.name, e.bytes, e.length) for e in entries],
        )
        db.execute("COMMIT")
        return self.total(listing)

    def add_scopes(self, listing: int, scopes: Iterable[str]) -> int:
        """Add scopes as rows."""
        db = self._connection()
        db.executemany(
            "INSERT OR IGNORE INTO row (listing, kind, scope, name) VALUES (?, 'scope', ?, ?)",
            [(listing, scope, scope) for scope in scopes],
        )
        return self.total(listing)

    def nest(self, listing: int, entries: Sequence[Entry]) -> None:
        """Hide what turned out to be inside a container of the same listing."""
        db = self._connection()
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO row (listing, kind, scope, name, nested) VALUES (?, ?, ?, ?, 1) "
            "ON CONFLICT (listing, scope, name) DO UPDATE SET nested = 1",
            [(listing, e.kind, e.did.scope, e.did.name) for e in entries],
        )
        db.execute("COMMIT")

    def details(self, listing: int, details: Sequence[Detail]) -> None:
        """Write what was learned of rows."""
        db = self._connection()
        db.execute("BEGIN")
        db.executemany(
            "UPDATE row SET bytes = coalesce(?, bytes), length = coalesce(?, length), "
            "availability = coalesce(?, availability), created = coalesce(?, created), enriched = ? "
            "WHERE listing = ? AND scope = ? AND name = ?",
            [
                (d.bytes, d.length, d.availability, d.created, time.time(), listing, d.scope, d.name)
                for d in details
            ],
        )
        db.execute("COMMIT")

    def total(self, listing: int, pattern: str = "") -> int:
        """How many rows are shown."""
        where, values = _where(listing, pattern)
        return int(self._connection().execute(f"SELECT count(*) FROM row WHERE {where}", values).fetchone()[0])  # noqa: S608

    def page(
        self, listing: int, offset: int, limit: int, sort: str, descending: bool, pattern: str
    ) -> list[ListingRow]:
        """A page of rows in order."""
        db = self._connection()
        db.execute("UPDATE listing SET used = ? WHERE id = ?", (time.time(), listing))
        where, values = _where(listing, pattern)
        order = SORTS[sort].format("DESC" if descending else "ASC")
        query = (
            "SELECT kind, scope, name, bytes, length, availability, created, enriched FROM row "  # noqa: S608
            f"WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
        )
        return [ListingRow(*r) for r in db.execute(query, (*values, limit, offset))]

    def unknown(self, listing: int, column: str, most: int) -> list[ListingRow]:
        """Rows of collections whose column (one of the sorts) is not known and was not asked for."""
        query = (
            "SELECT kind, scope, name, bytes, length, availability, created, enriched "  # noqa: S608
            "FROM row WHERE listing = ? "
            f"AND nested = 0 AND kind IN ('dataset', 'container') AND {column} IS NULL AND enriched = 0 LIMIT ?"
        )
        if column not in SORTS:
            raise ValueError(column)
        return [ListingRow(*r) for r in self._connection().execute(query, (listing, most))]

    def oldest(self, most: int) -> list[int]:
        """Listings to drop, least recently used first, so that not more than `most` rows stay."""
        db = self._connection()
        counts = db.execute(
            "SELECT l.id, (SELECT count(*) FROM row r WHERE r.listing = l.id) FROM listing l ORDER BY l.used DESC"
        ).fetchall()
        kept, gone = 0, []
        for position, (listing, rows) in enumerate(counts):
            kept += rows
            if position and kept > most:
                gone.append(listing)
        return gone


def _where(listing: int, pattern: str) -> tuple[str, tuple[object, ...]]:
    if not pattern:
        return "listing = ? AND nested = 0", (listing,)
    return "listing = ? AND nested = 0 AND name LIKE ? ESCAPE '\\'", (listing, like(pattern))
