"""The clock is set back by an hour: tokens from the future are refused everywhere, so new ones are fetched."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from jupyterhub_dmsp.hub.login.authenticator import DMSPAuthenticator
from jupyterhub_dmsp.hub.login.token import Kept, TokenService
from jupyterhub_dmsp.identity.keeper import BearerKeeper
from jupyterhub_dmsp.identity.tokens import Refreshing, Token


class Source:
    """Gives numbered tokens that live an hour by its clock."""

    def __init__(self, wall: Any) -> None:
        self.wall, self.given = wall, 0

    async def get(self) -> Token:
        self.given += 1
        return Token.of(f"token-{self.given}", self.wall() + 3600, "rucio")


@pytest.mark.parametrize(("jump", "fetched"), [(-3600, 2), (-2, 1), (0, 1), (3600, 2)])
async def test_refreshing(jump: float, fetched: int) -> None:
    clock = SimpleNamespace(wall=1e9, monotonic=5.0)
    source = Source(lambda: clock.wall)
    refreshing = Refreshing(source, wall=lambda: clock.wall, monotonic=lambda: clock.monotonic)
    await refreshing.get()
    clock.wall += jump
    for _ in range(3):
        token = await refreshing.get()
    assert source.given == fetched
    assert token.expires_at - clock.wall > 60


@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_the_bearer_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    clock = SimpleNamespace(wall=1e9)
    monkeypatch.setattr(time, "time", lambda: clock.wall)
    source = Source(lambda: clock.wall)
    keeper = BearerKeeper(source, tmp_path / "token", check=0.05)
    keeper.start()
    await keeper.wait_changed()
    before = keeper.expires_at
    clock.wall += jump
    async with asyncio.timeout(20):
        await keeper.wait_changed(before)
    assert (tmp_path / "token").read_text() == "token-2"
    await asyncio.sleep(0)
    await keeper.stop()
    assert source.given == 2, "once is enough"


@pytest.mark.parametrize(("jump", "young"), [(-3600, False), (-2, True), (0, True), (3600, False)])
def test_what_the_hub_keeps(monkeypatch: pytest.MonkeyPatch, jump: float, young: bool) -> None:
    """The token for the lake, and the login's own."""
    monkeypatch.setattr(time, "time", lambda: 1e9 + jump)
    authenticator = DMSPAuthenticator()
    state = {"obtained_at": 1e9, "expires_at": 1e9 + 600}
    assert authenticator.is_fresh(state) is young
    service = TokenService(authenticator)
    token = Token(SecretStr("x"), 1e9 + 600, "rucio")
    service._kept["ada", "rucio"] = Kept(token, 1e9, 1e9 + 570)
    assert (service._young("ada", "rucio") is token) is young
