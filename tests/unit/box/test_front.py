"""The public address: ours until the proxy is ready, the proxy's then, ours at once when it ends."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jupyterhub_dmsp.box.front import FrontDoor, handed, sentence
from jupyterhub_dmsp.errors import DmspError

STARTING = {"parts": [{"name": "database", "title": "PostgreSQL", "state": "healthy", "detail": ""}]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def door() -> AsyncIterator[FrontDoor]:
    made = FrontDoor(
        "A <b> site", "127.0.0.1", public=free_port(), inner=free_port(), report=lambda: dict(STARTING)
    )
    await made.open()
    yield made
    made.close()


async def ask(port: int, accept: str = "text/html") -> str:
    """The answer's whole text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /user/x HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    text = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    return text


def public(door: FrontDoor) -> int:
    return door._public[1]


#: A stand-in for the proxy that takes its socket as traefik does: descriptor 3.
PROGRAM = """
import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
assert os.environ["LISTEN_FDNAMES"] == "http"
listener = socket.socket(fileno=3)
print("here", flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"from the proxy")
    connection.close()
"""


def start(door: FrontDoor) -> subprocess.Popen[bytes]:
    with door.listener() as listener:
        process = subprocess.Popen(
            handed([sys.executable, "-c", PROGRAM], "http"), stdin=listener, stdout=subprocess.PIPE
        )
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


async def test_the_page(door: FrontDoor) -> None:
    for port in (public(door), door._inner[1]):
        page = await ask(port)
        assert page.startswith("HTTP/1.1 503 ")
        assert "\r\nRetry-After: 2\r\n" in page
        assert "<p>A &lt;b&gt; site</p>" in page
        assert "1 of 1 parts are ready" in page
        assert "frame-ancestors 'none'" in page
    assert (await ask(public(door), "application/json")).endswith(
        "\r\n\r\nThe platform is starting: 1 of 1 parts are ready.\n"
    )


async def test_a_silent_or_hostile_visitor_costs_nothing(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyterhub_dmsp.box.front._HEAD_TIMEOUT", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", public(door))
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 503 ")
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", public(door))
    writer.write(b"x" * 1_000_000)
    await asyncio.wait_for(reader.read(100), 10)
    writer.close()
    assert (await ask(public(door))).startswith("HTTP/1.1 503 ")


async def test_who_gets_the_connections(door: FrontDoor) -> None:
    for _ in range(3):
        process = start(door)
        try:
            # It listens already, but is not ready: no connection reaches it.
            assert {(await ask(public(door)))[:12] for _ in range(20)} == {"HTTP/1.1 503"}
            door.to_proxy()
            assert {await ask(public(door)) for _ in range(20)} == {"from the proxy"}
        finally:
            end(process)
        # Nobody has told the door yet.
        assert {(await ask(public(door)))[:12] for _ in range(20)} == {"HTTP/1.1 503"}


async def test_a_taken_address_is_an_error(door: FrontDoor) -> None:
    other = FrontDoor("x", "127.0.0.1", public=public(door), inner=free_port(), report=dict)
    with pytest.raises(DmspError, match="cannot be held: Address already in use"):
        await other.open()
    assert (await ask(public(door))).startswith("HTTP/1.1 503 ")


def part(name: str, state: str, detail: str = "") -> dict[str, Any]:
    return {"name": name, "title": name.title(), "state": state, "detail": detail}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({}, "The platform is starting."),
        (
            {
                "parts": [
                    part("a", "healthy"),
                    part("b", "waiting", "for c"),
                    part("c", "preparing", "unpacking"),
                ]
            },
            "The platform is starting: 1 of 3 parts are ready. Now: C unpacking.",
        ),
        (
            {"ready_seconds": 1, "parts": [part("a", "starting"), part("hub", "starting")]},
            "Hub is being started again.",
        ),
        (
            {"ready_seconds": 1, "parts": [part("a", "healthy")]},
            "A part of the platform is being started again.",
        ),
        (
            {"ready_seconds": 1, "parts": [part("proxy", "failed", "secret reason")]},
            "Proxy has failed and is tried again every minute; the admins see why in its log.",
        ),
    ],
)
def test_sentence(report: dict[str, Any], said: str) -> None:
    assert sentence(report) == said
