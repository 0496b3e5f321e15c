"""Where sessions run, as the spawners' contract sees it: what the hub is asked, and what a session finds around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from cluster.kubelet import Kubelet, Pod
from cluster.running import Cluster

from jupyterhub_dmsp.hub.kube import names
from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.sandbox import cgroup

HUB = Path(__file__).parents[1] / "integration" / "hub"
KERNEL = {"name": "everybody", "display_name": "Python", "language": "python"}

PROFILES: dict[str, dict[str, Any]] = {
    "plain": {"name": "Plain", "image": "images.example/plain", "order": 1},
    "chosen": {
        "name": "Chosen",
        "image": "images.example/chosen",
        "limits": {"memory": "1G", "cpu": 1},
        "choices": {"memory": ["512M", "1G", "2G"], "cpu": [0.5, 1, 1.5]},
        "group_limits": {"/dmsp/km3net": {"memory": "2G", "cpu": 1.5}, "/dmsp/admins": {"memory": "1G"}},
        "variants": [
            {"name": "next", "image": "images.example/chosen-next", "environment": {"EDITION": "next"}}
        ],
        "environment": {"EDITION": "this", "ODD": "$(HOME) and ${HOME} 'quoted'"},
    },
    "closed": {"name": "Closed", "image": "images.example/closed", "experiments": ["km3net"]},
    "broken": {"name": "Broken", "image": "images.example/missing"},
    # For a cluster: what its one node cannot hold, and what uses more than it may.
    "huge": {
        "name": "Huge",
        "image": "images.example/plain",
        "choices": {"gpu": [4]},
        "groups": ["/dmsp/admins"],
    },
    "greedy": {"name": "Greedy", "image": "images.example/greedy", "groups": ["/dmsp/admins"]},
}
"""The catalogue of the contract; its mounts are folders of the installation."""


def write_catalogue(folder: Path, host: Path) -> None:
    """:data:`PROFILES`, each with the hub tests' smallest environment; ``broken`` with one that cannot be built."""
    for slug, about in PROFILES.items():
        source = HUB / "catalogue" / ("broken" if slug == "broken" else "everybody")
        shutil.copytree(source, folder / slug)
        kernel = KERNEL | ({"name": "broken"} if slug == "broken" else {})
        mounts = [
            {"name": "shared", "path": "/shared", "host": str(host)},
            {"name": "later", "path": "/later", "host": str(host / "later"), "optional": True},
        ]
        text = {"python": "3.11", "kernels": [kernel], **about} | (
            {"mounts": mounts} if slug == "chosen" else {}
        )
        (folder / slug / "profile.yaml").write_text(yaml.safe_dump(text))


@dataclass
class Inside:
    """What a session finds around it.

    Attributes:
        environment: of its server.
        about: ``session.json``.
        files: names in ``/etc/dmsp``.
        uid: who it is.
        groups: all numbers of its groups.
        memory: bytes that it may use.
        cpu: cores that it may use.
        mounts: path to whether it is writable.
        same: differs between any two sessions.
    """

    environment: dict[str, str]
    about: dict[str, Any]
    files: set[str]
    uid: int
    groups: set[int]
    memory: int
    cpu: float
    mounts: dict[str, bool]
    same: Any


