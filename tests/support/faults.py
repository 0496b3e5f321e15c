"""A reverse proxy that injects faults, put before a part of a *running* box without the product knowing.

    with before(box, "rucio") as rucio:                       # every request goes through the proxy from here on
        with rucio.fault(Answer(503), path=r"^/rules/", times=3) as rule:
            ...
        assert rule.hits == 3

The proxy has a thread and an event loop of its own, so a test that blocks does not look like a fault. nftables
redirects what goes to the part's port to it; its own connections carry a mark and are left alone. Connections that
existed before are not caught: put it there before the first session starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from boxes import Box

MARK = 0xD35F
"""Of the proxy's own connections."""
SPARED = r"^/(ping$|oidc/\.well-known/)"
"""Paths by which the supervisor asks whether the part lives: untouched unless a rule names them."""
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
_SO_LINGER_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Answer:
    """The proxy answers itself: a status, or garbage with status 200."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Latency:
    """The answer comes so many seconds later."""

    seconds: float


@dataclass(frozen=True)
class CutOff:
    """The connection breaks after so many bytes of the answer's body, without a proper end."""

    after: int


@dataclass(frozen=True)
class Reset:
    """The connection is reset before the request reaches the part."""


@dataclass(frozen=True)
class Lost:
    """The part does what was asked, and the connection is reset before the answer."""


@dataclass(frozen=True)
class Silence:
    """No answer, until the rule is taken away (then the connection is reset)."""


@dataclass(frozen=True)
class Drip:
    """The answer comes in pieces of so many bytes, with a pause after each."""

    size: int
    pause: float


Fault = Answer | Latency | CutOff | Reset | Lost | Silence | Drip


def garbage(size: int = 2000, seed: int = 1) -> Answer:
    """Bytes that are nothing, with the status of a success."""
    return Answer(200, {"Content-Type": "application/json"}, random.Random(seed).randbytes(size))


def refusal(status: int, name: str = "", text: str = "words of Rucio", **headers: str) -> Answer:
    """An error as Rucio writes it: the class of its exception in headers and body."""
    body = json.dumps({"ExceptionClass": name, "ExceptionMessage": text}).encode()
    said = {"ExceptionClass": name, "ExceptionMessage": text} if name else {}
    return Answer(status, {"Content-Type": "application/json", **said, **headers}, body if name else b"")


@dataclass
class Rule:
    """When a fault happens; :attr:`hits` counts how often it did.

    Args:
        fault: what happens.
        path: regular expression, searched in the path (without the query).
        methods: HTTP methods; empty for all.
        skip: so many matching requests go through first.
        times: so many have the fault then; None for all.
        probability: of the fault for each that is left, with `seed`.
    """

    fault: Fault
    path: str = ""
    methods: tuple[str, ...] = ()
    skip: int = 0
    times: int | None = None
    probability: float = 1.0
    seed: int = 1
    hits: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def takes(self, method: str, path: str) -> bool:
        """Whether this request has the fault; counts."""
        if self.over.is_set() or (self.methods and method not in self.methods):
            return False
        if not (re.search(self.path, path) if self.path else not re.search(SPARED, path)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        if self.probability < 1 and self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True)
class Call:
    """A request that passed, without its secrets."""

    method: str
    path: str
    query: str
    status: int
    sent: int
    received: int
    request_id: str
    fault: str


