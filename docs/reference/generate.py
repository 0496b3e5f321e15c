"""Writes ``dmsp-yaml.md`` beside itself from the schema in ``jupyterhub_dmsp.settings``.

Run it after a change of the settings: ``.venv/bin/python docs/reference/generate.py``. A test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jupyterhub_dmsp import settings

HEAD = """\
# `dmsp.yaml`

The one configuration of a VRE. The box reads it (`dmsp up --config dmsp.yaml`), the chart takes the same keys
below `dmsp:`. Every key has a default: an empty file is the demo. Unknown keys, wrong types and impossible
values are refused with one sentence each (`dmsp config check dmsp.yaml`); `dmsp config show` prints the whole
configuration with its defaults, `dmsp config schema` the JSON Schema from which this page is made.

Secrets are references, `file:/path` or `env:NAME`, never values.
"""


def kind(schema: dict[str, Any]) -> str:
    """A JSON Schema type in words."""
    if "$ref" in schema:
        return f"[{schema['$ref'].rsplit('/', 1)[1]}](#{schema['$ref'].rsplit('/', 1)[1].lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "propertyNames" in schema:
        return f"mapping from {kind(schema['propertyNames'])} to {kind(schema['additionalProperties'])}"
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}"
    text = {"string": "text", "integer": "whole number", "boolean": "`true` or `false`"}.get(
        schema.get("type", ""), schema.get("type", "anything")
    )
    if schema.get("format") == "uri":
        text = "URL"
    if "minimum" in schema and "maximum" in schema:
        text += f", {schema['minimum']} to {schema['maximum']}"
    return text


def default(schema: dict[str, Any], name: str, required: list[str]) -> str:
    """The default as YAML would have it."""
    if name in required:
        return "required"
    value = schema.get("default")
    return "none" if value in (None, "") else f"`{json.dumps(value, ensure_ascii=False)}`"


def table(section: dict[str, Any]) -> list[str]:
    """One table of a section's keys."""
    rows = ["| key | what | default | meaning |", "| --- | --- | --- | --- |"]
    for name, schema in section["properties"].items():
        cells = [
            f"`{name}`",
            kind(schema),
            default(schema, name, section.get("required", [])),
            schema.get("description", ""),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def page() -> str:
    """The whole page."""
    schema = settings.json_schema()
    lines = [HEAD, "## Sections", ""]
    for name, value in schema["properties"].items():
        lines.append(f"- `{name}`: {kind(value)}")
    for name, section in schema["$defs"].items():
        lines += ["", f"## {name}", "", section.get("description", ""), "", *table(section)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "dmsp-yaml.md").write_text(page())
