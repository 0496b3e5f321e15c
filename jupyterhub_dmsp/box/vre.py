"""The parts of the embedded VRE, and how they are told of one another."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx

from jupyterhub_dmsp.box import confine, database, demo, hub_files, issuer, mount, returning
from jupyterhub_dmsp.box.bootstrap import bootstrap
from jupyterhub_dmsp.box.files import write_private
from jupyterhub_dmsp.box.front import FrontDoor, handed
from jupyterhub_dmsp.box.integrity.facts import Facts
from jupyterhub_dmsp.box.part import Part, Say
from jupyterhub_dmsp.box.rucio import config as rucio_config
from jupyterhub_dmsp.box.rucio import parts as rucio
from jupyterhub_dmsp.box.rucio import storage
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.hub.routes import proxy
from jupyterhub_dmsp.profiles.environments import Environments, EnvironmentSpec
from jupyterhub_dmsp.sandbox.ids import GROUPS_BASE, USERS_BASE, Ids
from jupyterhub_dmsp.sandbox.network import Network
from jupyterhub_dmsp.settings import LogPart, Settings, read_secret
from jupyterhub_dmsp.shared import dmsp_log

SITE = "BOX"
CHECK_TIMEOUT = 3.0


async def answers(url: str) -> bool:
    """Whether an HTTP server answers this address with a success."""
    try:
        async with httpx.AsyncClient(timeout=CHECK_TIMEOUT, trust_env=False) as client:
            return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False


def installer_environment() -> dict[str, str]:
    """What the installer of environments must know of this machine: caches, mirrors, certificates, proxies."""
    wanted = ("UV_", "PIP_", "SSL_CERT_", "XDG_CACHE_")
    names = {"HOME", "REQUESTS_CA_BUNDLE", *(f"{p}_PROXY" for p in ("HTTP", "HTTPS", "ALL", "NO"))}
    names |= {name.lower() for name in names if name.endswith("_PROXY")}
    return {key: value for key, value in os.environ.items() if key in names or key.startswith(wanted)}


async def _done() -> bool:
    return True


def _work(
    name: str, title: str, prepare: Callable[[Say], Awaitable[None]], needs: tuple[str, ...] = ()
) -> Part:
    """A part without a process: something that is done once at each start."""
    return Part(name=name, title=title, command=None, prepare=prepare, ready=_done, needs=needs)


class Vre:
    """One box: what it consists of, for the supervisor.

    Args:
        state: its opened and locked directory.
        settings: what ``dmsp.yaml`` says.
        settings_file: where that file is, for the hub; None for the defaults.
        ports: from :meth:`State.ports`.
    """

    def __init__(
        self, state: State, settings: Settings, settings_file: Path | None, ports: dict[str, int]
    ) -> None:
        self.state = state
        self.settings = settings
        self.settings_file = settings_file
        self.ports = ports
        self.root = os.geteuid() == 0
        self.address = f"http://127.0.0.1:{ports['public']}/"
        self.own_issuer = settings.identity.issuer is None
        self.issuer = settings.identity.issuer or f"http://127.0.0.1:{ports['issuer']}/oidc"
        self.rucio_url = f"http://127.0.0.1:{ports['rucio']}"
        self.proxy_api = f"http://127.0.0.1:{ports['proxy_api']}"
        self.front = FrontDoor(
            settings.site.name,
            "127.0.0.1",
            public=ports["public"],
            inner=ports["front"],
            report=state.read_status,
        )
        self.network: Network | None = None
        self._bootstrapped = False
        self.environments = Environments(state / "envs")
        self._users = Ids(state / "ids" / "users.json", USERS_BASE)
        self._groups = Ids(state / "ids" / "groups.json", GROUPS_BASE)

    def uid(self, name: str) -> int:
        """The user id of a part (or of the one user where we are not root)."""
        return self._users.get(f"_{name}") if self.root else os.geteuid()

    def gid(self, name: str) -> int:
        """The group of a part: of the same number as its user id."""
        return self.uid(name) if self.root else os.getegid()

    def _log(self, part: LogPart, name: str = "") -> dict[str, str]:
        """What tells a part how to log, under another name where a program of it has its own log."""
        chosen = self.settings.log
        return dmsp_log.variables(name or part, chosen.format, chosen.of(part))

    def _etc(self, name: str) -> Path:
        """Where the generated ``/etc`` files of a part are."""
        return self.state / "run" / "etc" / name

    def owner(self, name: str) -> tuple[int, int] | None:
        return (self.uid(name), self.uid(name)) if self.root else None

    @property
    def inner_host(self) -> str:
        """The address at which sessions find the hub and Rucio."""
        return self.network.gateway if self.network else "127.0.0.1"

    def _gid(self, name: str) -> int:
        return self._groups.get(name) if self.root else os.getegid()

    def _scope_gids(self) -> dict[str, int]:
        """Which group may read a scope's files on scratch."""
        gids = {s: self._gid(f"dmsp-{e.name}") for e in self.settings.experiments for s in e.scopes}
        for user in self.settings.box.users:
            gids[f"user.{user.name}"] = self._users.get(user.name) if self.root else os.getegid()
        return gids

    def _plan(self) -> rucio_config.Plan:
        box = self.settings.box
        restricted = {s: e.name for e in self.settings.experiments if e.groups for s in e.scopes}
        return rucio_config.Plan(
            sites=tuple(self.settings.box.site_rses),
            scratch=self.settings.lake.scratch_rse,
            storage=self.state / "storage",
            mount=self.settings.lake.mount,
            site=SITE,
            scopes=tuple(s for e in self.settings.experiments for s in e.scopes if s != demo.SCALE_SCOPE),
            restricted=restricted,
            marks=rucio_config.Marks(box.scratch_limit, box.scratch_high, box.scratch_low, box.scratch_notice),
        )

    async def prepare(self) -> None:
        """What several parts need: the address, users, storage directories, the network of the sessions."""
        await self.front.open()
        plan = self._plan()
        await asyncio.to_thread(
            storage.prepare,
            plan.storage,
            sites=plan.sites,
            scratch=plan.scratch,
            scopes=self._scope_gids(),
            uid=self.uid("rucio"),
            gid=self.gid("rucio"),
        )
        self._facts_of_storage(plan).remember(self.state.path)
        await asyncio.to_thread(self._prepare_identity)
        if self.root:
            internet = self.settings.box.session_internet
            ports = (self.ports["hub"], self.ports["rucio"])
            self.network = await Network.load_or_choose(self.state.path, ports=ports, internet=internet)
            await self.network.ensure()

    def _prepare_identity(self) -> None:
        """The users of the box's own issuer, or the hub's secret at another one."""
        if self.own_issuer:
            users, file = self.settings.box.users, self.state / "issuer" / "users.json"
            issuer.ensure_users(users, self.state / "secrets", file, owner=self.owner("issuer"))
            return
        reference = self.settings.identity.client_secret
        if reference is None:
            raise DmspError(
                f"The hub has no secret for its client at {self.issuer}.", "Set identity.client_secret."
            )
        # A copy: the hub's process sees no variable of ours that the reference may name.
        write_private(self._client_secret(), read_secret(reference) + "\n")

    def _client_secret(self) -> Path:
        """The file with the hub's secret at the issuer."""
        name = "hub-client-secret" if self.own_issuer else "identity-client-secret"
        return self.state.secret(name) if self.own_issuer else self.state / "secrets" / name

    def _facts_of_storage(self, plan: rucio_config.Plan) -> Facts:
        """What ``dmsp scratch check`` has to know."""
        return Facts(
            storage=plan.storage,
            rucio=self.state / "rucio",
            env=self._env(),
            etc=self._etc("integrity"),
            scratch=plan.scratch,
            sites=plan.sites,
            scopes=self._scope_gids(),
            uid=self.uid("rucio"),
            gid=self.gid("rucio"),
        )

    def parts(self) -> list[Part]:
        """All parts, in the order in which people see them."""
        found = [self._database(), self._installation(), self._rucio(), self._daemons()]
        if self.own_issuer:
            found.insert(1, self._issuer())
        if self.root:
            found.append(self._scratch())
        return [*found, self._proxy(), self._hub(), self._content()]

    def _confined(
        self, name: str, command: list[str], writable: list[Path], readable: Sequence[Path] = ()
    ) -> list[str]:
        return confine.confine(
            command,
            uid=self.uid(name),
            gid=self.gid(name),
            name=name,
            writable=writable,
            readable=[Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2], *readable],
            etc=self._etc(name),
        )

    def _database(self) -> Part:
        directory, port = self.state / "database", self.ports["database"]
        password = self.state.secret("database-password")

        async def prepare(say: Say) -> None:
            if not (directory / "data" / "PG_VERSION").exists():
                say("making the database")
            uid, gid, etc = self.uid("database"), self.gid("database"), self._etc("database")
            await database.prepare(directory, password, uid=uid, gid=gid, etc=etc)

        return Part(
            name="database",
            title="PostgreSQL",
            prepare=prepare,
            command=lambda: self._confined(
                "database",
                database.command(directory, port, self.settings.log.of("database")),
                [directory],
                database.readable(),
            ),
            environment=database.environment(),
            ready=lambda: database.ready(port),
            stop_signal=database.STOP,
            address=f"127.0.0.1:{port}",
        )

    def _issuer(self) -> Part:
        directory = self.state / "issuer"

        async def prepare(_: Say) -> None:
            await asyncio.to_thread(
                issuer.write_config,
                directory,
                issuer=self.issuer,
                host="127.0.0.1",
                port=self.ports["issuer"],
                site_name=self.settings.site.name,
                support=self.settings.site.support,
                clients=issuer.demo_clients(
                    hub_secret_file=self.state / "secrets" / "hub-client-secret",
                    hub_redirect_uris=[f"{self.address}hub/oauth_callback"],
                    hub_logout_uris=[f"{self.address}hub/login"],
                ),
                token_lifetime=self.settings.box.token_lifetime,
                owner=self.owner("issuer"),
            )

        return Part(
            name="issuer",
            title="OIDC issuer",
            prepare=prepare,
            command=lambda: self._confined("issuer", issuer.command(directory / "config.json"), [directory]),
            environment=self._log("issuer"),
            ready=lambda: issuer.ready(self.issuer),
            address=self.issuer,
        )

    def _rucio_environment(self) -> EnvironmentSpec:
        return EnvironmentSpec(slug="rucio", lock=rucio.LOCK)

    def _installation(self) -> Part:
        async def prepare(say: Say) -> None:
            await self.environments.ensure(self._rucio_environment(), lambda p: say(p.message))

        return _work("installation", "Rucio's environment", prepare)

    def _rucio(self) -> Part:
        directory = self.state / "rucio"

        async def prepare(say: Say) -> None:
            await asyncio.to_thread(
                rucio_config.write,
                directory,
                plan=self._plan(),
                database_url=database.url(self.state / "secrets" / "database-password", self.ports["database"]),
                issuer=self.issuer,
                transfers=self.settings.box.transfers,
                uid=self.uid("rucio"),
                gid=self.gid("rucio"),
            )
            if not self._bootstrapped:
                say("bringing the catalogue up to date")
                env = rucio.environment(directory) | self._log("rucio", "bootstrap")
                make = self._in_rucio(rucio.bootstrap_command(self._env()))
                await bootstrap(self.state, self._plan(), make, env, self.ports["database"])
                look = self._in_rucio(returning.command(str(self._env() / "bin" / "python")))
                await returning.reconcile(self.state, look, env, say)
                self._bootstrapped = True

        return Part(
            name="rucio",
            title="Rucio server",
            prepare=prepare,
            command=lambda: self._in_rucio(rucio.server_command(self._env(), self._binds())),
            environment=rucio.environment(directory) | self._log("rucio"),
            ready=lambda: rucio.server_ready(self.rucio_url),
            needs=("database", "installation"),
            address=self.rucio_url,
        )

    def _binds(self) -> list[tuple[str, int]]:
        """Where the Rucio server listens: loopback, and the bridge of the sessions."""
        hosts = ["127.0.0.1", self.network.gateway] if self.network else ["127.0.0.1"]
        return [(host, self.ports["rucio"]) for host in hosts]

    def _env(self) -> Path:
        return self.environments.path(self._rucio_environment())

    def _in_rucio(self, command: list[str]) -> list[str]:
        writable = [self.state / "rucio", self.state / "storage"]
        return self._confined("rucio", command, writable, rucio.readable(self._env()))

    def _daemons(self) -> Part:
        directory = self.state / "rucio"

        def command() -> list[str]:
            # What an earlier process said about itself does not count, whatever the clock says.
            rucio_config.Files(directory).health.unlink(missing_ok=True)
            return self._in_rucio(rucio.daemons_command(self._env()))

        return Part(
            name="daemons",
            title="Rucio daemons and transfers",
            command=command,
            environment=rucio.environment(directory) | rucio.test_aids() | self._log("daemons"),
            ready=lambda: rucio.daemons_ready(directory),
            alive=lambda: rucio.daemons_wrong(directory),
            needs=("rucio", "database"),
            stop_timeout=5.0,
        )

    def _scratch(self) -> Part:
        directory = self.state / "scratch"
        source = storage.root(self.state / "storage", self.settings.lake.scratch_rse)

        async def prepare(_: Say) -> None:
            await mount.prepare(directory)

        return Part(
            name="scratch",
            title="Scratch mount",
            prepare=prepare,
            command=lambda: mount.command(source, directory),
            ready=lambda: mount.ready(directory),
            alive=lambda: mount.wrong(directory),
            clean=lambda: mount.release(directory),
            address=str(directory / mount.POINT),
        )

    def _proxy(self) -> Part:
        directory = self.state / "proxy"
        static, dynamic = directory / "static.toml", directory / "rules.toml"
        first = True

        async def prepare(_: Say) -> None:
            nonlocal first
            log = self.settings.log
            proxy.write_static(
                static, public_url=self.address, api_url=self.proxy_api, dynamic=dynamic, log=log
            )
            if first:
                # Routes of the last time are the hub's to tell again; those of this time stay over a restart.
                proxy.write_routes(dynamic, page_url=self.front.page, gid=self._proxy_gid)
                first = False

        async def ready() -> bool:
            if not await answers(f"{self.proxy_api}{proxy.READY}"):
                return False
            self.front.to_proxy()
            return True

        return Part(
            name="proxy",
            title="Proxy",
            prepare=prepare,
            listener=self.front.listener,
            command=lambda: self._confined("proxy", handed(proxy.command(static), proxy.PUBLIC), [directory]),
            ready=ready,
            address=self.address,
        )

    @property
    def _proxy_gid(self) -> int | None:
        """The proxy's group, where it is another user than the hub."""
        return self.uid("proxy") if self.root else None

    def _facts(self) -> dict[str, object]:
        state = self.state
        return {
            "state": str(state.path),
            "public_url": self.address,
            "hub_url": f"http://{self.inner_host}:{self.ports['hub']}",
            "issuer": self.issuer,
            "client_secret": f"file:{self._client_secret()}",
            "crypt_key": f"file:{state.hex_secret('hub-crypt-key')}",
            "proxy_api_password": f"file:{state.secret('proxy-api-password')}",
            "proxy_api_url": self.proxy_api,
            "proxy_dynamic": str(state / "proxy" / "rules.toml"),
            "proxy_gid": self._proxy_gid,
            "proxy_page": proxy.PAGE,
            "settings_file": str(self.settings_file or ""),
            "network": self.network.facts() if self.network else None,
            "catalogue_path": "",
            "lake": {
                "id": state.lake_id(self._inner_rucio),
                "rucio_url": self._inner_rucio,
                "auth_url": self._inner_rucio,
                "site": SITE,
            },
            "box": {
                "issuer": self.issuer,
                "rucio_url": self.rucio_url,
                "rucio_secret": f"file:{state.secret('rucio-hub-password')}",
                "scratch_rse": self.settings.lake.scratch_rse,
            },
        }

    @property
    def _inner_rucio(self) -> str:
        return f"http://{self.inner_host}:{self.ports['rucio']}"

    def _hub(self) -> Part:
        directory = self.state / "hub"

        async def prepare(_: Say) -> None:
            hub_files.write(directory, self._facts())

        config = directory / "jupyterhub_config.py"
        hub = [sys.executable, "-m", "jupyterhub_dmsp.hub", "-f", str(config)]
        guarded = ["setpriv", "--pdeathsig", "TERM", *hub]
        # JupyterHub upgrades its database with the program alembic, which is installed beside it.
        path = f"{Path(sys.prefix, 'bin')}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        return Part(
            name="hub",
            title="JupyterHub",
            prepare=prepare,
            command=lambda: guarded,
            environment=installer_environment() | {"PATH": path} | self._log("hub"),
            ready=lambda: answers(f"{self.address}hub/health"),
            needs=("proxy", "issuer") if self.own_issuer else ("proxy",),
            address=f"http://{self.inner_host}:{self.ports['hub']}",
        )

    def _content(self) -> Part:
        async def prepare(say: Say) -> None:
            sites = self.settings.box.site_rses
            await demo.fill(self.state.path, self.rucio_url, self.environments, say, sites=sites)

        return _work("content", "Lake content", prepare, needs=("rucio", "daemons"))

    async def clean(self) -> None:
        """After all parts have ended: the address, sessions, mounts, network."""
        self.front.close()
        await self.clean_state(self.state)

    @staticmethod
    async def clean_state(state: State) -> None:
        """End sessions, unmount scratch and remove the network of a state, whoever left them."""
        await records.end_sessions(state.path)
        await mount.remove(state / "scratch")
        if os.geteuid() == 0 and (network := Network.load(state.path)) is not None:
            await network.remove()

    @staticmethod
    async def add_scale(state: State, count: int, say: Callable[[str], None]) -> None:
        """``dmsp demo --scale``: register a scope with ``count`` DIDs."""
        rucio_url = next(p["address"] for p in state.read_status()["parts"] if p["name"] == "rucio")
        await demo.scale(state.path, rucio_url, count, say)
