"""A real lake for tests and benchmarks: PostgreSQL, Rucio, its daemons with our transfers, a token issuer.

Everything runs as in the box (confined, own uids), on free ports of the loopback interface, below a temporary
directory; one for the whole run, the fixture ``lake``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwk, jwt

from jupyterhub_dmsp.box import confine, database
from jupyterhub_dmsp.box.rucio import config, parts, storage
from jupyterhub_dmsp.profiles.environments import Environments, EnvironmentSpec
from jupyterhub_dmsp.sandbox.process import Process, main_of

DATABASE_UID, RUCIO_UID = 61901, 61902
GROUPS = {"dmsp": 71901, "km3net": 71902, "collider": 71903}
SITES, SCRATCH = ("SITE-NORTH", "SITE-SOUTH"), "SCRATCH"


def wait_for(condition: Callable[[], Any], seconds: float = 30, what: str = "") -> Any:
    """Ask until the answer is true; fails the test with ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what or condition}"
        time.sleep(0.05)
    return answer


class Issuer:
    """An OIDC issuer that signs whatever a test asks for."""

    def __init__(self) -> None:
        self.key = jwk.RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"})
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                documents = {"/.well-known/openid-configuration": issuer.discovery(), "/jwks": issuer.jwks()}
                body = json.dumps(documents.get(self.path, {})).encode()
                self.send_response(200 if self.path in documents else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(private=False)]}

    def discovery(self) -> dict[str, Any]:
        names = ("authorization", "token", "introspection", "userinfo")
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}jwks",
            **{f"{name}_endpoint": f"{self.url}{name}" for name in names},
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def token(self, subject: str, **claims: Any) -> str:
        """An access token for Rucio, good for an hour."""
        now = int(time.time())
        payload = {
            "iss": self.url,
            "sub": subject,
            "aud": "rucio",
            "scope": "openid profile",
            "wlcg.ver": "1.0",
        }
        payload |= {"iat": now, "exp": now + 3600, "jti": os.urandom(8).hex(), **claims}
        return jwt.encode({"alg": "RS256", "kid": "k1"}, payload, self.key)


class Api:
    """One account's view of the Rucio server."""

    def __init__(self, url: str, token: str, account: str) -> None:
        self.account = account
        self.http = httpx.Client(
            base_url=url, headers={"X-Rucio-Auth-Token": token}, timeout=60, trust_env=False
        )

    def __call__(self, method: str, path: str, body: Any = None, *, check: bool = True) -> Any:
        answer = self.http.request(method, path, content=None if body is None else json.dumps(body))
        if not check:
            return answer  # the caller looks at it
        assert answer.status_code < 400, (method, path, answer.status_code, answer.text)
        kind = answer.headers.get("content-type", "")
        if "x-json-stream" in kind:
            return [json.loads(line) for line in answer.text.splitlines() if line]
        # Rucio labels some of its JSON as text.
        return json.loads(answer.text) if answer.text[:1] in ("{", "[", '"') else answer.text

    def rule(self, did: str, lifetime: int | None = 3600, **more: Any) -> str:
        """Make a rule on the scratch RSE; its id."""
        scope, name = did.split(":", 1)
        body = {"dids": [{"scope": scope, "name": name}], "copies": 1, "rse_expression": SCRATCH}
        body["account"] = self.account
        made = self("POST", "/rules/", {**body, "lifetime": lifetime, **more})
        return str(made[0])

    def state(self, rule: str) -> dict[str, Any]:
        return dict(self("GET", f"/rules/{rule}"))

    def wait(self, rule: str, state: str = "OK", seconds: float = 60) -> dict[str, Any]:
        """Wait until the rule has this state."""
        last: dict[str, Any] = {}

        def there() -> bool:
            last.update(self.state(rule))
            return bool(last["state"] == state)

        wait_for(there, seconds, f"rule to be {state}, it was {last}")
        return last


