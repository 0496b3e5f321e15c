"""What can go wrong with Rucio, typed, and the one place that turns its answers into a sentence and an action.

Actions are codes that a user interface turns into a button: ``retry``, ``login``, ``shorten``, ``release``,
``contact``, ``wait``, ``remount``, ``none``.
"""

from __future__ import annotations

import json
from typing import ClassVar

from jupyterhub_dmsp.errors import DmspError

ACTIONS = ("retry", "login", "shorten", "release", "contact", "wait", "remount", "none")


class LakeError(DmspError):
    """Rucio did not do what was asked.

    Attributes:
        code: stable name of the fault, for programs.
        action: what the user can do, one of :data:`ACTIONS`.
        status: HTTP status with which our own server reports it.
        reason: Rucio's own words, for the log.
        retry_after: seconds after which Rucio wants to be asked again (RFC 9110, 10.2.3); 0 when it does not say.
    """

    code: ClassVar[str] = "lake"
    action: ClassVar[str] = "retry"
    status: ClassVar[int] = 502

    def __init__(self, message: str, remedy: str = "", reason: str = "") -> None:
        super().__init__(message, remedy)
        self.reason = reason
        self.retry_after = 0.0


class RucioDown(LakeError):
    """No connection to Rucio, or a gateway says that there is nobody behind it."""

    code, action, status = "rucio_down", "retry", 503


class RucioSlow(LakeError):
    """Rucio did not answer in time."""

    code, action, status = "rucio_slow", "retry", 504


class CutOff(LakeError):
    """An answer ended before its end, or was not what Rucio sends."""

    code, action, status = "cut_off", "retry", 502


class Unauthorised(LakeError):
    """Rucio does not accept the token."""

    code, action, status = "unauthorised", "login", 401


class Forbidden(LakeError):
    """The account may not do this."""

    code, action, status = "forbidden", "contact", 403


class NotFound(LakeError):
    """No such DID, rule, scope, RSE or account."""

    code, action, status = "not_found", "none", 404


class Duplicate(LakeError):
    """It exists already."""

    code, action, status = "duplicate", "none", 409


class QuotaExceeded(LakeError):
    """The account's limit on the RSE is used up."""

    code, action, status = "quota", "release", 413


class NoPlace(LakeError):
    """No RSE fits: unknown expression, blocked for writing, or too small."""

    code, action, status = "no_place", "contact", 409


class ScratchFull(LakeError):
    """Scratch has no room for it now."""

    code, action, status = "scratch_full", "release", 507


class Refused(LakeError):
    """Rucio understood and declined: bad values, conflicting lifetimes."""

    code, action, status = "refused", "contact", 400


class TooMany(LakeError):
    """Too many requests at once."""

    code, action, status = "too_many", "wait", 429


class ServerFault(LakeError):
    """Rucio failed inside."""

    code, action, status = "rucio_fault", "retry", 502


class Changing(LakeError):
    """Another rule on the same files is just being made or ended."""

    code, action, status = "changing", "wait", 503


class EmptyDataset(LakeError):
    """There is nothing to attach."""

    code, action, status = "empty", "none", 409


_BY_EXCEPTION: dict[str, type[LakeError]] = {
    "AccessDenied": Forbidden,
    "CannotAuthenticate": Unauthorised,
    "CannotAuthorize": Unauthorised,
    "InsufficientAccountLimit": QuotaExceeded,
    "InsufficientTargetRSEs": NoPlace,
    "InvalidRSEExpression": NoPlace,
    "RSENotFound": NoPlace,
    "RSEWriteBlocked": NoPlace,
    "RSEOverQuota": ScratchFull,
    "DuplicateRule": Duplicate,
    "Duplicate": Duplicate,
    "ScratchDiskLifetimeConflict": Refused,
    "ManualRuleApprovalBlocked": Refused,
    "ReplicationRuleCreationTemporaryFailed": Changing,
}
_BY_STATUS: dict[int, type[LakeError]] = {
    400: Refused,
    401: Unauthorised,
    403: Forbidden,
    404: NotFound,
    406: Refused,
    409: Refused,
    413: QuotaExceeded,
    429: TooMany,
    502: RucioDown,
    503: RucioDown,
    504: RucioSlow,
}
_SENTENCES: dict[type[LakeError], tuple[str, str]] = {
    RucioDown: ("The data lake does not answer.", "It is tried again; ask support when it lasts."),
    RucioSlow: ("The data lake took too long to answer.", "Try again in a moment."),
    CutOff: ("The data lake's answer was cut off.", "Try again."),
    Unauthorised: ("The data lake does not accept your login any more.", "Log in again."),
    Forbidden: ("You are not allowed to do this in the data lake.", "Ask the owners of the data for access."),
    NotFound: ("The data lake does not know it.", "Check the name; it may have been deleted or have expired."),
    Duplicate: ("It exists in the data lake already.", ""),
    QuotaExceeded: ("Your quota on scratch is used up.", "Release datasets that you no longer need."),
    ScratchFull: (
        "Scratch is full.",
        "It is tried again by itself when there is room; release what you do not need.",
    ),
    NoPlace: ("Scratch cannot take the data now.", "Ask support."),
    Refused: ("The data lake refused the request.", ""),
    TooMany: ("The data lake is busy with too many requests.", "Wait a minute."),
    Changing: (
        "The files are just being brought to scratch, or removed from it, for somebody else.",
        "It is tried again in a moment.",
    ),
    ServerFault: ("The data lake failed on this request.", "Try again; ask support when it lasts."),
}


def make(kind: type[LakeError], reason: str = "") -> LakeError:
    """An error of the kind with its standard sentence; ``reason`` (Rucio's words) is kept for the log."""
    message, remedy = _SENTENCES[kind]
    if kind is Refused and reason:
        message = f"The data lake refused the request: {reason[:200].rstrip('. ')}."
    return kind(message, remedy, reason)


def _rucio_words(headers: dict[str, str], body: bytes) -> tuple[str, str]:
    """ExceptionClass and ExceptionMessage of an error answer (headers and JSON body carry both)."""
    name, text = headers.get("exceptionclass", ""), headers.get("exceptionmessage", "")
    try:
        data = json.loads(body)
    except ValueError:
        return name, text
    if isinstance(data, dict):
        name = str(data.get("ExceptionClass") or name)
        text = str(data.get("ExceptionMessage") or text)
    return name, text


def from_answer(status: int, headers: dict[str, str], body: bytes) -> LakeError:
    """The typed error for an answer of Rucio with status >= 400 (header names in lower case).

    Rucio sends 401 both for a bad token (``CannotAuthenticate``) and for a missing permission
    (``AccessDenied``), and 409 for most refusals of a rule, so the exception class counts before the status.
    """
    name, text = _rucio_words(headers, body)
    kind = _BY_EXCEPTION.get(name)
    if kind is None and name.endswith(("NotFound", "NotExist")):
        kind = NotFound
    if kind is None and name.endswith(("AlreadyExists", "Duplicate")):
        kind = Duplicate
    if kind is None:
        kind = _BY_STATUS.get(status, ServerFault if status >= 500 else Refused)
    error = make(kind, f"{name}: {text}" if name else f"HTTP {status}")
    if kind is Refused and text:
        words = " ".join(text.split())[:200].rstrip(". ")
        error.message = f"The data lake refused the request: {words}."
    after = headers.get("retry-after", "")
    if after.isascii() and after.isdigit():
        error.retry_after = float(after)
    return error
