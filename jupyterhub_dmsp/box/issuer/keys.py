"""Keys that outlive the process: the signing key and the rotation key, each in a 0600 file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from jupyterhub_dmsp.box.files import write_private
from jupyterhub_dmsp.box.issuer.config import ConfigError, check_private, read_secret_file

ALGORITHM = "RS256"
BITS = 2048


class InvalidToken(Exception):
    """A token that is not ours, is damaged, or is over; the text says which."""


class Keys:
    """The issuer's keys; made at the first start, read at every other.

    The signing key must persist: resource servers cache the JWKS (Rucio for 12 hours) and would refuse
    everything that a new key signs.
    """

    def __init__(self, directory: Path) -> None:
        self.signing = self._signing_key(directory / "signing-key.json")
        self._rotation = self._rotation_key(directory / "rotation.key")

    @staticmethod
    def _signing_key(path: Path) -> RSAKey:
        if not path.exists():
            # The key's id is its RFC 7638 thumbprint.
            key = RSAKey.generate_key(BITS, {"use": "sig", "alg": ALGORITHM}, private=True, auto_kid=True)
            write_private(path, json.dumps(key.as_dict(private=True)) + "\n")
            return key
        check_private(path)
        try:
            return RSAKey.import_key(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, JoseError) as error:
            raise ConfigError(
                f"The signing key {path.name} is damaged.",
                "Restore it, or remove it: then restart Rucio too, which caches the old one.",
            ) from error

    @staticmethod
    def _rotation_key(path: Path) -> bytes:
        if not path.exists():
            write_private(path, secrets.token_hex(32) + "\n")
        return bytes.fromhex(read_secret_file(path))

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517)."""
        return {"keys": [self.signing.as_dict(private=False)]}

    def sign(self, claims: dict[str, Any], typ: str) -> str:
        """A compact JWS with ``kid`` and ``typ`` in its header (RFC 9068 wants ``at+jwt`` for access tokens)."""
        header = {"alg": ALGORITHM, "kid": self.signing.kid, "typ": typ}
        return jwt.encode(header, claims, self.signing, algorithms=[ALGORITHM])

    def verify(self, token: str, issuer: str, typ: str, now: float) -> dict[str, Any]:
        """The claims of a token of ours that is still valid.

        Raises:
            InvalidToken: foreign, damaged, of another type, expired.
        """
        try:
            decoded = jwt.decode(token, self.signing, algorithms=[ALGORITHM])
            # exp and sub are essential; the leeway of 0 is right, since it is the same clock.
            registry = jwt.JWTClaimsRegistry(
                now=int(now),
                iss={"essential": True, "value": issuer},
                exp={"essential": True},
                sub={"essential": True},
            )
            registry.validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise InvalidToken("The token is invalid or expired.") from error
        if decoded.claims["exp"] <= now:
            # joserfc lets the very second of the end pass.
            raise InvalidToken("The token is invalid or expired.")
        if decoded.header.get("typ") != typ:
            raise InvalidToken("The token is of another type.")
        return decoded.claims

    def successor(self, refresh_token: str) -> str:
        """The refresh token that follows this one.

        Derived with a key that only we have, so a retried refresh gets the same answer although the store
        holds hashes only; nobody can compute it from the predecessor alone.
        """
        digest = hmac.new(self._rotation, refresh_token.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def new_token() -> str:
    """A random 256-bit token for codes, sessions, devices and first refresh tokens."""
    return secrets.token_urlsafe(32)
