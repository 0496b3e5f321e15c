"""The first start after a restore: Rucio learns which files are not on the disk, and copies them again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from jupyterhub_dmsp.box.state import State, write_private
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.run import outcome

#: It is there from the restore until no file of the lake is missing.
MARKER = "restored.json"
TIMEOUT = 3600.0
log = logging.getLogger("dmsp.box")


def command(python: str) -> list[str]:
    """Compares catalogue and disk; see ``dmsp_rucio.reconcile``."""
    return [python, "-m", "dmsp_rucio.reconcile"]


async def reconcile(
    state: State, argv: Sequence[str], environment: dict[str, str], say: Callable[[str], None]
) -> None:
    """Compare once, if the state comes from a backup; before Rucio's server and daemons start.

    Args:
        state: the box.
        argv: :func:`command`, confined.
        environment: of Rucio's processes.
        say: told what is under way.

    Raises:
        DmspError: the comparison failed; the mark stays for the next start.
    """
    if not (state / MARKER).exists():
        return
    say("looking for the lake's files after the restore")
    with (state / "logs" / "bootstrap.log").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd="/",
            env=environment,
        )
        try:
            _, output, _ = await outcome(process, TIMEOUT)
        except TimeoutError:
            raise DmspError(
                f"The lake was not looked through within {TIMEOUT / 60:.0f} minutes.",
                "The next start tries again; `dmsp logs bootstrap` shows more.",
            ) from None
    try:
        report: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise DmspError(
            "The lake could not be looked through after the restore.", "`dmsp logs bootstrap` says why."
        ) from error
    await asyncio.to_thread(_conclude, state, report)


def _conclude(state: State, report: dict[str, Any]) -> None:
    log.info("after the restore: %s", json.dumps(report))
    if not report["lost"]:
        (state / MARKER).unlink()
        return
    some = ", ".join(report["examples"][:3])
    log.warning(
        "%d files of the lake have no copy here (such as %s): put them back below storage/ and start again",
        report["lost"],
        some,
    )
    write_private(state / MARKER, json.dumps({"lost": report["lost"], "examples": report["examples"]}))
