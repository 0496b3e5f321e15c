"""The grants: code with PKCE (RFC 7636), rotating refresh (RFC 6749, RFC 9700), device (RFC 8628), and id_tokens."""

from __future__ import annotations

import logging
from typing import Any

from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.errors import AccessDeniedError, InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import AuthorizationPendingError, DeviceCodeGrant, ExpiredTokenError, SlowDownError
from authlib.oidc.core.grants import OpenIDCode, OpenIDToken

from jupyterhub_dmsp.box.issuer import claims
from jupyterhub_dmsp.box.issuer.accounts import Account
from jupyterhub_dmsp.box.issuer.config import REFRESH_TOKEN
from jupyterhub_dmsp.box.issuer.keys import ALGORITHM
from jupyterhub_dmsp.box.issuer.protocol import ID_TYPE, Core, Origin, RegisteredClient, Request
from jupyterhub_dmsp.box.issuer.store import Code, Device, RefreshToken, digest

log = logging.getLogger(__name__)
# none comes last: a confidential client that sends no secret is refused by it, not admitted.
AUTH_METHODS = ["client_secret_basic", "client_secret_post", "none"]
SLOWER = 5  # seconds, RFC 8628 section 3.5


def origin_of(request: Request) -> Origin:
    """The login that a validated token request goes back to."""
    credential = request.authorization_code or request.refresh_token
    if credential is not None:
        return Origin(credential.family, credential.auth_time)
    device: Device = request.credential
    # A device's family is its own code's hash: one login, one device.
    return Origin(device.id[:32], device.auth_time or 0)


class AuthorizationCode(grants.AuthorizationCodeGrant):
    """RFC 6749 section 4.1. A code works once; its second use revokes what the first one gave."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    server: Core

    def save_authorization_code(self, code: str, request: Request) -> None:
        parameters = request.payload.data
        account, auth_time = request.user
        self.server.store.add_code(
            Code(
                id=digest(code),
                family=self.server.new_origin(auth_time).family,
                client_id=request.client.id,
                sub=account.sub,
                redirect_uri=request.payload.redirect_uri,
                scope=request.scope or "",
                nonce=parameters.get("nonce"),
                code_challenge=parameters.get("code_challenge"),
                code_challenge_method=parameters.get("code_challenge_method"),
                auth_time=auth_time,
                expires=self.server.store.clock() + self.server.lifetimes.code,
            )
        )

    def query_authorization_code(self, code: str, client: RegisteredClient) -> Code | None:
        row = self.server.store.code(code)
        if row is None or row.client_id != client.id:
            return None
        if row.used:
            log.warning("A code of client %s was used twice: its tokens are revoked.", client.id)
            self.server.store.revoke_family(row.family, self.server.memory)
            raise InvalidGrantError("The code was used before; what it gave is revoked.")
        return row

    def delete_authorization_code(self, authorization_code: Code) -> None:
        self.server.store.use_code(authorization_code)

    def authenticate_user(self, authorization_code: Code) -> Account | None:
        return self.server.users.by_sub(authorization_code.sub)

    def generate_token(self, user: Account, scope: str, **_: Any) -> dict[str, Any]:
        client, origin = self.request.client, origin_of(self.request)
        refresh = self.server.first_refresh(client, user, scope, origin)
        return self.server.mint(client, user, scope, origin, refresh)


class Pkce(CodeChallenge):
    """RFC 7636 with S256 only: public clients must, confidential ones may."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]

    def validate_code_challenge(self, grant: AuthorizationCode, redirect_uri: str) -> None:
        super().validate_code_challenge(grant, redirect_uri)
        parameters = grant.request.payload.data
        challenge = parameters.get("code_challenge")
        if not challenge and not grant.request.client.confidential:
            raise InvalidRequestError("A public client needs 'code_challenge'.")
        if challenge and parameters.get("code_challenge_method") != "S256":
            raise InvalidRequestError("The 'code_challenge_method' must be S256.")


