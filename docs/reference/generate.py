"""Writes ``dmsp-yaml.md`` and ``profile-yaml.md`` beside itself from the schemas in the code.

Run it after a change of the settings or of profiles: ``.venv/bin/python docs/reference/generate.py``. A test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.profiles import catalogue

HEAD = """\
# `dmsp.yaml`

The one configuration of a VRE. The box reads it (`dmsp up --config dmsp.yaml`), the chart takes the same keys
below `dmsp:`. Every key has a default: an empty file is the demo. Unknown keys, wrong types and impossible
values are refused with one sentence each (`dmsp config check dmsp.yaml`); `dmsp config show` prints the whole
configuration with its defaults, `dmsp config schema` the JSON Schema from which this page is made.

Secrets are references, `file:/path` or `env:NAME`, never values.
"""

PROFILE_HEAD = """\
# `profile.yaml`

The catalogue is a folder with one folder a profile: `<catalogue>/<slug>/`, where the slug (small letters, digits and
dashes, at most 30) is the profile's short name. Each holds

- `profile.yaml`: this page;
- `requirements.lock`: versions and hashes of what is built (`uv pip compile --generate-hashes requirements.in`), with
  `pip`, and `ipykernel` for Python kernels; it names no package index;
- `smoke.ipynb`: a notebook that shows that the environment works, for one of its kernels.

`dmsp profiles check FOLDER` tells all faults of all profiles in one go, one sentence each, and exits with 1 when there
is one (`--json` for programs; `--config dmsp.yaml` also checks the names of experiments). `dmsp profiles list` shows
what is there, `dmsp profiles schema` the JSON Schema from which this page is made. A running hub reads a changed
catalogue at the next look at the launch page; running sessions keep what they have.

```yaml
name: Deep sea
description: Neutrino telescopes, from raw events to point sources.
experiments: [km3net]             # members of the experiment ...
groups: [/dmsp/guests]            # ... or of this group of the identity provider
kernels:
  - {name: python3, display_name: Python 3 (deep sea), language: python}
limits: {memory: 4G, cpu: 2}      # what a session gets when nothing is chosen
choices: {memory: [2G, 4G, 16G], cpu: [1, 2, 4], gpu: [0, 1]}
group_limits:
  /dmsp/analysis: {memory: 16G, gpu: 1}
variants:
  - {name: next, title: Next release, lock: requirements-next.lock}
environment: {OMP_NUM_THREADS: "2"}
mounts:
  - {name: cvmfs, path: /cvmfs, host: /cvmfs, optional: true}
mode: replica
```

## Who may launch it

A profile without `experiments` and `groups` is everybody's. Otherwise its user is in any of the experiments or in any
of the groups: one is enough. The launch page shows what its user may launch, and the same rule is applied to every
request, however it is made.

## What may be chosen

`limits` is what a session gets when nothing is chosen, and always allowed. `choices` lists what the launch page offers
instead. `group_limits` decides who may have the larger values:

- a resource (`memory`, `cpu`, `gpu`) that no group in `group_limits` names: all its choices are everybody's;
- a resource that some group names: members may choose up to their group's value, everybody else up to `limits` (for
  `gpu`: the first choice);
- who is in several groups has the most generous value of each resource, from whichever group it comes.

In the example everybody may choose 4 cores; 16 GB and a graphics processor are for members of `/dmsp/analysis`.
What somebody chose last is preselected the next time, as far as it is still offered.

## Mounts

A mount names a folder of the machine (`host`) or a volume claim (`claim`, on Kubernetes only). A session does not start
where a folder is missing, unless the mount is `optional`. For CVMFS mount `/cvmfs` as a whole: repositories that the
automounter brings later then appear in running sessions too. Paths that belong to the session (`/home`, `/tmp`,
`/usr` ...) and scratch cannot be mounted over. A writable mount is written with the user's own numeric user and groups.
"""


def kind(schema: dict[str, Any]) -> str:
    """A JSON Schema type in words."""
    if "$ref" in schema:
        return f"[{schema['$ref'].rsplit('/', 1)[1]}](#{schema['$ref'].rsplit('/', 1)[1].lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "propertyNames" in schema:
        return f"mapping from {kind(schema['propertyNames'])} to {kind(schema['additionalProperties'])}"
    if "patternProperties" in schema:
        return "mapping from names to text"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"mapping from text to {kind(schema['additionalProperties'])}"
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
    if "$ref" in schema and value is None:
        return "see there"
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


def profile_page() -> str:
    """The page of ``profile.yaml``."""
    schema = catalogue.json_schema()
    lines = [PROFILE_HEAD, "## Keys", "", *table(schema)]
    for name, section in schema["$defs"].items():
        lines += ["", f"## {name}", "", section.get("description", ""), "", *table(section)]
    return "\n".join(lines).replace("``", "`") + "\n"


PAGES = {"dmsp-yaml.md": page, "profile-yaml.md": profile_page}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (Path(__file__).parent / name).write_text(write())
