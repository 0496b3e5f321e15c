"""Starts the servers of the test cluster and ends them; everything listens on 127.0.0.1 only."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from waiting import free_port

Object = dict[str, Any]

USERS = {"admin": "system:masters", "controllers": "system:masters", "scheduler": "system:masters"}
USERS |= {"nodes": "system:masters", "hub": "hubs"}
"""Who asks the API, and their group; the hub may do what its role says."""

CONTROLLERS = "garbage-collector-controller,serviceaccount-controller,persistentvolume-binder-controller"


@dataclass
class Cluster:
    """One cluster: store, API server, controllers, scheduler, and one node with its pods.

    Attributes:
        program: see :mod:`cluster.build`.
        folder: everything that it writes.
        network: addresses of its pods; the loopback has them all, so that a test can answer for a pod.
    """

    program: Path
    folder: Path
    namespace: str = "sessions"
    network: str = field(
        default_factory=lambda: f"127.{random.randrange(64, 255)}.{random.randrange(256)}.0/24"
    )
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=lambda: {name: secrets.token_hex(16) for name in USERS})

    async def start(self) -> None:
        """Start all, wait until it serves, make the node and the namespace."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._write()
        store, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._run(
            "store",
            *("--data-dir", str(self.folder / "store"), "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={store}", f"--advertise-client-urls={store}"),
            *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
            f"--initial-cluster=default={peers}",
        )
        self._run("apiserver", *self._apiserver(store))
        await self._ready()
        for name in ("controllers", "scheduler"):
            more = [f"--controllers={CONTROLLERS}"] if name == "controllers" else []
            config = str(self.kubeconfig(name))
            self._run(
                name,
                f"--kubeconfig={config}",
                "--leader-elect=false",
                "--secure-port=0",
                *self._keys(name),
                *more,
            )
        self._run(
            "nodes",
            *("--kubeconfig", str(self.kubeconfig("nodes")), "--manage-all-nodes", f"--cidr={self.network}"),
            *("--config", str(Path(__file__).with_name("stages.yaml")), "--node-lease-duration-seconds=0"),
        )
        await self._furnish()

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of one of :data:`USERS`."""
        return self.folder / f"{user}.kubeconfig"

    def client(self, user: str = "admin") -> httpx.AsyncClient:
        """A client of the API."""
        tls = ssl.create_default_context(cafile=str(self.folder / "pki" / "apiserver.crt"))
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        return httpx.AsyncClient(base_url=self.url, verify=tls, headers=headers, timeout=30, trust_env=False)

    def log(self, name: str) -> str:
        """What a server wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    async def stop(self) -> None:
        """End all servers, the store last."""
        for popen in reversed(self.processes.values()):
            popen.terminate()
            try:
                await asyncio.to_thread(popen.wait, 10)
            except subprocess.TimeoutExpired:
                popen.kill()
                await asyncio.to_thread(popen.wait, 10)
        self.processes.clear()

    def pause(self, name: str, *, stopped: bool) -> None:
        """Have a server answer nobody, or go on."""
        self.processes[name].send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)

    def _write(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "accounts.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        lines = [f'{self.tokens[name]},{name},{name},"{group}"' for name, group in USERS.items()]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "pki" / "apiserver.crt")}
        for name, token in self.tokens.items():
            (self.folder / f"{name}.token").write_text(token)
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"tokenFile": str(self.folder / f"{name}.token")}}],
                "contexts": [
                    {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": self.namespace}}
                ],
                "current-context": "x",
            }
            self.kubeconfig(name).write_text(yaml.safe_dump(config))

    def _keys(self, name: str) -> list[str]:
        key = self.folder / "accounts.key"
        return [f"--service-account-private-key-file={key}"] if name == "controllers" else []

    def _apiserver(self, store: str) -> list[str]:
        key = self.folder / "accounts.key"
        return [
            f"--etcd-servers={store}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            # It makes a certificate for itself there.
            f"--cert-dir={self.folder / 'pki'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            # The controller that takes the taint of a new node away is not run.
            "--disable-admission-plugins=TaintNodesByCondition",
            "--profiling=false",
        ]

    def _run(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(self.program), name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    async def _ready(self, timeout: float = 120.0) -> None:
        """Wait for the API server."""
        async with asyncio.timeout(timeout):
            while True:
                for name, popen in self.processes.items():
                    assert popen.poll() is None, self.log(name)[-4000:]
                if (self.folder / "pki" / "apiserver.crt").exists():
                    async with self.client() as http:
                        try:
                            if (await http.get("/readyz")).text == "ok":
                                return
                        except (httpx.HTTPError, ssl.SSLError):
                            pass
                await asyncio.sleep(0.1)

    async def _furnish(self) -> None:
        async with self.client() as http:
            await self._post(http, "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
            room = {"cpu": "16", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": "2"}
            node = {
                "metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "node-1"}},
                "spec": {"podCIDR": self.network, "podCIDRs": [self.network]},
                "status": {"capacity": room, "allocatable": room},
            }
            await self._post(http, "/api/v1/nodes", node)
            for number in range(8):
                await self._post(http, "/api/v1/persistentvolumes", _volume(f"home-{number}"))
            async with asyncio.timeout(60):
                # Pods may be made once their namespace has its account.
                path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
                while (await http.get(path)).status_code != 200:
                    await asyncio.sleep(0.1)

    async def apply(self, objects: Sequence[Object]) -> None:
        """Make objects, such as those of a role, in the cluster's namespace."""
        async with self.client() as http:
            for body in objects:
                group = body["apiVersion"]
                base = "/api/v1" if group == "v1" else f"/apis/{group}"
                await self._post(http, f"{base}/namespaces/{self.namespace}/{body['kind'].lower()}s", body)

    @staticmethod
    async def _post(http: httpx.AsyncClient, path: str, body: Object) -> None:
        answer = await http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code in (201, 409), answer.text


def _volume(name: str) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": f"/srv/{name}"},
        },
    }