class Refresh(grants.RefreshTokenGrant):
    """RFC 6749 section 6 with rotation; see the package's decisions on reuse and grace."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True
    server: Core

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken:
        store = self.server.store
        row = store.refresh(digest(refresh_token))
        if row is None or not row.check_client(self.request.client) or store.is_revoked(row.family):
            raise InvalidGrantError("The refresh token is unknown, expired or revoked.")
        if row.used is not None and not self._is_retry(row):
            log.warning("A refresh token of client %s was reused: its family is revoked.", row.client_id)
            store.revoke_family(row.family, self.server.memory)
            raise InvalidGrantError("The refresh token was used before; its family is revoked.")
        if self.server.users.by_sub(row.sub) is None:
            raise InvalidGrantError("The user of this refresh token is no longer here.")
        return row

    def _is_retry(self, row: RefreshToken) -> bool:
        """Whether this is the same refresh once more: soon after the first, its answer not used yet."""
        age = self.server.store.clock() - (row.used or 0)
        if not 0 <= age <= self.server.lifetimes.refresh_grace:
            return False
        successor = self.server.store.refresh(row.successor or "")
        return successor is not None and successor.used is None

    def authenticate_user(self, refresh_token: RefreshToken) -> Account | None:
        return self.server.users.by_sub(refresh_token.sub)

    def generate_token(self, user: Account, scope: str, **_: Any) -> dict[str, Any]:
        request = self.request
        # The client's scopes may have been narrowed in the configuration since the login.
        scope = request.client.get_allowed_scope(scope)
        # The successor keeps the whole scope, also when this access token is narrower (RFC 6749 section 6).
        successor = self.server.rotate(request.form[REFRESH_TOKEN], request.refresh_token)
        return self.server.mint(request.client, user, scope, origin_of(request), successor)

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """Done by the rotation."""


class DeviceGrant(DeviceCodeGrant):
    """RFC 8628 section 3.4: the device asks until its user has decided."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    server: Core

    def query_device_credential(self, device_code: str) -> Device:
        device = self.server.store.device(device_code)
        if device is None:
            raise InvalidGrantError("The device code is unknown or was used.")
        return device

    def validate_device_credential(self, credential: Device) -> Account:
        store = self.server.store
        if credential.expires <= store.clock():
            raise ExpiredTokenError("The device code expired before it was approved.")
        if credential.decision == "denied":
            raise AccessDeniedError("The user has refused this device.")
        if credential.decision == "approved":
            account = self.server.users.by_sub(credential.sub or "")
            if account is None:
                raise InvalidGrantError("The user of this device is no longer here.")
            return account
        too_fast = store.clock() - credential.polled < credential.interval
        store.polled_device(credential, credential.interval + (SLOWER if too_fast else 0))
        raise SlowDownError() if too_fast else AuthorizationPendingError()

    def generate_token(self, user: Account, scope: str, **_: Any) -> dict[str, Any]:
        client, origin = self.request.client, origin_of(self.request)
        refresh = self.server.first_refresh(client, user, scope, origin)
        token = self.server.mint(client, user, scope, origin, refresh)
        self.server.store.remove_device(self.request.credential)
        return token


class _IdToken:
    """What Authlib asks for when it makes an id_token (OpenID Connect Core section 2)."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def resolve_client_private_key(self, client: RegisteredClient) -> Any:  # noqa: ARG002
        return self.core.keys.signing

    def get_client_claims(self, client: RegisteredClient) -> dict[str, Any]:
        now = self.core.now
        expires = now + self.core.lifetimes.access_token
        return {"iss": self.core.config.issuer, "aud": client.id, "iat": now, "exp": expires}

    def get_encode_header(self, client: RegisteredClient) -> dict[str, Any]:  # noqa: ARG002
        return {"alg": ALGORITHM, "kid": self.core.keys.signing.kid, "typ": ID_TYPE}

    def get_compatible_claims(self, request: Request) -> dict[str, Any]:
        return {**self.get_client_claims(request.client), "auth_time": origin_of(request).auth_time}

    def generate_user_info(self, user: Account, scope: str) -> dict[str, Any]:
        return claims.about_user(user, scope)


class IdToken(_IdToken, OpenIDToken):
    """The id_token of refresh and device grants, which Authlib leaves out by itself."""


class CodeIdToken(_IdToken, OpenIDCode):
    """The id_token of the code grant, with its nonce."""

    def __init__(self, core: Core) -> None:
        _IdToken.__init__(self, core)
        self.require_nonce = False

    def exists_nonce(self, nonce: str, request: Request) -> bool:
        return self.core.store.nonce_seen(request.payload.client_id, nonce)


def register(core: Core) -> None:
    """Put the grants of this module into the server."""
    core.register_grant(AuthorizationCode, [Pkce(required=True), CodeIdToken(core)])
    core.register_grant(Refresh, [IdToken(core)])
    core.register_grant(DeviceGrant, [IdToken(core)])
