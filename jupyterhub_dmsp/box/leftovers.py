"""What a box that was killed leaves behind: its parts' processes, sessions, mounts, networks.

Parts end by themselves with the supervisor (bubblewrap's ``--die-with-parent``, ``setpriv --pdeathsig``); that takes
a moment, and some may hang. Processes are known by number and start time from the last status, never by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

from jupyterhub_dmsp.box import mount
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.box.vre import Vre
from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.sandbox.process import Process, main_of

#: Seconds that a part of a killed box has for ending by itself.
GRACE = 5.0

log = logging.getLogger("dmsp.box")


def parts(state: State) -> dict[str, Process]:
    """The parts of an earlier box that still run."""
    found = {}
    for part in state.read_status().get("parts", []):
        if part.get("pid") and part.get("pid_started"):
            process = Process(part["pid"], part["pid_started"])
            if process.alive():
                found[part["name"]] = process
    return found


async def end_parts(state: State) -> list[str]:
    """End the parts of an earlier box on this state, whose lock the caller holds; their names."""
    left = parts(state)
    await asyncio.gather(*(_end(name, process) for name, process in left.items()))
    (state / "run" / "status.json").unlink(missing_ok=True)
    return list(left)


async def _end(name: str, process: Process) -> None:
    log.warning("part %s of an earlier box still runs (process %d) and is ended", name, process.pid)
    (main_of(process) or process).send(signal.SIGTERM)
    await process.gone(GRACE)
    # It was started as the leader of its own process group, which outlives it while anything of the part runs.
    if process.alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.gone(GRACE)


async def end(state: State) -> bool:
    """End all that a killed box left on this state; whether there was anything."""
    with state.locked():
        sessions = any(record.alive() for record in records.all_records(state.path))
        mounted = mount.is_mounted(state / "scratch")
        ended = await end_parts(state)
        await Vre.clean_state(state)
    return bool(ended or sessions or mounted)
