"""``dmsp config``: the configuration file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.cli.base import app, out, print_json

config_app = typer.Typer(help="The configuration file, dmsp.yaml.", no_args_is_help=True)
app.add_typer(config_app, name="config")


@config_app.command()
def check(file: Annotated[Path, typer.Argument(help="dmsp.yaml")]) -> None:
    """Check a configuration file; each fault is one sentence."""
    settings.load(file)
    out.print(f"{file} is in order.")


@config_app.command()
def show(file: Annotated[Path | None, typer.Argument(help="dmsp.yaml")] = None) -> None:
    """Show the whole configuration, defaults included. Secrets are references and stay so."""
    sys.stdout.write(
        yaml.safe_dump(settings.load(file).model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )


@config_app.command()
def schema() -> None:
    """Print the JSON Schema of dmsp.yaml."""
    print_json(settings.json_schema())
