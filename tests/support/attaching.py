"""What a user's Jupyter server does with attachments, without the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from testlake import SCRATCH, Lake

from jupyterhub_dmsp.lab.attachments import Attachments
from jupyterhub_dmsp.lab.flow import Tools
from jupyterhub_dmsp.lab.manifest import Manifests
from jupyterhub_dmsp.lab.records import Records
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.scratch.links import Links
from jupyterhub_dmsp.scratch.mount import Mount
from jupyterhub_dmsp.scratch.paths import Paths


class _Tokens:
    """One token, as a source of tokens."""

    def __init__(self, text: str) -> None:
        self.access_token = SecretStr(text)

    async def get(self) -> Any:
        return self


class Attaching:
    """A new user of a lake; manifests, links and records are in ``directory``."""

    def __init__(self, lake: Lake, directory: Path) -> None:
        account = f"a{os.urandom(3).hex()}"
        lake.user(account, "km3net")
        self.directory = directory
        self.client = RucioClient(lake.url, "", account, _Tokens(lake.issuer.token(account)))
        self.records = Records(directory / "a.sqlite", lake.url)
        mount = lake.state / "storage" / SCRATCH / "lake"
        tools = Tools(
            self.client,
            SCRATCH,
            Paths(mount),
            Mount(mount),
            self.records,
            Manifests(directory / "run"),
            Links(directory / "datasets"),
            lambda attachment: self.manager.note(attachment),
        )
        self.manager = Attachments(tools, lake.url, 3600)

    async def close(self) -> None:
        """As when the server ends."""
        await self.manager.stop()
        await self.records.close()
        await self.client.close()
