"""Sessions as pods of a Kubernetes cluster.

This is a spawner of ours, not a subclass of KubeSpawner, and it speaks to the cluster's API over httpx, which the
hub has anyway. The reasons:

* What makes a session is decided before this class comes in, by the catalogue and :class:`ProfileSpawner`. Nine
  tenths of KubeSpawner's 3961 lines are about what we do not want twice: profile lists, overrides per group,
  templates in every value.
* Its failure modes come with its base: standing watches shared by all users, which end the hub when they
  end, and a profile list whose empty form starts the bare image. Here nothing stands. A start follows its own
  pod, who runs is read from one list for all servers, and an API that is away means "nobody knows", never "ended".
* The official asynchronous client costs 3 seconds of CPU and 80 MB in the hub (857 modules of classes for every
  kind of object). We make six kinds of request.

What a pod looks like is in :mod:`.manifests`, what its states mean in :mod:`.states`; both are pure.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub import orm
from jupyterhub.spawner import Spawner
from traitlets import default

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.errors import SpawnException
from jupyterhub_dmsp.hub.kube import access, leftovers, manifests, names, states, watching
from jupyterhub_dmsp.hub.kube.api import Api, ApiError, Object
from jupyterhub_dmsp.hub.kube.leftovers import Sweep
from jupyterhub_dmsp.hub.kube.manifests import Home, Plan, Scratch
from jupyterhub_dmsp.hub.kube.traits import KubeTraits
from jupyterhub_dmsp.hub.kube.watching import Failed, Running, Start
from jupyterhub_dmsp.hub.launch.description import describe, kernel_options, mode_of, variables
from jupyterhub_dmsp.hub.launch.spawner import ProfileSpawner
from jupyterhub_dmsp.hub.metrics.watching import starting
from jupyterhub_dmsp.profiles.launch import Launch
from jupyterhub_dmsp.sandbox.bwrap import Identity
from jupyterhub_dmsp.sandbox.ids import GROUPS_BASE, USERS_BASE, Ids
from jupyterhub_dmsp.settings import Experiment, Settings

ALL = "0.0.0.0"  # noqa: S104 - a pod has its own network


@dataclass(frozen=True)
class Cluster:
    """What all users of a process share."""

    api: Api
    running: Running
    sweep: Sweep


_clusters: dict[tuple[str, str], Cluster] = {}


def cluster(kubeconfig: str, namespace: str) -> Cluster:
    """One connection for all users of a process. Reads files at the first time.

    Raises:
        NoCluster: with a sentence.
    """
    key = (kubeconfig, namespace)
    if key not in _clusters:
        api = Api(access.find(kubeconfig), namespace)
        _clusters[key] = Cluster(api, Running(api), Sweep(api))
    return _clusters[key]


class KubeProfileSpawner(ProfileSpawner, KubeTraits, Spawner):
    """Starts a profile's image as a pod."""

    pod_uid = ""
    """The running pod; empty while there is none."""

    pod_secret = ""

    ended = ""
    """Why the last session ended, when it did so by itself: a sentence for the launch page."""

    @default("cmd")
    def _default_cmd(self) -> list[str]:
        # -I: nothing from the user's folder is imported into the server, whatever lies there.
        return ["python3", "-I", "-m", "jupyterhub_dmsp.hub.singleuser"]

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        # The hub's own paths mean nothing in an image.
        return []

    @property
    def cluster(self) -> Cluster:
        """The cluster, as all users of this process share it."""
        return cluster(self.kubeconfig, self.namespace)

    @property
    def api(self) -> Api:
        """Its API."""
        return self.cluster.api

    @property
    def pod_name(self) -> str:
        """Name of this server's pod, running or not."""
        return names.session(self.name_prefix, str(self.user.name), str(self.name or ""))

    def load_state(self, state: dict[str, Any]) -> None:
        """Adopt what a former hub left running."""
        super().load_state(state)
        self.pod_uid, self.pod_secret = str(state.get("pod_uid", "")), str(state.get("pod_secret", ""))
        self.ended = str(state.get("ended", ""))

    def get_state(self) -> dict[str, Any]:
        """Which pod it is (one of the same name may be another one), and how the one before it ended."""
        found = {"pod_uid": self.pod_uid, "pod_secret": self.pod_secret} if self.pod_uid else {}
        return super().get_state() | found | ({"ended": self.ended} if self.ended else {})

    def clear_state(self) -> None:
        """Forget the pod; how it ended is told until the next start."""
        super().clear_state()
        self.pod_uid = self.pod_secret = ""

    async def notice(self) -> str:
        """Why the last session ended, when it did so by itself."""
        await self._sweep()
        return self.ended

    async def _sweep(self) -> None:
        """End what a former hub left of starts, at the first occasion."""
        try:
            await self.cluster.sweep.once(self.name_prefix, self._known, self.log)
        except DmspError as error:
            self.log.error("There is no cluster: %s", error)

    def _known(self) -> set[str]:
        """Uids of the pods that the hub's database knows."""
        states_ = (row.state or {} for row in self.db.query(orm.Spawner))
        return {str(state.get("pod_uid", "")) for state in states_}

    @starting
    async def start(self) -> tuple[str, int]:
        """Make the pod and wait until its server listens; returns address and port.

        Raises:
            SpawnException: with the sentence that the progress page shows.
        """
        launch = self.launch or await self.choose(self.user_options or {})
        self.ended = ""
        try:
            async with self._sentences():
                await self._sweep()
                await self.before_start(launch)
                plan = await self._plan(launch)
                return await self._run(plan)
        finally:
            self.steps.close()

    @asynccontextmanager
    async def _sentences(self) -> AsyncIterator[None]:
        """Turns what goes wrong into refusals with one sentence; the cluster's own words go into the log only."""
        try:
            yield
        except Failed as failure:
            self.log.error("The session of %s does not start: %s", self.user.name, failure)
            fault = failure.fault
            sentence = fault.sentence if fault.theirs else f"{fault.sentence} {await self.whom_to_ask()}"
            raise SpawnException(sentence, reason="session", status_code=503) from failure
        except ApiError as error:
            self.log.error("The session of %s cannot start: %s", self.user.name, error)
            sentence = "The cluster does not answer."
            if error.status:
                full = "exceeded quota" in error.message
                sentence = "The cluster's quota is used up." if full else "The cluster refuses this session."
            raise SpawnException(
                f"{sentence} {await self.whom_to_ask()}", reason="cluster", status_code=503
            ) from error
        except DmspError as error:
            self.log.error("The session of %s cannot start: %s", self.user.name, error)
            raise SpawnException(
                f"{error.message} {await self.whom_to_ask()}", reason="session", status_code=503
            ) from error

    async def poll(self) -> int | None:
        """None while the pod runs, or nobody can tell, else its exit code (1 when nobody knows it)."""
        if not self.pod_uid:
            return 0
        try:
            pod = await self.cluster.running.get(self.pod_name, self.pod_uid)
        except DmspError as error:
            # A server that is thought to have ended loses its route and its token: not for a guess.
            self.log.warning("Whether the session of %s runs is not known: %s", self.user.name, error)
            return None
        if pod is None:
            self.log.warning("The pod of %s is not there any more.", self.user.name)
            self.clear_state()
            return 1
        code = states.exit_code(pod)
        if code is None:
            return None
        end = states.end(pod)
        if end is not None:
            self.log.warning("The session of %s: %s %s", self.user.name, end.sentence, end.detail)
            self.ended = end.sentence
        await self._remove(0)
        self.clear_state()
        return code

    async def stop(self, now: bool = False) -> None:
        """End the pod and wait until it and its secret are gone; the home stays."""
        await self._remove(0 if now else self.stop_grace)
        self.clear_state()

    async def _remove(self, grace: int) -> None:
        """Delete pod and secret. A cluster that is away is not waited for: it hears of it when it is back."""
        uid, name = self.pod_uid, self.pod_name
        if not uid:
            return
        try:
            if self.pod_secret:
                await self.api.delete("secrets", self.pod_secret)
            await self._end_pod(name, uid, grace)
        except DmspError as error:
            self.log.error("The pod %s is ended later: %s", name, error)
            leftovers.end_later(self.api, name, uid)

    async def _run(self, plan: Plan) -> tuple[str, int]:
        try:
            if plan.home is not None:
                await self._ensure_home(plan, plan.home)
            self.steps.say("Asking the cluster for a session", 2)
            self.pod_uid = await self._create(plan)
            body = manifests.secret(plan, self.api_token, self.pod_uid)
            await self.api.create("secrets", body)
            self.pod_secret = plan.secret

            began, met = time.monotonic(), set[str]()

            def say(step: states.Step) -> None:
                self.steps.say(step.message, step.percent)
                for stage in step.passed - met:
                    met.add(stage)
                    if stage == "pulled":
                        self.server_begins()
                    if self.attempt is not None:
                        self.attempt.stage(stage, time.monotonic() - began)

            start = Start(self.api, plan.name, self.pod_uid, plan.port, say, room=self.room_patience)
            pod = await start.running()
        except BaseException:
            # Also when the start is cancelled: nothing of it may stay.
            await asyncio.shield(self.stop(now=True))
            raise
        return states.address(pod), plan.port

    async def _create(self, plan: Plan) -> str:
        """Make the pod; gives its uid. One that a crash left of this very session is ended first."""
        self.cluster.sweep.mine.add(plan.name)
        body = manifests.pod(plan)
        if self.modify_pod is not None:
            body = self.modify_pod(self, body)
        for attempt in (1, 2):
            try:
                return str((await self.api.create("pods", body))["metadata"]["uid"])
            except ApiError as error:
                if error.reason != "AlreadyExists" or attempt == 2:
                    raise
            former = await self.api.get("pods", plan.name)
            if former is not None:
                self.steps.say("Ending what was left of a former session", 2)
                await self._end_former(former)
        raise AssertionError("not reached")

    async def _end_former(self, pod: Object) -> None:
        about = pod["metadata"]
        if about.get("labels", {}).get("app.kubernetes.io/managed-by") != manifests.MANAGER:
            raise DmspError(f"A pod {about['name']} is there which is not ours.")
        await self._end_pod(about["name"], about["uid"], self.stop_grace)

    async def _end_pod(self, name: str, uid: str, grace: int) -> None:
        if not await self.api.delete("pods", name, uid=uid, grace=grace):
            return
        if not await watching.gone(self.api, name, uid, grace + self.stop_patience):
            # Its node is gone, or does not answer: nobody else will say that it ended.
            self.log.warning("The pod of %s does not end; it is taken off the cluster's list.", self.user.name)
            await self.api.delete("pods", name, uid=uid, grace=0)

    async def _ensure_home(self, plan: Plan, home: Home) -> None:
        if await self.api.get("persistentvolumeclaims", home.claim) is not None:
            return
        if not home.size:
            raise DmspError("The claim for your home folder is not there.")
        try:
            await self.api.create("persistentvolumeclaims", manifests.claim(plan, home))
        except ApiError as error:
            if error.reason != "AlreadyExists":  # another server of the same user was quicker
                raise

    async def _plan(self, launch: Launch) -> Plan:
        settings = await asyncio.to_thread(self.dmsp_settings)
        experiments = await self.experiments()
        identity = await asyncio.to_thread(self._identity, experiments)
        image = launch.image or self.image
        if not image:
            raise DmspError(f"The profile {launch.profile.slug} names no container image.")
        self.ip, self.port = ALL, self.session_port
        hub = self.hub_variables()
        plan = Plan(
            hub=self.name_prefix,
            name=self.pod_name,
            secret=f"{self.pod_name}-{secrets.token_hex(4)}",
            user=str(self.user.name),
            server=str(self.name or ""),
            identity=identity,
            launch=launch,
            image=image,
            command=[*self.cmd, *kernel_options(launch.profile), *self.get_args()],
            variables={},
            files=self._files(launch, settings, experiments, hub["JUPYTERHUB_API_URL"]),
            port=self.session_port,
            home=self._home(),
            scratch=self._scratch(launch, settings),
            memory_share=self.memory_share,
            cpu_share=self.cpu_share,
            grace=self.stop_grace,
            read_only=self.read_only,
            labels=self.labels,
            annotations=self.annotations,
            lifecycle=self.lifecycle,
            node_selector=self.node_selector,
            tolerations=self.tolerations,
            pull_policy=self.image_pull_policy,
            pull_secrets=self.image_pull_secrets,
        )
        return plan.with_variables(self._variables(plan, settings, hub))

    def _identity(self, experiments: list[Experiment]) -> Identity:
        """Who the session is; blocks. Numbers are kept in the state directory, those that the site fixes aside."""
        if not self.state_dir:
            raise DmspError("KubeProfileSpawner.state_dir is not set.")
        folder = Path(self.state_dir, "ids")
        account = re.sub(r"[^A-Za-z0-9._@-]", "-", str(self.user.name))
        users, groups = Ids(folder / "users.json", USERS_BASE), Ids(folder / "groups.json", GROUPS_BASE)
        uid = self.user_id(self) if self.user_id is not None else users.get(str(self.user.name))
        wanted = [f"dmsp-{experiment.name}" for experiment in experiments]
        named = {name: self.group_ids.get(name) or groups.get(name) for name in wanted}
        return Identity(account, uid, uid, named, home=f"/home/{account}")

    def _home(self) -> Home | None:
        if not self.home_claim:
            return None
        slug = names.slug(str(self.user.name))
        return Home(
            self.home_claim.replace("{user}", slug),
            self.home_sub_path.replace("{user}", slug),
            self.home_size,
            self.home_storage_class,
            self.home_access_mode,
        )

    def _scratch(self, launch: Launch, settings: Settings) -> Scratch | None:
        wanted = mode_of(launch, settings) == "replica"
        if not wanted or not (self.scratch_host or self.scratch_claim):
            return None
        return Scratch(settings.lake.mount, self.scratch_host, self.scratch_claim)

    def _files(
        self, launch: Launch, settings: Settings, experiments: list[Experiment], api_url: str
    ) -> dict[str, str]:
        description = describe(
            user=str(self.user.name),
            launch=launch,
            experiments=experiments,
            settings=settings,
            lake=dict(self.lake),
            token_url=f"{api_url}/dmsp/token",
        )
        description, files = self.with_hooks(description)
        return {"session.json": json.dumps(description, indent=1), **files}

    def _variables(self, plan: Plan, settings: Settings, hub: Mapping[str, str]) -> dict[str, str]:
        """The environment of the server: JupyterHub's variables, and the session's own."""
        own = variables(plan.identity, plan.name, settings, str(self.lake.get("site", "")))
        # The catalogue cannot set what is above: its schema refuses those names.
        return {**plan.launch.variables, **hub, **own}
