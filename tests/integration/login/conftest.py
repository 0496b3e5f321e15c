"""Hubs with our authenticator alone, one for each family of issuers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from plainhub import PlainHub, plain_hub


@pytest.fixture(scope="module")
async def hub() -> AsyncIterator[PlainHub]:
    """One of the WLCG family, whose logins end a second after the last server."""
    async with plain_hub("wlcg", "c.DMSPAuthenticator.revoke_delay = 0.5") as running:
        yield running
