"""The authorization server: Authlib's core, our clients, users, keys and store.

Everything here is synchronous and belongs to the worker thread (see :mod:`jupyterhub_dmsp.box.issuer`).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authlib.oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidClientError

from jupyterhub_dmsp.box.issuer import accounts, claims
from jupyterhub_dmsp.box.issuer.accounts import Account
from jupyterhub_dmsp.box.issuer.config import SCOPES, Client, Config, ConfigError, read_secret_file
from jupyterhub_dmsp.box.issuer.keys import InvalidToken, Keys, new_token
from jupyterhub_dmsp.box.issuer.store import RefreshToken, Store, digest

log = logging.getLogger(__name__)
ACCESS_TYPE = "at+jwt"
ID_TYPE = "JWT"


@dataclass(frozen=True)
class Incoming:
    """An HTTP request as plain data, so that the worker thread touches nothing of tornado's."""

    method: str
    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)
    body: Mapping[str, list[str]] = field(default_factory=dict)
    authorization: str = ""
    session: str = field(default="", repr=False)


@dataclass(frozen=True)
class Reply:
    """A protocol answer: JSON body, or a redirect in its headers."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def location(self) -> str | None:
        return self.headers.get("Location")


class _Payload(OAuth2Payload):
    def __init__(self, incoming: Incoming) -> None:
        self._lists: dict[str, list[str]] = defaultdict(list)
        for source in (incoming.query, incoming.body):
            for key, values in source.items():
                self._lists[key] += values

    @property
    def data(self) -> dict[str, str]:
        return {key: values[-1] for key, values in self._lists.items() if values}

    @property
    def datalist(self) -> dict[str, list[str]]:
        return self._lists


class Request(OAuth2Request):
    """Authlib's view of an :class:`Incoming`."""

    def __init__(self, incoming: Incoming, issuer: str) -> None:
        headers = {"Authorization": incoming.authorization} if incoming.authorization else {}
        super().__init__(incoming.method, issuer + incoming.path, headers=headers)
        self.incoming = incoming
        self.payload = _Payload(incoming)

    @property
    def args(self) -> dict[str, str]:
        return {key: values[-1] for key, values in self.incoming.query.items() if values}

    @property
    def form(self) -> dict[str, str]:
        return {key: values[-1] for key, values in self.incoming.body.items() if values}


