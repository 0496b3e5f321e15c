"""Two users with running sessions: one who has things, one who tries to reach them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import uuid
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from boxes import Box
from lakes import SITE, administrator, make_dataset, place
from visitor import Visitor

from attacks.model import Try, program
from jupyterhub_dmsp.hub.local.records import Record
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.sandbox.network import NAMESPACES, Network

VICTIM, ATTACKER, ADMIN = "km3net-user", "collider-user", "vre-admin"

POSSESSIONS = """
import ctypes, glob, json, os, socket, subprocess, threading
from pathlib import Path
runtime, home = Path(os.environ["XDG_RUNTIME_DIR"]), Path.home()
files = {"home_file": home / "private.txt", "tmp_file": Path("/tmp/private.txt"),
         "shm_file": Path("/dev/shm/private"), "runtime_file": runtime / "private.txt"}
for file in files.values():
    file.write_text("secret")
    file.chmod(0o666)
def serve(listener):
    while True:
        one, _ = listener.accept()
        with one:
            one.sendall(b"secret")
app = socket.create_server(("0.0.0.0", 0))
Path("/tmp/app.sock").unlink(missing_ok=True)
unix = socket.socket(socket.AF_UNIX); unix.bind("/tmp/app.sock"); unix.listen(); os.chmod("/tmp/app.sock", 0o777)
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0dmsp-victim"); abstract.listen()
for listener in (app, unix, abstract):
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0x444d5350, 16, 0o1666)
ctypes.memmove(libc.shmat(segment, None, 0), b"secret", 6)
child = subprocess.Popen(["sleep", "86399.444"])
connection = json.load(open(sorted(glob.glob(str(runtime) + "/jupyter/kernel-*.json"))[0]))
print("@@" + json.dumps({**{k: str(v) for k, v in files.items()}, "home": str(home), "runtime": str(runtime),
    "bearer": os.environ["BEARER_TOKEN_FILE"], "app_port": app.getsockname()[1], "unix": "/tmp/app.sock",
    "abstract": "dmsp-victim", "shm_key": 0x444d5350, "pid": child.pid, "argument": "86399.444",
    "start": open(f"/proc/{child.pid}/stat").read().rsplit(")", 1)[1].split()[19],
    "kernel_port": connection["shell_port"], "token": open(os.environ["BEARER_TOKEN_FILE"]).read().strip()}) + "@@")
"""


OWN = """
import json, os, socket
from pathlib import Path
mine = Path.home() / "own.txt"
mine.write_text("mine")
print("@@" + json.dumps({"home": str(Path.home()), "home_file": str(mine),
    "token": open(os.environ["BEARER_TOKEN_FILE"]).read().strip(),
    "device": next((n for _, n in socket.if_nameindex() if n != "lo"), "lo")}) + "@@")
"""


@dataclass
class World:
    """All that the tries need.

    Attributes:
        box: the running box.
        victim: who has things.
        attacker: who tries.
        admin: an administrator of the hub.
        attack: facts for the attacker (what they may know is generous).
        facts: facts for those for whom the same try works, by :attr:`Try.control`.
        found: what has come out so far, by try: succeeded, and what was said.
    """

    box: Box
    victim: Visitor
    attacker: Visitor
    admin: Visitor
    attack: dict[str, Any]
    facts: dict[str, dict[str, Any]]
    found: dict[str, tuple[bool, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        """The issuer's address, as browsers know it."""
        return f"http://127.0.0.1:{self.attack['issuer_port']}/oidc"

    async def in_session(self, who: Visitor, tries: list[Try], facts: dict[str, Any]) -> None:
        """Perform tries in a session: those of the kernel there, the others in a terminal."""
        kernel = await who.kernel()
        await self._note(
            await kernel.run(program([t for t in tries if t.where == "kernel"], json.dumps(facts)))
        )
        await kernel.shutdown()
        text = program([t for t in tries if t.where == "terminal"], json.dumps(facts))
        body = {"type": "file", "format": "text", "content": text}
        status, said = await who.lab("PUT", "api/contents/attack.py", json=body)
        assert status in (200, 201), said
        code, said = await who.terminal("python attack.py > attack.out")
        assert code == 0, said
        await who.lab("DELETE", "api/contents/attack.py")
        status, made = await who.lab(
            "GET", "api/contents/attack.out", params={"type": "file", "format": "text"}
        )
        assert status == 200, made
        await who.lab("DELETE", "api/contents/attack.out")
        await self._note(made["content"])

    async def on_host(self, tries: list[Try], facts: dict[str, Any]) -> None:
        """Perform tries outside of any sandbox."""
        text = program(tries, json.dumps(facts))
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-"],
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        await self._note(ran.stdout)

    async def _note(self, output: str) -> None:
        said = json.loads(output.split("@@")[1])
        if os.environ.get("DMSP_ATTACK_TIMES"):
            print(sorted(((s[2], n) for n, s in said.items()), reverse=True)[:12])
        self.found.update({name: (bool(yes), str(what)) for name, (yes, what, _) in said.items()})


