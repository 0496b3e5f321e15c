"""The objects of one session, as the cluster's API takes them. Pure: from plain facts to plain objects.

A session is a pod; a secret, which belongs to the pod and goes with it; and a claim for the user's home,
which stays. The hub's token stands in the secret alone: an init container copies it into the session's runtime
directory, which is memory, and the launcher takes it out of there. The pod's description, its environment and
what its own containers see afterwards hold none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from jupyterhub_dmsp.profiles.launch import Launch
from jupyterhub_dmsp.profiles.schema import Mount
from jupyterhub_dmsp.sandbox.bwrap import Identity

Object = dict[str, Any]

CONTAINER = "session"
FIRST = "hand-over"
"""The init container."""

MANAGER = "jupyterhub-dmsp"
HUB = "dmsp/hub"
"""Label of what a hub made; its value is the first part of the names."""

CONFIG = "/etc/dmsp"
TOKEN = "hub-token"  # noqa: S105 - a file's name
HANDED = "/run/hand-over"
RUN = "/run/user"
GPU = "nvidia.com/gpu"
MIB = 1024**2


@dataclass(frozen=True)
class Home:
    """Where a user's home is kept.

    Attributes:
        claim: name of the PersistentVolumeClaim.
        sub_path: folder in it; empty for the whole of it.
        size: of a claim that has to be made.
        storage_class: of it; the cluster's own choice when empty.
        access_mode: of it.
    """

    claim: str
    sub_path: str = ""
    size: str = "10Gi"
    storage_class: str = ""
    access_mode: str = "ReadWriteOnce"


@dataclass(frozen=True)
class Scratch:
    """The scratch of the lake, mounted on the nodes or behind a claim.

    Attributes:
        path: where the session sees it.
        host: a folder of each node.
        claim: or a claim.
    """

    path: str
    host: str = ""
    claim: str = ""


@dataclass(frozen=True)
class Plan:
    """A session about to start.

    Attributes:
        hub: first part of its names, which tells hubs in one namespace apart.
        name: of the pod.
        secret: name of its secret.
        user: the user's name, as the hub has it.
        server: name of the server; empty for the user's default one.
        identity: uid, groups and home.
        launch: what is started.
        image: container image.
        command: the server's program and its arguments.
        variables: its environment; no secret is among them.
        files: name to text, seen in ``/etc/dmsp``.
        port: where it listens.
        home: None for a home that ends with the session.
        scratch: None where the session has none.
        memory_share: part of the memory limit that the node must have free.
        cpu_share: the same for the cores.
        grace: seconds that the server has for ending by itself.
        read_only: whether the image cannot be written to.
        labels: further ones.
        annotations: further ones.
        lifecycle: hooks of the container, as Kubernetes spells them.
        node_selector: labels that a node must have.
        tolerations: taints of nodes that do not matter.
        pull_policy: when the image is fetched; the cluster's own choice when empty.
        pull_secrets: names of secrets for fetching it.
    """

    hub: str
    name: str
    secret: str
    user: str
    server: str
    identity: Identity
    launch: Launch
    image: str
    command: Sequence[str]
    variables: Mapping[str, str]
    files: Mapping[str, str]
    port: int = 8888
    home: Home | None = None
    scratch: Scratch | None = None
    memory_share: float = 1.0
    cpu_share: float = 0.5
    grace: int = 10
    read_only: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    lifecycle: Mapping[str, Any] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    pull_policy: str = ""
    pull_secrets: Sequence[str] = ()

    def with_variables(self, variables: Mapping[str, str]) -> Plan:
        """The same with this environment, of which parts depend on the rest of the plan."""
        return replace(self, variables=variables)

    @property
    def runtime(self) -> str:
        """``XDG_RUNTIME_DIR`` in the session."""
        return f"{RUN}/{self.identity.uid}"


def metadata(plan: Plan, name: str) -> Object:
    """Name, labels to select by, and annotations that say whose it is in their own words."""
    return {
        "name": name,
        "labels": {
            **plan.labels,
            "app.kubernetes.io/managed-by": MANAGER,
            "app.kubernetes.io/component": "session",
            "dmsp/session": plan.name,
            HUB: plan.hub,
            "dmsp/profile": plan.launch.profile.slug,
        },
        "annotations": {**plan.annotations, "dmsp/user": plan.user, "dmsp/server": plan.server},
    }


def pod(plan: Plan) -> Object:
    """The session's pod."""
    who, places = plan.identity, _places(plan)
    groups = sorted({who.gid, *who.groups.values()})
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": plan.grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": who.uid,
            "runAsGroup": who.gid,
            "fsGroup": who.gid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "supplementalGroups": groups,
            # What an image's /etc/group says about a uid gives nobody a further group.
            "supplementalGroupsPolicy": "Strict",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_hand_over(plan)],
        "containers": [_container(plan, [mount for _, mount in places])],
        "volumes": [_kept(plan, "handed", {TOKEN: TOKEN}), *_distinct(volume for volume, _ in places)],
    }
    optional = {
        "nodeSelector": dict(plan.node_selector),
        "tolerations": [dict(one) for one in plan.tolerations],
        "imagePullSecrets": [{"name": name} for name in plan.pull_secrets],
    }
    spec |= {key: value for key, value in optional.items() if value}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata(plan, plan.name), "spec": spec}


