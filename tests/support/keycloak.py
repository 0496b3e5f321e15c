"""A real Keycloak from Maven Central: fetched once into a cache, run in development mode, set up by its REST API."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from waiting import free_port

VERSION = "26.4.0"
ZIP_SHA256 = "1b6a11a2726ac8a8dc9c91d5fafe989a75ce4f1622d7f7b45c21d5bc16629c0a"
FETCH = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:get"
REALM = "dmsp"
START_WITHIN = 300.0
EVENTS = ("LOGIN", "CODE_TO_TOKEN", "REFRESH_TOKEN", "TOKEN_EXCHANGE", "USER_INFO_REQUEST", "REVOKE_GRANT")
"""What Keycloak records."""


def cache() -> Path:
    """Where what tests download is kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "jupyterhub-dmsp"


def distribution() -> Path:
    """The zip file of Keycloak, fetched with Debian's maven unless it is there; checked in either case."""
    repository = cache() / "maven"
    path = repository / f"org/keycloak/keycloak-quarkus-dist/{VERSION}/keycloak-quarkus-dist-{VERSION}.zip"
    if not path.exists():
        repository.mkdir(parents=True, exist_ok=True)
        artifact = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
        command = ["mvn", "-B", "-q", FETCH, "-Dtransitive=false", artifact, f"-Dmaven.repo.local={repository}"]
        subprocess.run(command, check=True, timeout=600, cwd=repository, stdin=subprocess.DEVNULL)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != ZIP_SHA256:
        path.unlink()
        raise AssertionError(f"Keycloak's distribution is not the one that was looked at: {found}")
    return path


