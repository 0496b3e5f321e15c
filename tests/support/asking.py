"""Asking the hub for tokens, as a user's server does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx


class Server:
    """What a user's server is to the token endpoint: its token, made as JupyterHub makes it."""

    def __init__(self, stack: Any, user: str) -> None:
        self.stack, self.user = stack, user
        self.http = httpx.AsyncClient(timeout=30, trust_env=False)

    async def login(self) -> Server:
        async with self.stack.browser() as browser:
            await browser.login(self.user)
        self.http.headers["Authorization"] = (
            f"token {await self.api_token(f'access:servers!server={self.user}/')}"
        )
        return self

    async def api_token(self, *scopes: str) -> str:
        async with self.stack.admin() as api:
            wanted = ["custom:dmsp:token", *scopes]
            made = await api.post(f"users/{self.user}/tokens", json={"scopes": wanted, "note": "test"})
            assert made.status_code == 201, made.text
            return str(made.json()["token"])

    async def ask(self, audience: str | None = "rucio") -> httpx.Response:
        query = {"audience": audience} if audience is not None else {}
        return await self.http.get(f"{self.stack.hub_url}/hub/api/dmsp/token", params=query)

    async def state(self) -> dict[str, Any]:
        async with self.stack.admin() as api:
            return dict((await api.get(f"users/{self.user}")).json()["auth_state"])

    async def age(self) -> None:
        """Wait until the stored token is older than the leeway allows."""
        state = await self.state()
        await asyncio.sleep(max(0.0, state["expires_at"] - self.stack.token_lifetime / 2 - time.time()) + 0.1)

    async def expire(self) -> None:
        """Wait until it has expired."""
        await asyncio.sleep(max(0.0, (await self.state())["expires_at"] - time.time()) + 0.1)
