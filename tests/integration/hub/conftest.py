"""A real hub with a real issuer and proxy, driven by httpx as a browser and by aiohttp as a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from waiting import free_port, until

from jupyterhub_dmsp.box import issuer as issuer_part
from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.hub.routes import proxy
from jupyterhub_dmsp.sandbox.network import Network
from jupyterhub_dmsp.sandbox.process import Process
from jupyterhub_dmsp.settings import User

CATALOGUE = Path(__file__).parent / "catalogue"
USERS = [
    User(name="km3net-user", groups=["/dmsp", "/dmsp/km3net"]),
    User(name="collider-user", groups=["/dmsp", "/dmsp/collider"]),
    User(name="vre-admin", groups=["/dmsp", "/dmsp/admins"]),
    User(name="stranger", groups=["/elsewhere"]),
]

CONFIG = """
import json, pathlib
from jupyterhub_dmsp.hub.config import configure

configure(c, **json.loads(pathlib.Path({facts!r}).read_text()))
c.JupyterHub.services = [{{"name": "tests", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    *c.JupyterHub.get("load_roles", []),
    {{"name": "tests", "services": ["tests"],
     "scopes": ["admin:users", "admin:servers", "access:servers", "admin:auth_state", "tokens", "groups"]}},
]
c.Spawner.consecutive_failure_limit = 3
c.Spawner.poll_interval = 1
calls = pathlib.Path({calls!r})
refusal = pathlib.Path({refusal!r})

async def provision(username, claims, groups):
    from jupyterhub_dmsp.errors import DmspError
    if refusal.exists():
        raise DmspError("The data lake is closed today.", "Come back tomorrow.")
    with calls.open("a") as file:
        file.write(json.dumps([username, claims["sub"], groups]) + "\\n")

c.DMSPAuthenticator.provision = provision

def session_settings(spawner):
    # Only here is the server's token known: the tests look for it everywhere else.
    file = pathlib.Path({calls!r}).with_name("token-" + spawner.user.name)
    file.touch(0o600)
    file.write_text(spawner.api_token)
    return {{"extra": spawner.user.name}}

c.LocalProfileSpawner.session_settings = session_settings
c.LocalProfileSpawner.session_files = lambda spawner: {{"rucio.cfg": "[client]\\naccount = " + spawner.user.name}}
{more}
"""


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Any:
    return until


async def answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            return (await http.get(url)).status_code < 500
    except httpx.HTTPError:
        return False


@dataclass
class Stack:
    """State directory, issuer, proxy and hub of one installation."""

    state: Path
    token_lifetime: int = 3600
    more: str = ""
    env: dict[str, str] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    api_token: str = field(default_factory=lambda: secrets.token_hex(16))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    network: Network | None = None
    user: int | None = None
    users: list[User] = field(default_factory=lambda: list(USERS))

    async def prepare(self) -> None:
        self.state.chmod(0o755)
        for name in ("secrets", "logs", "hub", "run", "ids"):
            (self.state / name).mkdir(mode=0o700)
        for lake in ("scratch/lake", "storage/SCRATCH/lake"):
            (self.state / lake).mkdir(parents=True)
            (self.state / lake / "file").write_text("data")
        for name, text in (("crypt", secrets.token_hex(32)), ("api", secrets.token_hex(32))):
            self.secret_file(name).write_text(text)
            self.secret_file(name).chmod(0o600)
        self.ports = {name: free_port() for name in ("public", "api", "issuer", "hub")}
        self.public = f"http://127.0.0.1:{self.ports['public']}/"
        self.api_url = f"http://127.0.0.1:{self.ports['api']}"
        self.issuer = f"http://127.0.0.1:{self.ports['issuer']}/oidc"
        host = "127.0.0.1"
        if os.geteuid() == 0 and self.user is None:
            self.network = await Network.load_or_choose(self.state, ports=(self.ports["hub"],), internet=False)
            await self.network.ensure()
            host = self.network.gateway
        self.hub_url = f"http://{host}:{self.ports['hub']}"
        self.passwords = await asyncio.to_thread(issuer_part.ensure_users, self.users, self.state / "secrets")
        self.configure({})

    def configure(self, settings: dict[str, Any]) -> None:
        """Write ``dmsp.yaml``; what sessions need of it is read at their next start."""
        file = self.state / "dmsp.yaml"
        file.write_text(json.dumps(settings))
        file.chmod(0o644)

    def secret_file(self, name: str) -> Path:
        return self.state / "secrets" / name

    def server_token(self, user: str) -> str:
        return (self.state / "hub" / f"token-{user}").read_text()

    def log(self, name: str) -> str:
        return (self.state / "logs" / f"{name}.log").read_text(errors="replace")

    def _run(self, name: str, argv: list[str], **options: Any) -> None:
        if self.user is not None:
            subprocess.run(["chown", "-R", f"{self.user}:{self.user}", str(self.state)], check=True)
            options |= {"user": self.user, "group": self.user, "extra_groups": []}
            options["env"] = {**options.get("env", os.environ), "HOME": str(self.state)}
        if name in self.environments:
            options["env"] = {**options.get("env", os.environ), **self.environments[name]}
        with (self.state / "logs" / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options
            )

    async def start_issuer(self) -> None:
        config = await asyncio.to_thread(
            issuer_part.write_config,
            self.state / "issuer",
            issuer=self.issuer,
            port=self.ports["issuer"],
            clients=issuer_part.demo_clients(
                self.secret_file("hub-client"),
                [f"{self.public}hub/oauth_callback"],
                [f"{self.public}hub/login"],
            ),
            token_lifetime=self.token_lifetime,
        )
        self._run("issuer", issuer_part.command(config))
        await until(lambda: issuer_part.ready(self.issuer), 30)

    async def start_proxy(self) -> None:
        static, dynamic = self.state / "proxy" / "traefik.toml", self.state / "proxy" / "rules.toml"
        proxy.write_static(static, public_url=self.public, api_url=self.api_url, dynamic=dynamic)
        proxy.write_routes(dynamic)
        self._run("proxy", proxy.command(static), cwd="/", env={})
        await until(lambda: answers(f"{self.api_url}{proxy.READY}"), 30)

    async def start_hub(self) -> None:
        facts = {
            "state": str(self.state),
            "public_url": self.public,
            "hub_url": self.hub_url,
            "issuer": self.issuer,
            "client_secret": f"file:{self.secret_file('hub-client')}",
            "crypt_key": f"file:{self.secret_file('crypt')}",
            "proxy_api_url": self.api_url,
            "proxy_api_password": f"file:{self.secret_file('api')}",
            "proxy_dynamic": str(self.state / "proxy" / "rules.toml"),
            "catalogue_path": str(CATALOGUE),
            "settings_file": str(self.state / "dmsp.yaml"),
            "network": self.network.facts() if self.network else None,
            "lake": {"rucio_url": "http://rucio.example", "site": "SCRATCH"},
        }
        (self.state / "hub" / "facts.json").write_text(json.dumps(facts))
        config = self.state / "hub" / "config.py"
        config.write_text(
            CONFIG.format(
                facts=str(self.state / "hub" / "facts.json"),
                token=self.api_token,
                calls=str(self.state / "hub" / "provisioned"),
                refusal=str(self.state / "hub" / "refuse"),
                more=self.more,
            )
        )
        # The hub's process alone may be of another environment, with an older JupyterHub.
        python = os.environ.get("DMSP_HUB_PYTHON", sys.executable)
        argv = [python, "-m", "jupyterhub_dmsp.hub", "-f", str(config)]
        self._run("hub", argv, cwd=self.state / "hub", env={**os.environ, **self.env})
        await until(self._hub_up, 60)

    async def _hub_up(self) -> bool:
        if self.processes["hub"].poll() is not None:
            raise AssertionError(self.log("hub")[-4000:])
        return await answers(f"{self.public}hub/health") and "X-JupyterHub-Version" in (await self.head())

    async def head(self) -> httpx.Headers:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            return (await http.get(f"{self.public}hub/api/")).headers

    async def stop(self, name: str, *, kill: bool = False) -> None:
        popen = self.processes.pop(name)
        popen.kill() if kill else popen.terminate()
        await asyncio.to_thread(popen.wait, 30)

    async def end(self) -> None:
        for name in ("hub", "proxy", "issuer"):
            if name in self.processes:
                await self.stop(name)
        await records.end_sessions(self.state, grace=0)
        if self.network:
            await self.network.remove()

    @contextlib.asynccontextmanager
    async def browser(self) -> AsyncIterator[Browser]:
        async with httpx.AsyncClient(timeout=60, trust_env=False, follow_redirects=True) as http:
            yield Browser(self, http)

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the hub's API with a service token of the tests."""
        headers = {"Authorization": f"token {self.api_token}"}
        async with httpx.AsyncClient(
            timeout=120, trust_env=False, headers=headers, base_url=f"{self.public}hub/api/"
        ) as http:
            yield http

    async def launch(
        self, user: str, profile: str = "everybody", server: str = "", **choices: Any
    ) -> list[dict[str, Any]]:
        """Start a session through the API and wait until it is ready or has failed; what the page was told."""
        events: list[dict[str, Any]] = []
        path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
        async with self.admin() as http:
            asked = asyncio.create_task(http.post(path, json={"profile": profile, **choices}))
            # A quick machine has the session ready before this request is answered: watch from the start.
            await until(lambda: asked.done() or self.starting(user, server), 60)
            async with http.stream("GET", f"{path}/progress") as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data:"):
                        events.append(json.loads(line[5:]))
                        if events[-1].get("ready") or events[-1].get("failed"):
                            break
            answer = await asked
            assert answer.status_code in (201, 202) or events[-1].get("failed"), answer.text
        return events

    async def starting(self, user: str, server: str = "") -> bool:
        async with self.admin() as http:
            servers = (await http.get(f"users/{user}")).json().get("servers", {})
            return (servers.get(server) or {}).get("pending") == "spawn"

    async def quit(self, user: str, server: str = "") -> None:
        path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
        async with self.admin() as http:
            answer = await http.delete(path)
            assert answer.status_code in (202, 204, 404), answer.text
            await until(lambda: self.stopped(user, server), 30)

    async def stopped(self, user: str, server: str = "") -> bool:
        async with self.admin() as http:
            model = (await http.get(f"users/{user}")).json()
            return server not in model.get("servers", {})

    def record(self, user: str) -> records.Record:
        found = records.Record.read(self.state, user)
        assert found is not None
        return found

    def tree(self, user: str) -> list[Process]:
        """All processes of a user's session, from outside to inside."""
        found, waiting = [], [self.record(user).outer]
        while waiting:
            one = waiting.pop(0)
            found.append(one)
            waiting += one.children()
        return found


@dataclass
class Browser:
    """A person at a browser."""

    stack: Stack
    http: httpx.AsyncClient

    async def login(self, user: str) -> httpx.Response:
        """Through the issuer's login form; the page that comes after it."""
        page = await self.http.get(f"{self.stack.public}hub/oauth_login")
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        fields = {key: value.replace("&amp;", "&") for key, value in hidden.items()}
        fields |= {"username": user, "password": self.stack.passwords[user]}
        return await self.http.post(str(page.url.copy_with(query=None)), data=fields)

    async def form(self) -> httpx.Response:
        return await self.http.get(f"{self.stack.public}hub/spawn")

    async def submit(self, profile: str) -> httpx.Response:
        """Send the launch form as the page would."""
        page = await self.form()
        found = re.search(r'action="([^"]*)"', page.text)
        assert found, page.text
        action = str(page.url.join(found[1].replace("&amp;", "&")))
        return await self.http.post(action, data={"profile": profile})


class Notebook:
    """One kernel of a session, over its websocket through the proxy."""

    def __init__(self, stack: Stack, user: str, server: str = "") -> None:
        self.stack, self.user = stack, user
        self.base = f"{stack.public}user/{user}" + (f"/{server}" if server else "")
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"token {stack.api_token}"}, timeout=aiohttp.ClientTimeout(total=120)
        )
        self.kernel: dict[str, Any] = {}
        self.socket: Any = None

    async def open(self) -> Notebook:
        async with self.session.post(f"{self.base}/api/kernels", json={}) as answer:
            assert answer.status == 201, await answer.text()
            self.kernel = await answer.json()
        return await self.connect()

    async def connect(self) -> Notebook:
        url = f"{self.base}/api/kernels/{self.kernel['id']}/channels?session_id={uuid.uuid4().hex}"
        self.socket = await self.session.ws_connect(url, max_msg_size=0)
        return self

    async def run(self, code: str, timeout: float = 60.0) -> str:
        """Execute; what it printed."""
        ident = uuid.uuid4().hex
        header = {
            "msg_id": ident,
            "username": "u",
            "session": "s",
            "msg_type": "execute_request",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        await self.socket.send_json(
            {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        )
        out, replied, idle = "", False, False
        async with asyncio.timeout(timeout):
            while not (replied and idle):
                raw = await self.socket.receive()
                if raw.type is not aiohttp.WSMsgType.TEXT:
                    assert raw.type is aiohttp.WSMsgType.BINARY, raw
                    continue
                message = json.loads(raw.data)
                if message["parent_header"].get("msg_id") != ident:
                    continue
                kind, body = message["msg_type"], message["content"]
                if kind == "stream":
                    out += body["text"]
                elif kind == "error":
                    out += f"{body['ename']}: {body['evalue']}"
                replied |= kind == "execute_reply"
                idle |= kind == "status" and body["execution_state"] == "idle"
        return out.strip()

    async def close(self) -> None:
        if self.socket is not None:
            await self.socket.close()
        await self.session.close()


@contextlib.asynccontextmanager
async def running_stack(**options: Any) -> AsyncIterator[Stack]:
    stack = Stack(Path(tempfile.mkdtemp(prefix="dmsp-hub-")), **options)
    await stack.prepare()
    try:
        await stack.start_issuer()
        await stack.start_proxy()
        await stack.start_hub()
        yield stack
    finally:
        await stack.end()
        if not os.environ.get("DMSP_KEEP"):
            shutil.rmtree(stack.state)


@pytest.fixture(scope="session")
def make_stack() -> Callable[..., Any]:
    """A context manager that runs an installation with these options."""
    return running_stack


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    """One installation for all tests that leave it as it was."""
    async with running_stack() as running:
        yield running


@pytest.fixture
async def notebook() -> AsyncIterator[Callable[[Stack, str], Any]]:
    """Opens kernels, closes them in the end."""
    opened: list[Notebook] = []

    async def one(stack: Stack, user: str, server: str = "") -> Notebook:
        opened.append(Notebook(stack, user, server))
        return await opened[-1].open()

    yield one
    for each in opened:
        await each.close()
