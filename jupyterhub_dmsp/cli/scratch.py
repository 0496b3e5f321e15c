"""``dmsp scratch``: the files of the lake's storage elements."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from jupyterhub_dmsp.box import run
from jupyterhub_dmsp.box.integrity import audit
from jupyterhub_dmsp.box.integrity.facts import Facts
from jupyterhub_dmsp.box.integrity.report import Report
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.cli.base import (
    DEFAULT_STATE,
    NOT_RUNNING,
    JsonOption,
    StateOption,
    app,
    err,
    out,
    print_json,
)
from jupyterhub_dmsp.errors import DmspError

scratch_app = typer.Typer(help="The files on scratch and on the sites of the box.", no_args_is_help=True)
app.add_typer(scratch_app, name="scratch")


@scratch_app.callback()
def _group() -> None:
    """Keeps `check` a subcommand while it is the only one."""


@scratch_app.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Copy wrong files anew, remove unknown ones, put modes right.")
    ] = False,
    rse: Annotated[
        str | None, typer.Option("--rse", metavar="NAME", help="Another storage element than scratch.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Sizes only; no file is read.")] = False,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up-lost", help="With --repair: take files without another copy out of their datasets."
        ),
    ] = False,
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than", min=0, metavar="S", help="Unknown files count when unchanged for S seconds."
        ),
    ] = 3600.0,
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="S", help="With --repair: wait S seconds for new copies.")
    ] = 600.0,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Compare scratch with the catalogue: missing, short, damaged, unknown and badly protected files.

    Exit code 0: nothing is wrong (any more); 1: problems are left; 3: no box runs.
    """
    if give_up and not repair:
        raise typer.BadParameter("goes with --repair only", param_hint="--give-up-lost")
    box = State(state)
    _needs(box, ("database", "daemons") if repair else ("database",))
    facts = Facts.of(box.path)
    options = audit.Options(not fast, repair, give_up, older_than, wait)
    report = _check(facts, rse or facts.scratch, options)
    if as_json:
        print_json(report.as_dict())
    else:
        for line in report.lines():
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    if not report.clean:
        raise typer.Exit(1)


def _needs(box: State, parts: tuple[str, ...]) -> None:
    known = {part["name"]: part["state"] for part in run.status(box)["parts"]}
    if not known:
        err.print("No box runs on this state; `dmsp up` starts it. Scratch is checked while it runs.")
        raise typer.Exit(NOT_RUNNING)
    for part in parts:
        if known.get(part) != "healthy":
            raise DmspError(f"The box's {part} is {known.get(part, 'not there')}.", "`dmsp status` shows more.")


def _check(facts: Facts, rse: str, options: audit.Options) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task: TaskID = progress.add_task("", total=None, amount="")

        def say(what: str, done: int, total: int, read: int) -> None:
            amount = f"{done}/{total} files" if total else f"{done} files" if done else ""
            if read:
                amount += f", {read / 1e6:.0f} MB"
            progress.update(task, description=what, completed=done, total=total or None, amount=amount)

        return asyncio.run(audit.check(facts, rse, options, say))
