"""The ``dmsp`` command.

Exit codes: 0 done · 1 could not be done (one sentence says why) · 2 wrong usage · 3 no box runs here ·
4 the box runs and a part is not healthy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.table import Table

from jupyterhub_dmsp import __version__, settings
from jupyterhub_dmsp.box import display, doctor, run
from jupyterhub_dmsp.box.state import State, default_path
from jupyterhub_dmsp.errors import DmspError

NOT_RUNNING = 3
UNHEALTHY = 4

app = typer.Typer(
    help="Run and operate a Virtual Research Environment for dark matter science.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The configuration file, dmsp.yaml.", no_args_is_help=True)
app.add_typer(config_app, name="config")
out = Console()
err = Console(stderr=True)

StateOption = Annotated[
    Path, typer.Option("--state", metavar="DIR", envvar="DMSP_STATE", help="Directory that holds the box.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="dmsp.yaml; the demo's defaults when not given.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STATE = default_path()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


@app.command()
def up(
    state: StateOption = DEFAULT_STATE,
    port: Annotated[
        int, typer.Option("--port", min=1024, max=65000, help="Port of the VRE on 127.0.0.1.")
    ] = 8000,
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
        _print_json(report)
    elif report["parts"]:
        table = Table(box=None, header_style="bold")
        for heading in ("part", "state", "pid", "memory", "address"):
            table.add_column(heading, justify="right" if heading in ("pid", "memory") else "left")
        for part in report["parts"]:
            memory = f"{part['rss_bytes'] / 1e6:.0f} MB" if part["rss_bytes"] else ""
            state_text = f"{part['state']} ({part['detail']})" if part["detail"] else part["state"]
            table.add_row(part["name"], state_text, str(part["pid"] or ""), memory, part["address"])
        out.print(table)
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
        _print_json(found)
    else:
        out.print(display.users_table(found))


@app.command()
def logs(
    part: Annotated[str | None, typer.Argument(help="Part whose log is wanted; all when not given.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines of each log.")] = 50,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the log of a part, or of all."""
    directory = State(state) / "logs"
    files = sorted(directory.glob("*.log")) if directory.is_dir() else []
    names = [file.stem for file in files]
    if part is not None:
        if part not in names:
            raise DmspError(f"There is no log of {part!r}.", f"Known: {', '.join(names) or 'none yet'}.")
        files = [directory / f"{part}.log"]
    if not files:
        raise DmspError("There are no logs yet.", "`dmsp up` writes them.")
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    os.execvp("tail", command)  # noqa: S606


@app.command(name="doctor")
def doctor_command(
    state: StateOption = DEFAULT_STATE,
    port: Annotated[int, typer.Option("--port", help="Port that `dmsp up` would use.")] = 8000,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine can and cannot do, each with its remedy."""
    findings = doctor.examine(State(state), port)
    if as_json:
        _print_json([finding.as_dict() for finding in findings])
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
    _print_json(settings.json_schema())


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


if __name__ == "__main__":
    main()
