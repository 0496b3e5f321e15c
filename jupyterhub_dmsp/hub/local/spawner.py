"""Sessions on this machine, each isolated from the others and able to outlive the hub.

As root every session has its own numeric user and groups, pid, mount, ipc and network namespaces and control
group. As an ordinary user there is one user and one network: one session at a time, and the launch page says so.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jupyterhub.spawner import Spawner
from traitlets import Dict, Integer, List, Unicode, default

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.errors import SpawnException
from jupyterhub_dmsp.hub.launch import listening
from jupyterhub_dmsp.hub.launch.description import kernel_options, mode_of
from jupyterhub_dmsp.hub.launch.spawner import ProfileSpawner
from jupyterhub_dmsp.hub.local import checks, records
from jupyterhub_dmsp.hub.local.house import LocalHouse, key_of
from jupyterhub_dmsp.hub.local.records import Record
from jupyterhub_dmsp.hub.local.room import NoRoom, Room, Share, gpu_devices
from jupyterhub_dmsp.hub.local.session import Session
from jupyterhub_dmsp.hub.metrics.watching import stage, starting
from jupyterhub_dmsp.profiles import needs
from jupyterhub_dmsp.profiles.environments import Environments, Progress
from jupyterhub_dmsp.profiles.launch import Capacity, Launch
from jupyterhub_dmsp.sandbox import cgroup, process
from jupyterhub_dmsp.sandbox.bwrap import Identity
from jupyterhub_dmsp.sandbox.ids import GROUPS_BASE, USERS_BASE, Ids
from jupyterhub_dmsp.sandbox.network import Network
from jupyterhub_dmsp.sandbox.process import Process
from jupyterhub_dmsp.settings import Settings

BUILD_SHARE = 80
"""Percent of the progress bar that preparing an environment takes."""

_environments: dict[Path, Environments] = {}
_rooms: dict[Path, Room] = {}


def environments(state: Path) -> Environments:
    """One instance in one process, so that users who start together share a build."""
    return _environments.setdefault(state, Environments(state / "envs"))


class LocalProfileSpawner(ProfileSpawner, Spawner):
    """Starts a profile's environment in a sandbox on this machine."""

    state_dir = Unicode("", config=True, help="""State directory of the installation. Must be set.""")
    network = Dict(
        None,
        allow_none=True,
        config=True,
        help="""The sessions' network, as ``Network.facts()`` gives it. Default: None, no network of their own
        (needed when the hub is not root).""",
    )
    session_port = Integer(
        8888, config=True, help="""Port of a server in its own network namespace. Default: 8888."""
    )
    binds = List(
        Unicode(), config=True, help="""Further host paths, seen read-only in sessions. Default: none."""
    )
    stop_grace = Integer(5, config=True, help="""Seconds that a server has for ending by itself. Default: 5.""")

    record: Record | None = None
    """The running session; None while there is none."""

    _popen: subprocess.Popen[bytes] | None = None

    @default("cmd")
    def _default_cmd(self) -> list[str]:
        # -I: nothing from the user's folder is imported into the server, whatever lies there.
        return [str(Path(sys.prefix, "bin", "python")), "-I", "-m", "jupyterhub_dmsp.hub.singleuser"]

    @property
    def state(self) -> Path:
        """The state directory."""
        if not self.state_dir:
            raise DmspError("LocalProfileSpawner.state_dir is not set.")
        return Path(self.state_dir)

    @property
    def key(self) -> str:
        """The session's folder: the user, and a named server's name behind a dot, which no user name has."""
        return key_of(str(self.user.name), str(self.name))

    @classmethod
    def house(cls, app: Any) -> LocalHouse:
        """What is known without a user, from JupyterHub's configuration."""
        one = cls(parent=app)
        point = one._scratch_point(one.dmsp_settings())
        scratch = point if one.isolated and point.parent.is_dir() else None
        return LocalHouse(one.state, one.session_network(), scratch)

    @property
    def isolated(self) -> bool:
        """Whether sessions have their own user and network."""
        return os.geteuid() == 0

    def session_network(self) -> Network | None:
        """The sessions' network; None for the machine's own."""
        return Network.from_facts(self.network) if self.network else None

    def load_state(self, state: dict[str, Any]) -> None:
        """Adopt what a former hub left running."""
        super().load_state(state)
        # Also without our mark: a hub that is killed during a start has not saved it yet.
        self.record = Record.read(self.state, self.key)

    def get_state(self) -> dict[str, Any]:
        """Little: the record in the state directory is the truth, and is there when the hub is not."""
        return super().get_state() | ({"session": self.key} if self.record else {})

    def clear_state(self) -> None:
        """Forget the session."""
        super().clear_state()
        self.record = None
        self._popen = None

    def usage(self) -> dict[str, float]:
        """Memory [bytes] and processor time [s] of the session, where control groups count them."""
        group = cgroup.existing(records.group_name(self.state, self.key)) if self.isolated else None
        counted = {"memory": group.memory_used(), "cpu": group.cpu_used()} if group else {}
        return {name: value for name, value in counted.items() if value is not None}

    async def get_url(self) -> str:
        """Where the server is, for a hub that was restarted during its start and has not kept it."""
        record = self.record
        if record is None or self.server is None:
            return str(await super().get_url())
        return f"{self.server.proto}://{record.address}:{record.port}{self.server.base_url}"

    async def notice(self) -> str:
        """What the launch page should say about the last session's end and about isolation."""
        if self.isolated:
            return await super().notice()
        return "This installation runs without root: one session at a time, isolated from this machine's files only."

    @starting
    async def start(self) -> tuple[str, int]:
        """Prepare the environment, then the sandbox; returns address and port.

        Raises:
            SpawnException: with the sentence that the progress page shows.
        """
        launch = self.launch or await self.choose(self.user_options or {})
        try:
            await self._refuse_second()
            await self.before_start(launch)
            room = await self._room()
            with room.promise(self.key, launch) as share:
                environment = await self._environment(launch)
                self.steps.say("Preparing the session", BUILD_SHARE + 2)
                await self._launch(launch, environment, share)
            self.server_begins()
            await self._listening()
            return self.ip, self.port
        except NoRoom as error:
            self.log.warning("The session of %s has no room: %s", self.user.name, error)
            raise SpawnException(error.message, reason="capacity", status_code=503) from error
        except DmspError as error:
            # The remedy is an admin's, and may name files of the server: it goes into the log only.
            self.log.error("The session of %s cannot start: %s", self.user.name, error)
            sentence = f"{error.message} {await self.whom_to_ask()}"
            raise SpawnException(sentence, reason="session", status_code=503) from error
        finally:
            self.steps.close()

    async def capacity(self) -> Capacity | None:
        """What is free on this machine; nothing is counted without root, where limits do not hold."""
        room = await self._room()
        return await asyncio.to_thread(room.capacity, self.key) if self.isolated else None

    async def before_start(self, launch: Launch) -> None:
        """Look at what the profile needs of this machine, the home folders' disk, and scratch.

        Raises:
            DmspError: with a sentence; :meth:`start` tells it.
        """
        settings = await asyncio.to_thread(self.dmsp_settings)
        await asyncio.to_thread(needs.check, launch.profile)
        await asyncio.to_thread(checks.mounts, launch, settings)
        await checks.home(self.state, str(self.user.name), settings, self.steps.say)
        if self.isolated and mode_of(launch, settings) == "replica":
            await checks.scratch(self._scratch_point(settings), settings.sessions.scratch_wait, self.steps.say)

    def _scratch_point(self, settings: Settings) -> Path:
        """Scratch on this machine: below the directory that sessions bind, named as where they see it."""
        return self.state / "scratch" / PurePosixPath(settings.lake.mount).name

    async def _room(self) -> Room:
        settings = await asyncio.to_thread(self.dmsp_settings)
        room = _rooms.setdefault(self.state, Room(self.state))
        room.overcommit = settings.sessions.overcommit if self.isolated else None
        return room

    async def poll(self) -> int | None:
        """None while the session runs, else its exit code (0 when nobody knows)."""
        record = self.record
        if record is None:
            return 0
        if self._popen is not None:
            self._popen.poll()  # reaps it
        if record.outer.alive():
            return None
        code = self._popen.returncode if self._popen is not None else 0
        await records.end_session(record, self.state, self.session_network(), grace=0)
        self.clear_state()
        return code or 0

    async def stop(self, now: bool = False) -> None:
        """End the session and take away all that was made for it."""
        record = self.record or Record.read(self.state, self.key)
        grace = 0 if now else self.stop_grace
        if record is not None:
            await records.end_session(record, self.state, self.session_network(), grace)
        else:
            await records.clear_session(self.state, self.key, self.session_network())
        if self._popen is not None:
            await asyncio.to_thread(self._popen.wait, 5)
        self.clear_state()

    async def _refuse_second(self) -> None:
        """End what a crash left of this very session; without root, refuse while somebody else's runs."""
        former = Record.read(self.state, self.key)
        if former is not None:
            await records.end_session(former, self.state, self.session_network(), grace=self.stop_grace)
        if not self.isolated:
            other = next((r for r in records.all_records(self.state) if r.alive() and r.key != self.key), None)
            if other is not None:
                raise SpawnException(
                    f"A session of {other.user} is running, and without root there can be one only. Stop it first.",
                    reason="single",
                    status_code=409,
                )

    @stage("environment")
    async def _environment(self, launch: Launch) -> Path:
        spec, profile, steps = launch.environment(), launch.profile, self.steps
        steps.say(f"Looking for the environment {profile.name}", 1)

        def report(progress: Progress) -> None:
            share = None if progress.fraction is None else progress.fraction * BUILD_SHARE
            steps.say(f"{profile.name}: {progress.message}", share)

        return await environments(self.state).ensure(spec, report)

    async def _identity(self) -> tuple[Identity, list[Any]]:
        """Who the session is, and the user's experiments."""
        experiments = await self.experiments()
        name = str(self.user.name)
        if not self.isolated:
            return Identity(name, os.getuid(), os.getgid(), home=f"/home/{name}"), experiments
        users = Ids(self.state / "ids" / "users.json", USERS_BASE)
        groups = Ids(self.state / "ids" / "groups.json", GROUPS_BASE)

        def allocate() -> Identity:
            uid = users.get(name)
            named = {f"dmsp-{e.name}": groups.get(f"dmsp-{e.name}") for e in experiments}
            return Identity(name, uid, uid, named, home=f"/home/{name}")

        return await asyncio.to_thread(allocate), experiments

    @stage("sandbox")
    async def _launch(self, launch: Launch, environment: Path, share: Share) -> None:
        identity, experiments = await self._identity()
        session = Session(
            state=self.state,
            key=self.key,
            identity=identity,
            launch=launch,
            environment=environment,
            experiments=experiments,
            settings=await asyncio.to_thread(self.dmsp_settings),
            lake=dict(self.lake),
            binds=list(self.binds),
            devices=gpu_devices(share.gpus),
        )
        network = self.session_network()
        try:
            if network is not None:
                place = await network.attach(self.key)
                self.ip, self.port, namespace = place.address, self.session_port, place.namespace
            else:
                self.ip, self.port, namespace = "127.0.0.1", _free_port(), None
            await self._write(session, network)
            self.steps.say("Starting the server", BUILD_SHARE + 5)
            await self._run(session, share, namespace)
        except BaseException:
            # Also when the start is cancelled: nothing of it may stay.
            await asyncio.shield(self._abandon())
            raise

    async def _listening(self) -> None:
        """Wait until the server takes connections. A hub that ends meanwhile leaves it to the next one."""
        try:
            async with asyncio.timeout(self.http_timeout):
                while not await listening.listens(str(self.ip), int(self.port)):
                    if self._popen is not None and self._popen.poll() is not None:
                        raise DmspError("The session's server ended while it started.", self._see_log())
                    await asyncio.sleep(listening.PAUSE)
        except (DmspError, TimeoutError) as error:
            await self._abandon()
            if isinstance(error, DmspError):
                raise
            late = f"The session's server did not listen within {self.http_timeout} s."
            raise DmspError(late, self._see_log()) from error

    def _see_log(self) -> str:
        return f"The log {self._log_file.name} has the reason."

    @property
    def _log_file(self) -> Path:
        return self.state / "logs" / "sessions" / f"{self.key}.log"

    async def _abandon(self) -> None:
        if self._popen is not None:
            outer = Process.of(self._popen.pid)
            if outer is not None:
                await process.end(outer, grace=0)
            await asyncio.to_thread(self._popen.wait, 5)
        await records.clear_session(self.state, self.key, self.session_network())
        self.clear_state()

    async def _write(self, session: Session, network: Network | None) -> None:
        description = session.description(f"{self.hub.api_url}/dmsp/token")
        description, files = self.with_hooks(description)
        resolv = network.resolv_conf() if network else await asyncio.to_thread(_own_resolv)
        await asyncio.to_thread(session.write, self.api_token, files, description, resolv)

    async def _run(self, session: Session, share: Share, namespace: Path | None) -> None:
        """Start the process, wait until its sandbox stands, write it down."""
        profile, most = session.launch.profile, session.launch.limits
        limits = cgroup.Limits(most.memory_bytes, most.cpu, most.processes)
        program = [*self.cmd, *kernel_options(profile), *self.get_args()]
        command = session.sandbox(namespace, limits.memory).command(program)
        if self.isolated:
            group = cgroup.create(records.group_name(self.state, self.key), limits)
            self.log.info("Session of %s: %s", self.user.name, group.describe())
            command = group.command(command)
        env = self.session_environment(session)
        self._popen = await asyncio.to_thread(_popen, command, env, self._log_file)
        outer = Process.of(self._popen.pid)
        init = await _sandbox_up(outer, self._popen) if outer else None
        if outer is None or init is None:
            raise DmspError("The session's sandbox did not start.", self._see_log())
        self.record = Record(
            self.key,
            str(self.user.name),
            profile.slug,
            outer,
            init,
            str(self.ip),
            int(self.port),
            share.memory,
            share.gpus,
        )
        await asyncio.to_thread(self.record.write, self.state)

    def session_environment(self, session: Session) -> dict[str, str]:
        """The environment of the server: JupyterHub's variables, and the session's own."""
        return self.hub_variables() | session.variables(str(self.lake.get("site", "")))


async def _sandbox_up(outer: Process, popen: subprocess.Popen[bytes], timeout: float = 20.0) -> Process | None:
    """Process 1 of a sandbox that is just starting; None when it ended or does not come up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while loop.time() < deadline and popen.poll() is None:
        if process.program_of(outer) is not None:
            return process.init_of(outer)
        # A fork has no event that a stranger could wait for.
        await asyncio.sleep(0.005)
    return None


def _popen(command: Sequence[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a session: own process group, no terminal, its log on disk (a pipe would die with the hub)."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as out:
        return subprocess.Popen(
            command,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o022,
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _own_resolv() -> str:
    try:
        return Path("/etc/resolv.conf").read_text()
    except OSError:
        return ""
