"""Somebody's own JupyterHub with our authenticator and nothing else of ours, in front of an issuer of any kind.

``DMSP_HUB_PYTHON`` names the interpreter of another environment to run the hub in, with an older JupyterHub say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from oddissuer import CLIENT, SECRET
from waiting import free_port, until

HERE = Path(__file__).parent
PYTHON = os.environ.get("DMSP_HUB_PYTHON", sys.executable)
CONFIG = """
import pathlib
from jupyterhub.proxy import Proxy
from jupyterhub.spawner import SimpleLocalProcessSpawner
from jupyterhub_dmsp.hub.config import offer_tokens

c.JupyterHub.authenticator_class = "dmsp"
c.DMSPAuthenticator.issuer = {issuer!r}
c.DMSPAuthenticator.client_id = {client!r}
c.DMSPAuthenticator.client_secret = {secret!r}
c.DMSPAuthenticator.claims_preset = {preset!r}
c.DMSPAuthenticator.allowed_groups = {{"/dmsp", "dmsp"}}
c.DMSPAuthenticator.admin_groups = {{"/dmsp/admins", "role:hub:admin", "/dmsp:role=manager", "admins"}}
c.DMSPAuthenticator.exchange_audiences = ["rucio", "wide"]
c.DMSPAuthenticator.exchange_scopes = {{"rucio": "openid profile"}}
offer_tokens(c)

class NoProxy(Proxy):
    "Nobody comes from outside: tests talk to the hub and to servers at their own ports."
    should_start = False
    async def add_route(self, routespec, target, data):
        routes[routespec] = {{"routespec": routespec, "target": target, "data": data}}
    async def delete_route(self, routespec):
        routes.pop(routespec, None)
    async def get_all_routes(self):
        return routes

class Stub(SimpleLocalProcessSpawner):
    "A server that answers, and whose token the tests can read."
    cmd = [{python!r}, {stub!r}]
    def get_args(self):
        return []
    def get_env(self):
        file = pathlib.Path("token-" + self.user.name + "-" + self.name)
        file.touch(0o600)
        file.write_text(self.api_token)
        return super().get_env()

