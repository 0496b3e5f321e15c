"""The two places in which sessions run, each with a hub of its own and the same catalogue."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import build
from cluster.kubelet import Kubelet
from cluster.running import Cluster
from places import CONFIG, KUBE, KubePlace, LocalPlace, write_catalogue

REFERENCE = Path(__file__).parents[4] / "docs" / "reference" / "kubernetes-spawner.md"


@pytest.fixture(scope="session")
def room() -> Any:
    """A folder with the catalogue, and one that sessions shall see."""
    folder = Path(tempfile.mkdtemp(prefix="dmsp-contract-"))
    folder.chmod(0o755)
    (folder / "shared").mkdir()
    (folder / "shared" / "file").write_text("shared")
    write_catalogue(folder / "catalogue", folder / "shared")
    yield folder
    shutil.rmtree(folder)


def _settings(room: Path) -> str:
    return CONFIG.format(hub=str(room), catalogue=str(room / "catalogue"))


@pytest.fixture(scope="session")
async def local(make_stack: Callable[..., Any], until: Any, room: Path) -> AsyncIterator[LocalPlace]:
    """A hub whose sessions run on this machine."""
    async with make_stack(more=_settings(room)) as stack:
        yield LocalPlace(stack, until, tokens=room)


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """A running cluster, in which the hub may do what the reference page says that it must."""
    running = Cluster(build.ensure(), tmp_path_factory.mktemp("cluster"))
    try:
        await running.start()
        await running.apply(role())
        yield running
    finally:
        await running.stop()
        shutil.rmtree(running.folder / "store", ignore_errors=True)


def role() -> list[dict[str, Any]]:
    """The role of the reference page, bound to the hub's user here."""
    text = REFERENCE.read_text()
    block = text[text.index("```yaml\nkind: Role\n") + len("```yaml\n") :]
    found = dict(yaml.safe_load(block[: block.index("```")]))
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": found["metadata"]["name"]},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": found["metadata"]["name"],
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "hub"}],
    }
    return [found, binding]


@pytest.fixture(scope="session")
async def kube(
    make_stack: Callable[..., Any], until: Any, room: Path, cluster: Cluster
) -> AsyncIterator[KubePlace]:
    """A hub whose sessions are pods of the test cluster."""
    kubelet = Kubelet(cluster)
    await kubelet.start()
    more = _settings(room) + KUBE.format(
        kubeconfig=str(cluster.kubeconfig("hub")), state=str(room), scratch=str(room)
    )
    try:
        async with make_stack(more=more) as stack:
            yield KubePlace(stack, until, tokens=room, cluster=cluster, kubelet=kubelet)
    finally:
        await kubelet.stop()
