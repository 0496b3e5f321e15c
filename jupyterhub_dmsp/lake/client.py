"""The Rucio client: typed, asynchronous, for one account.

Made of parts: :mod:`transport` (HTTP), :mod:`reading`, :mod:`rules`, :mod:`writing`.
"""

from __future__ import annotations

from types import TracebackType

import httpx

from jupyterhub_dmsp.lake.models import Counters
from jupyterhub_dmsp.lake.reading import Reading
from jupyterhub_dmsp.lake.rules import Rules
from jupyterhub_dmsp.lake.transport import PATIENCE, TokenSource, Transport
from jupyterhub_dmsp.lake.writing import Writing

__all__ = ["RucioClient", "TokenSource"]


class RucioClient(Reading, Rules, Writing):
    """Rucio over REST. Every method raises a :class:`~jupyterhub_dmsp.lake.errors.LakeError` on failure.

    Args:
        url: the Rucio server.
        auth_url: its authentication server; unused with tokens that Rucio validates itself (JWT).
        account: the Rucio account in whose name rules are made.
        tokens: gives the token for each request.
        timeout: seconds to wait for the next bytes of an answer.
        http: an httpx transport instead of the network.
    """

    def __init__(
        self,
        url: str,
        auth_url: str,
        account: str,
        tokens: TokenSource,
        timeout: float = PATIENCE,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.account = account
        self.auth_url = auth_url or url
        self.transport = Transport(url, tokens, timeout, http)

    @property
    def counters(self) -> Counters:
        """Calls and bytes so far."""
        return self.transport.counters

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.close()

    async def __aenter__(self) -> RucioClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
