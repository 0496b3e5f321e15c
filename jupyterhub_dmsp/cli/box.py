"""The commands that bring a box up, show it and take it away."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer
from rich.table import Table

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.box import display, doctor, run
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.cli.base import (
    DEFAULT_STATE,
    NOT_RUNNING,
    UNHEALTHY,
    ConfigOption,
    JsonOption,
    PortOption,
    StateOption,
    app,
    err,
    out,
    print_json,
)
from jupyterhub_dmsp.errors import DmspError


@app.command()
def up(
    state: StateOption = DEFAULT_STATE,
    port: PortOption = 8000,
    config: ConfigOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all is healthy; `dmsp down` ends it.")
    ] = False,
) -> None:
    """Start the embedded VRE and stay in the foreground until Ctrl-C."""
    chosen = settings.load(config)
    box = State(state)
    if detach:
        command = [
            sys.executable,
            "-m",
            "jupyterhub_dmsp.cli",
            "up",
            "--state",
            str(box.path),
            "--port",
            str(port),
        ]
        if config is not None:
            command += ["--config", str(config.absolute())]
        run.start_detached(box, command, display.Progress(out))
    else:
        run.foreground(box, chosen, config.absolute() if config else None, port, display.Progress(out))


@app.command()
def down(state: StateOption = DEFAULT_STATE) -> None:
    """End the VRE; sessions are stopped, data stay."""
    if not run.stop(State(state)):
        err.print("No box runs on this state.")
        raise typer.Exit(NOT_RUNNING)
    out.print("The VRE has ended.")


@app.command()
def status(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show every part: its state, process, memory and address."""
    report = run.status(State(state))
    if as_json:
        print_json(report)
    elif report["parts"]:
        table = Table(box=None, header_style="bold")
        for heading in ("part", "state", "pid", "memory", "restarts", "address"):
            right = heading in ("pid", "memory", "restarts")
            table.add_column(heading, justify="right" if right else "left")
        for part in report["parts"]:
            memory = f"{part['rss_bytes'] / 1e6:.0f} MB" if part["rss_bytes"] else ""
            state_text = f"{part['state']} ({part['detail']})" if part["detail"] else part["state"]
            restarts = str(part["restarts"] or "")
            table.add_row(part["name"], state_text, str(part["pid"] or ""), memory, restarts, part["address"])
        out.print(table)
        for part in report["parts"]:
            if part["state"] == "failed" and part["last_failure"]:
                failure = part["last_failure"]
                out.print(f"\n{part['name']} has failed at {failure['at']}: {failure['reason']}", markup=False)
                out.print(failure["log"], highlight=False, markup=False)
        out.print(f"\n{report['address']}", highlight=False)
    else:
        err.print("No box runs on this state.")
    if not report["parts"]:
        raise typer.Exit(NOT_RUNNING)
    if any(part["state"] != "healthy" for part in report["parts"]):
        raise typer.Exit(UNHEALTHY)


@app.command()
def users(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show the demo users and their passwords again."""
    found = run.demo_users(State(state))
    if as_json:
        print_json(found)
    else:
        out.print(display.users_table(found))


@app.command(name="doctor")
def doctor_command(
    state: StateOption = DEFAULT_STATE,
    port: Annotated[int, typer.Option("--port", help="Port that `dmsp up` would use.")] = 8000,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine can and cannot do, each with its remedy."""
    findings = doctor.examine(State(state), port)
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            sign = (
                "[green]ok[/]     "
                if finding.ok
                else "[red]missing[/]"
                if finding.needed
                else "[yellow]limited[/]"
            )
            out.print(f"{sign} {finding.text}", highlight=False)
            if finding.remedy:
                out.print(f"        → {finding.remedy}", highlight=False, markup=False)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def reset(
    state: StateOption = DEFAULT_STATE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a box with all its data: users' homes, the lake, the database. Asks first."""
    box = State(state)
    if not box.exists:
        raise DmspError(f"{box.path} holds no box.", "Name the directory with --state.")
    if box.owner() is not None:
        raise DmspError("The box still runs.", "`dmsp down` ends it.")
    if not yes:
        size = subprocess.run(
            ["du", "-sh", str(box.path)], capture_output=True, text=True, timeout=120, check=False
        )
        amount = size.stdout.split("\t")[0] or "all"
        typer.confirm(f"Remove {box.path} with homes, lake and database ({amount})?", abort=True)
    run.clean_after_crash(box)
    box.remove()
    out.print(f"{box.path} is removed.")


@app.command()
def demo(
    state: StateOption = DEFAULT_STATE,
    scale: Annotated[int, typer.Option("--scale", min=1, max=1_000_000, help="How many DIDs.")] = 100_000,
) -> None:
    """Add a scope with very many DIDs to the running box, to try how it scales."""
    run.demo_scale(State(state), scale, display.Progress(out))
