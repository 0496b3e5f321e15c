"""Token exchange (RFC 8693): the parameters of the request, and reading the answer. The HTTP is the caller's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import SecretStr

from jupyterhub_dmsp.identity import claims
from jupyterhub_dmsp.identity.errors import (
    AudienceRefused,
    IdentityError,
    IssuerDown,
    TokenMalformed,
    TokenRefused,
    redact,
)
from jupyterhub_dmsp.identity.tokens import Token

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 (RFC 8693 section 3)
JWT = "urn:ietf:params:oauth:token-type:jwt"


def parameters(
    subject_token: str | SecretStr, audience: str, scope: str | Iterable[str] | None = None
) -> dict[str, str]:
    """The form of a token request that exchanges an access token (RFC 8693 section 2.1).

    Args:
        subject_token: the access token that is exchanged.
        audience: the service that the new one is for.
        scope: what is wanted of the subject token's scope; all that the issuer gives when None.

    The client authenticates as at every token request; its credentials are not part of this.
    """
    text = subject_token.get_secret_value() if isinstance(subject_token, SecretStr) else subject_token
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": text,
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
        "audience": audience,
    }
    if scope is not None:
        form["scope"] = scope if isinstance(scope, str) else " ".join(scope)
    return form


def token_from_response(answer: Mapping[str, Any], audience: str, now: float | None = None) -> Token:
    """The token in a successful answer (RFC 8693 section 2.2.1).

    Its end is ``expires_in`` from now, or the JWT's ``exp`` where that is sooner or ``expires_in`` is missing.

    Raises:
        TokenMalformed: the answer holds no usable token.
    """
    text = answer.get("access_token")
    if not isinstance(text, str):
        raise TokenMalformed("The issuer's answer holds no access token.")
    if str(answer.get("token_type", "Bearer")).lower() != "bearer":
        raise TokenMalformed("The issuer gave a token that is not a bearer token.")
    ends = []
    seconds = claims.number(answer, "expires_in")
    if seconds is not None:
        ends.append((time.time() if now is None else now) + seconds)
    try:
        end = claims.expiry(claims.read(text))
    except TokenMalformed:
        end = None  # An opaque token: expires_in alone has to tell.
    if end is not None:
        ends.append(end)
    if not ends:
        raise TokenMalformed("The issuer's token does not say when it expires.")
    return Token.of(text, min(ends), audience)


def error_from_response(status: int, answer: Any, audience: str) -> IdentityError:
    """The error behind an answer that is not 200 (RFC 6749 section 5.2, RFC 8693 section 2.2.2).

    Args:
        status: of the HTTP answer.
        answer: its JSON, whatever came; anything else than an object is taken as empty.
    """
    body = answer if isinstance(answer, Mapping) else {}
    code = str(body.get("error", ""))
    said = redact(str(body.get("error_description") or code or f"HTTP {status}"))
    if status == 429 or status >= 500:
        return IssuerDown(f"The issuer cannot give a token now: {said}.")
    if code in ("invalid_target", "invalid_scope", "unauthorized_client", "access_denied"):
        return AudienceRefused(f"The issuer gives no token for {audience}: {said}.")
    if code in ("invalid_client", "unsupported_grant_type"):
        remedy = "An administrator has to look at the hub's client at the issuer."
        return AudienceRefused(f"The issuer does not exchange tokens for the hub: {said}.", remedy)
    return TokenRefused(f"The issuer refused the login's token: {said}.")
