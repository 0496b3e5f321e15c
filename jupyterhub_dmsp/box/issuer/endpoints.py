"""The endpoints beside the token endpoint: device authorization, revocation, introspection, logout, metadata."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749.errors import UnauthorizedClientError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint
from authlib.oidc.rpinitiated import EndSessionEndpoint

from jupyterhub_dmsp.box.issuer import claims
from jupyterhub_dmsp.box.issuer.accounts import Account
from jupyterhub_dmsp.box.issuer.config import DEVICE_CODE, GRANTS, SCOPES, Config
from jupyterhub_dmsp.box.issuer.grants import AUTH_METHODS
from jupyterhub_dmsp.box.issuer.keys import ALGORITHM, InvalidToken
from jupyterhub_dmsp.box.issuer.protocol import Core, RegisteredClient, Request
from jupyterhub_dmsp.box.issuer.store import Device, RefreshToken, digest

# Consonants without look-alikes and without accidental words (RFC 8628 section 6.1): 20^8, 34 bits, and the page is
# rate-limited.
USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
USER_CODE_LENGTH = 8


def normal_user_code(typed: str) -> str:
    """A user code as people type it, brought to the one form that is stored: ``BCDF-GHJK``."""
    letters = "".join(c for c in typed.upper() if c in USER_CODE_ALPHABET)
    return f"{letters[:4]}-{letters[4:]}"


class DeviceAuthorization(DeviceAuthorizationEndpoint):
    """RFC 8628 section 3.1."""

    CLIENT_AUTH_METHODS = AUTH_METHODS
    server: Core

    def create_endpoint_response(self, request: Request) -> Any:
        client = self.authenticate_client(request)
        if not client.check_grant_type(DEVICE_CODE):
            raise UnauthorizedClientError("The client may not use the device flow.")
        # Authlib reads these from the class; lifetimes are configuration here.
        self.EXPIRES_IN = self.server.lifetimes.device
        self.INTERVAL = self.server.lifetimes.device_interval
        return super().create_endpoint_response(request)

    def generate_user_code(self) -> str:
        return normal_user_code("".join(secrets.choice(USER_CODE_ALPHABET) for _ in range(USER_CODE_LENGTH)))

    def get_verification_uri(self) -> str:
        return self.server.config.issuer + "/device"

    def save_device_credential(self, client_id: str, scope: str | None, data: dict[str, Any]) -> None:
        client = self.server.clients[client_id]
        self.server.store.add_device(
            Device(
                id=digest(data["device_code"]),
                user_code=data["user_code"],
                client_id=client_id,
                scope=client.get_allowed_scope(scope),
                expires=self.server.store.clock() + data["expires_in"],
                interval=data["interval"],
            )
        )


@dataclass(frozen=True)
class AccessToken:
    """An access token of ours that is still valid, for the two endpoints that judge tokens."""

    claims: dict[str, Any]
    account: Account

    def check_client(self, client: RegisteredClient) -> bool:
        return bool(self.claims.get("client_id") == client.id)

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


@dataclass(frozen=True)
class LiveRefreshToken:
    """A refresh token that could still be used."""

    row: RefreshToken

    def check_client(self, client: RegisteredClient) -> bool:
        return self.row.check_client(client)

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return self.row.used is not None


def find_token(core: Core, token: str) -> AccessToken | LiveRefreshToken | None:
    """A token of ours of either kind; the hint is not needed, since JWTs have dots and refresh tokens none."""
    if "." in token:
        try:
            return AccessToken(*core.verify_access(token))
        except InvalidToken:
            return None
    row = core.store.refresh(digest(token))
    if row is None or core.store.is_revoked(row.family):
        return None
    return LiveRefreshToken(row)


class Revocation(RevocationEndpoint):
    """RFC 7009: a refresh token takes its family along, an access token goes alone."""

    CLIENT_AUTH_METHODS = AUTH_METHODS
    server: Core

    def query_token(self, token_string: str, token_type_hint: str | None) -> Any:  # noqa: ARG002 (find_token says why)
        return find_token(self.server, token_string)

    def revoke_token(self, token: AccessToken | LiveRefreshToken, request: Request) -> None:  # noqa: ARG002
        if isinstance(token, LiveRefreshToken):
            self.server.store.revoke_family(token.row.family, self.server.memory)
        else:
            left = int(token.claims["exp"]) - self.server.now + 1
            self.server.store.revoke(str(token.claims["jti"]), left)


class Introspection(IntrospectionEndpoint):
    """RFC 7662, for confidential clients and tokens that concern them."""

    CLIENT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]
    server: Core

    def query_token(self, token_string: str, token_type_hint: str | None) -> Any:  # noqa: ARG002 (find_token says why)
        return find_token(self.server, token_string)

    def check_permission(self, token: Any, client: RegisteredClient, request: Request) -> bool:  # noqa: ARG002
        if token.check_client(client):
            return True
        audience = token.claims.get("aud") if isinstance(token, AccessToken) else None
        return client.id in ([audience] if isinstance(audience, str) else audience or [])

    def introspect_token(self, token: AccessToken | LiveRefreshToken) -> dict[str, Any]:
        if isinstance(token, AccessToken):
            return {"active": True, "token_type": "Bearer", "username": token.account.name, **token.claims}
        account = self.server.users.by_sub(token.row.sub)
        return {
            "active": account is not None,
            "token_type": "refresh_token",
            "client_id": token.row.client_id,
            "scope": token.row.scope,
            "sub": token.row.sub,
            "iss": self.server.config.issuer,
            "exp": int(token.row.expires),
        }


class EndSession(EndSessionEndpoint):
    """OpenID Connect RP-Initiated Logout 1.0; the cookie is the page's business."""

    server: Core

    def get_server_jwks(self) -> dict[str, Any]:
        return self.server.keys.jwks

    def get_algorithms(self) -> list[str]:
        return [ALGORITHM]

    def is_post_logout_redirect_uri_legitimate(self, *_: Any) -> bool:
        """Without a hint the page asks the user first, and the address is a registered one: legitimate."""
        return True

    def end_session(self, end_session_request: Any) -> None:
        """Nothing here: see :class:`jupyterhub_dmsp.box.issuer.pages.Logout`."""


def register(core: Core) -> None:
    """Put the endpoints of this module into the server."""
    for endpoint in (DeviceAuthorization, Revocation, Introspection, EndSession):
        core.register_endpoint(endpoint)


def metadata(config: Config) -> dict[str, Any]:
    """The discovery document (OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2)."""
    issuer = config.issuer
    authentication = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "jwks_uri": f"{issuer}/jwks",
        "revocation_endpoint": f"{issuer}/revoke",
        "introspection_endpoint": f"{issuer}/introspect",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "end_session_endpoint": f"{issuer}/logout",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANTS),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "token_endpoint_auth_methods_supported": [*authentication, "none"],
        "revocation_endpoint_auth_methods_supported": [*authentication, "none"],
        "introspection_endpoint_auth_methods_supported": authentication,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "claims_supported": sorted(
            {"iss", "aud", "exp", "iat", "auth_time", "nonce", claims.GROUPS, "sub", *claims.USER_CLAIMS}
        ),
    }