def secret(plan: Plan, token: str, owner: str) -> Object:
    """The token and the session's files; belongs to the pod, whose end is its own.

    Args:
        plan: the session.
        token: the hub's token for its server.
        owner: uid of the pod.
    """
    if any("/" in name for name in plan.files):
        raise ValueError("the files of a session have plain names")
    about = metadata(plan, plan.secret)
    about["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": plan.name, "uid": owner}]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": about,
        "immutable": True,
        "type": "Opaque",
        "stringData": {TOKEN: token, **_keyed("file", plan.files), **_keyed("etc", _accounts(plan.identity))},
    }


def claim(plan: Plan, home: Home) -> Object:
    """The claim for a home; it outlives every session."""
    spec: Object = {
        "accessModes": [home.access_mode],
        "resources": {"requests": {"storage": home.size}},
    }
    if home.storage_class:
        spec["storageClassName"] = home.storage_class
    about: Object = {
        "name": home.claim,
        "labels": {
            **plan.labels,
            "app.kubernetes.io/managed-by": MANAGER,
            "app.kubernetes.io/component": "home",
        },
        "annotations": {"dmsp/user": plan.user},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": about, "spec": spec}


def resources(launch: Launch, memory_share: float, cpu_share: float) -> Object:
    """Limits, and the part of them that a node must have free for the pod."""
    limits: Object = {"memory": str(launch.limits.memory_bytes), "cpu": _cores(launch.limits.cpu)}
    requests: Object = {
        "memory": str(int(launch.limits.memory_bytes * memory_share)),
        "cpu": _cores(launch.limits.cpu * cpu_share),
    }
    if launch.gpus:
        limits[GPU] = requests[GPU] = str(launch.gpus)
    return {"limits": limits, "requests": requests}


def _cores(cpu: float) -> str:
    return f"{max(1, round(cpu * 1000))}m"


def _safe(plan: Plan) -> Object:
    """What no container of a session may do."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": plan.read_only,
    }


def _hand_over(plan: Plan) -> Object:
    """Puts the token where the launcher looks for it, readable by the user alone, in memory."""
    script = f'umask 077 && mkdir -p "$1" && cat {HANDED}/{TOKEN} > "$1/{TOKEN}"'
    return {
        "name": FIRST,
        "image": plan.image,
        **_pulled(plan),
        "command": ["/bin/sh", "-c", script, "sh", plan.runtime],
        "securityContext": _safe(plan),
        # The most of either phase counts: this one asks for nothing that the session does not have.
        "resources": resources(plan.launch, plan.memory_share, plan.cpu_share),
        "volumeMounts": [
            {"name": "handed", "mountPath": HANDED, "readOnly": True},
            {"name": "run", "mountPath": RUN},
        ],
    }


def _container(plan: Plan, mounts: Sequence[Object]) -> Object:
    found: Object = {
        "name": CONTAINER,
        "image": plan.image,
        **_pulled(plan),
        "command": list(plan.command),
        # A dollar and a bracket would be read as a reference to another variable.
        "env": [{"name": name, "value": value.replace("$(", "$$(")} for name, value in plan.variables.items()],
        "ports": [{"name": "http", "containerPort": plan.port}],
        "workingDir": plan.identity.home,
        "securityContext": _safe(plan),
        "resources": resources(plan.launch, plan.memory_share, plan.cpu_share),
        "volumeMounts": list(mounts),
    }
    if plan.lifecycle:
        found["lifecycle"] = dict(plan.lifecycle)
    return found


def _pulled(plan: Plan) -> Object:
    return {"imagePullPolicy": plan.pull_policy} if plan.pull_policy else {}


def _keyed(prefix: str, texts: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}.{name}": text for name, text in texts.items()}


def _kept(plan: Plan, volume: str, keys: Mapping[str, str]) -> Object:
    """A volume with these keys of the secret, and where each is in it. Of the token only one volume knows."""
    items = [{"key": key, "path": path} for key, path in keys.items()]
    return {"name": volume, "secret": {"secretName": plan.secret, "items": items}}


def _places(plan: Plan) -> list[tuple[Object, Object]]:
    """Each volume of the session's container, and where it is seen."""
    who, half = plan.identity, max(1, plan.launch.limits.memory_bytes // 2 // MIB)
    found = [
        _memory("run", RUN, 64),
        # As much as fits: a file there that would be too big is an error of whoever writes it.
        _memory("shm", "/dev/shm", half),  # noqa: S108
        ({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": "/tmp"}),  # noqa: S108
        *_etc(plan),
    ]
    if plan.home is None:
        found.append(({"name": "home", "emptyDir": {}}, {"name": "home", "mountPath": who.home}))
    else:
        seen: Object = {"name": "home", "mountPath": who.home}
        if plan.home.sub_path:
            seen["subPath"] = plan.home.sub_path
        found.append((_claimed("home", plan.home.claim), seen))
    if plan.scratch is not None:
        found.append(_scratch(plan.scratch))
    found += [_mount(mount) for mount in plan.launch.mounts]
    return found


def _memory(name: str, path: str, mib: int) -> tuple[Object, Object]:
    volume = {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": f"{mib}Mi"}}
    return volume, {"name": name, "mountPath": path}


def _etc(plan: Plan) -> list[tuple[Object, Object]]:
    """``/etc/dmsp``, and the user's and groups' names."""
    config = _kept(plan, "config", {f"file.{name}": name for name in plan.files})
    accounts = _accounts(plan.identity)
    etc = _kept(plan, "etc", {f"etc.{name}": name for name in accounts})
    found = [(config, {"name": "config", "mountPath": CONFIG, "readOnly": True})]
    for name in accounts:
        found.append((etc, {"name": "etc", "mountPath": f"/etc/{name}", "subPath": name, "readOnly": True}))
    return found


def _scratch(scratch: Scratch) -> tuple[Object, Object]:
    """Read-only. From a node, the folder above the mount: one that is mounted anew arrives in running sessions."""
    seen = {"name": "scratch", "readOnly": True, "mountPropagation": "HostToContainer"}
    if scratch.claim:
        return _claimed("scratch", scratch.claim), {**seen, "mountPath": scratch.path}
    volume = {"name": "scratch", "hostPath": {"path": scratch.host, "type": "Directory"}}
    return volume, {**seen, "mountPath": str(PurePosixPath(scratch.path).parent)}


def _mount(mount: Mount) -> tuple[Object, Object]:
    name = f"m-{mount.name}"
    seen = {
        "name": name,
        "mountPath": mount.path,
        "readOnly": mount.read_only,
        # What is mounted on demand, as CVMFS is, arrives in running sessions too.
        "mountPropagation": "HostToContainer",
    }
    if mount.claim:
        return _claimed(name, mount.claim), seen
    # A folder that may be missing is an empty one where it is: who starts a pod does not see the nodes.
    kind = "DirectoryOrCreate" if mount.optional else "Directory"
    return {"name": name, "hostPath": {"path": mount.host, "type": kind}}, seen


def _claimed(name: str, claim: str) -> Object:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def _accounts(who: Identity) -> dict[str, str]:
    """passwd and group, so that programs find names for the numbers."""
    users = ["root:x:0:0::/root:/usr/sbin/nologin", f"{who.name}:x:{who.uid}:{who.gid}::{who.home}:{who.shell}"]
    groups = ["root:x:0:", f"{who.name}:x:{who.gid}:"]
    groups += [f"{name}:x:{number}:{who.name}" for name, number in sorted(who.groups.items())]
    return {"passwd": "\n".join(users) + "\n", "group": "\n".join(groups) + "\n"}


def _distinct(volumes: Any) -> list[Object]:
    found: dict[str, Object] = {}
    for volume in volumes:
        found.setdefault(volume["name"], volume)
    return list(found.values())
