"""The least that JupyterHub takes for a user's server: one process, standard library only, a few MB.

Run in a session of the hub in place of ``jupyterhub_dmsp.hub.singleuser``. It answers what the hub asks at a start, and
``GET <prefix>stub/token`` by asking the hub for a token as a session would; it tells the status, never the token.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.parse
from pathlib import Path

PREFIX = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
VERSION = os.environ.get("DMSP_STUB_VERSION", "6")


async def ask_hub(url: str, token: str) -> int:
    """Status of the hub's answer to a GET."""
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"GET {parts.path}?{parts.query} HTTP/1.0\r\nHost: {parts.netloc}\r\nAuthorization: token {token}\r\n\r\n"
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return int(answer.split(b" ", 2)[1])


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
    """One request, one answer."""
    path = (await reader.readline()).split(b" ")[1].decode()
    while (await reader.readline()).strip():
        pass
    body = {"version": "stub"}
    if path == f"{PREFIX}stub/token":
        session = json.loads(Path(os.environ["DMSP_SESSION"]).read_text())
        where = session["token"]
        body = {"status": await ask_hub(f"{where['url']}?audience={where['audience']}", token)}
    text = json.dumps(body)
    writer.write(
        f"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: {VERSION}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
    )
    await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until told to end."""
    token = os.environ.get("JUPYTERHUB_API_TOKEN", "")  # of JupyterHub's own spawner; ours hands over a file
    if not token:
        file = Path(os.environ["XDG_RUNTIME_DIR"], "hub-token")
        token = file.read_text().strip()
        file.unlink()
    where = urllib.parse.urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    async with await asyncio.start_server(lambda r, w: answer(r, w, token), where.hostname, where.port):
        await done.wait()


if __name__ == "__main__":
    asyncio.run(main())
