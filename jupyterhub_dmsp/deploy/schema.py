"""The schema of the chart's values, derived from the one configuration.

``python -m jupyterhub_dmsp.deploy.schema > helm/dmsp/values.schema.json`` writes it anew. Helm checks the
values of every ``template``, ``install`` and ``upgrade`` against that file, so that a typing error in
``dmsp.yaml`` is found before anything is changed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from jupyterhub_dmsp import settings

# The embedded VRE's own section means nothing in a cluster.
NOT_IN_A_CLUSTER = ("box",)
DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
URL = r"^https?://[^/]"
CIDR = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$|^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/[0-9]{1,3}$"


def _references(part: Any) -> Iterator[str]:
    """The names of the definitions that a piece of schema points to."""
    if isinstance(part, dict):
        target = part.get("$ref")
        if isinstance(target, str):
            yield target.removeprefix("#/$defs/")
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _reachable(start: Any, definitions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    ahead = set(_references(start))
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead |= set(_references(definitions[name]))
    return found


def _with_patterns(part: Any) -> Any:
    """The same with a pattern beside every ``format: uri``: of the two, Helm 4 checks only the pattern."""
    if isinstance(part, list):
        return [_with_patterns(value) for value in part]
    if not isinstance(part, dict):
        return part
    pattern = {"pattern": URL} if part.get("format") == "uri" else {}
    return {**{key: _with_patterns(value) for key, value in part.items()}, **pattern}


def _closed(description: str, properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    schema = {"type": "object", "description": description, "additionalProperties": False}
    return {**schema, "properties": properties, **({"required": required} if required else {})}


def _network_policy() -> dict[str, Any]:
    port = {"type": "integer", "minimum": 1, "maximum": 65535}
    destination = _closed(
        "A network that sessions may reach.",
        {
            "cidr": {"type": "string", "pattern": CIDR, "description": "Network, such as 192.0.2.0/24."},
            "ports": {"type": "array", "minItems": 1, "items": port, "description": "TCP ports."},
        },
        ["cidr", "ports"],
    )
    selector = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string"},
        "description": "Labels of the session pods.",
    }
    allow = {"type": "array", "items": destination, "description": "No policy is made while it is empty."}
    return _closed("What sessions may reach beyond other policies.", {"podSelector": selector, "allow": allow})


def values_schema() -> dict[str, Any]:
    """JSON Schema of the values of ``helm/dmsp``: ``dmsp`` is ``dmsp.yaml`` without the box's section."""
    source = _with_patterns(settings.json_schema())
    definitions = source["$defs"]
    sections = {name: part for name, part in source["properties"].items() if name not in NOT_IN_A_CLUSTER}
    name = {"type": "string", "pattern": DNS_LABEL, "description": "Name of the ConfigMap with `dmsp.yaml`."}
    properties = {
        "dmsp": _closed("The configuration, as in `dmsp.yaml`.", sections),
        "configMap": _closed("Where the configuration is kept.", {"name": name}, ["name"]),
        "networkPolicy": _network_policy(),
        # Helm hands both to every chart that another one depends on.
        "enabled": {"type": "boolean", "description": "Read by a chart that depends on this one."},
        "global": {"type": "object", "description": "Values that charts share; not used here."},
    }
    return {
        "$schema": source["$schema"],
        "title": "Values of the dmsp chart",
        **_closed(
            "Generated from the models in jupyterhub_dmsp/settings.py.", properties, ["dmsp", "configMap"]
        ),
        "$defs": {key: definitions[key] for key in sorted(_reachable(sections, definitions))},
    }


def text() -> str:
    """The file ``helm/dmsp/values.schema.json`` as it has to be."""
    return json.dumps(values_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