@dataclass
class Keycloak:
    """A running Keycloak with one realm."""

    url: str
    admin_password: str
    log: Path
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    @property
    def issuer(self) -> str:
        return f"{self.url}/realms/{REALM}"

    def _admin(self) -> httpx.Client:
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin"}
        token = httpx.post(
            f"{self.url}/realms/master/protocol/openid-connect/token",
            data=form | {"password": self.admin_password},
            timeout=30,
            trust_env=False,
        )
        token.raise_for_status()
        return httpx.Client(
            base_url=f"{self.url}/admin/realms/",
            headers={"Authorization": f"Bearer {token.json()['access_token']}"},
            timeout=60,
            trust_env=False,
        )

    def ask(self, method: str, path: str = "", **options: Any) -> Any:
        """A request to the admin REST API of the realm; its JSON, or None."""
        with self._admin() as http:
            answer = http.request(method, f"{REALM}/{path}" if path else REALM, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    def make_realm(self, redirect_uri: str, users: dict[str, list[str]], token_lifetime: int) -> None:
        """The realm: the hub's client with PKCE and token exchange, ``rucio`` as an audience, groups, users.

        Args:
            redirect_uri: of the hub.
            users: groups (full paths) by user name; all have :attr:`password`.
            token_lifetime: seconds that access tokens live. Refresh tokens work once.
        """
        with self._admin() as http:
            http.post("", json=self._realm(redirect_uri, users, token_lifetime)).raise_for_status()
        self.ask("POST", "client-scopes", json=_audience_scope("rucio"))
        scope = next(one["id"] for one in self.ask("GET", "client-scopes") if one["name"] == "rucio")
        client = self.ask("GET", "clients", params={"clientId": "jupyterhub"})[0]["id"]
        # Only who asks for the scope gets the audience: the login's own token is of no use at Rucio.
        self.ask("PUT", f"clients/{client}/optional-client-scopes/{scope}")

    def _realm(self, redirect_uri: str, users: dict[str, list[str]], token_lifetime: int) -> dict[str, Any]:
        return {
            "realm": REALM,
            "enabled": True,
            "sslRequired": "none",
            "accessTokenLifespan": token_lifetime,
            "revokeRefreshToken": True,
            "refreshTokenMaxReuse": 0,
            "eventsEnabled": True,
            "enabledEventTypes": [f"{kind}{end}" for kind in EVENTS for end in ("", "_ERROR")],
            "groups": [{"name": "dmsp", "subGroups": [{"name": "km3net"}, {"name": "admins"}]}],
            "clients": [
                {
                    "clientId": "jupyterhub",
                    "secret": self.client_secret,
                    "publicClient": False,
                    "directAccessGrantsEnabled": False,
                    "redirectUris": [redirect_uri],
                    "attributes": {
                        "pkce.code.challenge.method": "S256",
                        "standard.token.exchange.enabled": "true",
                    },
                    "protocolMappers": [_groups_mapper()],
                },
                {"clientId": "rucio", "bearerOnly": True},
            ],
            "users": [
                {
                    "username": name,
                    "enabled": True,
                    "email": f"{name}@example.org",
                    "emailVerified": True,
                    "firstName": name.title(),
                    "lastName": "Tester",
                    "groups": groups,
                    # What a person who registers is given; `offline_access` is part of it.
                    "realmRoles": [f"default-roles-{REALM}"],
                    "credentials": [{"type": "password", "value": self.password, "temporary": False}],
                }
                for name, groups in users.items()
            ],
        }

    def log_out(self, name: str) -> None:
        """End everything that a user has at Keycloak, as its administrator would: sessions and offline tokens."""
        found = self.ask("GET", "users", params={"username": name, "exact": True})
        self.ask("POST", f"users/{found[0]['id']}/logout")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What Keycloak has recorded, such as ``REFRESH_TOKEN``."""
        found: list[dict[str, Any]] = self.ask("GET", "events", params={"type": kind, "max": 1000})
        return found


def _groups_mapper() -> dict[str, Any]:
    config = {
        "claim.name": "groups",
        "full.path": "true",
        "userinfo.token.claim": "true",
        "id.token.claim": "false",
        "access.token.claim": "false",
    }
    mapper = "oidc-group-membership-mapper"
    return {"name": "groups", "protocol": "openid-connect", "protocolMapper": mapper, "config": config}


def _audience_scope(name: str) -> dict[str, Any]:
    config = {"included.client.audience": name, "access.token.claim": "true", "id.token.claim": "false"}
    mapper = {
        "name": name,
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": config,
    }
    attributes = {"include.in.token.scope": "false", "display.on.consent.screen": "false"}
    return {
        "name": name,
        "protocol": "openid-connect",
        "attributes": attributes,
        "protocolMappers": [mapper],
    }


@contextmanager
def running_keycloak() -> Iterator[Keycloak]:
    """Keycloak on a free port of this machine, with its database in memory; half a minute until it answers."""
    directory = Path(tempfile.mkdtemp(prefix="dmsp-keycloak-"))
    process = None
    try:
        with zipfile.ZipFile(distribution()) as archive:
            archive.extractall(directory)
        home, port = directory / f"keycloak-{VERSION}", free_port()
        keycloak = Keycloak(f"http://127.0.0.1:{port}", secrets.token_urlsafe(16), directory / "log")
        # The password of a throw-away realm on loopback; Keycloak takes it from its environment only.
        environment = {
            "PATH": os.environ["PATH"],
            "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
            "KC_BOOTSTRAP_ADMIN_PASSWORD": keycloak.admin_password,
            "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
        }
        command = ["sh", str(home / "bin" / "kc.sh"), "start-dev", "--db", "dev-mem", "--hostname-strict=false"]
        command += ["--http-host", "127.0.0.1", "--http-port", str(port)]
        with keycloak.log.open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _await(keycloak, process)
        yield keycloak
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
        shutil.rmtree(directory, ignore_errors=True)


def _await(keycloak: Keycloak, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            answer = httpx.get(f"{keycloak.url}/realms/master", timeout=5, trust_env=False)
            if answer.is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"Keycloak does not answer: {keycloak.log.read_text(errors='replace')[-3000:]}")
