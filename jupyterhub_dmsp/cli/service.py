"""``dmsp install-service`` and ``dmsp restart``: a box that runs for long."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.box import run
from jupyterhub_dmsp.box.service import Service
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.cli.base import (
    DEFAULT_STATE,
    UNHEALTHY,
    ConfigOption,
    PortOption,
    StateOption,
    app,
    err,
    out,
)


@app.command(name="install-service")
def install_service(
    state: StateOption = DEFAULT_STATE,
    port: PortOption = 8000,
    config: ConfigOption = None,
    user: Annotated[bool, typer.Option("--user", help="A service of your own, without root.")] = False,
    print_only: Annotated[bool, typer.Option("--print", help="Show the unit and change nothing.")] = False,
) -> None:
    """Write a systemd unit that keeps the VRE running, and say how to start it."""
    settings.load(config)  # a file with faults is refused here, not at the next boot
    service = Service(State(state), port, config, user)
    if print_only:
        sys.stdout.write(service.text())
        return
    service.install()
    out.print(f"{service.path} is written. Nothing is started yet; the next commands are:\n", highlight=False)
    for command in service.next_commands():
        out.print(f"  {command}", highlight=False, markup=False)


@app.command()
def restart(
    part: Annotated[str, typer.Argument(help="Part to start again, as `dmsp status` names it.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Start one part of the running VRE again, also one that has failed; the others go on."""
    found = run.restart(State(state), part)
    if found["state"] == "failed":
        err.print(f"{part} has failed: {found['detail']}", highlight=False, markup=False)
        raise typer.Exit(UNHEALTHY)
    out.print(f"{part} is healthy after {found['start_seconds']:.1f} s.", highlight=False)