class RegisteredClient(ClientMixin):
    """A client of the configuration, as Authlib asks about it."""

    def __init__(self, config: Client) -> None:
        self.config = config
        self.id = config.id
        self._secret = read_secret_file(config.secret_file) if config.secret_file else None
        self.client_metadata = {"post_logout_redirect_uris": list(config.logout_uris)}

    def __repr__(self) -> str:
        return f"RegisteredClient({self.id})"

    @property
    def confidential(self) -> bool:
        return self._secret is not None

    @property
    def audiences(self) -> list[str]:
        return list(self.config.audiences) or [self.id]

    def get_client_id(self) -> str:
        return self.id

    def get_default_redirect_uri(self) -> str | None:
        uris = self.config.redirect_uris
        return uris[0] if len(uris) == 1 else None

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(s for s in dict.fromkeys((scope or "").split()) if s in self.config.scopes)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.config.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        # As bytes: compare_digest refuses text that is not ASCII.
        return self._secret is not None and hmac.compare_digest(
            self._secret.encode(), client_secret.encode("utf-8", "replace")
        )

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 (Authlib's call)
        if self.confidential:
            return method in ("client_secret_basic", "client_secret_post")
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and self.check_grant_type("authorization_code")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.config.grants


class Users:
    """The users file, read again when it changed, so that new users and groups need no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._by_name: dict[str, Account] = {}
        self._by_sub: dict[str, Account] = {}
        self._refresh()

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            raise ConfigError(f"The users file {self._path.name} is missing.", "`dmsp up` writes it.") from None
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp != self._stamp:
            self._by_name = accounts.load(self._path)
            self._by_sub = {account.sub: account for account in self._by_name.values()}
            self._stamp = stamp

    def by_name(self, name: str) -> Account | None:
        self._refresh()
        return self._by_name.get(name)

    def by_sub(self, sub: str) -> Account | None:
        self._refresh()
        return self._by_sub.get(sub)


@dataclass(frozen=True)
class Origin:
    """Where a token comes from: the login at one client that all of its family goes back to."""

    family: str
    auth_time: int


class Core(AuthorizationServer):
    """The state of the issuer, and what the grants share."""

    def __init__(self, config: Config, store: Store, keys: Keys) -> None:
        super().__init__(scopes_supported=list(SCOPES))
        if not config.secure:
            # Authlib knows loopback; the configuration admits private addresses too (a session bridge).
            os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
        # Authlib writes whole tokens at DEBUG.
        logging.getLogger("authlib").setLevel(logging.INFO)
        self.config, self.store, self.keys = config, store, keys
        self.lifetimes = config.lifetimes
        self.users = Users(config.users_file)
        self.clients = {client.id: RegisteredClient(client) for client in config.clients}

    # What Authlib wants from a framework -------------------------------------------------------------------

    def query_client(self, client_id: str) -> RegisteredClient | None:
        return self.clients.get(client_id)

    def create_oauth2_request(self, request: Incoming | Request) -> Request:
        return request if isinstance(request, Request) else Request(request, self.config.issuer)

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Reply:
        return Reply(status, body, dict(headers))

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """No signals here."""

    def save_token(self, token: dict[str, Any], request: Request) -> None:
        """Nothing to do: :meth:`mint` has stored it, in the same transaction."""

    def authenticate_client(self, request: Request, methods: list[str], endpoint: str = "token") -> Any:
        check_basic(request.incoming.authorization)
        return super().authenticate_client(request, methods, endpoint)

    # Tokens -------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return int(self.store.clock())

    @property
    def memory(self) -> int:
        """Seconds after which nothing of a family can be alive any more."""
        return self.lifetimes.refresh_token + self.lifetimes.access_token

    def mint(
        self, client: RegisteredClient, account: Account, scope: str, origin: Origin, refresh: str | None
    ) -> dict[str, Any]:
        """A token response (RFC 6749 section 5.1), with this refresh token in it unless None."""
        now = self.now
        payload = claims.access_token(
            account,
            client.config,
            issuer=self.config.issuer,
            scope=scope,
            audiences=client.audiences,
            family=origin.family,
            auth_time=origin.auth_time,
            now=now,
            expires=now + self.lifetimes.access_token,
        )
        token = {
            "token_type": "Bearer",
            "access_token": self.keys.sign(payload, ACCESS_TYPE),
            "expires_in": self.lifetimes.access_token,
            "scope": scope,
        }
        if refresh is not None:
            token["refresh_token"] = refresh
        return token

    def first_refresh(
        self, client: RegisteredClient, account: Account, scope: str, origin: Origin
    ) -> str | None:
        """A new family's refresh token; None unless the client may and ``offline_access`` was asked."""
        if "offline_access" not in scope.split() or not client.check_grant_type("refresh_token"):
            return None
        token = new_token()
        self._store_refresh(token, client.id, account.sub, scope, origin)
        return token

    def rotate(self, token: str, row: RefreshToken) -> str:
        """The successor of a refresh token; asked again it is the same (see the package's decisions)."""
        successor = self.keys.successor(token)
        if row.used is None:
            origin = Origin(row.family, row.auth_time)
            self._store_refresh(successor, row.client_id, row.sub, row.scope, origin)
            self.store.mark_rotated(row, digest(successor))
        return successor

    def _store_refresh(self, token: str, client_id: str, sub: str, scope: str, origin: Origin) -> None:
        expires = self.store.clock() + self.lifetimes.refresh_token
        row = RefreshToken(digest(token), origin.family, client_id, sub, scope, origin.auth_time, expires)
        self.store.add_refresh(row)

    def new_origin(self, auth_time: int) -> Origin:
        return Origin(secrets.token_hex(16), auth_time)

    def verify_access(self, token: str) -> tuple[dict[str, Any], Account]:
        """Claims and user of an access token of ours that is valid, not revoked, and whose user is still there.

        Raises:
            InvalidToken: with a text that may be shown.
        """
        payload = self.keys.verify(token, self.config.issuer, ACCESS_TYPE, self.store.clock())
        jti = str(payload.get("jti", ""))
        if self.store.is_revoked(jti, claims.family_of(jti)):
            raise InvalidToken("The token was revoked.")
        account = self.users.by_sub(str(payload["sub"]))
        if account is None:
            raise InvalidToken("The token's user is no longer here.")
        return payload, account


def check_basic(authorization: str) -> None:
    """Refuse a Basic header that is not UTF-8 text in base64; Authlib would raise a bare UnicodeDecodeError."""
    kind, _, credentials = authorization.partition(" ")
    if kind.lower() != "basic":
        return
    try:
        base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidClientError("The Basic credentials are malformed.", status_code=401) from error
