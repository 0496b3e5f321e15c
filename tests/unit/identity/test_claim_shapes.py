"""What each provider's claims come out as: names, groups, and nothing from what is not of the shape."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_dmsp.identity import shapes
from jupyterhub_dmsp.identity.shapes import Reading, entitlement, groups

CLIENT = Reading(client_id="hub")
MEMBER = "urn:mace:egi.eu:group:vo.example.org:role=member#aai.egi.eu"
ROLES = {"realm_access": {"roles": ["staff"]}, "resource_access": {"hub": {"roles": ["admin"]}}}
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("iam", {"groups": ["dmsp", "dmsp/km3net"]}, ["/dmsp", "/dmsp/km3net"]),
    ("iam", {"wlcg.groups": ["/dmsp"], "groups": ["dmsp", "other"]}, ["/dmsp", "/other"]),
    ("iam", {"groups": [{"name": "dmsp", "value": "1"}]}, ["/dmsp"]),
    ("iam", {"groups": "dmsp"}, ["/dmsp"]),
    ("iam", {"groups": ["", "/", "a b"]}, ["/a b"]),
    ("wlcg", {"wlcg.groups": ["/dmsp", "/dmsp/admins", "/dmsp"]}, ["/dmsp", "/dmsp/admins"]),
    ("wlcg", {"wlcg.groups": ["dmsp"], "groups": ["/dmsp"]}, []),
    ("wlcg", {"wlcg": {"groups": ["/dmsp"]}}, []),
    ("keycloak", {"groups": ["/dmsp", "plain"]}, ["/dmsp", "plain"]),
    ("keycloak", {"groups": ["staff"], **ROLES}, ["staff", "role:staff", "role:hub:admin"]),
    ("keycloak", {"resource_access": {"other": {"roles": ["admin"]}}}, []),
    ("keycloak", {"realm_access": ["admin"], "resource_access": "hub", "groups": {"a": 1}}, []),
    ("egi", {"eduperson_entitlement": [MEMBER]}, ["/vo.example.org"]),
    ("egi", {"entitlements": [MEMBER], "eduperson_entitlement": [MEMBER]}, ["/vo.example.org"]),
    ("egi", {"groups": ["/vo.example.org"]}, []),
    ("generic", {"groups": ["a", "/b"]}, ["a", "/b"]),
    ("generic", {}, []),
    *((name, {}, []) for name in shapes.PRESET_NAMES),
    *(
        (name, {claim: value}, [])
        for name in shapes.PRESET_NAMES
        for claim in shapes.PRESETS[name].claims
        for value in (None, 7, True, {"groups": ["/dmsp"]}, [7, None, []])
    ),
]


@pytest.mark.parametrize(("preset", "claims", "expected"), CASES)
def test_groups(preset: shapes.PresetName, claims: dict[str, Any], expected: list[str]) -> None:
    assert groups(preset, [claims], CLIENT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("urn:mace:egi.eu:group:vo", "/vo"),
        ("urn:mace:egi.eu:group:vo#aai.egi.eu", "/vo"),
        ("urn:geant:egi.eu:group:vo:sub:deep:role=member#aai.egi.eu", "/vo/sub/deep"),
        ("urn:mace:egi.eu:group:vo:role=manager#aai.egi.eu", "/vo:role=manager"),
        ("urn:mace:egi.eu:group:vo:sub:role=vm_operator#aai.egi.eu", "/vo/sub:role=vm_operator"),
        ("urn:mace:egi.eu:group:my%20vo".replace("%20", "%2D"), "/my-vo"),
        ("URN:MACE:EGI.EU:group:vo".replace("URN", "urn"), "/vo"),
        # Other people's namespaces, also when they look alike.
        ("urn:mace:evil.example:group:vo#aai.egi.eu", ""),
        ("urn:mace:egi.eu.evil:group:vo", ""),
        ("urn:mace:egi.eu:x:group:vo", ""),
        ("urn:mace:evil:group:a:urn:mace:egi.eu:group:vo", ""),
        # One group must not look like another.
        ("urn:mace:egi.eu:group:a%2Fb", ""),
        ("urn:mace:egi.eu:group:a%3Arole=x", ""),
        ("urn:mace:egi.eu:group:a:role=x%2Fy", ""),
        ("urn:mace:egi.eu:group:a:role%3Dadmin", ""),
        ("urn:mace:egi.eu:group::b", ""),
        ("urn:mace:egi.eu:group:role=member", ""),
        ("urn:mace:egi.eu:group:", ""),
        ("urn:mace:egi.eu:group:a#b#c", ""),
        ("urn:mace:egi.eu:res:vo", ""),
        ("vo", ""),
        ("", ""),
    ],
)
def test_entitlement(text: str, expected: str) -> None:
    assert entitlement(text) == expected


def test_other_namespaces_are_a_choice() -> None:
    reading = Reading(namespaces=("urn:geant:example.org:",))
    claims = {"entitlements": ["urn:geant:example.org:group:vo", MEMBER]}
    assert groups("egi", [claims], reading) == ["/vo"]


def test_the_first_document_that_has_a_claim_wins() -> None:
    userinfo, id_token, access = {"groups": []}, {"groups": ["a"]}, {"groups": ["b"], **ROLES}
    assert groups("keycloak", [userinfo, id_token, access], CLIENT) == ["role:staff", "role:hub:admin"]


def test_a_named_claim_replaces_the_preset() -> None:
    claims = {"wlcg.groups": ["/a"], "my.groups": ["b", "c d"]}
    assert groups("wlcg", [claims], Reading(groups_claim="my.groups")) == ["b", "c d"]


@pytest.mark.parametrize("name", shapes.PRESET_NAMES)
def test_presets_ask_for_what_they_read(name: shapes.PresetName) -> None:
    preset = shapes.PRESETS[name]
    assert preset.name == name
    assert {"openid", "profile", "offline_access"} <= set(preset.scopes)
    assert preset.username_claim
