"""Reading the payload of a token **without verifying it**: for display and for scheduling a refresh, nothing else.

Who may do what is decided by whoever verifies the token (the issuer, Rucio), never from what is read here.
The readers are tolerant: providers write groups, scopes and audiences as lists, as one string, or as objects.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import SecretStr

from jupyterhub_dmsp.identity.errors import TokenMalformed

GROUPS = "wlcg.groups"
MAX_LENGTH = 64 * 1024
Claims = Mapping[str, Any]


def read(token: str | SecretStr) -> dict[str, Any]:
    """The claims in a JWT (RFC 7519), unverified.

    Raises:
        TokenMalformed: it is not a signed JWT in compact form, such as an opaque token.
    """
    text = (token.get_secret_value() if isinstance(token, SecretStr) else token).strip()
    parts = text.split(".")
    if len(parts) != 3 or len(text) > MAX_LENGTH:
        raise TokenMalformed("The token is not a JWT, so nothing can be read from it.")
    try:
        # altchars with validate: the plain urlsafe decoder skips over characters that do not belong there.
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        payload = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        # Without its cause: a decoder's error quotes what it read.
        raise TokenMalformed("The token's payload is damaged.") from None
    if not isinstance(payload, dict):
        raise TokenMalformed("The token's payload is not an object.")
    return payload


def number(claims: Claims, name: str) -> float | None:
    """A NumericDate claim in epoch seconds, also when it was written as text; None when it is not there."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    # NaN and infinity compare as no time at all.
    return seconds if 0 <= seconds < 1e12 else None


def expiry(claims: Claims) -> float | None:
    """``exp`` in epoch seconds."""
    return number(claims, "exp")


def lifetime(claims: Claims) -> float | None:
    """Seconds between ``iat`` and ``exp``, which no clock of ours has a part in; None when unknown."""
    issued, end = number(claims, "iat"), expiry(claims)
    return end - issued if issued is not None and end is not None and end > issued else None


def words(value: Any) -> list[str]:
    """Text from a list, one string with separators, or objects with a name; each once, in order."""
    if isinstance(value, str):
        found: Iterable[str] = value.replace(",", " ").split()
    elif isinstance(value, Mapping):
        found = [str(value[key]) for key in ("path", "name", "value") if isinstance(value.get(key), str)][:1]
    elif isinstance(value, list | tuple | set | frozenset):
        # A list's entries are whole: a group's name may hold a space.
        found = [w for entry in value for w in ([entry.strip()] if isinstance(entry, str) else words(entry))]
    else:
        found = []
    return [word for word in dict.fromkeys(found) if word]


def groups(claims: Claims, name: str = GROUPS) -> list[str]:
    """The groups of the user. `name` is one claim's name: its dots do not nest (WLCG profile 1.0)."""
    return words(claims.get(name))


def scopes(claims: Claims) -> list[str]:
    """``scope``, or ``scp`` where a provider calls it that."""
    return words(claims.get("scope", claims.get("scp")))


def audiences(claims: Claims) -> list[str]:
    """``aud`` as a list."""
    return words(claims.get("aud"))


def _text(claims: Claims, name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def subject(claims: Claims) -> str:
    """``sub``, or empty."""
    return _text(claims, "sub")


def issuer(claims: Claims) -> str:
    """``iss``, or empty."""
    return _text(claims, "iss")


def username(claims: Claims, name: str = "preferred_username") -> str:
    """The user's name, or empty."""
    return _text(claims, name)
