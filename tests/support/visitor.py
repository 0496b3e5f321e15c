"""A user of a running VRE without a browser: logs in through the issuer's form, starts a server, runs code.

For integration tests and benchmarks. Everything goes through the public address, as a browser's requests would.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from html import unescape
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

import aiohttp
from yarl import URL

CONTROL = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]|\r(?!\n)")
"""What a terminal understands and a test does not want to see."""


def form_of(page: str, base: str) -> tuple[str, dict[str, str]]:
    """Action and hidden fields of the first POST form of a page."""
    form = re.search(r"<form\b[^>]*method=[\"']post[\"'][^>]*>.*?</form>", page, re.S | re.I)
    assert form, f"no form on {base}: {page[:300]}"
    action = re.search(r"<form\b[^>]*action=[\"']([^\"']*)", form[0])
    fields = {}
    for tag in re.findall(r"<input\b[^>]*>", form[0]):
        name = re.search(r"name=[\"']([^\"']+)", tag)
        value = re.search(r"value=[\"']([^\"']*)", tag)
        if name and re.search(r"type=[\"']hidden", tag):
            fields[name[1]] = unescape(value[1] if value else "")
    return urljoin(base, unescape(action[1]) if action else base), fields


class Visitor:
    """One logged-in user.

    Args:
        address: public address of the VRE, with a slash at the end.
        name: user name.
        password: at the embedded issuer.
    """

    def __init__(self, address: str, name: str, password: str) -> None:
        self.address, self.name, self.password = address, name, password
        self.base = f"{address}user/{name}/"
        self.received = 0
        """Bytes of answers so far."""
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Visitor:
        jar = aiohttp.CookieJar(unsafe=True)
        self._http = aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=120))
        await self.login()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.close()

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None, "use `async with`"
        return self._http

    async def login(self) -> None:
        """Through the hub to the issuer's page and back."""
        async with self.http.get(f"{self.address}hub/oauth_login", params={"next": "/hub/home"}) as answer:
            page, url = await answer.text(), str(answer.url)
        action, fields = form_of(page, url)
        fields |= {"username": self.name, "password": self.password}
        async with self.http.post(action, data=fields, headers={"Origin": url.split("/oidc")[0]}) as answer:
            assert answer.status == 200, f"{answer.status} {answer.url}: {(await answer.text())[:500]}"
            assert str(answer.url).startswith(self.address), f"login ended at {answer.url}"

    def _xsrf(self, url: str) -> dict[str, str]:
        """JupyterHub and Jupyter Server want their cookie repeated in a header."""
        cookies = self.http.cookie_jar.filter_cookies(URL(url))
        return {"X-XSRFToken": cookies["_xsrf"].value} if "_xsrf" in cookies else {}

    async def request(self, method: str, url: str, **more: Any) -> tuple[int, Any]:
        """Status and body (JSON where it is) of a request to the hub or to the user's server."""
        headers = {**self._xsrf(url), **more.pop("headers", {})}
        async with self.http.request(method, url, headers=headers, **more) as answer:
            text = await answer.text()
            self.received += len(text)
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    async def hub(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """The hub's REST API as this user."""
        return await self.request(method, f"{self.address}hub/api/{path}", **more)

    async def lab(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """The user's Jupyter server; ``path`` such as ``dmsp/v1/status`` or ``api/kernels``."""
        return await self.request(method, f"{self.base}{path}", **more)

    async def lab_or_nothing(self, path: str) -> tuple[int, Any]:
        """As a GET by :meth:`lab`; status 0 while nobody answers: for a box whose parts come and go."""
        try:
            return await self.lab("GET", path)
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, str(error)

    async def start(self, profile: str) -> list[dict[str, Any]]:
        """Start the server with a profile; returns the progress events once it is ready.

        One that an earlier test left is stopped first.
        """
        _, user = await self.hub("GET", f"users/{self.name}")
        if user["servers"]:
            await self.stop()
        async with self.http.get(f"{self.address}hub/spawn") as answer:
            page, url = await answer.text(), str(answer.url)
        action, fields = form_of(page, url)
        async with self.http.post(action, data={**fields, "profile": profile}) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{answer.status} {answer.url}: {text[:2000]}"
        events = []
        progress = f"{self.address}hub/api/users/{self.name}/server/progress"
        timeout = aiohttp.ClientTimeout(total=600)
        async with self.http.get(progress, headers=self._xsrf(progress), timeout=timeout) as answer:
            async for line in answer.content:
                if line.startswith(b"data:"):
                    events.append(json.loads(line[5:]))
                    if events[-1].get("ready") or events[-1].get("failed"):
                        break
        assert events
        assert events[-1].get("ready"), events
        async with self.http.get(f"{self.base}lab") as answer:  # the OAuth dance with the user's server
            assert answer.status == 200, f"{answer.status} {answer.url}"
            await answer.read()
        return events

    async def stop(self) -> None:
        """Stop the server and wait until it is gone."""
        status, body = await self.hub("DELETE", f"users/{self.name}/server")
        assert status in (202, 204), (status, body)
        while True:
            _, user = await self.hub("GET", f"users/{self.name}")
            if not user["servers"]:
                return
            await asyncio.sleep(0.05)

    async def device_token(self, issuer: str, scope: str = "openid profile") -> str:
        """A token as a command line gets it (RFC 8628), approved in this user's browser."""
        form = {"client_id": "dmsp-cli", "scope": scope}
        async with self.http.post(f"{issuer}/device_authorization", data=form) as answer:
            started = await answer.json()
        async with self.http.get(f"{issuer}/device", params={"user_code": started["user_code"]}) as answer:
            action, fields = form_of(await answer.text(), str(answer.url))
        fields |= {"user_code": started["user_code"], "decision": "approved"}
        origin = issuer.rsplit("/", 1)[0]
        async with self.http.post(action, data=fields, headers={"Origin": origin}) as answer:
            assert answer.status == 200, await answer.text()
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        form = {"grant_type": grant, "device_code": started["device_code"], "client_id": "dmsp-cli"}
        async with self.http.post(f"{issuer}/token", data=form) as answer:
            token: str = (await answer.json())["access_token"]
        return token

    async def terminal(self, command: str, timeout: float = 180) -> tuple[int, str]:
        """Exit code and output of a command in a terminal of the user's server."""
        status, made = await self.lab("POST", "api/terminals")
        assert status == 200, made
        url = f"{self.base}terminals/websocket/{made['name']}"
        output = ""
        try:
            async with self.http.ws_connect(url) as socket, asyncio.timeout(timeout):
                await socket.send_json(["set_size", 50, 400, 800, 4000])
                await socket.send_json(["stdin", f'{command}; echo "@@$?@@"\r'])
                async for raw in socket:
                    kind, *rest = json.loads(raw.data)
                    output += rest[0] if kind == "stdout" else ""
                    if done := re.search(r"@@(\d+)@@", output):
                        # Typed before the shell is ready, the line is echoed twice: by the kernel and at the prompt.
                        text = output[: done.start()].rsplit('@@"', 1)[-1]
                        return int(done[1]), CONTROL.sub("", text).replace("\r\n", "\n").strip()
        except TimeoutError:
            raise AssertionError(f"no end of {command!r}; so far: {output[-3000:]}") from None
        finally:
            await self.lab("DELETE", f"api/terminals/{made['name']}")
        raise AssertionError(f"the terminal closed: {output[-3000:]}")

    async def attach(self, did: str, timeout: float = 120, **more: Any) -> dict[str, Any]:
        """Attach through the server's REST API and wait for the end, good or bad."""
        status, body = await self.lab("POST", "dmsp/v1/attachments", json={"did": did, **more})
        assert status in (200, 201), (status, body)
        async with asyncio.timeout(timeout):
            while body["state"] not in ("ready", "failed", "stuck"):
                _, body = await self.lab("GET", f"dmsp/v1/attachments/{body['id']}", params={"wait": 20})
        found: dict[str, Any] = body
        return found

    async def kernel(self, name: str = "", path: str = "") -> Kernel:
        """A new kernel, in a session for the notebook ``path``."""
        path = path or f"{uuid.uuid4().hex}.ipynb"
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": name}}
        status, session = await self.lab("POST", "api/sessions", json=body)
        assert status == 201, session
        return Kernel(self, session["kernel"]["id"], session["id"])


class Kernel:
    """A running kernel; :meth:`run` executes code over Jupyter's websocket (legacy protocol, JSON)."""

    def __init__(self, visitor: Visitor, identity: str, session: str) -> None:
        self.visitor, self.identity, self.session = visitor, identity, session

    async def run(self, code: str, timeout: float = 120, check: bool = True) -> str:
        """Text that the code wrote or returned; an error in it fails the test unless ``check`` is off."""
        url = f"{self.visitor.base}api/kernels/{self.identity}/channels?session_id={uuid.uuid4().hex}"
        async with self.visitor.http.ws_connect(url, max_msg_size=0) as socket:
            message = self._request(code)
            await socket.send_json(message)
            return await asyncio.wait_for(self._collect(socket, message["header"]["msg_id"], check), timeout)

    @staticmethod
    def _request(code: str) -> dict[str, Any]:
        header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "version": "5.3"}
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
        }
        header["msg_type"] = "execute_request"
        base = {"parent_header": {}, "metadata": {}, "buffers": []}
        return {"channel": "shell", "header": header, "content": content, **base}

    async def _collect(self, socket: Any, identity: str, check: bool) -> str:
        output, idle, replied = "", False, False
        async for raw in socket:
            message = json.loads(raw.data)
            if message.get("parent_header", {}).get("msg_id") != identity:
                continue
            content, kind = message["content"], message["msg_type"]
            if kind == "stream":
                output += content["text"]
            elif kind in ("execute_result", "display_data"):
                output += content["data"].get("text/plain", "")
            elif kind == "error":
                text = "\n".join(content["traceback"]) or content["evalue"]
                assert not check, text
                output += f"{content['ename']}: {content['evalue']}"
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
            if idle and replied:
                return output
        raise AssertionError(f"the kernel's socket closed; so far: {output}")

    async def shutdown(self) -> None:
        await self.visitor.lab("DELETE", f"api/sessions/{self.session}")