class FaultProxy:
    """The proxy. Everything public may be called from any thread."""

    def __init__(self, target: str) -> None:
        self.target = target.rstrip("/")
        self.port = 0
        self._rules: list[Rule] = []
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Listen on a free port of all addresses; the caller's packet filter says who may come."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        """End it with all its connections."""
        self.clear()
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @contextlib.contextmanager
    def fault(self, fault: Fault, path: str = "", methods: Iterable[str] = (), **more: float) -> Iterator[Rule]:
        """Have a fault while the block lasts; the newest matching rule wins. ``more``: see :class:`Rule`."""
        rule = Rule(fault, path, tuple(methods), **more)  # type: ignore[arg-type]
        with self._lock:
            self._rules.insert(0, rule)
        try:
            yield rule
        finally:
            rule.over.set()
            with self._lock:
                self._rules.remove(rule)

    def clear(self) -> None:
        """Take all rules away."""
        with self._lock:
            for rule in self._rules:
                rule.over.set()

    def calls(self, path: str = "", *, forget: bool = False) -> list[Call]:
        """What passed so far, oldest first; only what `path` matches."""
        with self._lock:
            found = [call for call in self._calls if re.search(path, call.path)]
            if forget:
                self._calls.clear()
            return found

    async def _start(self) -> None:
        def marked(
            info: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, object],
        ) -> socket.socket:
            made = socket.socket(info[0], info[1], info[2])
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
            return made

        connector = aiohttp.TCPConnector(limit=0, socket_factory=marked, force_close=True)
        self._http = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None, connect=10)
        )
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "0.0.0.0", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._http is not None
        await self._runner.cleanup()
        await self._http.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        rule: Rule | None = None
        with self._lock:
            rule = next((r for r in self._rules if r.takes(request.method, request.path)), None)
        body = await request.read()
        status, sent = 0, 0
        try:
            if rule is not None:
                early = await self._early(request, rule)
                if early is not None:
                    status, sent = early.status, len(early.body or b"")  # type: ignore[arg-type]
                    return early
            response, sent = await self._forward(request, body, rule.fault if rule else None)
            status = response.status
            return response
        finally:
            fault = type(rule.fault).__name__ if rule else ""
            rid = request.headers.get("X-Request-ID", "")
            call = Call(request.method, request.path, request.query_string, status, sent, len(body), rid, fault)
            with self._lock:
                self._calls.append(call)

    async def _early(self, request: web.Request, rule: Rule) -> web.Response | None:
        """What happens instead of, or before, the request to the part."""
        match rule.fault:
            case Answer(status, headers, body):
                return web.Response(status=status, headers=headers, body=body)
            case Latency(seconds):
                end = self._loop.time() + seconds
                while self._loop.time() < end and not rule.over.is_set():
                    await asyncio.sleep(0.05)
            case Reset():
                _reset(request)
            case Silence():
                while not rule.over.is_set() and request.transport is not None:
                    await asyncio.sleep(0.05)
                _reset(request)
        return None

    async def _forward(
        self, request: web.Request, body: bytes, fault: Fault | None
    ) -> tuple[web.StreamResponse, int]:
        assert self._http is not None
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP]
        url = aiohttp.client.URL(self.target + request.raw_path, encoded=True)
        try:
            answer = await self._http.request(
                request.method, url, headers=headers, data=body or None, allow_redirects=False
            )
        except aiohttp.ClientError:
            # The part itself is not there: to its clients that looks as it would without us.
            _reset(request)
        async with answer:
            if isinstance(fault, Lost):
                await answer.read()
                _reset(request)
            return await self._pass(request, answer, fault)

    async def _pass(
        self, request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None
    ) -> tuple[web.StreamResponse, int]:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP:
                response.headers.add(name, value)
        await response.prepare(request)
        sent = 0
        try:
            async for chunk in answer.content.iter_any():
                sent += await self._write(request, response, chunk, sent, fault)
        except aiohttp.ClientError:
            _reset(request)
        if isinstance(fault, CutOff):
            _reset(request)
        await response.write_eof()
        return response, sent

    async def _write(
        self, request: web.Request, response: web.StreamResponse, chunk: bytes, sent: int, fault: Fault | None
    ) -> int:
        match fault:
            case CutOff(after) if sent + len(chunk) >= after:
                await response.write(chunk[: after - sent])
                await asyncio.sleep(0.05)  # what was written leaves before the reset overtakes it
                _reset(request)
            case Drip(size, pause):
                for start in range(0, len(chunk), size):
                    await response.write(chunk[start : start + size])
                    await asyncio.sleep(pause)
            case _:
                await response.write(chunk)
        return len(chunk)


def _reset(request: web.Request) -> None:
    """End the connection with a TCP reset, and the handler with it."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _SO_LINGER_RESET)
        transport.abort()
    raise asyncio.CancelledError


def _nft(text: str, *, check: bool = True) -> str:
    done = subprocess.run(
        ["nft", "-a", "-e", "-f", "-"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert not check or not done.returncode, f"{text}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def before(box: Box, part: str) -> Iterator[FaultProxy]:
    """Put a proxy before ``rucio`` or ``issuer`` of a running box, for the host's programs and for sessions."""
    address = urlsplit(box.part(part)["address"])
    assert address.port
    network = json.loads((box.state / "run" / "network.json").read_text())
    bridge, gateway = network["name"], network["subnet"].rsplit(".", 1)[0] + ".1"
    table = f"dmspfault{os.getpid()}p{address.port}"
    proxy = FaultProxy(f"http://127.0.0.1:{address.port}")
    proxy.start()
    other = f"meta mark != {MARK} ip daddr {{ 127.0.0.1, {gateway} }} tcp dport {address.port}"
    handle = ""
    try:
        _nft(
            f"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n"
            f" chain mine {{ type nat hook output priority -100; {other} redirect to :{proxy.port}; }}\n"
            f' chain theirs {{ type nat hook prerouting priority -100; iifname "{bridge}" '
            f"ip daddr {gateway} tcp dport {address.port} redirect to :{proxy.port}; }}\n"
            # Nobody else of the bridge or from outside reaches the proxy's port as such.
            f" chain guard {{ type filter hook input priority -1; "
            f"tcp dport {proxy.port} ct status & dnat == 0 ip saddr != 127.0.0.1 drop; }}\n}}\n"
        )
        if part == "rucio":
            said = _nft(f'insert rule inet {bridge} to_host iifname "{bridge}" tcp dport {proxy.port} accept\n')
            found = re.search(r"# handle (\d+)", said)
            assert found, said
            handle = found[1]
        yield proxy
    finally:
        _nft(f"delete table inet {table}\n", check=False)
        if handle:
            _nft(f"delete rule inet {bridge} to_host handle {handle}\n", check=False)
        proxy.stop()
