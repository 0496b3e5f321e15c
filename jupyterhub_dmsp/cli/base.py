"""What all commands share: the application, common options, printing, and how an error ends the command."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from jupyterhub_dmsp import __version__
from jupyterhub_dmsp.box.state import default_path
from jupyterhub_dmsp.errors import DmspError

NOT_RUNNING = 3
UNHEALTHY = 4

app = typer.Typer(
    help="Run and operate a Virtual Research Environment for dark matter science.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

StateOption = Annotated[
    Path, typer.Option("--state", metavar="DIR", envvar="DMSP_STATE", help="Directory that holds the box.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="dmsp.yaml; the demo's defaults when not given.")
]
PortOption = Annotated[int, typer.Option("--port", min=1024, max=65000, help="Port of the VRE on 127.0.0.1.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STATE = default_path()


def print_json(value: Any) -> None:
    """Write a value as JSON to standard output, as scripts want it."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def _version(value: bool) -> None:
    if value:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Every subcommand takes --help; `--install-completion` adds completion to your shell."""


def _administrators_path() -> None:
    """Add the ``sbin`` beside every ``bin`` of PATH: an ordinary shell lacks where ``nft`` and ``ip`` may be."""
    folders = os.environ.get("PATH", "/usr/bin:/bin").split(":")
    beside = [str(Path(folder).parent / "sbin") for folder in folders if folder.endswith("/bin")]
    os.environ["PATH"] = ":".join(dict.fromkeys([*folders, *beside]))


def main() -> NoReturn:
    """Entry point: a :class:`DmspError` becomes one sentence on standard error and exit code 1."""
    _administrators_path()
    os.environ.setdefault("COLUMNS", str(shutil.get_terminal_size((110, 24)).columns))
    try:
        app()
    except DmspError as error:
        err.print(f"dmsp: {error}", style="red", highlight=False, markup=False)
        sys.exit(1)
    sys.exit(0)
