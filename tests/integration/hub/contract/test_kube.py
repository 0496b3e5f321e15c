"""What holds in a cluster only: how pods fail, what its guards say about them, and an API that is away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from places import KubePlace

from jupyterhub_dmsp.hub.kube import manifests
from jupyterhub_dmsp.hub.kube.manifests import Home, Plan
from jupyterhub_dmsp.profiles.launch import resolve
from jupyterhub_dmsp.profiles.schema import Profile
from jupyterhub_dmsp.sandbox.bwrap import Identity

USER = "vre-admin"


@pytest.fixture(autouse=True)
async def stopped(kube: KubePlace) -> AsyncIterator[None]:
    """Logged in before, no server after."""
    await kube.login(USER)
    yield
    if await kube.known(USER):
        await kube.quit(USER)


async def started(kube: KubePlace, **options: Any) -> None:
    events = await kube.start(USER, {"profile": "plain", **options})
    assert events[-1].get("ready"), events


async def failed(kube: KubePlace, profile: str) -> str:
    event = (await kube.start(USER, {"profile": profile}))[-1]
    assert event.get("failed"), event
    await kube.until(lambda: kube.stopped(USER))
    assert await kube.leftovers(USER) == []
    return str(event["message"])


async def test_out_of_memory_at_the_start_is_a_sentence(kube: KubePlace) -> None:
    message = await failed(kube, "greedy")
    assert message.endswith("The session was ended because it used more memory than its 4 GiB.")


async def test_hub_outlives_images_that_are_not_there(kube: KubePlace) -> None:
    """It is configured to end after three failures in a row; these are nobody's but the catalogue's."""
    for _ in range(4):
        assert kube.failure in await failed(kube, "broken")
    assert kube.stack.processes["hub"].poll() is None


async def test_no_room_is_a_sentence(kube: KubePlace) -> None:
    message = await failed(kube, "huge")
    assert message.endswith("The cluster has no room for this session: it waited for free graphics processors.")


async def test_out_of_memory_later_is_told_on_the_launch_page(kube: KubePlace) -> None:
    await started(kube)
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    ended = {"name": "session", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    path = f"/api/v1/namespaces/{kube.cluster.namespace}/pods/{kube.pod_name(USER)}/status"
    async with kube.cluster.client() as http:
        answer = await http.patch(
            path,
            content=json.dumps({"status": {"phase": "Failed", "containerStatuses": [ended]}}),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert answer.status_code == 200, answer.text
    await kube.until(lambda: kube.stopped(USER), 30)
    assert await kube.leftovers(USER) == []
    assert "it used more memory than its 4 GiB" in await kube.page(USER)
    await started(kube)
    assert "it used more memory" not in await kube.page(USER)


async def test_token_is_in_no_description(kube: KubePlace) -> None:
    await started(kube)
    token = kube.token(USER)
    assert kube.pod(USER).token == token
    for kind in ("pods", "events", "configmaps", "persistentvolumeclaims"):
        assert token not in json.dumps(await kube.objects(kind))
    secrets = [
        one for one in await kube.objects("secrets") if "dmsp/session" in one["metadata"].get("labels", {})
    ]
    assert [one["metadata"]["ownerReferences"][0]["uid"] for one in secrets] == [
        kube.pod(USER).about["metadata"]["uid"]
    ]


async def test_secret_goes_with_a_pod_that_others_delete(kube: KubePlace) -> None:
    """Also when there is no hub to do it."""
    await started(kube)
    await kube.stack.stop("hub", kill=True)
    await kube.kill(USER)

    async def cleared() -> bool:
        return not await kube.leftovers(USER)

    await kube.until(cleared, 60)
    await kube.stack.start_hub()
    assert await kube.stopped(USER)


async def test_home_stays_and_is_found_again(kube: KubePlace) -> None:
    await started(kube)

    async def homes() -> list[str]:
        found = await kube.objects("persistentvolumeclaims")
        return [one["metadata"]["uid"] for one in found if one["metadata"]["name"] == f"home-{USER}"]

    before = await homes()
    assert len(before) == 1
    await kube.quit(USER)
    await started(kube)
    assert await homes() == before


async def test_hub_killed_while_a_pod_starts_leaves_nothing_in_the_way(kube: KubePlace) -> None:
    kube.cluster.pause("nodes", stopped=True)
    try:
        assert (await kube.ask(USER, {"profile": "plain"})).status_code == 202
        await kube.until(lambda: _there(kube), 30)
        left = (await _pods(kube))[0]
        await kube.stack.stop("hub", kill=True)
    finally:
        kube.cluster.pause("nodes", stopped=False)
    await kube.stack.start_hub()
    await started(kube)
    assert [pod["metadata"]["uid"] for pod in await _pods(kube)] != [left["metadata"]["uid"]]
    assert len(await _pods(kube)) == 1


async def test_pod_that_no_hub_knows_is_ended(kube: KubePlace) -> None:
    """Also when its user does not come back."""
    kube.cluster.pause("nodes", stopped=True)
    try:
        assert (await kube.ask(USER, {"profile": "plain"})).status_code == 202
        await kube.until(lambda: _there(kube), 30)
        await kube.stack.stop("hub", kill=True)
    finally:
        kube.cluster.pause("nodes", stopped=False)
    await kube.stack.start_hub()
    await kube.page("km3net-user")

    async def cleared() -> bool:
        return not await kube.leftovers(USER)

    await kube.until(cleared, 30)


async def test_api_that_is_away_ends_nobody(kube: KubePlace) -> None:
    await started(kube)
    told = kube.stack.log("hub").count(f"session of {USER} runs is not known")
    kube.cluster.pause("apiserver", stopped=True)
    try:

        def noticed() -> bool:
            return kube.stack.log("hub").count(f"session of {USER} runs is not known") > told

        await kube.until(noticed, 60)
        assert await kube.ready(USER)
        # Who stops a session meanwhile has stopped it: the pod follows when the cluster is back.
        await kube.quit(USER)
    finally:
        kube.cluster.pause("apiserver", stopped=False)

    async def cleared() -> bool:
        return not await kube.leftovers(USER)

    await kube.until(cleared, 60)


async def test_cluster_that_refuses_is_a_sentence(kube: KubePlace) -> None:
    """A namespace that holds what it may."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}}
    path = f"/api/v1/namespaces/{kube.cluster.namespace}/resourcequotas"
    async with kube.cluster.client() as http:
        made = await http.post(path, json={**quota, "spec": {"hard": {"pods": "0"}}})
        assert made.status_code == 201, made.text
        # The controller that counts is not run: this is what it would write.
        status = {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}
        await http.patch(
            f"{path}/full/status",
            content=json.dumps(status),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        try:
            event = (await kube.start(USER, {"profile": "plain"}))[-1]
        finally:
            await http.delete(f"{path}/full")
    assert event.get("failed"), event
    assert "The cluster's quota is used up. Ask an administrator." in event["message"]


async def test_pod_passes_the_strictest_standard(kube: KubePlace) -> None:
    """Without folders of the nodes, which the cluster's `restricted` standard allows nobody."""
    name = "strict"
    body = {"metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    kernels = [{"name": "python3", "display_name": "Python 3", "language": "python"}]
    profile = Profile.model_validate({"name": "X", "kernels": kernels, "folder": Path("/x")})
    plan = Plan(
        hub="dmsp",
        name="dmsp-a",
        secret="dmsp-a-1",
        user="a",
        server="",
        identity=Identity("a", 61000, 61000, {"dmsp-x": 71000}, home="/home/a"),
        launch=resolve(profile, {}, ()),
        image="images.example/x",
        command=["x"],
        variables={},
        files={"session.json": "{}"},
        home=Home("home-a"),
    )
    async with kube.cluster.client() as http:
        assert (await http.post("/api/v1/namespaces", json=body)).status_code == 201

        async def account() -> bool:
            return (await http.get(f"/api/v1/namespaces/{name}/serviceaccounts/default")).status_code == 200

        await kube.until(account, 30)
        # Unknown and repeated fields are refused too.
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        for kind, made in (
            ("pods", manifests.pod(plan)),
            ("secrets", manifests.secret(plan, "t", "0" * 8)),
            ("persistentvolumeclaims", manifests.claim(plan, Home("home-a"))),
        ):
            answer = await http.post(f"/api/v1/namespaces/{name}/{kind}", params=query, json=made)
            assert answer.status_code == 201, answer.text
            assert "warning" not in answer.headers, answer.headers["warning"]


async def _pods(kube: KubePlace) -> list[dict[str, Any]]:
    return [
        pod
        for pod in await kube.objects("pods")
        if pod["metadata"]["labels"].get("dmsp/session") == kube.pod_name(USER)
    ]


async def _there(kube: KubePlace) -> bool:
    return bool(await _pods(kube))
