"""Token exchange (RFC 8693): an access token of the hub's becomes one for another audience.

What may be had is narrow on purpose: only a token that was issued *to the asking client* is taken, only the
audiences of the client's list are given, the scope can only shrink, ``offline_access`` and refresh tokens are
never part of it, and the result ends when its subject token ends at the latest.
"""

from __future__ import annotations

from typing import Any

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError, InvalidScopeError, UnauthorizedClientError
from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin

from jupyterhub_dmsp.box.issuer import claims
from jupyterhub_dmsp.box.issuer.config import TOKEN_EXCHANGE
from jupyterhub_dmsp.box.issuer.keys import InvalidToken
from jupyterhub_dmsp.box.issuer.protocol import ACCESS_TYPE, Core

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 (RFC 8693 section 3)
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


class InvalidTargetError(OAuth2Error):
    """The audience is not one that this client may have (RFC 8693 section 2.2.2)."""

    error = "invalid_target"


class TokenExchange(BaseGrant, TokenEndpointMixin):
    """The grant; Authlib 1.9 ships none."""

    GRANT_TYPE = TOKEN_EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]
    server: Core

    def validate_token_request(self) -> None:
        request = self.request
        request.client = self.authenticate_token_endpoint_client()
        if not request.client.check_grant_type(TOKEN_EXCHANGE):
            raise UnauthorizedClientError("The client may not exchange tokens.")
        self._check_types(request.payload.data)
        self._subject(request.form.get("subject_token", ""))
        self._audiences()
        self._scope(request.payload.scope)

    @staticmethod
    def _check_types(parameters: dict[str, str]) -> None:
        if parameters.get("subject_token_type") not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("The 'subject_token_type' must be an access token's.")
        if parameters.get("requested_token_type", ACCESS_TOKEN_TYPE) not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("Only access tokens can be requested.")
        if "actor_token" in parameters:
            raise InvalidRequestError("Delegation by 'actor_token' is not supported.")

    def _subject(self, token: str) -> None:
        try:
            self.subject, self.account = self.server.verify_access(token)
        except InvalidToken as error:
            # invalid_request, not invalid_grant: RFC 8693 section 2.2.2.
            raise InvalidRequestError(f"subject_token: {error}") from error
        if self.subject.get("client_id") != self.request.client.id:
            raise InvalidRequestError("subject_token: it was issued to another client.")

    def _audiences(self) -> None:
        lists = self.request.payload.datalist
        wanted = list(dict.fromkeys([*lists.get("audience", []), *lists.get("resource", [])]))
        if not wanted:
            raise InvalidTargetError("An 'audience' is needed.")
        if not set(wanted) <= set(self.request.client.config.exchange_audiences):
            raise InvalidTargetError("The client may not have a token for this audience.")
        self.audiences = wanted

    def _scope(self, wanted: str | None) -> None:
        have = [scope for scope in str(self.subject.get("scope", "")).split() if scope != "offline_access"]
        scopes = wanted.split() if wanted else have
        if not set(scopes) <= set(have):
            raise InvalidScopeError("The scope goes beyond the subject token's.")
        self.scope = " ".join(dict.fromkeys(scopes))

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        now = self.server.now
        expires = min(now + self.server.lifetimes.access_token, int(self.subject["exp"]))
        payload = claims.access_token(
            self.account,
            self.request.client.config,
            issuer=self.server.config.issuer,
            scope=self.scope,
            audiences=self.audiences,
            family=claims.family_of(str(self.subject["jti"])),
            auth_time=int(self.subject.get("auth_time", now)),
            now=now,
            expires=expires,
        )
        body = {
            "access_token": self.server.keys.sign(payload, ACCESS_TYPE),
            "issued_token_type": ACCESS_TOKEN_TYPE,
            "token_type": "Bearer",
            "expires_in": expires - now,
            "scope": self.scope,
        }
        return 200, body, self.TOKEN_RESPONSE_HEADER
