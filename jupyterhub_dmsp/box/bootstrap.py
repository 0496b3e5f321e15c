"""Bringing Rucio's catalogue up to date, once at each start of a box."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jupyterhub_dmsp.box.backup import safety
from jupyterhub_dmsp.box.logs import tail
from jupyterhub_dmsp.box.rucio import config, parts
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.run import outcome

TIMEOUT = 300.0


async def bootstrap(
    state: State, plan: config.Plan, command: Sequence[str], environment: Mapping[str, str], port: int
) -> None:
    """Make schema, accounts and RSEs; the tables of an earlier Rucio are upgraded, with a copy made first.

    Args:
        state: of the box.
        plan: what shall be in the catalogue.
        command: runs :func:`jupyterhub_dmsp.box.rucio.parts.bootstrap_command`, confined.
        environment: for that.
        port: of the database.

    Raises:
        DmspError: it could not be done, or not within :data:`TIMEOUT` seconds.
    """
    names = {"root": "rucio-root-password", config.SERVICE_ACCOUNT: "rucio-hub-password"}
    passwords = {account: state.secret(name).read_text().strip() for account, name in names.items()}
    document = plan.document(passwords)
    code = await _run(state, document, command, environment)
    if code == parts.OTHER_VERSION:
        await safety.keep_database(state, port)
        code = await _run(state, {**document, "upgrade": True}, command, environment)
    if code:
        last = tail(state / "logs" / "bootstrap.log", 1)
        raise DmspError(
            f"Rucio's catalogue could not be prepared: {last}.", "`dmsp logs bootstrap` shows more."
        )


async def _run(
    state: State, document: dict[str, Any], command: Sequence[str], environment: Mapping[str, str]
) -> int:
    """The passwords go through standard input; gives the exit code."""
    with (state / "logs" / "bootstrap.log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment,
        )
        try:
            code, _, _ = await outcome(process, TIMEOUT, json.dumps(document).encode())
        except TimeoutError:
            raise DmspError(
                f"Rucio's catalogue was not prepared within {TIMEOUT:.0f} s.",
                "`dmsp logs bootstrap` shows more.",
            ) from None
    return code
