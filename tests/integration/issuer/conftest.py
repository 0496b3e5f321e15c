"""A real issuer process for each test that asks for one, driven by httpx as a browser and as a client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from jupyterhub_dmsp.box.issuer import (
    Client,
    Lifetimes,
    command,
    demo_clients,
    ensure_users,
    ready,
    write_config,
)
from jupyterhub_dmsp.settings import User

CALLBACK = "http://127.0.0.1:18999/hub/oauth_callback"
LOGGED_OUT = "http://127.0.0.1:18999/hub/login"
SCOPE = "openid profile email offline_access wlcg.groups"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
USERS = [
    User(name="km3net-user", full_name="KM3NeT demo user", groups=["/dmsp", "/dmsp/km3net"]),
    User(name="collider-user", groups=["/dmsp", "/dmsp/collider"]),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Issuer:
    """The issuer's process and what the box would know about it."""

    state: Path
    port: int
    options: dict[str, Any] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    log: list[str] = field(default_factory=list)
    reader: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/oidc"

    @property
    def secret(self) -> str:
        return (self.state / "secrets" / "hub-client-secret").read_text().strip()

    @property
    def hub(self) -> tuple[str, str]:
        return ("jupyterhub", self.secret)

    def configure(self) -> Path:
        clients = [
            *demo_clients(self.state / "secrets" / "hub-client-secret", [CALLBACK], [LOGGED_OUT]),
            Client(
                id="other",
                secret_file=self.state / "secrets" / "other-secret",
                redirect_uris=[CALLBACK],
                grants=["authorization_code", EXCHANGE],
                exchange_audiences=["rucio"],
            ),
            Client(id="public-app", redirect_uris=[CALLBACK], grants=["authorization_code"]),
        ]
        return write_config(
            self.state / "issuer", issuer=self.url, port=self.port, clients=clients, **self.options
        )

    async def start(self) -> None:
        self.passwords = await asyncio.to_thread(ensure_users, USERS, self.state / "secrets")
        argv = command(self.configure())
        self.process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
        self.reader = asyncio.create_task(self._read())
        async with asyncio.timeout(30):
            while not await ready(self.url):
                assert self.process.returncode is None, "".join(self.log)
                await asyncio.sleep(0.05)

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode())

    async def stop(self, *, kill: bool = False) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill() if kill else self.process.terminate()
        code = await asyncio.wait_for(self.process.wait(), 15)
        if self.reader is not None:
            await self.reader
        return code

    @contextlib.asynccontextmanager
    async def browser(self) -> AsyncIterator[Browser]:
        async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
            yield Browser(self, http)


def form_fields(page: str) -> dict[str, str]:
    """The hidden fields of a page's form."""
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    return {name: value.replace("&amp;", "&").replace("&quot;", '"') for name, value in found}


@dataclass
class Browser:
    """One browser, and the client whose user sits at it."""

    issuer: Issuer
    http: httpx.AsyncClient
    verifier: str = ""

    def authorize_parameters(self, **changes: str | None) -> dict[str, str]:
        self.verifier = secrets.token_urlsafe(48)
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        )
        parameters = {
            "response_type": "code",
            "client_id": "jupyterhub",
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": "a state & more",
            "nonce": secrets.token_hex(8),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return {key: value for key, value in parameters.items() if value is not None}

    async def authorize(self, **changes: str | None) -> httpx.Response:
        return await self.http.get(
            f"{self.issuer.url}/authorize", params=self.authorize_parameters(**changes), follow_redirects=False
        )

    async def log_in(
        self, user: str = "km3net-user", password: str | None = None, at: str | None = None
    ) -> httpx.Response:
        page = await self.http.get(at or f"{self.issuer.url}/login")
        assert page.status_code == 200
        fields = form_fields(page.text) | {
            "username": user,
            "password": password if password is not None else self.issuer.passwords[user],
        }
        return await self.http.post(f"{self.issuer.url}/login", data=fields)

    def follow(self, response: httpx.Response) -> str:
        return str(response.url.join(response.headers["location"]))

    async def code(self, user: str = "km3net-user", **changes: str | None) -> str:
        """The whole way through the login form, to the code in the redirect to the client."""
        answer = await self.authorize(**changes)
        if "/login?" in answer.headers.get("location", ""):
            answer = await self.log_in(user, at=self.follow(answer))
            assert answer.status_code == 303, answer.text
            answer = await self.http.get(self.follow(answer))
        location = answer.headers["location"]
        assert location.startswith(CALLBACK + "?"), location
        query = parse_qs(urlsplit(location).query)
        assert query["state"] == ["a state & more"]
        assert query["iss"] == [self.issuer.url]
        return query["code"][0]

    async def token(self, auth: Any = None, **form: str) -> httpx.Response:
        return await self.http.post(f"{self.issuer.url}/token", data=form, auth=auth or self.issuer.hub)

    async def redeem(self, code: str, /, **changes: str) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": self.verifier,
        }
        return await self.token(**{**form, **changes})

    async def tokens(self, user: str = "km3net-user", **changes: str | None) -> dict[str, Any]:
        answer = await self.redeem(await self.code(user, **changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(self, token: str, **form: str) -> httpx.Response:
        return await self.token(grant_type="refresh_token", refresh_token=token, **form)

    async def exchange(self, token: str, audience: str = "rucio", **form: str) -> httpx.Response:
        parameters = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "audience": audience,
        }
        return await self.token(**{**parameters, **form})


@pytest.fixture(scope="session")
def make_issuer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A context manager that runs an issuer with these options of ``write_config``."""

    @contextlib.asynccontextmanager
    async def running(**options: Any) -> AsyncIterator[Issuer]:
        issuer = Issuer(tmp_path_factory.mktemp("issuer"), free_port(), options)
        await issuer.start()
        try:
            yield issuer
        finally:
            await issuer.stop()
            leaked = [secret for secret in issuer.passwords.values() if secret in "".join(issuer.log)]
            assert not leaked, "a password stands in the log"
            assert issuer.secret not in "".join(issuer.log)

    return running


@pytest.fixture(scope="session")
async def issuer(make_issuer: Callable[..., Any]) -> AsyncIterator[Issuer]:
    """One issuer for the tests that do not change how it runs."""
    lifetimes = Lifetimes(device_interval=1)
    async with make_issuer(token_lifetime=20, lifetimes=lifetimes, site_name="Test & Site") as running:
        yield running


@pytest.fixture
async def browser(issuer: Issuer) -> AsyncIterator[Browser]:
    async with issuer.browser() as one:
        yield one
