"""From any error of ours to status, code, sentence and action: the one place for both REST doors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.identity import errors as identity_errors

log = logging.getLogger(__name__)


class BadRequest(DmspError):
    """The request itself is wrong."""

    code = "bad_request"
    action = "none"
    status = 400


class NoAttachment(DmspError):
    """No attachment of that id."""

    code = "no_attachment"
    action = "none"
    status = 404


@dataclass(frozen=True, slots=True)
class Fault:
    """What is told of an error."""

    code: str
    message: str
    action: str
    status: int = 500

    def as_dict(self) -> dict[str, str]:
        """The part that goes into JSON and into the attachment's record."""
        return {"code": self.code, "message": self.message, "action": self.action}


_IDENTITY: tuple[tuple[str, str, str, int], ...] = (
    ("IssuerDown", "issuer_down", "retry", 503),
    ("TokenRefused", "login", "login", 401),
    ("TokenExpired", "login", "login", 401),
    ("TokenMissing", "login", "login", 401),
    ("TokenMalformed", "login", "login", 401),
    ("NoSessionToken", "login", "login", 401),
    ("AudienceRefused", "audience", "contact", 403),
    ("TokenWithheld", "shared", "none", 403),
    ("TokenCommandFailed", "token_command", "contact", 503),
)


def fault_of(error: DmspError) -> Fault:
    """Code, sentence, action and status of an error."""
    if isinstance(error, identity_errors.IdentityError):
        names = {kind.__name__ for kind in type(error).__mro__}
        for name, code, action, status in _IDENTITY:
            if name in names:
                return Fault(code, str(error), action, status)
        return Fault("identity", str(error), "login", 503)
    return Fault(
        getattr(error, "code", "error"),
        str(error),
        getattr(error, "action", "none"),
        getattr(error, "status", 400),
    )


PASSING = frozenset(
    {
        "rucio_down",
        "rucio_slow",
        "cut_off",
        "too_many",
        "rucio_fault",
        "changing",
        "issuer_down",
        "login",
        "shared",
        "unauthorised",
    }
)
"""Codes of faults that go away without the user doing anything to the attachment itself."""


def answer(fault: Fault, request_id: str) -> dict[str, Any]:
    """The JSON body of an error."""
    return {"error": {**fault.as_dict(), "request_id": request_id}}
