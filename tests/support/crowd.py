"""Many users of one hub: all log in, all start, all ask for a token, all stop; what each phase costs the hub.

For a test that asserts counts and for the benchmark. Sessions are real and isolated, with a stub for the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from jupyterhub_dmsp.settings import User

STUB = Path(__file__).with_name("crowdserver.py")
AT_ONCE = 10
PHASES = ("login", "start", "token", "stop")

MORE = f"""
c.LocalProfileSpawner.cmd = [{str(Path(sys.prefix, "bin", "python"))!r}, "-I", "-S", {str(STUB)!r}]
c.LocalProfileSpawner.binds = [{str(STUB.parent)!r}]
c.JupyterHub.authenticate_prometheus = False
# A stub takes a few MB of what its profile may use: no machine is too small for a crowd of them.
chosen = calls.with_name("dmsp.yaml")
chosen.write_text("sessions: {{overcommit: null}}\\n")
c.LocalProfileSpawner.settings_file = str(chosen)
c.JupyterHub.concurrent_spawn_limit = 0
from prometheus_client import Counter
from sqlalchemy import event
from sqlalchemy.engine import Engine
statements = Counter("test_statements", "Statements sent to the hub's database")

@event.listens_for(Engine, "after_cursor_execute")
def count(*args):
    statements.inc()
"""
"""For the hub's configuration: the stub, and a count of what is sent to the database."""


def users(number: int) -> list[User]:
    """That many people of one experiment."""
    return [User(name=f"user-{n:03}", groups=["/dmsp", "/dmsp/km3net"]) for n in range(number)]


@dataclass
class Cost:
    """What a phase has cost, for all users together."""

    wall: float
    cpu: float
    statements: float
    errors: list[str] = field(default_factory=list)


@dataclass
class Person:
    """A browser and its user."""

    name: str
    http: httpx.AsyncClient


class Crowd:
    """All users of a stack.

    Args:
        stack: a running installation whose configuration has :data:`MORE`.
        names: who takes part.
    """

    def __init__(self, stack: Any, names: list[str]) -> None:
        self.stack = stack
        self.people = [Person(name, httpx.AsyncClient(timeout=120, trust_env=False)) for name in names]
        self._admin = httpx.AsyncClient(
            base_url=f"{stack.public}hub/api/",
            headers={"Authorization": f"token {stack.api_token}"},
            timeout=120,
            trust_env=False,
        )

    @contextlib.asynccontextmanager
    async def gathered(self) -> AsyncIterator[Crowd]:
        """Closes the browsers in the end."""
        try:
            yield self
        finally:
            for person in self.people:
                await person.http.aclose()
            await self._admin.aclose()

    async def run(self) -> dict[str, Cost]:
        """Every phase for everybody, one after another; what each has cost."""
        return {name: await self.phase(getattr(self, name)) for name in PHASES}

    async def phase(self, step: Callable[[Person], Awaitable[None]]) -> Cost:
        """One step for everybody, some at a time."""
        gate, errors = asyncio.Semaphore(AT_ONCE), list[str]()

        async def one(person: Person) -> None:
            async with gate:
                try:
                    await step(person)
                except Exception as error:  # noqa: BLE001 - all are counted, and told in the end
                    errors.append(f"{person.name}: {type(error).__name__} {error}"[:300])

        began, cpu, statements = time.perf_counter(), self.hub_cpu(), await self.statements()
        await asyncio.gather(*map(one, self.people))
        return Cost(
            time.perf_counter() - began,
            self.hub_cpu() - cpu,
            await self.statements() - statements,
            errors,
        )

    async def login(self, person: Person) -> None:
        """Through the issuer's form."""
        page = await person.http.get(f"{self.stack.public}hub/oauth_login", follow_redirects=True)
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        fields = {key: value.replace("&amp;", "&") for key, value in hidden.items()}
        fields |= {"username": person.name, "password": self.stack.passwords[person.name]}
        url = str(page.url.copy_with(query=None))
        answer = await person.http.post(url, data=fields)
        while answer.next_request is not None and "/hub/spawn" not in answer.headers["location"]:
            answer = await person.http.send(answer.next_request)
        assert answer.status_code < 400, answer.text

    async def start(self, person: Person) -> None:
        """A session; waits until its server answers."""
        answer = await self._admin.post(f"users/{person.name}/server", json={"profile": "everybody"})
        assert answer.status_code in (201, 202), answer.text
        if answer.status_code == 202:
            async with self._admin.stream("GET", f"users/{person.name}/server/progress") as stream:
                lines = [line async for line in stream.aiter_lines() if line.startswith("data:")]
            assert '"ready": true' in lines[-1], lines[-1]

    async def token(self, person: Person) -> None:
        """The session asks for a token."""
        answer = await person.http.get(f"{self.stack.public}user/{person.name}/stub/token")
        assert answer.json() == {"status": 200}, answer.text

    async def stop(self, person: Person) -> None:
        """The session ends."""
        answer = await self._admin.delete(f"users/{person.name}/server")
        assert answer.status_code in (202, 204), answer.text
        while (await self._admin.get(f"users/{person.name}")).json().get("servers"):
            await asyncio.sleep(0.05)

    def hub(self) -> psutil.Process:
        """The hub's process."""
        return psutil.Process(self.stack.processes["hub"].pid)

    def hub_cpu(self) -> float:
        """Processor time of the hub until now, without its children."""
        times = self.hub().cpu_times()
        return float(times.user + times.system)

    def hub_memory(self) -> int:
        """Bytes of its own that the hub holds now."""
        return int(self.hub().memory_full_info().uss)

    async def statements(self) -> float:
        """How many statements the hub's database has been sent."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            text = (await http.get(f"{self.stack.public}hub/metrics")).text
        found = re.search(r"^test_statements_total ([\d.e+]+)", text, re.M)
        assert found, text[:500]
        return float(found[1])
