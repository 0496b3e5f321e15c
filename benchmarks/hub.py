"""The hub under many users: what a session, a login, a token and a stop cost, for 10 users and for 200.

Sessions are real and isolated, their server is a stub of a few MB: the hub is measured, not Jupyter. Beside it in the
same run: JupyterHub with its own local spawner and the same stub, and its own API beside our token endpoint. The start
of a session with Jupyter's server in it is :mod:`benchmarks.session`, which runs first.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil
from crowd import AT_ONCE, MORE, PHASES, STUB, Cost, Crowd, users

from benchmarks import session
from benchmarks.common import report, run

SIZES = tuple(map(int, os.environ.get("DMSP_BENCH_USERS", "10,50,200").split(",")))
TOKENS = 1000
ASKING = 20


def _hubs() -> Any:
    """The installation that the hub's integration tests run: issuer, proxy and hub, without a lake."""
    path = Path(__file__).parents[1] / "tests" / "integration" / "hub" / "conftest.py"
    spec = importlib.util.spec_from_file_location("hub_installation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def crowd(number: int) -> tuple[dict[str, Cost], float, list[dict[str, Any]]]:
    """That many users through all phases: costs, growth of the hub [bytes a user], and the token endpoint's rows."""
    everybody = users(number)
    more = MORE + "c.DMSPAuthenticator.token_requests = 0\n"
    async with _hubs().running_stack(users=everybody, more=more) as stack:
        # One session builds the environment and warms everything up that is done once.
        async with Crowd(stack, [everybody[0].name]).gathered() as first:
            await first.run()
        async with Crowd(stack, [user.name for user in everybody]).gathered() as all_of_them:
            before = all_of_them.hub_memory()
            costs = {name: await all_of_them.phase(getattr(all_of_them, name)) for name in PHASES[:-1]}
            grown = (all_of_them.hub_memory() - before) / number
            rates = await endpoint(stack, [user.name for user in everybody]) if number == SIZES[-1] else []
            costs["stop"] = await all_of_them.phase(all_of_them.stop)
    return costs, grown, rates


async def endpoint(stack: Any, names: list[str]) -> list[dict[str, Any]]:
    """Requests a second to the token endpoint, and to JupyterHub's answer about a token's user; same tokens."""
    tokens = [stack.server_token(name) for name in names]
    hub = psutil.Process(stack.processes["hub"].pid)
    rows = []
    for what, path in (
        ("JupyterHub: /api/user", "user"),
        ("ours: /api/dmsp/token", "dmsp/token?audience=rucio"),
    ):
        gate = asyncio.Semaphore(ASKING)
        async with httpx.AsyncClient(base_url=f"{stack.hub_url}/hub/api/", trust_env=False, timeout=60) as http:

            async def ask(number: int, http: Any = http, path: str = path, gate: Any = gate) -> int:
                async with gate:
                    headers = {"Authorization": f"token {tokens[number % len(tokens)]}"}
                    return int((await http.get(path, headers=headers)).status_code)

            began, cpu = time.perf_counter(), sum(hub.cpu_times()[:2])
            answers = await asyncio.gather(*map(ask, range(TOKENS)))
            wall = time.perf_counter() - began
        rows.append(
            {
                "what": what,
                "requests": TOKENS,
                "not 200": sum(answer != 200 for answer in answers),
                "requests/s": TOKENS / wall,
                "hub CPU ms": 1000 * (sum(hub.cpu_times()[:2]) - cpu) / TOKENS,
            }
        )
    return rows


async def stock(number: int) -> dict[str, float]:
    """Starts of the same stub by JupyterHub's own local spawner, as many at once: rate, and CPU of the hub for each."""
    command = f"{sys.executable} -I -S {shlex.quote(str(STUB))}"
    async with (
        session.stock_hub(command) as (api, headers, hub),
        aiohttp.ClientSession(headers=headers) as http,
    ):
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(index: int) -> None:
            async with gate:
                user = f"{api}/users/bench{index}"
                await (await http.post(user)).read()
                await (await http.post(f"{user}/server")).read()
                while not (model := (await (await http.get(user)).json())["servers"].get("", {})).get("ready"):
                    assert model.get("pending"), "the stub did not start"
                    await asyncio.sleep(0.05)

        process = psutil.Process(hub.pid)
        began, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
        await asyncio.gather(*map(one, range(number)))
        wall, used = time.perf_counter() - began, sum(process.cpu_times()[:2]) - cpu
        for index in range(number):
            await (await http.delete(f"{api}/users/bench{index}/server")).read()
    return {"starts/s": number / wall, "hub CPU ms": 1000 * used / number}


async def _all() -> None:
    rows: list[dict[str, Any]] = []
    rates: list[dict[str, Any]] = []
    smallest: dict[str, float] = {}
    starts: list[dict[str, Any]] = []
    for number in SIZES:
        costs, grown, rates = await crowd(number)
        for name, cost in costs.items():
            for error in cost.errors[:5]:
                print(f"  {number} users, {name}: {error}")
            each = 1000 * cost.cpu / number
            rows.append(
                {
                    "users": number,
                    "phase": name,
                    "errors": len(cost.errors),
                    "wall s": cost.wall,
                    "hub CPU ms/user": each,
                    "statements/user": cost.statements / number,
                    "CPU / that of the fewest": each / smallest.setdefault(name, each),
                    "hub kB/user": grown / 1e3 if name == "token" else None,
                }
            )
        theirs = await stock(number)
        ours = {
            "starts/s": number / costs["start"].wall,
            "hub CPU ms": 1000 * costs["start"].cpu / number,
        }
        starts += [
            {
                "users": number,
                "what": key,
                "stock": theirs[key],
                "ours, isolated": ours[key],
                "ours / stock": ours[key] / theirs[key],
            }
            for key in ours
        ]
    columns = ["users", "phase", "errors", "wall s", "hub CPU ms/user", "statements/user"]
    report(
        "hub",
        [*columns, "CPU / that of the fewest", "hub kB/user"],
        rows,
        f"a stub for the server, {AT_ONCE} at once",
    )
    report(
        "hub-starts",
        ["users", "what", "stock", "ours, isolated", "ours / stock"],
        starts,
        "the same stub in both",
    )
    report(
        "hub-tokens", ["what", "requests", "not 200", "requests/s", "hub CPU ms"], rates, f"{ASKING} at once"
    )


def main() -> None:
    """Single sessions with Jupyter's server, then crowds; targets: 0.7 of wall, 0.6 of CPU, flat to 200 users."""
    if not os.environ.get("DMSP_BENCH_CROWD_ONLY"):
        session.main()
    run(_all())