@dataclass
class Place:
    """A hub with one of the spawners; what differs between them is below."""

    stack: Any
    until: Callable[..., Any]
    tokens: Path
    failure: str = ""
    """What a start of the profile ``broken`` says."""

    async def login(self, user: str) -> None:
        async with self.stack.browser() as browser:
            await browser.login(user)

    async def ask(self, user: str, options: Any, server: str = "") -> httpx.Response:
        """One request to start a server."""
        path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
        async with self.stack.admin() as http:
            # The body as it is: what both JupyterHub 5 and 6 take.
            answer: httpx.Response = await http.post(path, json=options)
            return answer

    async def start(self, user: str, options: Any, server: str = "") -> list[dict[str, Any]]:
        """Start a server and wait until it is ready or has failed; what the page was told."""
        path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
        asked = asyncio.create_task(self.ask(user, options, server))
        await self.until(lambda: asked.done() or self.known(user, server), 60)
        events: list[dict[str, Any]] = []
        async with self.stack.admin() as http, http.stream("GET", f"{path}/progress") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    events.append(json.loads(line[5:]))
                    if events[-1].get("ready") or events[-1].get("failed"):
                        break
        await asked
        return events

    async def server(self, user: str, server: str = "") -> dict[str, Any] | None:
        async with self.stack.admin() as http:
            found: dict[str, Any] | None = (
                (await http.get(f"users/{user}")).json().get("servers", {}).get(server)
            )
            return found

    async def known(self, user: str, server: str = "") -> bool:
        return await self.server(user, server) is not None

    async def ready(self, user: str, server: str = "") -> bool:
        return bool((await self.server(user, server) or {}).get("ready"))

    async def stopped(self, user: str, server: str = "") -> bool:
        found = await self.server(user, server)
        return found is None or not (found["ready"] or found["pending"])

    async def quit(self, user: str, server: str = "") -> None:
        path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
        async with self.stack.admin() as http:
            answer = await http.delete(path)
            assert answer.status_code in (202, 204, 404), answer.text
        await self.until(lambda: self.stopped(user, server), 60)

    async def offered(self, user: str) -> set[str]:
        """Profiles on the launch page."""
        async with self.stack.browser() as browser:
            await browser.login(user)
            page = await browser.form()
        assert page.status_code == 200, page.text
        return set(re.findall(r'name="profile"[^>]*value="([^"]*)"', page.text)) | set(
            re.findall(r'value="([^"]*)"[^>]*name="profile"', page.text)
        )

    async def page(self, user: str) -> str:
        """Text of the launch page."""
        async with self.stack.browser() as browser:
            await browser.login(user)
            return str((await browser.form()).text)

    def token(self, user: str, server: str = "") -> str:
        """The server's own token, as the hub knew it when it started."""
        return str((self.tokens / f"token-{user}.{server}").read_text())

    async def inside(self, user: str, server: str = "") -> Inside:
        raise NotImplementedError

    async def leftovers(self, user: str, server: str = "") -> list[str]:
        """What is there of a session that is not running; a home is not counted."""
        raise NotImplementedError

    async def kill(self, user: str, server: str = "") -> None:
        """End a session behind the hub's back."""
        raise NotImplementedError

    async def handed(self, user: str, server: str = "") -> str | None:
        """The token, as the launcher of a server finds it; None when it has taken it."""
        raise NotImplementedError


CONFIG = """
import pathlib
def name_the_token(spawner):
    file = pathlib.Path({hub!r}, "token-" + spawner.user.name + "." + spawner.name)
    file.touch(0o600)
    file.write_text(spawner.api_token)
    return {{"extra": spawner.user.name}}
for kind in (c.LocalProfileSpawner, c.KubeProfileSpawner):
    kind.session_settings = name_the_token
    kind.session_files = lambda spawner: {{"rucio.cfg": "[client]\\naccount = " + spawner.user.name}}
    kind.catalogue_path = {catalogue!r}
"""

KUBE = """
import jupyterhub_dmsp.hub.kube.api
# A test has the API server stopped: each question then lasts this long.
jupyterhub_dmsp.hub.kube.api.TIMEOUT = 5.0
c.JupyterHub.spawner_class = "dmsp-kube"
kube = c.KubeProfileSpawner
kube.kubeconfig = {kubeconfig!r}
kube.state_dir = {state!r}
kube.scratch_host = {scratch!r}
kube.room_patience = 2
kube.stop_grace = 2
kube.lake = {{"rucio_url": "http://rucio.example", "site": "SCRATCH"}}
kube.labels = {{"example.org/kind": "session"}}
"""


