"""What can go wrong between a user's login and their session: one sentence each, and the answer's status."""

from __future__ import annotations

import json
from typing import Any

from tornado import web
from tornado.httpclient import HTTPClientError

from jupyterhub_dmsp.errors import DmspError

try:
    from jupyterhub.spawner import SpawnException as _SpawnException
except ImportError:  # JupyterHub 5

    class _SpawnException(web.HTTPError):  # type: ignore[no-redef]
        def __init__(self, message: str, *, reason: str, status_code: int = 400, **kwargs: Any) -> None:  # noqa: ARG002
            super().__init__(status_code, message)


__all__ = [
    "ClocksDiffer",
    "IssuerDown",
    "LoginAgain",
    "Refused",
    "SpawnException",
    "oauth_error",
    "unreachable",
]


class SpawnException(_SpawnException):
    """A refusal of a start that is nobody's fault but the request's: JupyterHub counts no failure."""

    def __init__(self, message: str, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.kind = str(kwargs.get("reason", ""))
        # What the progress page shows; without it the page repeats status and class name too.
        self.jupyterhub_message = message


class LoginAgain(DmspError):
    """The issuer gives no further token for this login."""

    def __init__(self) -> None:
        super().__init__("Your login has expired.", "Log in again in the browser.")


class IssuerDown(DmspError):
    """The issuer does not answer now."""

    def __init__(self) -> None:
        super().__init__("The identity provider does not answer.", "Try again in a minute.")


class Refused(DmspError):
    """The issuer does not exchange tokens for this audience."""

    def __init__(self, audience: str) -> None:
        super().__init__(
            f"The identity provider gives no token for {audience}.",
            "The hub's client needs the right to exchange.",
        )


class ClocksDiffer(DmspError):
    """By our clock the issuer's new token is over already."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The clocks of the identity provider and of the hub differ by {abs(seconds) / 60:.0f} minutes.",
            "An administrator has to set them.",
        )


def unreachable(error: Exception) -> bool:
    """Whether a request failed because the other side is not there or not well, rather than refusing."""
    return isinstance(error, (OSError, TimeoutError)) or (
        isinstance(error, HTTPClientError) and (error.code >= 500 or error.code == 429)
    )


def oauth_error(error: HTTPClientError, name: str = "error") -> str:
    """The error code of an OAuth error response (RFC 6749, 5.2) or its description; empty when there is none."""
    try:
        return str(json.loads(error.response.body)[name]) if error.response else ""
    except (ValueError, KeyError, TypeError):
        return ""
