"""What was chosen holds in the session, and what is looked at before a start is told.

The hub's sessions module, which comes first, wants to see an environment built that this one starts, too.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.sandbox import cgroup

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

USER, SECOND = "vre-admin", "km3net-user"


class Form(HTMLParser):
    """What a browser without scripts would send."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.inside = self.select = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.inside = found.get("id", "")
        elif self.inside != "spawn_form":
            return
        elif tag == "input" and "checked" in found:
            self.fields[found["name"]] = found["value"]
        elif tag == "select":
            self.select = found["name"]
        elif tag == "option" and ("selected" in found or self.select not in self.fields):
            self.fields[self.select] = found["value"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.inside = ""


@pytest.fixture(autouse=True)
async def person(stack: Any) -> AsyncIterator[Any]:
    """At the launch page, with no session left when a test ends."""
    async with stack.browser() as browser:
        await browser.login(USER)
        yield browser
    stack.configure({})
    for user in (USER, SECOND):
        for server in ("", "sea"):
            if not await stack.stopped(user, server):
                await stack.quit(user, server)


SEEN = """
import json, os, pathlib
print(json.dumps({
    "edition": os.environ.get("EDITION"), "greeting": os.environ.get("GREETING"),
    "licences": os.path.exists("/data/licences/GPL-3"), "writable": os.access("/data/licences", os.W_OK),
    "cvmfs": os.path.exists("/cvmfs"), "session": json.load(open(os.environ["DMSP_SESSION"]))["variant"],
}))
"""


async def test_form_without_scripts_to_the_session_and_back(
    stack: Any, person: Any, notebook: Any, until: Any
) -> None:
    page = await person.form()
    sent = Form(page.text).fields
    # Nothing was launched yet: the first profile, as it is; only admins may choose 2G.
    assert sent["profile"] == "everybody"
    assert (sent["memory:everybody"], sent["cpu:everybody"], sent["variant:everybody"]) == ("1G", "2", "")
    assert '<option value="2G"' in page.text
    sent |= {"memory:everybody": "512M", "cpu:everybody": "1", "variant:everybody": "next"}
    action = re.search(r'action="([^"]*)"', page.text)
    assert action
    answer = await person.http.post(str(page.url.join(action[1].replace("&amp;", "&"))), data=sent)
    assert answer.status_code == 200

    async def runs() -> bool:
        async with stack.admin() as api:
            servers = (await api.get(f"users/{USER}")).json()["servers"]
            return bool(servers.get("", {}).get("ready"))

    await until(runs, 120)
    one = await notebook(stack, USER)
    assert json.loads(await one.run(SEEN)) == {
        "edition": "next",
        "greeting": "hello, world",
        "licences": True,
        "writable": False,
        "cvmfs": False,
        "session": "next",
    }
    assert stack.record(USER).memory == 512 * 1024**2
    group = cgroup.existing(records.group_name(stack.state, USER))
    limits = [
        directory / name
        for directory in group.directories
        for name in ("memory.limit_in_bytes", "memory.max")
        if (directory / name).exists()
    ]
    assert [int(file.read_text()) for file in limits] == [512 * 1024**2]
    await stack.quit(USER)
    # The next time it is all there again.
    again = Form((await person.form()).text).fields
    assert again == sent
    # And a start without a word is the same start.
    async with stack.admin() as api:
        await api.post(f"users/{USER}/server")
        await until(runs, 60)
    assert stack.record(USER).memory == 512 * 1024**2


async def test_two_profiles_side_by_side(stack: Any, person: Any, notebook: Any) -> None:
    async with stack.browser() as browser:
        await browser.login(SECOND)
    user = SECOND
    for server, profile in (("", "everybody"), ("sea", "deepsea")):
        events = await stack.launch(user, profile, server)
        assert events[-1].get("ready") is True, events
    first, second = await notebook(stack, user), await notebook(stack, user, "sea")
    about = """
import json, os
folder = os.environ["XDG_RUNTIME_DIR"]
open(os.path.join(os.environ["HOME"], "common"), "a").write("x")
open(os.path.join(folder, "own-" + json.load(open(os.environ["DMSP_SESSION"]))["profile"]), "w").close()
print(json.dumps({
    "profile": json.load(open(os.environ["DMSP_SESSION"]))["profile"], "uid": os.getuid(),
    "run": sorted(name for name in os.listdir(folder) if name.startswith("own-")),
    "net": os.stat("/proc/self/ns/net").st_ino, "ipc": os.stat("/proc/self/ns/ipc").st_ino,
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "common": open(os.path.join(os.environ["HOME"], "common")).read(),
}))"""
    one, other = json.loads(await first.run(about)), json.loads(await second.run(about))
    assert (one["profile"], other["profile"]) == ("everybody", "deepsea")
    assert one["uid"] == other["uid"]
    assert (one["common"], other["common"]) == ("x", "xx")
    assert (one["run"], other["run"]) == (["own-everybody"], ["own-deepsea"])
    assert one["net"] != other["net"]
    assert one["ipc"] != other["ipc"]
    assert max(one["processes"], other["processes"]) < 12
    records_ = [records.Record.read(stack.state, key) for key in (user, f"{user}.sea")]
    assert all(record is not None and record.alive() for record in records_)
    assert len({record.address for record in records_ if record}) == 2
    home = (await person.http.get(f"{stack.public}hub/home")).text
    assert "Named Servers" in home

    await first.run("x = 41")
    await second.run("x = 42")
    await stack.quit(user, "sea")
    assert records.Record.read(stack.state, f"{user}.sea") is None
    assert await first.run("print(x + 1)") == "42"
    assert stack.record(user).alive()
    await stack.launch(user, "deepsea", "sea")
    await stack.quit(user)
    third = await notebook(stack, user, "sea")
    assert await third.run("print(6 * 7)") == "42"
    await stack.quit(user, "sea")


async def test_named_servers_have_a_limit(stack: Any, person: Any) -> None:
    async with stack.admin() as api:
        for name in ("a", "b", "c"):
            assert (
                await api.post(f"users/{USER}/servers/{name}", json={"profile": "nosuch"})
            ).status_code == 400
        answer = await api.post(f"users/{USER}/servers/d", json={"profile": "everybody"})
        assert answer.status_code == 400
        assert "maximum of 3 named servers" in answer.json()["message"]
        for name in ("a", "b", "c"):
            gone = await api.request("DELETE", f"users/{USER}/servers/{name}", json={"remove": True})
            assert gone.status_code == 204, gone.text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"overcommit": 1e-6}, r"There is no room for a session with 1 GB of memory: 0 MB is left\."),
        ({"home_free": 10**18}, r"The disk with the home folders is full: \d+ MB are left"),
    ],
    ids=["memory", "disk"],
)
async def test_refused_before_the_start(stack: Any, person: Any, settings: Any, sentence: str) -> None:
    stack.configure({"sessions": settings})
    async with stack.admin() as api:
        answer = await api.post(f"users/{USER}/server", json={"profile": "everybody"})
        assert answer.status_code == 503
        assert re.search(sentence, answer.json()["message"])
        assert "Traceback" not in answer.text
    page = await person.form()
    assert ("Free now: 0 MB of memory" in page.text) == ("overcommit" in settings)
    assert await stack.stopped(USER)
    assert records.Record.read(stack.state, USER) is None


