"""The issuer's configuration file: written by the box, read once at start.

It holds no secret: client secrets, user hashes and keys are files beside it, each 0600.
"""

from __future__ import annotations

import ipaddress
import json
import stat
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from jupyterhub_dmsp.errors import DmspError

AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105 (a grant's name, RFC 6749)
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 (RFC 8693)
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
GRANTS = (AUTHORIZATION_CODE, REFRESH_TOKEN, TOKEN_EXCHANGE, DEVICE_CODE)
Grant = Literal[
    "authorization_code",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:ietf:params:oauth:grant-type:device_code",
]
SCOPES = ("openid", "profile", "email", "offline_access", "wlcg", "wlcg.groups")


class ConfigError(DmspError):
    """The issuer cannot start with what it was given."""


def _issuer_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http or https address without query")
    if value.endswith("/"):
        raise ValueError("must not end with a slash: `iss` is compared to the letter")
    if parts.scheme == "http" and not is_local(parts.hostname):
        raise ValueError("must be https unless the host is a loopback or private address")
    return value


def is_local(host: str) -> bool:
    """Whether an address never leaves the machine or its private networks (100.64.0.0/10 included)."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or not address.is_global


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Client(Part):
    """An application that may ask for tokens (RFC 6749 section 2)."""

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{2,64}$")
    title: str = Field("", max_length=80, description="As people see it on the device page; `id` when empty.")
    secret_file: Path | None = Field(None, description="File with the secret; empty: a public client.")
    redirect_uris: list[str] = []
    logout_uris: list[str] = Field([], description="Where a logout may send the browser back to.")
    grants: list[Grant] = []
    scopes: list[str] = list(SCOPES)
    audiences: list[str] = Field([], description="`aud` of its access tokens; its id when empty.")
    exchange_audiences: list[str] = Field([], description="Audiences that it may exchange a token to.")

    @model_validator(mode="after")
    def _sound(self) -> Client:
        if TOKEN_EXCHANGE in self.grants and self.secret_file is None:
            raise ValueError("a public client must not exchange tokens")
        if AUTHORIZATION_CODE in self.grants and not self.redirect_uris:
            raise ValueError("a client with the code grant needs redirect_uris")
        return self


class Lifetimes(Part):
    """All in seconds."""

    access_token: int = Field(3600, ge=1, le=86400)
    refresh_token: int = Field(30 * 86400, ge=1, description="Counted anew at every rotation.")
    refresh_grace: int = Field(
        60,
        ge=0,
        le=300,
        description="How long the same refresh token may be presented again, while its successor is unused: "
        "about what a killed hub needs to come back.",
    )
    code: int = Field(60, ge=1, le=600)
    session: int = Field(12 * 3600, ge=60, description="Login session of a browser at the issuer.")
    device: int = Field(600, ge=1, le=3600)
    device_interval: int = Field(5, ge=1, le=60, description="Between two polls of a device (RFC 8628).")


class Config(Part):
    """Everything the issuer's process knows at start."""

    issuer: Annotated[str, AfterValidator(_issuer_url)] = Field(description="Exactly as it stands in `iss`.")
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    storage: Path = Field(description="Directory of its own, 0700: keys and database.")
    users_file: Path
    clients: list[Client] = Field(min_length=1)
    lifetimes: Lifetimes = Field(default_factory=Lifetimes)
    site_name: str = "Dark Matter Science Project"
    support: str = ""
    attempts: int = Field(5, ge=1, description="Wrong passwords a minute for one user from one address.")

    @model_validator(mode="after")
    def _unique(self) -> Config:
        ids = [client.id for client in self.clients]
        if len(set(ids)) < len(ids):
            raise ValueError("clients: an id stands twice")
        return self

    @property
    def base_path(self) -> str:
        """Path part of the issuer, such as ``/oidc``; cookies are limited to it."""
        return urlsplit(self.issuer).path

    @property
    def secure(self) -> bool:
        """Whether browsers reach the issuer over https."""
        return self.issuer.startswith("https:")


def check_private(path: Path) -> None:
    """Raise :class:`ConfigError` when others than the owner may read or write a file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"The file {path.name} cannot be read: {error.strerror}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"The file {path.name} is open to other users.", f"chmod 600 {path}")


def load(path: Path) -> Config:
    """Read the configuration; raises :class:`ConfigError` with one sentence for each fault."""
    check_private(path)
    try:
        return Config.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"The issuer's configuration {path.name} is not readable JSON: {error}.") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise ConfigError(f"The issuer's configuration {path.name} has faults: {faults}.") from error


def read_secret_file(path: Path) -> str:
    """A secret from its 0600 file, without the surrounding white space."""
    check_private(path)
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise ConfigError(f"The secret file {path.name} is empty.", "Remove it and start again.")
    return text