class _Secret(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"secret")


@contextlib.contextmanager
def _listening(directory: Path) -> Iterator[tuple[int, str]]:
    """A program on all addresses of the host, and one on a unix socket."""
    path = str(directory / "engine.sock")
    servers = [
        socketserver.ThreadingTCPServer(("0.0.0.0", 0), _Secret),
        socketserver.ThreadingUnixStreamServer(path, _Secret),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield servers[0].server_address[1], path
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


async def _possessions(who: Visitor, code: str) -> dict[str, Any]:
    kernel = await who.kernel()
    found: dict[str, Any] = json.loads((await kernel.run(code)).split("@@")[1])
    return found


async def _path_of(who: Visitor, did: Did) -> tuple[str, str]:
    """Where a one-file dataset that is attached now lies on scratch, and its rule."""
    attached = await who.attach(str(did))
    assert attached["state"] == "ready", attached
    code, text = await who.terminal(f"cat $DMSP_RUNTIME/attachments/{attached['id']}/manifest.json")
    assert code == 0, text
    return json.loads(text)["files"][0]["path"], attached["rule_id"]


async def _token(who: Visitor) -> str:
    status, made = await who.hub("POST", f"users/{who.name}/tokens", json={"note": "test", "expires_in": 3600})
    assert status == 201, made
    return str(made["token"])


def _host_pid(argument: str) -> int:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if process.read_bytes().split(b"\0")[-2:-1] == [argument.encode()]:
                return int(process.parent.name)
    raise AssertionError("the victim's process is not there")


async def _lake(box: Box, victim: Visitor, attacker: Visitor) -> dict[str, Any]:
    """Datasets of the victim's experiment, of the victim alone, and open ones; rules of the victim."""
    mark = uuid.uuid4().hex[:8]
    names = {"dataset": "km3net", "private": f"user.{VICTIM}", "open": "dmsp", "spare": "dmsp"}
    dids = {key: Did(scope, f"security.{key}.{mark}") for key, scope in names.items()}
    async with administrator(box) as root:
        made = {key: (await make_dataset(box, root, did, [9]))[0].did for key, did in dids.items()}
        await root.set_metadata([(dids["private"], {"mark": "x"})])
    restricted, rule = await _path_of(victim, dids["dataset"])
    private, _ = await _path_of(victim, dids["private"])
    _, spare = await _path_of(victim, dids["spare"])
    open_, _ = await _path_of(attacker, dids["open"])
    return {
        **{key: did.name for key, did in dids.items()},
        "scratch_file": restricted,
        "scratch_scope": "/scratch/lake/km3net",
        "scratch_open": "/scratch/lake/dmsp",
        "private_file": private,
        "private_name": made["private"].name,
        "dataset_file": made["dataset"].name,
        "link_from": open_,
        "rule": rule,
        "spare_rule": spare,
        "site_file": str(place(box, SITE, made["dataset"])),
        "victim_scope": f"user.{VICTIM}",
        "fresh": f"fresh.{mark}",
    }


def _root_token(box: Box, url: str) -> str:
    headers = {f"X-Rucio-{key}": "root" for key in ("Account", "Username")}
    headers["X-Rucio-Password"] = box.secret("rucio-root-password")
    answer = httpx.get(f"{url}/auth/userpass", headers=headers, trust_env=False, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Rucio-Auth-Token"]


def _subject(token: str) -> str:
    return str(json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))["sub"])


def _platform(box: Box) -> dict[str, Any]:
    """Where the parts of the box are, as somebody could find out who has read the documentation."""
    state, ports = box.state, json.loads((box.state / "ports.json").read_text())
    network = Network.load(state)
    record = Record.read(state, VICTIM)
    assert network
    assert record
    number = record.address.rsplit(".", 1)[1]
    return {
        "state": str(state),
        "host_home_file": str(state / "homes" / VICTIM / "private.txt"),
        "host_session": str(state / "sessions" / VICTIM),
        "rucio_config": str(state / "rucio" / "rucio.cfg"),
        "hub_database": str(state / "hub" / "jupyterhub.sqlite"),
        "hub_cookie": str(state / "hub" / "cookie_secret"),
        "shadow": "/etc/shadow",
        "platform": [part["pid"] for part in box.status["parts"] if part["pid"]],
        "gateway": network.gateway,
        "gateway_or_local": network.gateway,
        "localhost": "127.0.0.1",
        "victim_address": record.address,
        "server_port": record.port,
        "namespace": str(NAMESPACES / f"{network.name}-{number}"),
        **{f"{name}_port": port for name, port in ports.items()},
        "public_port": box.port,
        "hub": f"http://{network.gateway}:{ports['hub']}/hub/api",
        "rucio": f"http://{network.gateway}:{ports['rucio']}",
        "processes": 512,
        "victim": VICTIM,
        "attacker": ATTACKER,
        "packages": next(str(p) for p in map(Path, sys.path) if p.name == "site-packages"),
        "system_config": str(Path(sys.prefix, "etc", "jupyter")),
    }


