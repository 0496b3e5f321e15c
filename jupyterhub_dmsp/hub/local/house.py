"""What the local spawner knows without a user: where scratch is, and which sessions nobody's hub knows any longer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.sandbox.network import Network


def key_of(user: str, server: str) -> str:
    """A session's folder: the user, and a named server's name behind a dot, which no user name has."""
    return f"{user}.{server}" if server else user


@dataclass
class LocalHouse:
    """One installation on this machine.

    Attributes:
        state: its state directory.
        network: the sessions' network; None for the machine's own.
        scratch: the mount as the hub sees it; None where there is none.
    """

    state: Path
    network: Network | None
    scratch: Path | None

    async def end_left(self, wanted: set[tuple[str, str]]) -> list[str]:
        """End sessions that are written down, run, and belong to none of these servers."""
        keys = {key_of(*server) for server in wanted}
        everything = await asyncio.to_thread(lambda: list(records.all_records(self.state)))
        left = [record for record in everything if record.key not in keys]
        running = [record.key for record in left if record.alive()]
        await asyncio.gather(*(records.end_session(record, self.state, self.network) for record in left))
        return [
            f"Ended the session {key}, which this hub does not know: a former one left it." for key in running
        ]