routes = {{}}
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.spawner_class = Stub
c.JupyterHub.bind_url = c.JupyterHub.hub_bind_url = {url!r}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
c.JupyterHub.services = [{{"name": "tests", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    *c.JupyterHub.get("load_roles", []),
    {{"name": "tests", "services": ["tests"],
     "scopes": ["admin:users", "admin:servers", "admin:auth_state", "tokens", "groups", "shares"]}},
]
# Every page looks at the login.
from jupyterhub_dmsp.hub.login import authenticator
authenticator.RECHECK = 0.1
c.Authenticator.auth_refresh_age = 1
{more}
"""


@dataclass
class PlainHub:
    """The hub, its issuer, and what a test asks of both."""

    preset: str
    more: str = ""
    state: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dmsp-plain-")))
    api_token: str = field(default_factory=lambda: secrets.token_hex(16))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    issuer_port: int = field(default_factory=free_port)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.issuer_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub/"

    def log(self) -> str:
        return (self.state / "hub.log").read_text(errors="replace")

    async def start_issuer(self) -> None:
        self._run("issuer", [sys.executable, str(HERE / "oddissuer.py"), str(self.issuer_port)])
        await until(lambda: _answers(f"{self.issuer}/control"))

    async def start_hub(self) -> None:
        config = self.state / "jupyterhub_config.py"
        config.write_text(
            CONFIG.format(
                issuer=self.issuer,
                client=CLIENT,
                secret=SECRET,
                preset=self.preset,
                python=PYTHON,
                stub=str(HERE / "plainserver.py"),
                url=f"http://127.0.0.1:{self.port}/",
                token=self.api_token,
                more=self.more,
            )
        )
        crypt = self.state / "crypt"
        if not crypt.exists():
            crypt.write_text(secrets.token_hex(32))
        env = {**os.environ, "JUPYTERHUB_CRYPT_KEY": crypt.read_text(), "PYTHONPATH": ""}
        self._run("hub", [PYTHON, "-m", "jupyterhub", "-f", str(config)], env=env)
        await until(self._up)

    async def _up(self) -> bool:
        if self.processes["hub"].poll() is not None:
            raise AssertionError(self.log()[-4000:])
        return await _answers(f"{self.url}api/")

    def _run(self, name: str, argv: list[str], **options: Any) -> None:
        with (self.state / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.state, **options
            )

    async def stop(self, name: str, *, kill: bool = False) -> None:
        popen = self.processes.pop(name)
        popen.kill() if kill else popen.terminate()
        await asyncio.to_thread(popen.wait, 30)

    async def order(self, **orders: Any) -> None:
        """Tell the issuer how to behave."""
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            (await http.post(f"{self.issuer}/control", json=orders)).raise_for_status()

    async def asked(self) -> dict[str, Any]:
        """What the issuer was asked."""
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            found: dict[str, Any] = (await http.get(f"{self.issuer}/control")).json()
            return found

    async def counts(self) -> dict[str, int]:
        return dict((await self.asked())["counts"])

    @contextlib.asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(
            timeout=60, trust_env=False, follow_redirects=True, base_url=self.url
        ) as http:
            yield http

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"token {self.api_token}"}
        async with httpx.AsyncClient(
            timeout=60, trust_env=False, headers=headers, base_url=f"{self.url}api/"
        ) as http:
            yield http

    async def login(self, http: httpx.AsyncClient) -> httpx.Response:
        """Whoever the issuer was told of; the page that comes after it."""
        return await http.get("oauth_login", params={"next": "/hub/home"})

    async def enter(self, name: str) -> None:
        """Somebody of the usual group logs in."""
        await self.order(user={"sub": name, "preferred_username": name}, userinfo={"wlcg.groups": ["/dmsp"]})
        async with self.browser() as http:
            page = await self.login(http)
            assert page.status_code == 200, page.text

    async def model(self, user: str) -> dict[str, Any]:
        async with self.admin() as api:
            found: dict[str, Any] = (await api.get(f"users/{user}")).json()
            return found

    async def auth_state(self, user: str) -> dict[str, Any]:
        return (await self.model(user)).get("auth_state") or {}

    async def server_token(self, user: str, server: str = "") -> str:
        """A token as JupyterHub gives it to a server."""
        async with self.admin() as api:
            scopes = ["custom:dmsp:token", f"access:servers!server={user}/{server}"]
            made = await api.post(f"users/{user}/tokens", json={"scopes": scopes, "note": "test"})
            assert made.status_code == 201, made.text
            return str(made.json()["token"])

    async def ask(self, token: str, audience: str = "rucio", times: int = 1) -> list[httpx.Response]:
        """Ask for a token, so many times at once."""
        headers = {"Authorization": f"token {token}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            timeout=60, trust_env=False, headers=headers, base_url=self.url, limits=limits
        ) as http:
            return await asyncio.gather(
                *(http.get("api/dmsp/token", params={"audience": audience}) for _ in range(times))
            )

    async def expire(self, user: str) -> None:
        """Wait until the stored access token has expired."""
        left = (await self.auth_state(user))["expires_at"] - time.time()
        assert left < 30, "a test does not wait that long"
        await asyncio.sleep(max(0.0, left) + 0.05)

    async def end(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._end_processes)
            if "hub" in self.processes and self.processes["hub"].poll() is None:
                async with self.admin() as api:
                    for user in (await api.get("users")).json():
                        for server in user.get("servers") or {}:
                            where = f"users/{user['name']}/servers/{server}" if server else ""
                            await api.delete(where or f"users/{user['name']}/server")

    async def _end_processes(self) -> None:
        for name in list(self.processes):
            await self.stop(name)


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            return (await http.get(url)).is_success
    except httpx.HTTPError:
        return False


@contextlib.asynccontextmanager
async def plain_hub(preset: str = "wlcg", more: str = "") -> AsyncIterator[PlainHub]:
    """A running hub and issuer."""
    hub = PlainHub(preset, more)
    try:
        await hub.start_issuer()
        await hub.start_hub()
        yield hub
    finally:
        await hub.end()
        if not os.environ.get("DMSP_KEEP"):
            shutil.rmtree(hub.state)
