"""What stands in tokens: the WLCG common JWT profile 1.0 on top of RFC 9068 and OpenID Connect Core 5.4."""

from __future__ import annotations

import secrets
from typing import Any

from jupyterhub_dmsp.box.issuer.accounts import Account
from jupyterhub_dmsp.box.issuer.config import Client

WLCG_VERSION = "1.0"
GROUPS = "wlcg.groups"
USER_CLAIMS = ("preferred_username", "name", "email", "email_verified")


def about_user(account: Account, scope: str) -> dict[str, Any]:
    """The claims about a user that these scopes open; the same in userinfo, id_token and access token."""
    scopes = scope.split()
    claims: dict[str, Any] = {"sub": account.sub}
    if "profile" in scopes:
        claims |= {"preferred_username": account.name, "name": account.full_name}
    if "email" in scopes:
        # Nobody verified an address of a demo account.
        claims |= {"email": account.email, "email_verified": False}
    if GROUPS in scopes:
        claims[GROUPS] = account.groups
    return claims


def one_or_many(audiences: list[str]) -> str | list[str]:
    """``aud`` as RFC 7519 section 4.1.3 has it: a string when there is one."""
    return audiences[0] if len(audiences) == 1 else audiences


def new_jti(family: str) -> str:
    """A token's id. It carries the family, so that revoking the family reaches tokens that nobody listed."""
    return f"{family}.{secrets.token_hex(8)}"


def family_of(jti: str) -> str:
    """The family of a token, from its id."""
    return jti.partition(".")[0]


def access_token(
    account: Account,
    client: Client,
    *,
    issuer: str,
    scope: str,
    audiences: list[str],
    family: str,
    auth_time: int,
    now: int,
    expires: int,
) -> dict[str, Any]:
    """Payload of an access token (RFC 9068 section 2.2 with WLCG's additions); times are epoch seconds."""
    return {
        "iss": issuer,
        "aud": one_or_many(audiences),
        "exp": expires,
        "iat": now,
        "nbf": now,
        "jti": new_jti(family),
        "client_id": client.id,
        "scope": scope,
        "auth_time": auth_time,
        "wlcg.ver": WLCG_VERSION,
        **about_user(account, scope),
    }
