"""The files of charts and modules are what their tools expect, and agree with one another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyterhub_dmsp import __version__

ROOT = Path(__file__).parents[3]
TERRAFORM_FILES = sorted((ROOT / "terraform").rglob("*.tf"))
# What the helm provider's versions 1.3 to 3 share.
SHARED_ARGUMENTS = {
    *("name", "namespace", "create_namespace", "chart", "repository", "version"),
    *("values", "atomic", "timeout", "wait"),
}


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def hcl(path: Path) -> dict[str, Any]:
    hcl2 = pytest.importorskip("hcl2", reason="reading Terraform files needs `pip install python-hcl2`")
    return hcl2.loads(path.read_text())


def unquoted(part: Any) -> Any:
    """python-hcl2 keeps the quotes of strings and block labels from version 6 on."""
    if isinstance(part, dict):
        return {unquoted(k): unquoted(v) for k, v in part.items() if not str(k).startswith("__")}
    if isinstance(part, list):
        return [unquoted(value) for value in part]
    return part.strip('"') if isinstance(part, str) else part


@pytest.mark.parametrize("chart", ["dmsp", "vre"])
def test_chart_is_of_this_version(chart: str) -> None:
    metadata = load(f"helm/{chart}/Chart.yaml")
    assert metadata["apiVersion"] == "v2"
    assert metadata["name"] == chart
    assert metadata["appVersion"] == __version__
    assert isinstance(load(f"helm/{chart}/values.yaml"), dict)


def test_every_dependency_can_be_left_out() -> None:
    metadata, values = load("helm/vre/Chart.yaml"), load("helm/vre/values.yaml")
    for dependency in metadata["dependencies"]:
        key = dependency.get("alias", dependency["name"])
        assert dependency["condition"] == f"{key}.enabled"
        assert isinstance(values[key]["enabled"], bool)
        assert re.fullmatch(r"\d+\.\d+\.\d+", dependency["version"]), "an exact version"
    ours = next(d for d in metadata["dependencies"] if d["name"] == "dmsp")
    assert ours["version"] == load("helm/dmsp/Chart.yaml")["version"]


def test_umbrella_mounts_the_config_map_of_our_chart() -> None:
    name = load("helm/dmsp/values.yaml")["configMap"]["name"]
    hub = load("helm/vre/values.yaml")["jupyterhub"]["hub"]
    volumes = {v["name"]: v for v in hub["extraVolumes"]}
    assert volumes["dmsp-config"]["configMap"]["name"] == name
    assert {m["name"] for m in hub["extraVolumeMounts"]} == set(volumes)
    assert all(m["readOnly"] for m in hub["extraVolumeMounts"])


@pytest.mark.parametrize("path", TERRAFORM_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_terraform_file_parses(path: Path) -> None:
    assert hcl(path)


def test_module_uses_only_what_the_provider_versions_share() -> None:
    module = ROOT / "terraform" / "modules" / "vre"
    resources = unquoted(hcl(module / "main.tf"))["resource"]
    assert [list(r) for r in resources] == [["helm_release"]]
    assert set(resources[0]["helm_release"]["vre"]) <= SHARED_ARGUMENTS
    assert not any("provider" in hcl(path) for path in module.glob("*.tf")), "the caller configures providers"


def test_module_variables_and_outputs_are_described() -> None:
    module = ROOT / "terraform" / "modules" / "vre"
    for file, kind in (("variables.tf", "variable"), ("outputs.tf", "output")):
        for block in unquoted(hcl(module / file))[kind]:
            for name, body in block.items():
                assert body.get("description"), f"{kind} {name} has no description"
    declared = {name for block in unquoted(hcl(module / "variables.tf"))["variable"] for name in block}
    assert declared == set(re.findall(r"\bvar\.(\w+)", (module / "main.tf").read_text()))