def _as_attacker(home: str, device: str, environment: str) -> dict[str, Any]:
    """How the attacker goes about it: as they are, and as root of a user namespace of their own."""
    m = f"{home}/m"
    write = f"mount -o remount,rw,bind {environment} && touch {environment}/.attack"
    cgroup = f"(mount -t cgroup2 none {m} || mount -t cgroup -o memory none {m}) && echo 0 > {m}/cgroup.procs"
    return {
        "me": ATTACKER,
        "own_scope": f"user.{ATTACKER}",
        "link_to": f"{home}/link",
        "device": device,
        "in_net": "",
        "in_net_user": "unshare -Ur",
        "in_user": "unshare -Ur",
        "in_mount": "",
        "mount_on": m,
        "remount": f"unshare -Urm sh -c '{write}'",
        "unmount": f"unshare -Urm sh -c 'umount {environment} || umount {home} || umount /proc || umount /tmp'",
        "cgroup_mount": f"unshare -UrmC sh -c '{cgroup}'",
        "quota_for": ATTACKER,
        "quota_at": "SITE-NORTH",
        "environment": environment,
        "kernels": f"{environment}/share/jupyter/kernels",
    }


def _as_root(directory: str) -> dict[str, Any]:
    """The same on the host, as root, in places where it does no harm."""
    d = directory
    cgroup = f"(mount -t cgroup2 none {d} || mount -t cgroup -o memory none {d}) && echo 0 > {d}/cgroup.procs"
    return {
        "me": "root",
        "own_scope": "dmsp",
        "device": "lo",
        "in_net": "unshare -n",
        "in_net_user": "unshare -n",
        "in_user": "",
        "in_mount": "unshare -m",
        "mount_on": d,
        "remount": f"unshare -m sh -c 'mount -t tmpfs none {d} && mount -o remount,ro {d}"
        f" && mount -o remount,rw {d} && touch {d}/x'",
        "unmount": f"unshare -m sh -c 'mount -t tmpfs none {d} && umount {d}'",
        "cgroup_mount": f"unshare -m sh -c '{cgroup}'",
        "gateway_or_local": "127.0.0.1",
        "quota_for": VICTIM,
        "quota_at": "SCRATCH",
        "probe_identity": "SUB=probe, ISS=probe",
    }


@contextlib.asynccontextmanager
async def making(box: Box) -> AsyncIterator[World]:
    """Both sessions, and everything that the tries are about."""
    passwords = box.passwords
    directory = tempfile.mkdtemp(prefix="dmsp-attack-")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        victim, attacker, admin = [
            await stack.enter_async_context(Visitor(box.address, name, passwords[name]))
            for name in (VICTIM, ATTACKER, ADMIN)
        ]
        for who in (victim, attacker):
            await who.start("minimal")
        lake = await _lake(box, victim, attacker)
        theirs, mine = await _possessions(victim, POSSESSIONS), await _possessions(attacker, OWN)
        host_port, engine = stack.enter_context(_listening(Path(directory)))
        _, session = await attacker.terminal("cat $DMSP_SESSION")
        ways = _as_attacker(mine["home"], mine["device"], json.loads(session)["environment"])
        addresses = (await asyncio.to_thread(subprocess.getoutput, "hostname -I")).split()
        platform = _platform(box)
        engines = [f"/{run}/{name}.sock" for run in ("run", "var/run") for name in ("docker", "podman/podman")]
        attack = {
            **{key: value for key, value in theirs.items() if key != "token"},
            **lake,
            **platform,
            **ways,
            "hub_token": await _token(attacker),
            "rucio_token": mine["token"],
            "pid": _host_pid(theirs["argument"]),
            "engines": [*engines, "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket", engine],
            "host_port": host_port,
            "host_addresses": [a for a in addresses if ":" not in a and a != platform["gateway"]]
            or ["127.0.0.1"],
            "victim_sub": _subject(theirs["token"]),
            "probe_identity": f"SUB={_subject(mine['token'])}, ISS=http://127.0.0.1:{platform['issuer_port']}/oidc",
        }
        own = {"scratch_open": mine["home"], "link_from": mine["home_file"]}
        victims = {"me": VICTIM, "pid": theirs["pid"], "hub_token": await _token(victim)}
        victims |= {
            "rucio_token": theirs["token"],
            "own_scope": f"user.{VICTIM}",
            "fresh": lake["fresh"] + ".v",
        }
        victims["link_to"] = f"{theirs['home']}/link"
        roots = {"rucio_token": _root_token(box, attack["rucio"]), "fresh": lake["fresh"] + ".r"}
        roots["root_password"] = box.secret("rucio-root-password")
        facts = {
            "own": attack | own,
            "victim": attack | victims,
            "root": attack | roots | _as_root(directory),
            "admin": attack | {"hub_token": await _token(admin), "me": ADMIN},
        }
        yield World(box, victim, attacker, admin, attack, facts)
        for who in (victim, attacker):
            _, user = await who.hub("GET", f"users/{who.name}")
            if user["servers"]:
                await who.stop()
