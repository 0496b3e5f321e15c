"""Start of a session in the box (isolated) against JupyterHub's stock local spawner and command, in one run."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.common import (
    Box,
    Visitor,
    cpu_seconds,
    free_port,
    median,
    proportional_bytes,
    report,
    run,
    running_box,
)

ROUNDS = 5
STOCK = """
import os
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{home}/{{username}}"
c.Spawner.cmd = {command!r}.split()
c.JupyterHub.concurrent_spawn_limit = 0
c.Spawner.default_url = "/lab"
c.JupyterHub.proxy_class = "traefik_file"
c.TraefikFileProviderProxy.traefik_api_username = "api"
c.TraefikFileProviderProxy.traefik_api_password = os.urandom(16).hex()
c.TraefikFileProviderProxy.traefik_api_url = "http://127.0.0.1:{api}"
c.TraefikFileProviderProxy.dynamic_config_file = "{home}/rules.toml"
c.TraefikFileProviderProxy.static_config_file = "{home}/static.toml"
c.JupyterHub.services = [{{"name": "bench", "api_token": open("{home}/token").read()}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers"]}}]
"""


def server_of(marker: str) -> psutil.Process:
    """The single-user server's process, found by its command line; the innermost, below any wrapper."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time", "name"]):
        line = " ".join(process.info["cmdline"] or [])
        if marker in line and process.info["name"] not in ("bwrap", "nsenter", "setpriv"):
            found.append(process)
    assert found, f"no process with {marker}"
    return max(found, key=lambda process: process.info["create_time"])


def measured(begin: float, marker: str) -> dict[str, float]:
    """What the start has cost until now."""
    wall = time.perf_counter() - begin
    pid = server_of(marker).pid
    return {"wall": wall, "cpu": cpu_seconds(pid), "memory": proportional_bytes(pid) / 1e6}


@asynccontextmanager
async def stock_hub(command: str = "") -> AsyncIterator[tuple[str, dict[str, str], subprocess.Popen[bytes]]]:
    """JupyterHub as it comes, with the same proxy; yields its API's address, headers and the hub.

    Args:
        command: what it starts for a user; empty for its own server.
    """
    with tempfile.TemporaryDirectory(prefix="dmsp-bench-") as home:
        token = secrets.token_hex(16)
        token_file = Path(home, "token")
        token_file.touch(0o600)
        token_file.write_text(token)
        port = free_port()
        names = {
            "port": port,
            "hub": port + 1,
            "api": port + 2,
            "home": home,
            "bin": str(Path(sys.executable).parent),
        }
        chosen = command or f"{names['bin']}/jupyterhub-singleuser --allow-root"
        Path(home, "config.py").write_text(STOCK.format(**names, command=chosen))
        argv = [sys.executable, "-m", "jupyterhub", "-f", f"{home}/config.py"]
        with Path(home, "log").open("wb") as log:
            path = f"{names['bin']}:{os.environ['PATH']}"  # where the stock hub looks for traefik
            hub = subprocess.Popen(argv, cwd=home, stdout=log, stderr=log, env={**os.environ, "PATH": path})
        try:
            api, headers = f"http://127.0.0.1:{port}/hub/api", {"Authorization": f"token {token}"}
            async with aiohttp.ClientSession() as http:
                while True:
                    try:
                        async with http.get(api) as answer:
                            if answer.status == 200:
                                break
                    except aiohttp.ClientError:
                        assert hub.poll() is None, Path(home, "log").read_text()[-2000:]
                    await asyncio.sleep(0.1)
            yield api, headers, hub
        finally:
            hub.terminate()
            hub.wait(60)


async def stock() -> list[dict[str, float]]:
    """Starts of the stock command by the stock spawner."""
    results = []
    async with stock_hub() as (api, headers, _), aiohttp.ClientSession(headers=headers) as http:
        for number in range(ROUNDS):
            user = f"{api}/users/bench{number}"
            await (await http.post(user)).read()
            begin = time.perf_counter()
            await (await http.post(f"{user}/server")).read()
            while not (await (await http.get(user)).json())["servers"].get("", {}).get("ready"):
                await asyncio.sleep(0.02)
            results.append(measured(begin, "jupyterhub-singleuser"))
            await (await http.delete(f"{user}/server")).read()
            while (await (await http.get(user)).json())["servers"]:
                await asyncio.sleep(0.1)
    return results


async def ours(box: Box) -> list[dict[str, float]]:
    """Starts of an isolated session, its environment already built."""
    results = []
    name = "collider-user"
    async with Visitor(box.address, name, box.passwords[name]) as visitor:
        await visitor.start("minimal")
        await visitor.stop()
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            await visitor.start("minimal")
            results.append(measured(begin, "jupyterhub_dmsp.hub.singleuser"))
            await visitor.stop()
    return results


async def _both() -> None:
    with running_box() as box:
        mine = await ours(box)
    theirs = await stock()
    rows: list[dict[str, Any]] = []
    for key, unit in (("wall", "s"), ("cpu", "s"), ("memory", "MB")):
        a, b = median([r[key] for r in theirs]), median([r[key] for r in mine])
        rows.append({"what": f"{key} [{unit}]", "stock": a, "ours, isolated": b, "ours / stock": b / a})
    report("session", ["what", "stock", "ours, isolated", "ours / stock"], rows, f"median of {ROUNDS} starts")


def main() -> None:
    """Both kinds in turn; targets: 0.7 of the wall time, 0.6 of the CPU."""
    run(_both())