@dataclass
class Lake:
    """The running services and where things are."""

    state: Path
    env: Path
    issuer: Issuer
    database_port: int
    rucio_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rucio_port}"

    @property
    def plan(self) -> config.Plan:
        return config.Plan(
            sites=SITES,
            scratch=SCRATCH,
            storage=self.state / "storage",
            mount=str(self.state / "session" / "lake"),
            scopes=tuple(GROUPS),
            restricted={"km3net": "km3net", "collider": "collider"},
        )

    @property
    def root(self) -> Api:
        return self.login("root")

    def secret(self, name: str) -> str:
        return (self.state / "secrets" / name).read_text()

    def login(self, account: str) -> Api:
        """A service account, with its password."""
        headers = {
            "X-Rucio-Account": account,
            "X-Rucio-Username": account,
            "X-Rucio-Password": self.secret(account),
        }
        answer = httpx.get(f"{self.url}/auth/userpass", headers=headers, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return Api(self.url, answer.headers["X-Rucio-Auth-Token"], account)

    @staticmethod
    def until(condition: Callable[[], Any], seconds: float = 30, what: str = "") -> Any:
        """:func:`wait_for`, for tests."""
        return wait_for(condition, seconds, what)

    def user(self, name: str, *experiments: str) -> Api:
        """A user, made by the hub's account as at a login; speaks with an OIDC token."""
        hub = self.login(config.SERVICE_ACCOUNT)
        if hub.http.get(f"/accounts/{name}").status_code == 404:
            hub("POST", f"/accounts/{name}", {"type": "USER", "email": f"{name}@localhost"})
            identity = f"SUB={name}, ISS={self.issuer.url}"
            body = {
                "identity": identity,
                "authtype": "OIDC",
                "email": f"{name}@localhost",
                "default": True,
            }
            hub("POST", f"/accounts/{name}/identities", body)
            hub("POST", f"/accounts/{name}/scopes/user.{name}")
            hub("POST", f"/accountlimits/local/{name}/{SCRATCH}", {"bytes": 10**13})
        for experiment in experiments:
            key = f"experiment-{experiment}"
            hub.http.post(f"/accounts/{name}/attr/{key}", content=json.dumps({"key": key, "value": "true"}))
        return Api(self.url, self.issuer.token(name), name)

    def place(self, rse: str, did: str) -> Path:
        """Where the file of a DID is on an RSE."""
        scope, name = did.split(":", 1)
        digest = hashlib.md5(did.encode()).hexdigest()
        return (
            storage.root(self.plan.storage, rse) / storage.scope_path(scope) / digest[:2] / digest[2:4] / name
        )

    def parts(self) -> list[Path]:
        """Temporary files of copies on all storage; directories may come and go meanwhile, which `rglob` takes ill."""
        return [
            Path(directory, name)
            for directory, _, names in os.walk(self.plan.storage)
            for name in names
            if name.endswith(".part")
        ]

    def put(self, dataset: str, files: dict[str, bytes], rse: str = SITES[0]) -> list[str]:
        """Files on a site, registered and in a dataset; their DIDs."""
        scope, name = dataset.split(":", 1)
        replicas = []
        for file, content in files.items():
            place = self.place(rse, f"{scope}:{file}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            for path in (place, place.parent, place.parent.parent, place.parent.parent.parent):
                os.chown(path, RUCIO_UID, RUCIO_UID)
            adler = f"{zlib.adler32(content):08x}"
            replicas.append({"scope": scope, "name": file, "bytes": len(content), "adler32": adler})
        root = self.root
        for first in range(0, len(replicas), 1000):
            root("POST", "/replicas", {"rse": rse, "files": replicas[first : first + 1000]})
        root("POST", f"/dids/{scope}/{name}", {"type": "DATASET"})
        dids = [{"scope": scope, "name": file} for file in files]
        for first in range(0, len(dids), 1000):
            root("POST", f"/dids/{scope}/{name}/dids", {"dids": dids[first : first + 1000]})
        return [f"{scope}:{file}" for file in files]

    # --- processes

    def start(self, name: str, **environment: str) -> None:
        """Start ``database``, ``rucio`` or ``daemons``."""
        if name == "database":
            command = database.command(self.state / "database", self.database_port)
            base, uid = database.environment(), DATABASE_UID
            writable, readable = [self.state / "database"], database.readable()
        else:
            commands = {
                "rucio": lambda: parts.server_command(self.env, [("127.0.0.1", self.rucio_port)]),
                "daemons": lambda: parts.daemons_command(self.env),
                "bootstrap": lambda: parts.bootstrap_command(self.env),
            }
            command = commands[name]()
            base, uid = parts.environment(self.state / "rucio"), RUCIO_UID
            writable, readable = [self.state / "rucio", self.state / "storage"], parts.readable(self.env)
        argv = confine.confine(
            command,
            uid=uid,
            gid=uid,
            name=f"_{name}",
            etc=self.state / "etc" / name,
            writable=writable,
            readable=readable,
        )
        with (self.state / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if name == "bootstrap" else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**base, **environment},
                cwd="/",
            )

    def stop(self, name: str, number: int = signal.SIGTERM) -> float:
        """End a part, if it runs; the seconds that it took."""
        process = self.processes.pop(name, None)
        if process is None:
            return 0.0
        begin = time.monotonic()
        if process.poll() is None:
            started = Process.of(process.pid)
            program = main_of(started) if started else None
            assert program is not None, f"{name} has not started"
            program.send(number)
        process.wait(20)
        return time.monotonic() - begin

    def bootstrap(self) -> int:
        """Run the bootstrap; its exit code."""
        self.start("bootstrap")
        passwords = {name: self.secret(name) for name in ("root", config.SERVICE_ACCOUNT)}
        self.processes["bootstrap"].communicate(json.dumps(self.plan.document(passwords)).encode(), 120)
        return self.processes.pop("bootstrap").returncode

    def start_daemons(self, **environment: str) -> None:
        """Start the daemons (again) and wait until they work."""
        self.stop("daemons")
        directory = self.state / "rucio"
        config.Files(directory).health.unlink(missing_ok=True)
        self.start("daemons", **environment)
        wait_for(lambda: parts.daemons_health(directory).ready, 180, "the daemons")

    def end(self) -> None:
        """Stop all that runs, what others need last."""
        for name in ("daemons", "rucio", "database"):
            if name in self.processes:
                self.stop(name, signal.SIGINT if name == "database" else signal.SIGTERM)
        self.issuer.server.shutdown()

    def sql(self, statement: str) -> str:
        """Ask the database (tests only)."""
        answer = subprocess.run(
            [
                str(self.env / "bin" / "python"),
                "-c",
                "import configparser,sys,psycopg\n"
                "p=configparser.ConfigParser(); p.read(sys.argv[1])\n"
                "u=p['database']['default'].replace('+psycopg','')\n"
                "print(psycopg.connect(u,autocommit=True).execute(sys.argv[2]).fetchall())",
                str(self.state / "rucio" / "rucio.cfg"),
                statement,
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return answer.stdout.strip()


def keep_logs(state: Path) -> None:
    """Copy the logs to where ``DMSP_TEST_LOGS`` says, if it does."""
    if keep := os.environ.get("DMSP_TEST_LOGS"):
        place = Path(keep) / state.name
        place.mkdir(parents=True, exist_ok=True)
        for log in state.glob("*.log"):
            shutil.copy(log, place)


def make_lake(state: Path, ports: int) -> Lake:
    """Start everything in ``state`` (exists, empty) on the two ports from ``ports`` on."""
    for name in ("secrets", "session"):
        (state / name).mkdir(mode=0o700)
    for name in ("database", "root", config.SERVICE_ACCOUNT):
        (state / "secrets" / name).write_text(config.generate_password())
    environments = Environments(Path(tempfile.gettempdir()) / f"dmsp-test-envs-{os.geteuid()}")
    env = asyncio.run(environments.ensure(EnvironmentSpec(slug="rucio", lock=parts.LOCK)))
    lake = Lake(state, env, Issuer(), ports, ports + 1)
    directory, password = state / "database", state / "secrets" / "database"
    etc = state / "etc" / "initdb"
    asyncio.run(database.prepare(directory, password, uid=DATABASE_UID, gid=DATABASE_UID, etc=etc))
    lake.start("database")
    wait_for(lambda: asyncio.run(database.ready(ports)), 30, "the database")
    storage.prepare(
        lake.plan.storage, sites=SITES, scratch=SCRATCH, scopes=GROUPS, uid=RUCIO_UID, gid=RUCIO_UID
    )
    config.write(
        state / "rucio",
        plan=lake.plan,
        database_url=database.url(password, ports),
        issuer=lake.issuer.url,
        transfers=4,
        uid=RUCIO_UID,
        gid=RUCIO_UID,
    )
    assert lake.bootstrap() == 0, (state / "bootstrap.log").read_text()[-2000:]
    lake.start("rucio")
    wait_for(lambda: asyncio.run(parts.server_ready(lake.url)), 60, "the Rucio server")
    lake.start_daemons()
    return lake
