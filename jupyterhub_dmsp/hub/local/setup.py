"""One line for the ``jupyterhub_config.py`` of a hub of one's own: isolated sessions on this machine."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.sandbox.network import Network

START_TIMEOUT = 1800
"""Seconds: a first start builds the environment."""


def spawn_locally(c: Any, state: str, *, hub_port: int = 8081, internet: bool = True) -> None:
    """Give a hub our local spawner. As root sessions have users and a network of their own, else those of the hub.

    Args:
        c: JupyterHub's configuration object.
        state: folder of the installation: homes, environments, logs. Made when it is not there; every user of the
            machine must be able to pass through its parents.
        hub_port: port of the hub's API, which then listens on the sessions' network.
        internet: whether sessions may reach the outside.

    Raises:
        DmspError: the network cannot be made; the sentence says what is missing.
    """
    place = Path(state)
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.chmod(0o711)
    c.JupyterHub.spawner_class = "dmsp-local"
    c.LocalProfileSpawner.state_dir = str(place)
    c.Spawner.start_timeout = START_TIMEOUT
    c.Spawner.http_timeout = 90
    c.Spawner.default_url = "/lab"
    # They outlive the hub, and the next one takes them over.
    c.JupyterHub.cleanup_servers = False
    if os.geteuid() == 0:
        # JupyterHub reads its configuration inside an event loop, which cannot run a second one.
        with ThreadPoolExecutor(1) as thread:
            network = thread.submit(asyncio.run, _network(place, hub_port, internet)).result(60)
        c.LocalProfileSpawner.network = network.facts()
        c.JupyterHub.hub_bind_url = f"http://{network.gateway}:{hub_port}"


async def _network(state: Path, port: int, internet: bool) -> Network:
    network = await Network.load_or_choose(state, ports=(port,), internet=internet)
    await network.ensure()
    return network
