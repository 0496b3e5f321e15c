"""The objects of a session on Kubernetes: what they hold, and what they must not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_dmsp.hub.kube import manifests, names
from jupyterhub_dmsp.hub.kube.manifests import Home, Plan, Scratch
from jupyterhub_dmsp.hub.kube.traits import KubeTraits
from jupyterhub_dmsp.profiles.launch import resolve
from jupyterhub_dmsp.profiles.schema import Profile
from jupyterhub_dmsp.sandbox.bwrap import Identity

TOKEN = "0123456789abcdef" * 2
MOUNTS = [
    {"name": "cvmfs", "path": "/cvmfs", "host": "/cvmfs"},
    {"name": "maps", "path": "/maps", "claim": "sky-maps", "read_only": False},
    {"name": "tape", "path": "/tape", "host": "/mnt/tape", "optional": True},
]


def plan(options: dict[str, Any] | None = None, **more: Any) -> Plan:
    kernels = [{"name": "python3", "display_name": "Python 3", "language": "python"}]
    data = {
        "name": "KM3NeT",
        "kernels": kernels,
        "folder": Path("/catalogue/km3net"),
        "limits": {"memory": "1.5G", "cpu": 1.5},
        "choices": {"gpu": [0, 1]},
        "mounts": MOUNTS,
    }
    who = Identity("alice", 61001, 61001, {"dmsp-km3net": 71001, "dmsp-dmsp": 71000}, home="/home/alice")
    given = {
        "hub": "dmsp",
        "name": "dmsp-alice",
        "secret": "dmsp-alice-01ab",
        "user": "alice",
        "server": "",
        "identity": who,
        "launch": resolve(Profile.model_validate(data), options or {}, ()),
        "image": "images.example/km3net:1",
        "command": ["python3"],
        "variables": {"A": "1"},
        "files": {"session.json": "{}", "rucio.cfg": "[client]"},
        "home": Home("home-alice"),
        "scratch": Scratch("/scratch/lake", host="/mnt/scratch"),
    }
    return Plan(**{**given, **more})


def container(one: Plan) -> dict[str, Any]:
    return dict(manifests.pod(one)["spec"]["containers"][0])


def test_token_is_in_the_secret_and_nowhere_else() -> None:
    one = plan()
    secret = manifests.secret(one, TOKEN, "uid-1")
    assert secret["stringData"]["hub-token"] == TOKEN
    assert json.dumps(secret).count(TOKEN) == 1
    assert TOKEN not in json.dumps(manifests.pod(one))
    spec = manifests.pod(one)["spec"]
    holding = [volume["name"] for volume in spec["volumes"] if "hub-token" in json.dumps(volume)]
    assert holding == ["handed"]
    assert "handed" not in {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert "handed" in {mount["name"] for mount in spec["initContainers"][0]["volumeMounts"]}


def test_secret_goes_with_its_pod() -> None:
    owner = manifests.secret(plan(), TOKEN, "uid-1")["metadata"]["ownerReferences"]
    assert owner == [{"apiVersion": "v1", "kind": "Pod", "name": "dmsp-alice", "uid": "uid-1"}]
    assert "ownerReferences" not in manifests.claim(plan(), Home("home-alice"))["metadata"]


def test_who_it_is() -> None:
    context = manifests.pod(plan())["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (61001, 61001, 61001)
    assert context["supplementalGroups"] == [61001, 71000, 71001]
    assert context["supplementalGroupsPolicy"] == "Strict"
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_no_container_may_more_than_it_must() -> None:
    spec = manifests.pod(plan())["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for one in [*spec["containers"], *spec["initContainers"]]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        }


def test_limits_and_what_a_node_sets_aside() -> None:
    found = container(plan({"gpu": 1}, memory_share=0.5, cpu_share=0.1))["resources"]
    assert found == {
        "limits": {"memory": str(1536 * 1024**2), "cpu": "1500m", "nvidia.com/gpu": "1"},
        "requests": {"memory": str(768 * 1024**2), "cpu": "150m", "nvidia.com/gpu": "1"},
    }
    assert "nvidia.com/gpu" not in container(plan())["resources"]["limits"]


def test_mounts() -> None:
    one = plan()
    volumes = {volume["name"]: volume for volume in manifests.pod(one)["spec"]["volumes"]}
    seen = {mount["mountPath"]: mount for mount in container(one)["volumeMounts"]}
    assert volumes["m-cvmfs"]["hostPath"] == {"path": "/cvmfs", "type": "Directory"}
    assert volumes["m-tape"]["hostPath"]["type"] == "DirectoryOrCreate"
    assert volumes["m-maps"]["persistentVolumeClaim"] == {"claimName": "sky-maps"}
    assert seen["/cvmfs"]["mountPropagation"] == seen["/maps"]["mountPropagation"] == "HostToContainer"
    assert (seen["/cvmfs"]["readOnly"], seen["/maps"]["readOnly"]) == (True, False)
    # From a node: the folder above the mount point, so that one mounted anew arrives.
    assert seen["/scratch"] == {
        "name": "scratch",
        "mountPath": "/scratch",
        "readOnly": True,
        "mountPropagation": "HostToContainer",
    }
    assert seen["/home/alice"] == {"name": "home", "mountPath": "/home/alice"}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "768Mi"}
    assert len(volumes) == len(manifests.pod(one)["spec"]["volumes"])
    assert {mount["name"] for mount in seen.values()} <= set(volumes)


def test_homes_and_scratch_of_other_kinds() -> None:
    one = plan(home=Home("homes", "alice"), scratch=Scratch("/scratch/lake", claim="scratch"))
    seen = {mount["mountPath"]: mount for mount in container(one)["volumeMounts"]}
    assert seen["/home/alice"]["subPath"] == "alice"
    assert seen["/scratch/lake"]["readOnly"] is True
    without = manifests.pod(plan(home=None, scratch=None))["spec"]["volumes"]
    assert {"name": "home", "emptyDir": {}} in without
    assert not [volume for volume in without if volume["name"] == "scratch"]


def test_variables_are_not_references() -> None:
    one = plan().with_variables({"ODD": "$(HOME) costs $5"})
    assert container(one)["env"] == [{"name": "ODD", "value": "$$(HOME) costs $5"}]


def test_files_have_plain_names() -> None:
    with pytest.raises(ValueError, match="plain names"):
        manifests.secret(plan(files={"../x": ""}), TOKEN, "uid")


def test_settings_of_an_admin() -> None:
    one = plan(
        labels={"team": "x", "dmsp/session": "mine"},
        lifecycle={"preStop": {"exec": {"command": ["sync"]}}},
        node_selector={"disk": "fast"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
        pull_policy="Always",
        pull_secrets=["registry"],
        grace=42,
    )
    found = manifests.pod(one)
    assert found["metadata"]["labels"]["team"] == "x"
    # Ours are what sessions are found by.
    assert found["metadata"]["labels"]["dmsp/session"] == "dmsp-alice"
    assert found["spec"]["terminationGracePeriodSeconds"] == 42
    assert found["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert found["spec"]["nodeSelector"] == {"disk": "fast"}
    assert container(one)["lifecycle"]["preStop"]["exec"]["command"] == ["sync"]
    assert container(one)["imagePullPolicy"] == "Always"


@given(st.text(min_size=1, max_size=80), st.text(max_size=40))
def test_names_are_names(user: str, server: str) -> None:
    name = names.session("dmsp", user, server)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


def test_names_are_nobody_elses() -> None:
    assert names.session("dmsp", "alice", "") == "dmsp-alice"
    second = names.session("dmsp", "alice", "second")
    assert second.startswith("dmsp-alice-second---")
    # A user who calls himself so, or whose server is called so, gets another name.
    assert names.session("dmsp", second.removeprefix("dmsp-"), "") != second
    assert names.session("dmsp", "alice-second", "") != second
    assert len({names.slug(text) for text in ("Alice", "alice", "álice", "alice-", "a lice", "alice.")}) == 6


def test_reference_names_every_trait() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "kubernetes-spawner.md"
    listed = set(re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE))
    assert set(KubeTraits.class_own_traits(config=True)) <= listed
