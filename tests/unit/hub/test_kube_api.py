"""The way to the cluster's API, and how it behaves on bad days."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
import yaml

from jupyterhub_dmsp.hub.kube import access, api, leftovers, watching
from jupyterhub_dmsp.hub.kube.access import Access, NoCluster
from jupyterhub_dmsp.hub.kube.api import LISTED, Api, ApiError

Answer = Callable[[httpx.Request], httpx.Response]


def made(answer: Answer) -> Api:
    one = Api(Access("https://cluster.example", "sessions", ssl.create_default_context()))
    one._client = httpx.AsyncClient(
        base_url="https://cluster.example", transport=httpx.MockTransport(answer), timeout=5
    )
    return one


def config(folder: Path, user: dict[str, Any]) -> Path:
    text = {
        "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "vre"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(text))
    return path


def test_kubeconfig_with_a_token_file_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("one\n")
    found = access.find(str(config(tmp_path, {"tokenFile": "token"})))
    assert (found.url, found.namespace) == ("https://cluster.example", "vre")
    assert found.headers() == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two\n")
    monkeypatch.setattr(access, "FRESH", 0.0)
    assert found.headers() == {"Authorization": "Bearer two"}
    assert "two" not in repr(found)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"exec": {"command": "x"}}, "from a program"),
        ({"client-certificate": "missing.crt", "client-key": "missing.key"}, "cannot be used"),
        ({"client-certificate-data": "%%%", "client-key-data": ""}, "cannot be used"),
    ],
)
def test_kubeconfig_that_is_of_no_use_is_a_sentence(tmp_path: Path, user: dict[str, Any], words: str) -> None:
    with pytest.raises(NoCluster, match=words):
        access.find(str(config(tmp_path, user)))


@pytest.mark.parametrize("text", ["", "a: [", "current-context: x", "current-context: x\ncontexts: [1]"])
def test_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(NoCluster, match="no complete current context"):
        access.find(str(tmp_path / "kubeconfig"))


def test_service_account_of_a_pod(tmp_path: Path) -> None:
    for name, text in {
        "token": "t\n",
        "namespace": "vre\n",
        "ca.crt": Path(certifi.where()).read_text(),
    }.items():
        (tmp_path / name).write_text(text)
    found = access.from_pod({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, tmp_path)
    assert (found.url, found.namespace) == ("https://[fd00::1]:6443", "vre")
    assert found.headers() == {"Authorization": "Bearer t"}
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(NoCluster, match="cannot be read"):
        access.from_pod({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)


def test_no_pod_and_no_file() -> None:
    with pytest.raises(NoCluster, match="in no pod"):
        access.from_pod({})


async def test_absent_objects_are_no_errors() -> None:
    one = made(lambda request: httpx.Response(404, json={"message": "not found", "reason": "NotFound"}))
    assert await one.get("pods", "a") is None
    assert await one.delete("pods", "a", uid="1") is False


async def test_refusals_and_silence() -> None:
    one = made(lambda request: httpx.Response(409, json={"message": "there", "reason": "AlreadyExists"}))
    with pytest.raises(ApiError) as refused:
        await one.create("pods", {})
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")

    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    with pytest.raises(ApiError, match="does not answer") as away:
        await made(silent).get("pods", "a")
    assert away.value.status == 0
    with pytest.raises(ApiError, match="status 502"):
        await made(lambda request: httpx.Response(502, text="<html>")).get("pods", "a")


async def test_following_goes_on_after_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PAUSE", 0.0)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        watching_ = "watch" in request.url.params
        asked.append("watch" if watching_ else "list")
        number = len(asked)
        if number == 1:
            return httpx.Response(503, text="later")
        if not watching_:
            return httpx.Response(200, json={"items": [], "metadata": {"resourceVersion": str(number)}})
        if number == 3:
            return httpx.Response(200, text='{"type": "ADDED", "obj')  # cut off
        if number == 5:
            return httpx.Response(200, text=json.dumps({"type": "ERROR", "object": {"code": 410}}) + "\n")
        return httpx.Response(200, text=json.dumps({"type": "ADDED", "object": {"n": number}}) + "\n")

    seen: list[tuple[str, Any]] = []
    enough = asyncio.Event()

    def take(change: str, about: Any) -> None:
        seen.append((change, about))
        if change == "ADDED":
            enough.set()

    one = made(answer)
    task = asyncio.create_task(one.follow("pods", take))
    await asyncio.wait_for(enough.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asked[:7] == ["list", "list", "watch", "list", "watch", "list", "watch"]
    assert [change for change, _ in seen[:4]] == [LISTED, LISTED, LISTED, "ADDED"]


async def test_following_what_is_forbidden_ends() -> None:
    one = made(lambda request: httpx.Response(403, json={"message": "no", "reason": "Forbidden"}))
    with pytest.raises(ApiError, match="refused"):
        await one.follow("pods", lambda change, about: None)


def pods(*known: tuple[str, str]) -> dict[str, Any]:
    items = [{"metadata": {"name": name, "uid": uid}} for name, uid in known]
    return {"items": items, "metadata": {"resourceVersion": "1"}}


async def test_one_list_serves_all_who_ask() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=pods(*((f"dmsp-{number}", str(number)) for number in range(50))))

    running = watching.Running(made(answer))
    found = await asyncio.gather(*(running.get(f"dmsp-{number}", str(number)) for number in range(50)))
    assert all(found)
    assert len(asked) == 1


@pytest.mark.parametrize("listed", [pods(), pods(("young", "old"))], ids=["lacking", "former"])
async def test_pod_younger_than_the_list_is_asked_for(listed: dict[str, Any]) -> None:
    one = {"metadata": {"name": "young", "uid": "new"}}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=listed if request.url.path.endswith("/pods") else one)

    running = watching.Running(made(answer))
    assert await running.get("young", "new") == one
    assert await running.get("young", "another") is None


class Swept:
    """An API with three pods; what is deleted."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.fail = False

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.fail:
            return httpx.Response(500, json={"message": "later"})
        if request.method == "DELETE":
            self.gone.append(request.url.path.rsplit("/", 1)[1])
            return httpx.Response(200, json={})
        assert request.url.params["labelSelector"].endswith(",dmsp/hub=vre")
        return httpx.Response(200, json=pods(("known", "1"), ("mine", "2"), ("left", "3")))


async def test_only_what_no_hub_knows_is_swept_and_once() -> None:
    cluster = Swept()
    sweep = leftovers.Sweep(made(cluster.answer))
    sweep.mine.add("mine")
    cluster.fail = True
    await sweep.once("vre", lambda: {"1"}, logging.getLogger("test"))
    assert cluster.gone == []
    cluster.fail = False
    for _ in range(2):
        await sweep.once("vre", lambda: {"1"}, logging.getLogger("test"))
    assert cluster.gone == ["left"]


async def test_what_could_not_be_deleted_is_deleted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "AGAIN", 0.01)
    deleted, asked = asyncio.Event(), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if len(asked) < 3:
            raise httpx.ConnectError("away")
        deleted.set()
        return httpx.Response(200, json={})

    leftovers.end_later(made(answer), "left", "3")
    await asyncio.wait_for(deleted.wait(), 5)
    assert len(asked) == 3
