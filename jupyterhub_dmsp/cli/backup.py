"""``dmsp backup`` and ``dmsp restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jupyterhub_dmsp.box import backup as backups
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.cli.base import DEFAULT_STATE, StateOption, app, out

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .tar.zst or .tar.gz.")]


def _print(text: str) -> None:
    """A line that a terminal may wrap and nobody else."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def _say(text: str) -> None:
    _print(f"… {text}")


def _list(names: list[str], text: str) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        _print(f"{text}: {', '.join(names[:3])}{more}.")


@app.command()
def backup(
    file: FileArgument,
    state: StateOption = DEFAULT_STATE,
    without_data: Annotated[
        bool, typer.Option("--without-data", help="Leave out the files at the sites of the lake.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: check that FILE is whole and right.")
    ] = False,
) -> None:
    """Write the whole box, running or not, into one file (0600: it holds all secrets)."""
    if verify:
        count = backups.verify(file)
        _print(f"{file} is in order: {count} entries, all checksums right.")
        return
    made = backups.create(State(state), file, _say, with_data=not without_data)
    _list(made.skipped, "Left out (pipes, sockets, what vanished meanwhile)")
    _list(made.changed, "Changed while it was read")
    _print(f"{made.path}: {made.files} files, {made.size / 1e6:.1f} MB. It holds every secret of the box.")


@app.command()
def restore(
    file: FileArgument,
    state: StateOption = DEFAULT_STATE,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1024, max=65000, help="Choose ports from here on for those that are taken."),
    ] = None,
) -> None:
    """Make a box from a backup, in a new or empty directory. `dmsp up` starts it."""
    made = backups.restore(file, State(state), _say, port=port)
    for note in made.notes:
        _print(note)
    _print(f"{made.path} holds the box of {made.made}. `dmsp up --state {made.path}` starts it.")
