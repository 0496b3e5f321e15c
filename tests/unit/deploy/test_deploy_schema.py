"""The chart's schema is the configuration's schema, and the committed file is the generated one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.deploy import schema
from jupyterhub_dmsp.settings import SettingsError

CHART = Path(__file__).parents[3] / "helm" / "dmsp"
VALIDATOR = jsonschema.Draft202012Validator(schema.values_schema())


def values(**sections: Any) -> dict[str, Any]:
    return {"dmsp": sections, "configMap": {"name": "dmsp-config"}}


def test_committed_schema_is_the_generated_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jupyterhub_dmsp.deploy.schema"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    again = "python -m jupyterhub_dmsp.deploy.schema > helm/dmsp/values.schema.json"
    assert (CHART / "values.schema.json").read_text() == done.stdout, f"write it anew: {again}"


def test_schema_is_valid_and_complete() -> None:
    generated = schema.values_schema()
    jsonschema.Draft202012Validator.check_schema(generated)
    assert set(generated["properties"]["dmsp"]["properties"]) == set(settings.Settings.model_fields) - {"box"}
    assert not {"Box", "User"} & set(generated["$defs"])


def test_default_values_fit() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    VALIDATOR.validate(defaults)
    assert settings.parse(defaults["dmsp"]).experiments == []


def test_every_section_of_the_settings_fits() -> None:
    given = settings.Settings().model_dump(mode="json", exclude={"box"})
    VALIDATOR.validate(values(**given))


@pytest.mark.parametrize(
    "sections",
    [
        {"nonsense": 1},
        {"site": {"title": "x"}},
        {"lake": {"rule_lifetime": 59}},
        {"lake": {"rule_lifetime": "two weeks"}},
        {"lake": {"mount": "relative"}},
        {"lake": {"scratch_rse": "lower"}},
        {"lake": {"rucio_url": "rucio.example.org"}},
        {"identity": {"issuer": ""}},
        {"identity": {"client_secret": "hunter2"}},
        {"experiments": [{"title": "no name"}]},
        {"experiments": [{"name": "Upper Case"}]},
        {"experiments": [{"name": "km3net", "scopes": ["with space"]}]},
    ],
)
def test_what_the_settings_refuse_the_chart_refuses(sections: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        settings.parse(sections)
    assert not VALIDATOR.is_valid(values(**sections))


def test_the_box_has_no_place_in_a_cluster() -> None:
    settings.parse({"box": {"transfers": 2}})
    assert not VALIDATOR.is_valid(values(box={"transfers": 2}))


@pytest.mark.parametrize(
    ("allow", "fits"),
    [
        ([], True),
        ([{"cidr": "192.0.2.0/24", "ports": [443]}], True),
        ([{"cidr": "2001:db8::/32", "ports": [443, 8443]}], True),
        ([{"cidr": "192.0.2.1", "ports": [443]}], False),
        ([{"cidr": "rucio.example.org", "ports": [443]}], False),
        ([{"cidr": "192.0.2.0/24", "ports": []}], False),
        ([{"cidr": "192.0.2.0/24", "ports": [0]}], False),
        ([{"cidr": "192.0.2.0/24"}], False),
    ],
)
def test_network_policy(allow: list[Any], fits: bool) -> None:
    assert VALIDATOR.is_valid({**values(), "networkPolicy": {"allow": allow}}) is fits
