"""``dmsp profiles``: the catalogue of environments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.cli.base import ConfigOption, JsonOption, app, err, out, print_json
from jupyterhub_dmsp.profiles import catalogue
from jupyterhub_dmsp.profiles.catalogue import Catalogue, CatalogueError
from jupyterhub_dmsp.profiles.schema import Profile

profiles_app = typer.Typer(help="The catalogue of environments, one folder a profile.", no_args_is_help=True)
app.add_typer(profiles_app, name="profiles")

FolderArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER]", help="The catalogue; `profiles.path` of dmsp.yaml, else the shipped one."
    ),
]


@profiles_app.command()
def check(folder: FolderArgument = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check a catalogue: all faults of all profiles, one sentence each.

    With --config, experiments that profiles name must be in dmsp.yaml.
    """
    found, faults = _read(folder, config)
    if as_json:
        print_json({"faults": faults, "profiles": [profile.slug for profile in found]})
    else:
        for fault in faults:
            err.print(fault, style="red", highlight=False, markup=False, soft_wrap=True)
        if not faults:
            out.print(f"{len(found)} profiles are in order: {', '.join(profile.slug for profile in found)}.")
    if faults:
        sys.exit(1)


@profiles_app.command(name="list")
def list_(folder: FolderArgument = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the profiles in the order of the launch page."""
    found, faults = _read(folder, config)
    if faults:
        raise CatalogueError(faults)
    if as_json:
        print_json([_about(profile) for profile in found])
        return
    for profile in found:
        who = ", ".join([*profile.experiments, *profile.groups]) or "everybody"
        text = (
            f"{profile.slug}: {profile.name}, for {who}, {profile.limits.memory}, {profile.limits.cpu:g} cores"
        )
        out.print(text, highlight=False, markup=False)


@profiles_app.command()
def schema() -> None:
    """Print the JSON Schema of profile.yaml."""
    print_json(catalogue.json_schema())


def _read(folder: Path | None, config: Path | None) -> tuple[Catalogue, list[str]]:
    chosen = settings.load(config)
    names = {experiment.name for experiment in chosen.experiments}
    try:
        # The shipped catalogue and the defaults belong together; another one has experiments that only --config knows.
        known = names if config or folder is None else None
        return catalogue.load(folder or chosen.profiles.path, known), []
    except CatalogueError as error:
        return Catalogue(()), error.faults


def _about(profile: Profile) -> dict[str, Any]:
    return {"slug": profile.slug, **profile.model_dump(mode="json", by_alias=True)}