@dataclass
class LocalPlace(Place):
    """Sessions on this machine."""

    failure: str = "The environment broken cannot be built"

    async def inside(self, user: str, server: str = "") -> Inside:
        record = records.Record.read(self.stack.state, self._key(user, server))
        assert record is not None
        # The outermost is bubblewrap's; the server is the innermost of the chain.
        found, waiting = [], [record.outer]
        while waiting:
            found.append(waiting.pop(0))
            waiting += found[-1].children()
        proc = Path(f"/proc/{found[2].pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        environment = dict(
            entry.split("=", 1) for entry in (proc / "environ").read_text().split("\0") if "=" in entry
        )
        config = self.stack.state / "sessions" / self._key(user, server) / "etc" / "dmsp"
        mounts = {}
        for line in (proc / "mountinfo").read_text().splitlines():
            fields = line.split()
            mounts[fields[4]] = "rw" in fields[5].split(",")
        memory, cpu = self._limits(self._key(user, server))
        return Inside(
            environment,
            json.loads((config / "session.json").read_text()),
            {file.name for file in config.iterdir()},
            int(status["Uid"].split()[0]),
            {int(number) for number in status["Groups"].split()},
            memory,
            cpu,
            mounts,
            record.outer,
        )

    async def leftovers(self, user: str, server: str = "") -> list[str]:
        key, state = self._key(user, server), self.stack.state
        found = [str(path) for path in cgroup.existing(records.group_name(state, key)).directories]
        if records.Record.read(state, key) is not None:
            found.append("record")
        leases = json.loads(self.stack.network.record.read_text()).get("leases", {})
        return found + (["network"] if key in leases else [])

    async def kill(self, user: str, server: str = "") -> None:
        record = records.Record.read(self.stack.state, self._key(user, server))
        assert record is not None
        record.init.send(9)

    async def handed(self, user: str, server: str = "") -> str | None:
        file = self.stack.state / "sessions" / self._key(user, server) / "run" / "hub-token"
        return str(file.read_text()) if file.exists() else None

    @staticmethod
    def _key(user: str, server: str) -> str:
        return f"{user}.{server}" if server else user

    def _limits(self, key: str) -> tuple[int, float]:
        """Memory and cores, as the kernel was told."""
        memory, cpu = 0, 0.0
        for directory in cgroup.existing(records.group_name(self.stack.state, key)).directories:
            for name in ("memory.max", "memory.limit_in_bytes"):
                with contextlib.suppress(OSError):
                    memory = int((directory / name).read_text())
            with contextlib.suppress(OSError):
                quota = int((directory / "cpu.cfs_quota_us").read_text())
                cpu = quota / int((directory / "cpu.cfs_period_us").read_text())
            with contextlib.suppress(OSError):
                first, period = (directory / "cpu.max").read_text().split()
                cpu = int(first) / int(period)
        return memory, cpu


@dataclass
class KubePlace(Place):
    """Sessions in the test cluster."""

    failure: str = "The image images.example/missing cannot be fetched."
    cluster: Cluster = field(kw_only=True)
    kubelet: Kubelet = field(kw_only=True)

    def pod_name(self, user: str, server: str = "") -> str:
        return names.session("dmsp", user, server)

    def pod(self, user: str, server: str = "") -> Pod:
        return self.kubelet.pods[self.pod_name(user, server)]

    async def objects(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind in the sessions' namespace."""
        async with self.cluster.client() as http:
            answer = await http.get(f"/api/v1/namespaces/{self.cluster.namespace}/{kind}")
            return list(answer.json()["items"])

    async def inside(self, user: str, server: str = "") -> Inside:
        pod = self.pod(user, server)
        spec, container = pod.about["spec"], pod.container
        context, limits = spec["securityContext"], container["resources"]["limits"]
        files = pod.seen("/etc/dmsp")
        return Inside(
            pod.environment,
            json.loads(files["session.json"]),
            set(files),
            context["runAsUser"],
            {context["runAsGroup"], *context["supplementalGroups"]},
            _quantity(limits["memory"]),
            _quantity(limits["cpu"]),
            {mount["mountPath"]: not mount.get("readOnly") for mount in container["volumeMounts"]},
            pod.about["metadata"]["uid"],
        )

    async def leftovers(self, user: str, server: str = "") -> list[str]:
        name = self.pod_name(user, server)
        return [
            f"{kind}/{found['metadata']['name']}"
            for kind in ("pods", "secrets")
            for found in await self.objects(kind)
            if found["metadata"].get("labels", {}).get("dmsp/session") == name
        ]

    async def kill(self, user: str, server: str = "") -> None:
        async with self.cluster.client() as http:
            path = f"/api/v1/namespaces/{self.cluster.namespace}/pods/{self.pod_name(user, server)}"
            assert (await http.delete(path)).status_code == 200

    async def handed(self, user: str, server: str = "") -> str | None:
        pod = self.pod(user, server)
        # Of the session's own container, not of the one that hands it over before.
        for mount in pod.container["volumeMounts"]:
            text = pod.volumes.get(mount["name"], {}).get("hub-token")
            if text is not None:
                return text
        return None


_UNITS = {"m": 0.001, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


def _quantity(text: str) -> Any:
    """A number as Kubernetes writes it."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    assert match, text
    return float(match[1]) * _UNITS[match[2]] if match[2] else int(match[1])
