"""Forty users through login, start, token and stop: no error, and nobody costs more because others are there.

The long form, to 200 users and with times, is ``python -m benchmarks hub``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crowd import MORE, PHASES, Cost, Crowd, users

from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.sandbox.network import Network

pytestmark = [pytest.mark.root, pytest.mark.slow]

FEW, MANY = 8, 40


async def run(make_stack: Callable[..., Any], number: int) -> dict[str, Cost]:
    everybody = users(number)
    async with make_stack(users=everybody, more=MORE) as stack:
        async with Crowd(stack, [user.name for user in everybody]).gathered() as crowd:
            costs = await crowd.run()
        left = await asyncio.to_thread(lambda: list(records.all_records(stack.state)))
        assert left == []
        assert Network.load(stack.state) is not None
    return costs


async def test_forty_users_and_no_error(make_stack: Callable[..., Any]) -> None:
    few, many = await run(make_stack, FEW), await run(make_stack, MANY)
    for name in PHASES:
        assert few[name].errors == []
        assert many[name].errors == []
        # Polls while a session starts and stops are a matter of time, so of the machine: a half on top is allowed.
        assert many[name].statements / MANY <= 1.5 * few[name].statements / FEW + 5, name
