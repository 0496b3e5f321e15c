"""The metrics and the admin page of a real hub: who may see them, and what they show."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.root

ADMIN, USER = "vre-admin", "km3net-user"


def values(text: str) -> dict[str, float]:
    """Series to value, of a page in Prometheus' text format."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(number) for name, number in lines}


async def metrics(stack: Any) -> dict[str, float]:
    async with stack.browser() as browser:
        await browser.login(ADMIN)
        page = await browser.http.get(f"{stack.public}hub/metrics")
    assert page.status_code == 200, page.text
    return values(page.text)


async def test_metrics_need_a_scope(stack: Any) -> None:
    async with stack.browser() as browser:
        assert (await browser.http.get(f"{stack.public}hub/metrics")).status_code == 403
        await browser.login(USER)
        assert (await browser.http.get(f"{stack.public}hub/metrics")).status_code == 403
        assert (await browser.http.get(f"{stack.public}hub/dmsp")).status_code == 403


async def test_page_is_for_people_who_have_logged_in(stack: Any) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{stack.public}hub/dmsp")
    assert answer.status_code == 302
    assert "/hub/login" in answer.headers["location"]


async def test_a_session_from_start_to_end_in_numbers(stack: Any, until: Any) -> None:
    async with stack.browser() as browser:
        await browser.login(ADMIN)
        before = await metrics(stack)
        refused = await browser.submit("no-such-<b>profile</b>")
        assert refused.status_code == 400
        await stack.launch(ADMIN, "everybody")
        ok = 'dmsp_spawns_total{outcome="ok",profile="everybody",reason=""}'

        async def counted() -> dict[str, float] | None:
            now = await metrics(stack)
            return now if now.get(ok, 0) == before.get(ok, 0) + 1 else None

        now = await until(counted, 30)
        assert now['dmsp_sessions{profile="everybody"}'] >= 1
        for stage in ("environment", "sandbox", "server", "all"):
            assert now[f'dmsp_spawn_stage_seconds_count{{stage="{stage}"}}'] >= 1
        assert now["dmsp_scratch_ok"] == 1
        assert now["dmsp_scratch_free_bytes"] > 0
        assert now['dmsp_token_requests_total{outcome="ok"}'] >= 0

        page = (await browser.http.get(f"{stack.public}hub/dmsp")).text
        assert re.search(rf'<th scope="row">{ADMIN}</th><td>everybody</td>', page)
        assert re.search(r'<td class="text-end">\d+ MB</td><td class="text-end">[\d.]+ s</td>', page)
        assert "<svg" in page
        assert 'http-equiv="refresh"' not in page
        assert "<b>profile</b>" not in page
        again = (await browser.http.get(f"{stack.public}hub/dmsp?refresh")).text
        assert 'http-equiv="refresh" content="30"' in again
        home = (await browser.http.get(f"{stack.public}hub/home")).text
        assert 'href="/hub/dmsp"' in home
    await stack.quit(ADMIN)


async def test_refusals_stand_on_the_page_with_their_sentence(stack: Any) -> None:
    async with stack.browser() as browser:
        await browser.login(ADMIN)
        async with stack.admin() as api:
            answer = await api.post(f"users/{ADMIN}/server", json={"profile": "<script>alert(1)</script>"})
        assert answer.status_code == 400
        page = (await browser.http.get(f"{stack.public}hub/dmsp")).text
    assert "There is no profile" in page
    assert "<script>alert(1)" not in page
    now = await metrics(stack)
    assert now['dmsp_spawns_total{outcome="refused",profile="other",reason="profile"}'] >= 1
    assert not any("alert" in name for name in now)
