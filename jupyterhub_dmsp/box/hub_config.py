"""What the box's ``jupyterhub_config.py`` calls: facts, and the hooks that let the hub stay free of Rucio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.box.rucio import config as rucio_config
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.config import configure
from jupyterhub_dmsp.lake.accounts import Provisioner
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.userpass import UserPassSource

RESERVED = frozenset({"root", rucio_config.SERVICE_ACCOUNT})
"""Rucio accounts that are nobody's."""


def fill(c: Any, facts_file: str) -> None:
    """Fill JupyterHub's configuration object ``c``."""
    facts = json.loads(Path(facts_file).read_text())
    box = facts.pop("box")
    configure(c, **facts)
    chosen = settings.load(Path(facts["settings_file"]) if facts["settings_file"] else None)
    provisioner = _provisioner(box)

    async def provision(username: str, claims: dict[str, Any], groups: list[str]) -> None:
        """Make sure that the Rucio account, identity, scope and experiment attributes are there."""
        if username in RESERVED:
            # Whoever gets an identity of that account is it.
            raise DmspError(f"The name {username} belongs to the lake itself.", "Ask for another user name.")
        await provisioner.ensure(
            user=username,
            subject=claims["sub"],
            issuer=box["issuer"],
            email=claims.get("email") or f"{username}@localhost",
            experiments=[experiment.name for experiment in chosen.experiments_of(set(groups))],
        )

    def session_files(spawner: Any) -> dict[str, str]:
        lake = facts["lake"]
        text = rucio_config.client_config(
            rucio_url=lake["rucio_url"], auth_url=lake["auth_url"], account=spawner.user.name
        )
        return {"rucio.cfg": text}

    c.DMSPAuthenticator.provision = provision
    c.LocalProfileSpawner.session_files = session_files


def _provisioner(box: dict[str, Any]) -> Provisioner:
    """In the name of the hub's own Rucio account; users may keep any amount on scratch."""
    tokens = UserPassSource(
        box["rucio_url"],
        rucio_config.SERVICE_ACCOUNT,
        rucio_config.SERVICE_ACCOUNT,
        lambda: settings.read_secret(box["rucio_secret"]),
    )
    client = RucioClient(box["rucio_url"], box["rucio_url"], rucio_config.SERVICE_ACCOUNT, tokens)
    return Provisioner(client, box["issuer"], {box["scratch_rse"]: -1})
