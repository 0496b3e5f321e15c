"""What the issuer remembers, in SQLite.

Tokens, codes and cookies are kept as SHA-256 hashes (they are random 256-bit values, so a plain hash is as
good as a slow one): a stolen database opens nothing.

The connection belongs to the thread that made it; all calls come from the issuer's one worker thread, each
protocol step inside one :meth:`Store.transaction`. There is no other writer, hence nothing to lock.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_dmsp.box.issuer.config import ConfigError

SCHEMA_VERSION = 1
# Seconds for which a rotated refresh token is remembered, so that its reuse revokes the family. After that it is
# merely refused. Bounds the table: access tokens of 20 s make 4320 rows a user and day.
REUSE_MEMORY = 86400
LATE_DEVICE = 600
SCHEMA = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, sub TEXT NOT NULL, auth_time INTEGER NOT NULL, expires REAL NOT NULL);
CREATE TABLE codes (
  id TEXT PRIMARY KEY, family TEXT NOT NULL, client_id TEXT NOT NULL, sub TEXT NOT NULL, redirect_uri TEXT,
  scope TEXT NOT NULL, nonce TEXT, code_challenge TEXT, code_challenge_method TEXT,
  auth_time INTEGER NOT NULL, expires REAL NOT NULL, used INTEGER NOT NULL DEFAULT 0);
CREATE TABLE refresh_tokens (
  id TEXT PRIMARY KEY, family TEXT NOT NULL, client_id TEXT NOT NULL, sub TEXT NOT NULL, scope TEXT NOT NULL,
  auth_time INTEGER NOT NULL, expires REAL NOT NULL, used REAL, successor TEXT);
CREATE INDEX refresh_family ON refresh_tokens (family);
CREATE TABLE devices (
  id TEXT PRIMARY KEY, user_code TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL, scope TEXT NOT NULL,
  expires REAL NOT NULL, interval REAL NOT NULL, polled REAL NOT NULL DEFAULT 0,
  decision TEXT NOT NULL DEFAULT '', sub TEXT, auth_time INTEGER);
CREATE TABLE revoked (id TEXT PRIMARY KEY, expires REAL NOT NULL);
"""


def digest(token: str) -> str:
    """The hash under which a random token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is logged in at the issuer."""

    id: str
    sub: str
    auth_time: int
    expires: float


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code; the methods are what Authlib asks for."""

    id: str
    family: str
    client_id: str
    sub: str
    redirect_uri: str | None
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None
    auth_time: int
    expires: float
    used: int = 0

    def get_redirect_uri(self) -> str | None:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return self.auth_time

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> list[str]:
        return ["pwd"]


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token's row; `used` is when it was rotated, `successor` the id of what followed."""

    id: str
    family: str
    client_id: str
    sub: str
    scope: str
    auth_time: int
    expires: float
    used: float | None = None
    successor: str | None = None

    def check_client(self, client: object) -> bool:
        return getattr(client, "id", None) == self.client_id

    def get_scope(self) -> str:
        return self.scope


@dataclass(frozen=True, slots=True)
class Device:
    """A device that waits for its user; `decision` is empty, ``approved`` or ``denied``."""

    id: str
    user_code: str
    client_id: str
    scope: str
    expires: float
    interval: float
    polled: float = 0
    decision: str = ""
    sub: str | None = None
    auth_time: int | None = None

    def get_client_id(self) -> str:
        return self.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_user_code(self) -> str:
        return self.user_code


