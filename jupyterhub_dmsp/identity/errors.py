"""What goes wrong with tokens: typed, one sentence, and the way out. Never a token in a text."""

from __future__ import annotations

import re

from jupyterhub_dmsp.errors import DmspError

LOG_IN = "Log in again at the hub."
# Words of this length without a space are tokens, keys or hashes, not language.
_SECRETIVE = re.compile(r"[A-Za-z0-9_\-./+=~]{24,}")


def redact(text: str, limit: int = 200) -> str:
    """A foreign text made safe to show and to log: long opaque words become an ellipsis, one short line."""
    return _SECRETIVE.sub("…", " ".join(text.split()))[:limit]


class IdentityError(DmspError):
    """No token could be had. `transient` tells whether trying again later may help."""

    transient = False


class IssuerDown(IdentityError):
    """Whoever gives the tokens does not answer, answers with a fault, or asks to come later."""

    transient = True

    def __init__(self, message: str, remedy: str = "It is tried again by itself.") -> None:
        super().__init__(message, remedy)


class TokenRefused(IdentityError):
    """The login is no longer valid: expired, revoked, or the user was taken out."""

    def __init__(self, message: str, remedy: str = LOG_IN) -> None:
        super().__init__(message, remedy)


class AudienceRefused(IdentityError):
    """Tokens for this service are not given to this session."""

    def __init__(
        self, message: str, remedy: str = "Ask an administrator to add it to identity.audiences."
    ) -> None:
        super().__init__(message, remedy)


class TokenWithheld(IdentityError):
    """The login is good, and its tokens are kept from this server while others can enter it."""

    transient = True


class TokenExpired(IdentityError):
    """What came was over already."""

    transient = True

    def __init__(
        self, message: str, remedy: str = "Check the clocks of this machine and of the issuer."
    ) -> None:
        super().__init__(message, remedy)


class TokenMissing(IdentityError):
    """There is no token where one should be."""

    transient = True


class TokenMalformed(IdentityError):
    """What came is not a token that can be used."""


class TokenCommandFailed(IdentityError):
    """The command that prints a token did not."""

    transient = True


class NoSessionToken(IdentityError):
    """The process was not started as a hub's session."""

    def __init__(self) -> None:
        super().__init__(
            "This server has no hub token, so it cannot ask the hub for others.", "Start it from the hub."
        )