async def test_server_that_ends_while_it_starts_is_told_at_once(stack: Any, person: Any) -> None:
    """By a configuration file of the user's own, which is the user's good right."""
    await stack.launch(USER)
    await stack.quit(USER)
    own = stack.state / "homes" / USER / ".jupyter" / "jupyter_server_config.py"
    own.parent.mkdir(exist_ok=True)
    own.write_text("import os; os._exit(3)\n")
    try:
        events = await stack.launch(USER)
    finally:
        own.unlink()
    assert events[-1].get("failed") is True, events
    assert "The session's server ended while it started. Ask " in events[-1]["message"]
    assert "did not listen" not in stack.log("hub")
    assert await stack.stopped(USER)
    assert records.Record.read(stack.state, USER) is None


@dataclass
class Shared:
    """The directory that sessions bind, as the box makes it: a shared mount, in which scratch is mounted."""

    folder: Path
    source: Path

    def mount(self) -> None:
        subprocess.run(["mount", "--bind", str(self.source), str(self.folder / "lake")], check=True)


@pytest.fixture
def shared(stack: Any) -> Iterator[Shared]:
    """With nothing mounted in it yet."""
    one = Shared(stack.state / "scratch", stack.state / "storage" / "SCRATCH" / "lake")
    subprocess.run(["mount", "--bind", str(one.folder), str(one.folder)], check=True)
    subprocess.run(["mount", "--make-shared", str(one.folder)], check=True)
    yield one
    (one.source / "later").unlink(missing_ok=True)
    while (one.folder / "lake").is_mount():
        subprocess.run(["umount", "--lazy", str(one.folder / "lake")], check=True)
    subprocess.run(["umount", "--lazy", str(one.folder)], check=True)


async def told(stack: Any, text: str) -> None:
    """Watch the progress of a start until it says this."""
    async with stack.admin() as api, api.stream("GET", f"users/{USER}/server/progress") as stream:
        async for line in stream.aiter_lines():
            if text in line:
                return
    raise AssertionError(f"nobody said: {text}")


async def test_start_waits_for_scratch_and_says_so(
    stack: Any, person: Any, notebook: Any, shared: Shared, until: Any
) -> None:
    stack.configure({"sessions": {"scratch_wait": 120}})
    start = asyncio.create_task(stack.launch(USER))
    await until(lambda: stack.starting(USER), 30)
    await told(stack, "Waiting for scratch")
    assert not start.done()
    shared.mount()
    said = [event.get("message") for event in await start]
    assert said.index("Waiting for scratch, which does not answer") < said.index("Scratch is back")
    one = await notebook(stack, USER)
    assert await one.run("import os; print(os.listdir('/scratch/lake'))") == "['file']"


async def test_scratch_that_stays_away_stops_nobody_and_comes_later(
    stack: Any, person: Any, notebook: Any, shared: Shared
) -> None:
    stack.configure({"sessions": {"scratch_wait": 0}})
    events = await stack.launch(USER)
    assert events[-1].get("ready") is True
    assert any("Scratch does not answer: the session starts without it" in e.get("message", "") for e in events)
    one = await notebook(stack, USER)
    (shared.source / "later").touch()
    shared.mount()
    assert "later" in await one.run("import os; print(os.listdir('/scratch/lake'))")
