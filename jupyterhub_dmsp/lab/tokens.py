"""Where this server's tokens come from, and the bearer-token file that it keeps fresh for command-line tools."""

from __future__ import annotations

import os
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.identity.hub_source import HubTokenSource, session_api_token
from jupyterhub_dmsp.identity.keeper import BearerKeeper
from jupyterhub_dmsp.identity.tokens import CommandTokenSource, FileTokenSource, Refreshing, TokenSource
from jupyterhub_dmsp.lab.session import TokenInfo


def source_of(info: TokenInfo) -> Refreshing:
    """A caching source: the hub's endpoint, a command, or a file.

    Raises:
        DmspError: none is configured.
    """
    source: TokenSource
    if info.url:
        source = HubTokenSource(info.url, session_api_token, info.audience)
    elif info.command:
        source = CommandTokenSource(list(info.command), info.audience)
    elif info.file:
        source = FileTokenSource(Path(info.file), info.audience)
    else:
        raise DmspError(
            "No source of tokens for the data lake is configured.",
            "Set DmspLab.token_file or DmspLab.token_command, or start from the hub.",
        )
    return Refreshing(source)


def keeper_of(info: TokenInfo, source: Refreshing) -> BearerKeeper | None:
    """Keeps ``$BEARER_TOKEN_FILE`` fresh (WLCG bearer token discovery); None where it is the source itself."""
    path = os.environ.get("BEARER_TOKEN_FILE", "")
    if not path or (info.file and Path(path) == Path(info.file)):
        return None
    return BearerKeeper(source, Path(path))