class Store:
    """The database.

    Args:
        path: the file; made with mode 0600 when missing.
        clock: wall-clock seconds, since rows outlive the process.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        if not path.exists():
            # sqlite3 would make it with the umask's mode; the journal files take the mode of the file.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"The issuer's database {path.name} cannot be used: {error}.",
                "Remove it to start afresh: everybody logs in again.",
            ) from error
        if version > SCHEMA_VERSION:
            raise ConfigError(f"The issuer's database {path.name} was made by a newer version.")

    def close(self) -> None:
        self._db.close()

    def ping(self) -> None:
        """Raise when the database does not answer."""
        self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; what was committed outlives ``kill -9``."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # A full disk makes SQLite roll back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def clean(self) -> int:
        """Delete what is over; returns how many rows went."""
        now, gone = self.clock(), 0
        for table in ("sessions", "codes", "refresh_tokens", "revoked"):
            gone += self._db.execute(f"DELETE FROM {table} WHERE expires < ?", (now,)).rowcount  # noqa: S608
        # A device that polls late is told that its code expired, not that it never was.
        gone += self._db.execute("DELETE FROM devices WHERE expires < ?", (now - LATE_DEVICE,)).rowcount
        used = now - REUSE_MEMORY
        return gone + self._db.execute("DELETE FROM refresh_tokens WHERE used < ?", (used,)).rowcount

    # Sessions ---------------------------------------------------------------------------------------------

    def add_session(self, token: str, sub: str, lifetime: float) -> None:
        now = self.clock()
        self._db.execute(
            "INSERT INTO sessions VALUES (?,?,?,?)", (digest(token), sub, int(now), now + lifetime)
        )

    def session(self, token: str) -> Session | None:
        row = self._db.execute(
            "SELECT * FROM sessions WHERE id=? AND expires>?", (digest(token), self.clock())
        ).fetchone()
        return Session(*row) if row else None

    def end_session(self, token: str) -> None:
        self._db.execute("DELETE FROM sessions WHERE id=?", (digest(token),))

    # Codes ------------------------------------------------------------------------------------------------

    def add_code(self, code: Code) -> None:
        row = (
            code.id,
            code.family,
            code.client_id,
            code.sub,
            code.redirect_uri,
            code.scope,
            code.nonce,
            code.code_challenge,
            code.code_challenge_method,
            code.auth_time,
            code.expires,
            code.used,
        )
        self._db.execute(f"INSERT INTO codes VALUES ({','.join('?' * len(row))})", row)  # noqa: S608

    def code(self, token: str) -> Code | None:
        """A code that is not over; a used one too, so that its second use can be noticed."""
        row = self._db.execute(
            "SELECT * FROM codes WHERE id=? AND expires>?", (digest(token), self.clock())
        ).fetchone()
        return Code(*row) if row else None

    def use_code(self, code: Code) -> None:
        self._db.execute("UPDATE codes SET used=1 WHERE id=?", (code.id,))

    def nonce_seen(self, client_id: str, nonce: str) -> bool:
        row = self._db.execute(
            "SELECT 1 FROM codes WHERE client_id=? AND nonce=?", (client_id, nonce)
        ).fetchone()
        return row is not None

    # Refresh tokens ---------------------------------------------------------------------------------------

    def add_refresh(self, row: RefreshToken) -> None:
        self._db.execute(
            "INSERT INTO refresh_tokens (id, family, client_id, sub, scope, auth_time, expires)"
            " VALUES (?,?,?,?,?,?,?)",
            (row.id, row.family, row.client_id, row.sub, row.scope, row.auth_time, row.expires),
        )

    def refresh(self, hashed: str) -> RefreshToken | None:
        """A refresh token by its :func:`digest`, unless it is over."""
        row = self._db.execute(
            "SELECT * FROM refresh_tokens WHERE id=? AND expires>?", (hashed, self.clock())
        ).fetchone()
        return RefreshToken(*row) if row else None

    def mark_rotated(self, row: RefreshToken, successor: str) -> None:
        self._db.execute(
            "UPDATE refresh_tokens SET used=?, successor=? WHERE id=?", (self.clock(), successor, row.id)
        )

    # Revocation -------------------------------------------------------------------------------------------

    def revoke(self, id: str, lifetime: float) -> None:
        """Remember for `lifetime` seconds that an access token (its jti) is void."""
        self._db.execute("INSERT OR REPLACE INTO revoked VALUES (?,?)", (id, self.clock() + lifetime))

    def revoke_family(self, family: str, lifetime: float) -> None:
        """Void everything that came from one login at one client."""
        self._db.execute("DELETE FROM refresh_tokens WHERE family=?", (family,))
        self.revoke(family, lifetime)

    def is_revoked(self, *ids: str) -> bool:
        marks = ",".join("?" * len(ids))
        found = self._db.execute(f"SELECT 1 FROM revoked WHERE id IN ({marks})", ids).fetchone()  # noqa: S608
        return found is not None

    # Devices ----------------------------------------------------------------------------------------------

    def add_device(self, device: Device) -> None:
        self._db.execute(
            "INSERT INTO devices (id, user_code, client_id, scope, expires, interval) VALUES (?,?,?,?,?,?)",
            (device.id, device.user_code, device.client_id, device.scope, device.expires, device.interval),
        )

    def device(self, token: str) -> Device | None:
        """A device by its code, expired or not: the two have different answers (RFC 8628 section 3.5)."""
        row = self._db.execute("SELECT * FROM devices WHERE id=?", (digest(token),)).fetchone()
        return Device(*row) if row else None

    def waiting_device(self, user_code: str) -> Device | None:
        """The device whose user has not decided yet."""
        row = self._db.execute(
            "SELECT * FROM devices WHERE user_code=? AND expires>? AND decision=''", (user_code, self.clock())
        ).fetchone()
        return Device(*row) if row else None

    def decide_device(self, device: Device, decision: str, session: Session) -> None:
        self._db.execute(
            "UPDATE devices SET decision=?, sub=?, auth_time=? WHERE id=?",
            (decision, session.sub, session.auth_time, device.id),
        )

    def polled_device(self, device: Device, interval: float) -> None:
        self._db.execute(
            "UPDATE devices SET polled=?, interval=? WHERE id=?", (self.clock(), interval, device.id)
        )

    def remove_device(self, device: Device) -> None:
        self._db.execute("DELETE FROM devices WHERE id=?", (device.id,))
