"""A real Jupyter server with the extension, on the real lake of ``tests/support/testlake.py``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

REPOSITORY = Path(__file__).parents[3]
TOKEN = "a-token-for-tests"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Server:
    """A Jupyter server process of one user."""

    lake: Any
    root: Path
    account: str
    port: int = field(default_factory=free_port)
    name: str = ""
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        for name in ("work", "home", "jupyter"):
            (self.root / name).mkdir(exist_ok=True)
        self.runtime = self.root / f"run{self.name}"
        self.mount = self.lake.state / "storage" / "SCRATCH" / "lake"
        self.token_file = self.root / "token"
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"token {TOKEN}"},
            timeout=60,
            trust_env=False,
        )
        spec = self.root / "jupyter" / "kernels" / "test"
        spec.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        argv.append("--InteractiveShellApp.extra_extensions=dmsp")
        kernel = {"argv": argv, "display_name": "Test", "language": "python"}
        (spec / "kernel.json").write_text(json.dumps(kernel))

    def log_in(self, **claims: Any) -> None:
        """Put a token of the account into the file."""
        self.token_file.touch(0o600)
        self.token_file.write_text(self.lake.issuer.token(self.account, **claims))

    async def start(self, rucio_url: str = "") -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "jupyter", "server", "--allow-root", "--no-browser"]
        command += [f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
        command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.root / 'work'}"]
        command += ["--ServerApp.jpserver_extensions=jupyterhub_dmsp.lab=True"]
        command += [f"--DmspLab.rucio_url={rucio_url or self.lake.url}", f"--DmspLab.account={self.account}"]
        command += [f"--DmspLab.token_file={self.token_file}", f"--DmspLab.mount={self.mount}"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "DMSP_RUNTIME": str(self.runtime),
            "JUPYTER_RUNTIME_DIR": str(self.root / f"jruntime{self.name}"),
            "JUPYTER_PATH": str(self.root / "jupyter"),
            "IPYTHONDIR": str(self.root / "ipython"),
            "PYTHONPATH": str(REPOSITORY),
        }
        with (self.root / f"server{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                command, stdout=log, stderr=log, env=environment, cwd="/"
            )
        async with asyncio.timeout(90):
            while True:
                assert self.process.poll() is None, self.log()
                try:
                    if (await self.http.get("/dmsp/v1/attachments")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    def log(self) -> str:
        return (self.root / f"server{self.name}.log").read_text()

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it: by default without any chance to clean up."""
        if self.process is not None:
            for _ in range(4):
                # The stock server was seen to go on after a SIGTERM, and to end after a second one.
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(30)
                    break
            assert self.process.poll() is not None, "the server does not end"
            self.process = None

    async def call(self, method: str, path: str, body: Any = None, expect: int | None = None) -> Any:
        answer = await self.http.request(
            method, f"/dmsp/v1/{path}", content=None if body is None else json.dumps(body)
        )
        if expect is None:
            assert answer.status_code < 400, (method, path, answer.text)
        else:
            assert answer.status_code == expect, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def attach(self, did: str, **more: Any) -> Any:
        return await self.call("POST", "attachments", {"did": did, **more})

    async def until(self, ident: str, *states: str, seconds: float = 60) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                found = await self.call("GET", f"attachments/{ident}?wait=1")
                if found["state"] in states:
                    return found

    async def page(self, parent: str, **query: Any) -> Any:
        """A complete page of children."""
        async with asyncio.timeout(30):
            while True:
                answer = await self.http.get("/dmsp/v1/children", params={"parent": parent, **query})
                assert answer.status_code == 200, answer.text
                page = answer.json()
                if page["complete"]:
                    return page
                await asyncio.sleep(0.05)

    async def kernel(self, notebook: str) -> Kernel:
        """A kernel for a notebook, as Lab starts one."""
        (self.root / "work" / notebook).parent.mkdir(parents=True, exist_ok=True)
        (self.root / "work" / notebook).touch()
        body = {"path": notebook, "name": Path(notebook).name, "type": "notebook", "kernel": {"name": "test"}}
        answer = await self.http.post("/api/sessions", content=json.dumps(body))
        assert answer.status_code == 201, answer.text
        return Kernel(self, answer.json()["kernel"]["id"])


@dataclass
class Kernel:
    """A running kernel, spoken to through the server's websocket."""

    server: Server
    ident: str

    async def run(self, code: str, silent: bool = False) -> tuple[str, str]:
        """Execute; what it wrote on stdout, and the reply's status or the error's text."""
        number = uuid.uuid4().hex
        header = {
            "msg_id": number,
            "msg_type": "execute_request",
            "username": "",
            "session": "s",
            "version": "5.3",
        }
        content = {"code": code, "silent": silent, "store_history": not silent, "allow_stdin": False}
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
        url = f"ws://127.0.0.1:{self.server.port}/api/kernels/{self.ident}/channels"
        out, status, idle = "", "", False
        async with (
            asyncio.timeout(90),
            aiohttp.ClientSession(headers={"Authorization": f"token {TOKEN}"}) as session,
            session.ws_connect(url) as ws,
        ):
            await ws.send_json(message)
            while not (idle and status):
                reply = await ws.receive_json()
                if reply["parent_header"].get("msg_id") != number:
                    continue
                if reply["msg_type"] == "stream" and reply["content"]["name"] == "stdout":
                    out += reply["content"]["text"]
                elif reply["msg_type"] == "error":
                    status = f"{reply['content']['ename']}: {reply['content']['evalue']}"
                elif reply["msg_type"] == "execute_reply" and not status:
                    status = reply["content"]["status"]
                elif reply["msg_type"] == "status":
                    idle = reply["content"]["execution_state"] == "idle"
        return out, status

    async def restart(self) -> None:
        answer = await self.server.http.post(f"/api/kernels/{self.ident}/restart")
        assert answer.status_code == 200


@pytest.fixture
async def second(server: Server) -> AsyncIterator[Server]:
    """A second server of the same user, with the same home; not started."""
    server = Server(server.lake, server.root, server.account, name="2")
    yield server
    server.stop(signal.SIGTERM)
    await server.http.aclose()


@pytest.fixture
async def server(lake: Any, tmp_path: Path) -> AsyncIterator[Server]:
    """A server of a new km3net user, logged in, not started."""
    account = f"u{os.urandom(3).hex()}"
    lake.user(account, "km3net")
    server = Server(lake, tmp_path, account)
    server.log_in()
    yield server
    server.stop(signal.SIGTERM)
    await server.http.aclose()
