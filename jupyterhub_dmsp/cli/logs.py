"""``dmsp logs``: what the parts wrote, whatever the form in which they did."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from jupyterhub_dmsp.box import follow as reading
from jupyterhub_dmsp.box.follow import Entry
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.cli.base import DEFAULT_STATE, JsonOption, StateOption, app, err
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.shared import dmsp_log

#: Seconds between two looks at logs that are followed.
POLL = 0.25


@app.command()
def logs(
    part: Annotated[
        str | None,
        typer.Argument(
            help="Part whose log is wanted, or `sessions`, or `sessions/USER`; all but sessions when not given."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Events of each log.")] = 50,
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="All events of one request, of all logs.")
    ] = None,
    level: Annotated[str, typer.Option("--level", help="Only what is as severe as this.")] = "debug",
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the log of a part, or of all, in order of time."""
    directory = State(state) / "logs"
    if level not in dmsp_log.LEVELS:
        raise DmspError(f"There is no level {level!r}.", f"Known: {', '.join(dmsp_log.LEVELS)}.")

    def known() -> list[str]:
        return [name for name in reading.names(directory) if _chosen(name, part)]

    def wanted(entry: Entry) -> bool:
        return entry.at_least(level)

    if request is not None:
        if follow:
            raise DmspError("A request's way is searched once.", "Leave --follow out.")
        found = reading.of_request(
            directory,
            request,
            lambda entry: wanted(entry) and _chosen(entry.log, part, True),
            lambda text: err.print(text, markup=False, highlight=False),
        )
        if not found:
            raise DmspError(f"No log knows the request {request}.", "Older events may have been rotated away.")
        _write(found, as_json)
        return
    present = reading.names(directory)
    if not present:
        raise DmspError("There are no logs yet.", "`dmsp up` writes them.")
    if not known():
        raise DmspError(f"There is no log of {part!r}.", f"Known: {', '.join(present)}.")
    reader = reading.Reader(directory, known)
    _write(reader.last(lines, wanted), as_json)
    while follow:
        time.sleep(POLL)
        _write([entry for entry in reader.more() if wanted(entry)], as_json)


def _chosen(name: str, part: str | None, everything: bool = False) -> bool:
    """Whether a log is that of the part; those of sessions are shown where they are named."""
    if part is None:
        return everything or not name.startswith("sessions/")
    return name == part or name.startswith(f"{part}/")


def _write(entries: list[Entry], as_json: bool) -> None:
    for entry in entries:
        # As they are: a log is no markup, and what is piped on must not be wrapped.
        sys.stdout.write(f"{entry.for_programs() if as_json else entry.for_people()}\n")
    sys.stdout.flush()
