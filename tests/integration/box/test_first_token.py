"""Requests that bring the same new token at the same moment: Rucio answers all, as it would one after the other."""

from __future__ import annotations

import asyncio

import pytest
from boxes import Box
from visitor import Visitor

from jupyterhub_dmsp.identity.tokens import Token
from jupyterhub_dmsp.lake.client import RucioClient

pytestmark = pytest.mark.root


class Fresh:
    """A token that Rucio has never seen."""

    def __init__(self, token: str) -> None:
        self._token = Token.of(token, 2**31, "rucio")

    async def get(self) -> Token:
        return self._token


async def names(client: RucioClient) -> list[str]:
    """A stream, which the client does not repeat by itself."""
    return [entry.did.name async for batch in client.search("dmsp") for entry in batch]


async def test_twenty_first_requests_at_once(box: Box) -> None:
    name = "vre-admin"
    async with Visitor(box.address, name, box.passwords[name]) as visitor:
        token = await visitor.device_token(box.status["issuer"])
    url = box.part("rucio")["address"]
    async with RucioClient(url, url, name, Fresh(token)) as client:
        answers = await asyncio.gather(*(names(client) for _ in range(20)))
    assert len({frozenset(answer) for answer in answers}) == 1
