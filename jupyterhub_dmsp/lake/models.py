"""What Rucio answers, typed. Sizes are bytes, times are seconds since the epoch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import CutOff, make

Kind = Literal["container", "dataset", "file"]
KINDS: dict[str, Kind] = {"CONTAINER": "container", "DATASET": "dataset", "FILE": "file"}
Row = dict[str, Any]
TRANSFER_FAILED = "RequestErrMsg.TRANSFER_FAILED:"
"""What Rucio puts before a transfertool's words."""


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """What is read here from an answer of Rucio's is what Rucio sends; raises :class:`CutOff` when it is not."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise make(CutOff, f"not what Rucio sends: {type(error).__name__} {str(error)[:80]}") from error


def timestamp(value: object) -> float | None:
    """Seconds since the epoch of Rucio's dates (RFC 1123 with zone ``UTC``, or ISO 8601); None for none."""
    if not isinstance(value, str) or not value:
        return None
    try:
        parsed = parsedate_to_datetime(value.replace(" UTC", " +0000"))
    except ValueError:
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError as error:
            raise make(CutOff, f"not a date: {value[:40]}") from error
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def integer(value: object) -> int | None:
    """Rucio writes sums as 10000.0; None stays None."""
    return int(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a listing: a DID with what the listing tells of it."""

    did: Did
    kind: Kind
    bytes: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A file of a dataset."""

    did: Did
    bytes: int
    adler32: str = ""


@dataclass(frozen=True, slots=True)
class DidInfo:
    """``GET /dids/{scope}/{name}?dynamic_depth=FILE``: sizes are summed over all files."""

    did: Did
    kind: Kind
    account: str
    open: bool
    bytes: int | None
    length: int | None


def rule_meta(value: object) -> Mapping[str, Any]:
    """A rule's metadata; empty when it is anything but a mapping.

    Rucio keeps it as JSON text, and as the JSON text of a JSON text where it came with the rule.
    """
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return {}
    return value if isinstance(value, dict) else {}


def _in_use_until(meta: Mapping[str, Any]) -> float:
    ours = meta.get("dmsp")
    until = ours.get("in_use_until") if isinstance(ours, dict) else None
    return float(until) if isinstance(until, int | float) else 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """How full an RSE is, in bytes."""

    used: int
    free: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A replication rule with the counts of its locks.

    Attributes:
        in_use_until: until when a running session uses its data (:meth:`~.rules.Rules.mark_in_use`); 0.0: none does.
        ends_at: when the lake will take the data away to make room (Rucio's ``eol_at``); None: not announced.
        meta: the rule's metadata, anybody's.
    """

    id: str
    did: Did
    account: str
    rse_expression: str
    state: str
    ok: int
    replicating: int
    stuck: int
    error: str
    expires_at: float | None
    created_at: float | None
    in_use_until: float = 0.0
    ends_at: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Rule:
        """From the JSON of ``GET /rules/{id}``."""
        with understood():
            meta = rule_meta(data.get("meta"))
            return cls(
                id=str(data["id"]),
                did=Did(data["scope"], data["name"]),
                account=str(data["account"]),
                rse_expression=str(data["rse_expression"]),
                state=str(data["state"]),
                ok=int(data["locks_ok_cnt"]),
                replicating=int(data["locks_replicating_cnt"]),
                stuck=int(data["locks_stuck_cnt"]),
                error=str(data.get("error") or ""),
                expires_at=timestamp(data.get("expires_at")),
                created_at=timestamp(data.get("created_at")),
                in_use_until=_in_use_until(meta),
                ends_at=timestamp(data.get("eol_at")),
                meta=meta,
            )


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of one file by a rule; ``state`` is OK, REPLICATING or STUCK."""

    did: Did
    rse: str
    state: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that does not arrive; ``reason`` is a sentence for users."""

    did: Did
    reason: str

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Failure:
        """From a row of ``transfers`` in ``GET /rules/{id}/analysis``.

        The box's Rucio tells the words of the last error, a stock one nothing but the state of the request.
        """
        with understood():
            did = Did(data["scope"], data["name"])
            attempts, source = integer(data.get("attempts")) or 0, data.get("last_source")
            words = str(data.get("last_error") or "").rpartition(TRANSFER_FAILED)[2].strip()
        if words and words != "None" and not words.startswith("RequestState."):
            return cls(did, words)
        if words == "RequestState.NO_SOURCES" or not (attempts or data.get("sources")):
            return cls(did, "No site has a copy that can be read.")
        whence = f", the last from {source}" if source else ""
        tried = f"{attempts} transfers failed{whence}" if attempts else "It is not on its way"
        return cls(did, f"{tried}; the data lake does not say why.")


@dataclass(frozen=True, slots=True)
class DatasetReplica:
    """How much of a dataset an RSE holds; lags behind rules and locks."""

    did: Did
    rse: str
    state: str
    bytes: int
    length: int
    available_bytes: int
    available_length: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> DatasetReplica:
        """From a row of ``/replicas/…/datasets`` or ``/replicas/datasets_bulk``."""
        return cls(
            did=Did(data["scope"], data["name"]),
            rse=str(data["rse"]),
            state=str(data["state"]),
            bytes=integer(data.get("bytes")) or 0,
            length=integer(data.get("length")) or 0,
            available_bytes=integer(data.get("available_bytes")) or 0,
            available_length=integer(data.get("available_length")) or 0,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """An account's use of an RSE; ``limit`` is None where there is none set, -1 for no limit."""

    rse: str
    bytes: int
    files: int
    limit: int | None


@dataclass(slots=True)
class Counters:
    """Calls and bytes since the client was made; tests and benchmarks read them."""

    calls: int = 0
    sent: int = 0
    received: int = 0
    by_path: dict[str, int] = field(default_factory=dict)
