"""Requests that no form of ours makes, by every way in: each is refused with a reason, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

ATTACKER, OTHER = "collider-user", "vre-admin"
BIG = "x" * 1_000_000
DEEP: Any = "x"
for _ in range(200):
    DEEP = [DEEP]

# What is asked, and a part of the sentence that answers. All of it can be said in a form.
TEXTS: dict[str, tuple[dict[str, str], str]] = {
    "no such profile": ({"profile": "nosuch"}, "There is no profile 'nosuch'"),
    "forbidden profile": ({"profile": "deepsea"}, "The profile deepsea is not open to your groups"),
    "forbidden profile, choices too": ({"profile": "deepsea", "memory": "512M"}, "not open to your groups"),
    "a megabyte": ({"profile": BIG}, "There is no profile 'xxxx"),
    "a megabyte of memory": ({"profile": "everybody", "memory": BIG}, "is not offered; offered: 512M, 1G"),
    "a path": ({"profile": "../everybody"}, "There is no profile '../everybody'"),
    "an absolute path": ({"profile": "/etc"}, "There is no profile '/etc'"),
    "a regular expression": ({"profile": ".*"}, "There is no profile '.*'"),
    "a costly regular expression": ({"profile": "(a+)+$" + "a" * 5000 + "!"}, "There is no profile"),
    "a NUL": ({"profile": "everybody\0"}, "There is no profile"),
    "a line feed": ({"profile": "everybody\n"}, "There is no profile"),
    "letters that look alike": ({"profile": "everyb\u043edy"}, "There is no profile"),
    "letters in full width": ({"profile": "\uff45verybody"}, "There is no profile"),
    "reversed text": ({"profile": "\u202eydobyreve"}, "There is no profile"),
    "a capital": ({"profile": "Everybody"}, "There is no profile"),
    "HTML": ({"profile": "<script>alert(1)</script>"}, "There is no profile"),
    "a template": ({"profile": "{{ 7 * 7 }}${7*7}"}, "There is no profile"),
    "no such variant": (
        {"profile": "everybody", "variant": "nosuch"},
        "has no variant 'nosuch'; there are: next",
    ),
    "memory out of bounds": ({"profile": "everybody", "memory": "1e9G"}, "is not offered; offered: 512M, 1G"),
    "memory as a number": ({"profile": "everybody", "memory": "1"}, "is not offered"),
    "memory with a space": ({"profile": "everybody", "memory": " 1G"}, "is not offered"),
    "negative memory": ({"profile": "everybody", "memory": "-1G"}, "is not offered"),
    "memory above the groups' limit": (
        {"profile": "everybody", "memory": "2G"},
        "is more than your groups may choose; you may choose 512M, 1G",
    ),
    "cores that are no number": ({"profile": "everybody", "cpu": "NaN"}, "is not offered; offered: 1, 2"),
    "endless cores": ({"profile": "everybody", "cpu": "inf"}, "is not offered"),
    "cores as a power": ({"profile": "everybody", "cpu": "1e0"}, "is not offered"),
    "negative cores": ({"profile": "everybody", "cpu": "-1"}, "is not offered"),
    "cores in other digits": ({"profile": "everybody", "cpu": "\uff11"}, "is not offered"),
    "graphics processors where there are none": (
        {"profile": "everybody", "gpu": "8"},
        "is not offered; offered: 0",
    ),
    "another profile's choice": ({"profile": "deepsea-next", "variant": "next"}, "There is no profile"),
    "an option of another spawner": ({"profile": "everybody", "image": "evil/image"}, "'image' is not known"),
    "an attribute": ({"profile": "everybody", "__class__": "x"}, "'__class__' is not known"),
    "a setting": ({"profile": "everybody", "mem_limit": "64G"}, "'mem_limit' is not known"),
    "no name": ({"profile": "everybody", "": "x"}, "is not known"),
    "a name of a megabyte": ({"profile": "everybody", BIG: "x"}, "is not known"),
}

# What only an API can say: JSON of other types.
BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "profile as list": ({"profile": ["everybody"]}, "short name of a profile"),
    "profile as object": ({"profile": {"slug": "everybody"}}, "short name of a profile"),
    "profile as number": ({"profile": 1e308}, "short name of a profile"),
    "profile as truth": ({"profile": True}, "short name of a profile"),
    "profile as null": ({"profile": None}, "short name of a profile"),
    "profile, nested": ({"profile": DEEP}, "short name of a profile"),
    "variant as list": ({"profile": "everybody", "variant": ["next"]}, "has no variant"),
    "memory as number": ({"profile": "everybody", "memory": 1}, "is not offered"),
    "memory as object": ({"profile": "everybody", "memory": {"$gt": 0}}, "is not offered"),
    "cpu as truth": ({"profile": "everybody", "cpu": True}, "is not offered"),
    "cpu as list": ({"profile": "everybody", "cpu": [1]}, "is not offered"),
    "cpu as huge number": ({"profile": "everybody", "cpu": 10**300}, "is not offered"),
    "cpu as NaN": ({"profile": "everybody", "cpu": float("nan")}, "is not offered"),
    "cpu as negative number": ({"profile": "everybody", "cpu": -1}, "is not offered"),
    "gpu as fraction": ({"profile": "everybody", "gpu": 0.5}, "is not offered"),
    "form's own field": ({"profile": "everybody", "memory:everybody": "2G"}, "is not known"),
}

# Bodies that are no options at all.
RAW = {
    "a list": b"[1]",
    "a text": b'"everybody"',
    "no JSON": b"{profile: everybody}",
    "no UTF-8": b'{"profile": "\xff"}',
    "brackets without end": b"[" * 100_000,
    "options as list": b'{"user_options": ["everybody"]}',
}


@pytest.fixture(scope="module")
async def attacker(stack: Any) -> AsyncIterator[Any]:
    async with stack.browser() as browser:
        await browser.login(ATTACKER)
        page = await browser.form()
        found = re.search(r'action="([^"]*)"', page.text)
        assert found, page.text
        browser.action = str(page.url.join(found[1].replace("&amp;", "&")))
        yield browser


def told(page: httpx.Response) -> str:
    """The error on a page, as text."""
    found = re.search(r'class="spawn-error-msg[^>]*>(.*?)</p>', page.text, re.DOTALL)
    assert found, page.text[:2000]
    return found[1].replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">").strip()


async def post(browser: Any, fields: dict[str, Any], **more: Any) -> httpx.Response:
    """Send the form; what it answers."""
    page: httpx.Response = await browser.http.post(browser.action, data=fields, **more)
    return page


async def nothing_runs(stack: Any) -> bool:
    async with stack.admin() as api:
        model = (await api.get(f"users/{ATTACKER}")).json()
    return not model["servers"] and not model["pending"]


@pytest.mark.parametrize("case", TEXTS)
async def test_by_the_form(stack: Any, attacker: Any, case: str) -> None:
    options, sentence = TEXTS[case]
    page = await post(attacker, options)
    assert page.status_code == 400
    assert sentence in told(page)
    assert len(told(page)) < 300
    assert await nothing_runs(stack)


@pytest.mark.parametrize("prefix", ["", "opt-"], ids=["plain", "opt-"])
@pytest.mark.parametrize("case", [case for case in TEXTS if "megabyte" not in case and case != "no name"])
async def test_by_a_query(stack: Any, attacker: Any, case: str, prefix: str) -> None:
    options, sentence = TEXTS[case]
    query = urlencode({f"{prefix}{name}": value for name, value in options.items()})
    page = await attacker.http.get(f"{stack.public}hub/spawn?{query}")
    if prefix and "X-JupyterHub-Version" in page.headers and page.headers["X-JupyterHub-Version"] < "6":
        sentence = "is not known"  # JupyterHub 5 has no prefix
    assert page.status_code == 400
    assert sentence in told(page)
    assert await nothing_runs(stack)


@pytest.mark.parametrize("length", [60_000, 1_000_000])
async def test_by_a_long_query(stack: Any, attacker: Any, length: int) -> None:
    """httpx makes no such address, so it is said by hand; who refuses it, proxy or hub, is all the same."""
    cookies = "; ".join(f"{name}={value}" for name, value in attacker.http.cookies.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports["public"])
    head = f"GET /hub/spawn?profile={'x' * length} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\n\r\n"
    writer.write(head.encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    assert 400 <= status < 500
    assert await nothing_runs(stack)


@pytest.mark.parametrize(
    ("case", "server"),
    [(case, "server") for case in [*TEXTS, *BODIES]] + [(case, "servers/other") for case in BODIES],
)
async def test_by_the_api(stack: Any, attacker: Any, case: str, server: str) -> None:
    options, sentence = (TEXTS | BODIES)[case]
    async with stack.admin() as api:
        answer = await api.post(
            f"users/{ATTACKER}/{server}",
            content=json.dumps(options),
            headers={"Content-Type": "application/json"},
        )
    assert answer.status_code == 400
    assert sentence in answer.json()["message"]
    assert len(answer.content) < 1000
    assert await nothing_runs(stack)


@pytest.mark.parametrize("case", RAW)
async def test_bodies_that_are_no_options(stack: Any, attacker: Any, case: str) -> None:
    async with stack.admin() as api:
        answer = await api.post(
            f"users/{ATTACKER}/server", content=RAW[case], headers={"Content-Type": "application/json"}
        )
    assert 400 <= answer.status_code < 500
    assert answer.json()["message"]
    assert await nothing_runs(stack)


async def test_forms_that_are_none_of_ours(stack: Any, attacker: Any) -> None:
    twice = await post(attacker, {"profile": ["everybody", "deepsea"]})
    assert (twice.status_code, "must be given once" in told(twice)) == (400, True)
    file = await post(attacker, {"profile": "everybody"}, files={"memory": ("m", b"1G")})
    assert (file.status_code, "'memory_file' is not known" in told(file)) == (400, True)
    both = await post(attacker, {"profile": "everybody", "memory": "1G", "memory:everybody": "512M"})
    assert (both.status_code, "is given twice" in told(both)) == (400, True)
    assert await nothing_runs(stack)


async def test_forms_that_are_no_text(stack: Any, attacker: Any) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    page = await attacker.http.post(attacker.action, content=b"profile=%ff%fe", headers=kind)
    assert 400 <= page.status_code < 500
    assert await nothing_runs(stack)


async def test_twenty_in_a_row_and_nobody_else_notices(stack: Any, attacker: Any) -> None:
    hub = stack.processes["hub"]
    async with stack.admin() as api:
        for number in range(20):
            options, _ = list(TEXTS.values())[number % 3]
            assert (await post(attacker, options)).status_code == 400
            assert (await attacker.http.get(f"{stack.public}hub/spawn?profile=nosuch")).status_code == 400
            answer = await api.post(f"users/{ATTACKER}/server", json=options)
            assert answer.status_code == 400
    async with stack.browser() as somebody:
        await somebody.login(OTHER)
    events = await stack.launch(OTHER, "everybody")
    assert events[-1].get("ready") is True, events
    assert hub.poll() is None
    await stack.quit(OTHER)
    events = await stack.launch(ATTACKER, "everybody")
    assert events[-1].get("ready") is True, events
    await stack.quit(ATTACKER)
    assert "consecutive spawns failed" not in stack.log("hub")


async def test_ten_starts_at_once_are_one(stack: Any, attacker: Any) -> None:
    body = {"profile": "everybody"}
    async with stack.admin() as api:
        answers = await asyncio.gather(
            *(api.post(f"users/{ATTACKER}/server", json=body, timeout=120) for _ in range(10))
        )
        model = (await api.get(f"users/{ATTACKER}")).json()
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) <= {201, 202, 400, 409}, [answer.text for answer in answers]
    assert codes[201] + codes[202] >= 1
    assert list(model["servers"]) == [""]
    await stack.quit(ATTACKER)


async def test_what_was_refused_is_not_remembered(stack: Any, attacker: Any) -> None:
    """JupyterHub stores what is asked before anybody has looked at it."""
    await stack.launch(ATTACKER, "everybody")
    await stack.quit(ATTACKER)
    for options in ({"profile": "deepsea"}, {"profile": BIG}):
        assert (await post(attacker, options)).status_code == 400
        async with stack.admin() as api:
            assert (await api.post(f"users/{ATTACKER}/server", json=options)).status_code == 400
    database = (stack.state / "hub" / "jupyterhub.sqlite").read_bytes()
    assert b"x" * 10_000 not in database or b'"profile": "everybody"' in database
    page = await attacker.form()
    assert re.search(r'value="everybody"[^>]*checked', page.text)
