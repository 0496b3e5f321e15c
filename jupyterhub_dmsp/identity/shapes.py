"""How identity providers write down who somebody is: one preset for each family of providers.

A preset names the claim with the user's name, the scopes to ask for, and how groups are read. Groups come out in one
spelling, ``/parent/child``, so that the same ``dmsp.yaml`` fits several providers. Whatever is not of the expected
shape gives no group: a claim that is not understood must never open a door.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import unquote

from jupyterhub_dmsp.identity.claims import Claims, words
from jupyterhub_dmsp.settings import EGI_NAMESPACES, PresetName

# AARC-G069, section 2: <namespace>:group:<group>[:<subgroup>]*[:role=<role>]#<authority>; AARC-G002 without authority.
_ENTITLEMENT = re.compile(r"(?P<namespace>urn:[^#]+?):group:(?P<path>[^#]+)(?:#(?P<authority>[^#]*))?")


@dataclass(frozen=True)
class Reading:
    """What the reader of groups has to know beside the claims."""

    client_id: str = ""
    groups_claim: str = ""
    namespaces: tuple[str, ...] = EGI_NAMESPACES


@dataclass(frozen=True)
class Preset:
    """One family of identity providers.

    ``claims`` are the top-level claims that ``groups`` looks at; :func:`gather` needs their names.
    """

    name: PresetName
    scopes: tuple[str, ...]
    claims: tuple[str, ...]
    groups: Callable[[Claims, Reading], list[str]]
    username_claim: str = "preferred_username"


def names(value: Any) -> list[str]:
    """A list of names, whole (a name may hold a space), as text alone or in objects; nothing for anything else."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if not isinstance(value, list) or not all(isinstance(entry, str | Mapping) for entry in value):
        return []
    return words(value)


def as_paths(found: Iterable[str]) -> list[str]:
    """Group names in one spelling: with a slash before, none behind."""
    return [f"/{name.strip('/')}" for name in found if name.strip("/")]


def _wlcg(claims: Claims, _: Reading) -> list[str]:
    # Anything without a slash before would be no group of the profile (WLCG common JWT profile 1.0).
    return [name for name in names(claims.get("wlcg.groups")) if name.startswith("/")]


def _iam(claims: Claims, reading: Reading) -> list[str]:
    # Which of the two a client gets depends on its token profile at INDIGO IAM.
    return [*_wlcg(claims, reading), *as_paths(names(claims.get("groups")))]


def _roles(value: Any) -> list[str]:
    return names(value.get("roles")) if isinstance(value, Mapping) else []


def _keycloak(claims: Claims, reading: Reading) -> list[str]:
    # Roles get a prefix: a role and a group of the same name are given by different people.
    clients = claims.get("resource_access")
    own = clients.get(reading.client_id) if isinstance(clients, Mapping) else None
    return [
        *names(claims.get("groups")),
        *(f"role:{role}" for role in _roles(claims.get("realm_access"))),
        *(f"role:{reading.client_id}:{role}" for role in _roles(own)),
    ]


def entitlement(value: str, namespaces: Iterable[str] = EGI_NAMESPACES) -> str:
    """The group in an entitlement (AARC-G069, AARC-G002): ``/vo/subgroup``; empty when there is none of ours.

    Membership is what counts: without a role, or as ``member``. Any other role is a name of its own,
    ``/vo/subgroup:role=manager``. Namespaces are compared whole, since anybody may speak of groups in their own.
    """
    found = _ENTITLEMENT.fullmatch(value.strip())
    if not found or found["namespace"].lower() not in {name.rstrip(":").lower() for name in namespaces}:
        return ""
    parts = found["path"].split(":")
    role = ""
    if parts[-1].startswith("role="):
        role = unquote(parts.pop().removeprefix("role="))
    parts = [unquote(part) for part in parts]
    # An encoded slash or colon would make one group look like another.
    if not parts or not all(part and not re.search(r"[/:\s\x00-\x1f]|^role=", part) for part in parts):
        return ""
    if re.search(r"[/:\s\x00-\x1f]", role):
        return ""
    return "/" + "/".join(parts) + (f":role={role}" if role not in ("", "member") else "")


def _egi(claims: Claims, reading: Reading) -> list[str]:
    found = [*names(claims.get("eduperson_entitlement")), *names(claims.get("entitlements"))]
    return [group for value in found if (group := entitlement(value, reading.namespaces))]


def _generic(claims: Claims, reading: Reading) -> list[str]:
    return names(claims.get(reading.groups_claim or "groups"))


_USUAL = ("openid", "profile", "email", "offline_access")
PRESETS: dict[PresetName, Preset] = {
    preset.name: preset
    for preset in (
        Preset("iam", _USUAL, ("wlcg.groups", "groups"), _iam),
        Preset("wlcg", (*_USUAL, "wlcg", "wlcg.groups"), ("wlcg.groups",), _wlcg),
        Preset("keycloak", _USUAL, ("groups", "realm_access", "resource_access"), _keycloak),
        Preset(
            "egi",
            (*_USUAL, "eduperson_entitlement", "entitlements"),
            ("eduperson_entitlement", "entitlements"),
            _egi,
        ),
        Preset("generic", _USUAL, (), _generic),
    )
}
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)


def gather(sources: Iterable[Claims]) -> dict[str, Any]:
    """All claims of several documents about one user; the first that has a claim wins, an empty one included.

    Providers put groups into userinfo, the id_token or the access token, some of them only into one of these.
    """
    found: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            found.setdefault(name, value)
    return found


def groups(preset: PresetName, sources: Iterable[Claims], reading: Reading = Reading()) -> list[str]:
    """The user's groups, each once, in order.

    Args:
        preset: the provider's family.
        sources: claims from userinfo, id_token and access token, in this order.
        reading: a ``groups_claim`` there is read instead of the preset's own claims.
    """
    chosen = PRESETS["generic"] if reading.groups_claim else PRESETS[preset]
    return list(dict.fromkeys(chosen.groups(gather(sources), reading)))
