"""Sessions on a real hub: isolated, without secrets in sight, adopted by the next hub, gone when stopped."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.sandbox import cgroup

pytestmark = pytest.mark.root

USERS = ("km3net-user", "collider-user")
told: dict[str, list[dict[str, Any]]] = {}


@pytest.fixture(scope="module")
async def sessions(stack: Any) -> AsyncIterator[Any]:
    """Both users logged in, each with a running session."""
    for user, profile in zip(USERS, ("deepsea", "everybody"), strict=True):
        async with stack.browser() as browser:
            await browser.login(user)
        told[user] = await stack.launch(user, profile)
        assert told[user][-1].get("ready"), told[user]
    yield stack
    for user in USERS:
        await stack.quit(user)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_progress_page_tells_how_the_environment_is_prepared(sessions: Any) -> None:
    events = told[USERS[0]]
    messages = [event.get("message", "") for event in events]
    assert any(message == "Deep sea: Collecting 30 packages" for message in messages), messages
    assert "Starting the server" in messages
    percents = [event["progress"] for event in events]
    assert percents == sorted(percents)
    assert percents[-1] == 100


async def test_environment_that_cannot_be_built_is_a_sentence(stack: Any) -> None:
    async with stack.browser() as browser:
        await browser.login("vre-admin")
    event = (await stack.launch("vre-admin", "broken"))[-1]
    assert event["failed"]
    sentence = event["message"]
    assert sentence.startswith("Spawn failed: The environment broken cannot be built")
    assert sentence.endswith("Ask an administrator.")
    assert str(stack.state) not in sentence
    assert stack.processes["hub"].poll() is None
    assert not (stack.state / "sessions" / "vre-admin" / "run" / "hub-token").exists()


def test_session_runs_as_its_own_user_and_groups(sessions: Any) -> None:
    ids = json.loads((sessions.state / "ids" / "users.json").read_text())
    groups = json.loads((sessions.state / "ids" / "groups.json").read_text())
    seen = {}
    for user, expected in zip(USERS, ({"dmsp", "km3net"}, {"dmsp", "collider"}), strict=True):
        server = sessions.tree(user)[2]
        about = status(server.pid)
        assert about["Uid"].split() == [str(ids[user])] * 4
        assert set(map(int, about["Groups"].split())) == {
            ids[user],
            *(groups[f"dmsp-{name}"] for name in expected),
        }
        assert {about[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")} == {"0" * 16}
        assert about["NoNewPrivs"] == "1"
        seen[user] = {
            name: str(Path(f"/proc/{server.pid}/ns/{name}").readlink())
            for name in ("net", "pid", "ipc", "mnt", "uts")
        }
    for name, own in seen[USERS[0]].items():
        assert own != seen[USERS[1]][name]
        assert own != str(Path(f"/proc/self/ns/{name}").readlink())


async def test_no_token_in_environments_and_command_lines(sessions: Any, notebook: Any) -> None:
    one = await notebook(sessions, USERS[0])
    shown = await one.run(
        "import os, subprocess; print({k: v for k, v in os.environ.items() if 'TOKEN' in k});"
        "print(subprocess.run(['env'], capture_output=True, text=True).stdout.count('API_TOKEN'))"
    )
    assert re.search(r"\{'BEARER_TOKEN_FILE': '/run/user/\d+/bt_u\d+'\}\s+0$", shown), shown
    token = sessions.server_token(USERS[0]).encode()
    assert len(token) >= 32
    for process in sessions.tree(USERS[0]):
        seen = (
            Path(f"/proc/{process.pid}/environ").read_bytes()
            + Path(f"/proc/{process.pid}/cmdline").read_bytes()
        )
        assert b"API_TOKEN" not in seen
        assert token not in seen
    for log in (sessions.state / "logs").rglob("*.log"):
        assert token not in log.read_bytes()
    assert not (sessions.state / "sessions" / USERS[0] / "run" / "hub-token").exists()


async def test_session_sees_its_files_and_no_others(sessions: Any, notebook: Any) -> None:
    one = await notebook(sessions, USERS[0])
    code = """
import json, os
def ls(path):
    try: return sorted(os.listdir(path))
    except OSError as error: return error.strerror
print(json.dumps({
    "root": ls("/"), "home": ls("/home"), "tmp": ls("/tmp"), "run": ls("/run/user"), "state": ls("STATE"),
    "session": json.load(open(os.environ["DMSP_SESSION"])), "rucio": open(os.environ["RUCIO_CONFIG"]).read(),
    "scratch": ls("/scratch/lake"),
    "write": [os.access(p, os.W_OK) for p in ("/", "/etc", "/usr", "/scratch", os.environ["HOME"])],
    "env": {k: os.environ.get(k) for k in ("HOME", "XDG_RUNTIME_DIR", "DMSP_RUNTIME", "SITE_NAME", "JUPYTER_PATH")},
    "shadow": ls("/root"), "prefix": __import__("sys").prefix,
    "processes": len([p for p in os.listdir("/proc") if p.isdigit()]),
}))
""".replace("STATE", str(sessions.state))
    seen = json.loads(await one.run(code))
    assert seen["home"] == [USERS[0]]
    assert len(seen["run"]) == 1
    assert seen["scratch"] == ["file"]
    assert seen["write"] == [False, False, False, False, True]
    assert seen["state"] == ["envs"]
    assert seen["shadow"] == "No such file or directory"
    assert seen["processes"] < 12
    assert seen["rucio"].endswith(f"account = {USERS[0]}")
    about = seen["session"]
    assert about["experiments"] == ["dmsp", "km3net"]
    assert about["scopes"] == ["dmsp", "scale", "km3net", f"user.{USERS[0]}"]
    assert about["token"] == {"url": f"{sessions.hub_url}/hub/api/dmsp/token", "audience": "rucio"}
    assert (
        about["lake"]["rucio_url"] == about["lake"]["auth_url"]
        or about["lake"]["rucio_url"] == "http://rucio.example"
    )
    assert about["profile"] == "deepsea"
    assert about["environment"] == seen["prefix"]
    assert about["extra"] == USERS[0]
    assert seen["env"]["SITE_NAME"] == "SCRATCH"


async def test_only_the_kernels_of_the_profile(sessions: Any, notebook: Any) -> None:
    one = await notebook(sessions, USERS[0])
    async with one.session.get(f"{one.base}/api/kernelspecs") as answer:
        specs = await answer.json()
    assert list(specs["kernelspecs"]) == ["deepsea"]
    assert specs["default"] == "deepsea"


async def test_sessions_cannot_reach_each_other_nor_the_machine(sessions: Any, notebook: Any) -> None:
    one, other = await notebook(sessions, USERS[0]), await notebook(sessions, USERS[1])
    await other.run("import socket; s = socket.create_server(('0.0.0.0', 8899))")
    there, here = sessions.record(USERS[1]), sessions.record(USERS[0])
    targets = {
        "server": (there.address, there.port),
        "app": (there.address, 8899),
        "issuer": (sessions.network.gateway, sessions.ports["issuer"]),
        "proxy": (sessions.network.gateway, sessions.ports["public"]),
        "loopback": ("127.0.0.1", sessions.ports["public"]),
        "hub": (sessions.network.gateway, sessions.ports["hub"]),
        "own": (here.address, here.port),
    }
    code = f"""
import json, socket
def reach(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return True
    except OSError:
        return False
print(json.dumps({{name: reach(*where) for name, where in {targets!r}.items()}}))
"""
    reached = json.loads(await one.run(code))
    assert {name for name, yes in reached.items() if yes} == {"hub", "own"}


async def test_lab_answers_a_person(sessions: Any) -> None:
    async with sessions.browser() as browser:
        await browser.login(USERS[1])
        page = await browser.http.get(f"{sessions.public}user/{USERS[1]}/lab")
    assert page.status_code == 200
    assert "jupyter-config-data" in page.text
    assert not (sessions.state / "logs" / "sessions" / f"{USERS[1]}.log").read_text().count("Traceback")


@pytest.mark.parametrize("kill", [True, False], ids=["kill -9", "SIGTERM"])
async def test_hub_ended_and_started_again_adopts_the_session(sessions: Any, notebook: Any, kill: bool) -> None:
    one = await notebook(sessions, USERS[0])
    await one.run("x = 41")
    before = sessions.record(USERS[0])
    await sessions.stop("hub", kill=kill)
    assert before.alive()
    await sessions.start_hub()
    async with sessions.admin() as api:
        model = (await api.get(f"users/{USERS[0]}")).json()
    assert model["servers"][""]["ready"] is True
    await one.connect()
    assert await one.run("print(x + 1)") == "42"
    assert sessions.record(USERS[0]) == before


async def test_limits_hold_in_the_session(sessions: Any) -> None:
    group = cgroup.existing(records.group_name(sessions.state, USERS[0]))
    if not group.directories:
        pytest.fail("this machine offers no control groups to root")
    inside = set(group.processes())
    assert {process.pid for process in sessions.tree(USERS[0])} <= inside
    assert group.memory_used()


def inside(number: int) -> list[str]:
    """Processes in the network namespace with this inode: no other session has it, as it may have the user's number."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "ns" / "net").stat().st_ino == number:
                found.append(process.name)
    return found


async def test_stop_leaves_nothing(stack: Any) -> None:
    async with stack.browser() as browser:
        await browser.login("vre-admin")
    await stack.launch("vre-admin")
    tree = stack.tree("vre-admin")
    leases = json.loads(stack.network.record.read_text())["leases"]
    namespace = f"{stack.network.name}-{leases['vre-admin']}"
    number = Path("/run/netns", namespace).stat().st_ino
    assert len(tree) >= 3
    assert inside(number)
    await stack.quit("vre-admin")
    assert not any(process.alive() for process in tree)
    assert not inside(number)
    assert not Path("/run/netns", namespace).exists()
    assert not Path("/sys/class/net", f"{stack.network.name}v{leases['vre-admin']}").exists()
    assert not cgroup.existing(records.group_name(stack.state, "vre-admin")).directories
    assert records.Record.read(stack.state, "vre-admin") is None


async def test_session_that_dies_is_noticed_and_cleared(stack: Any, until: Any) -> None:
    async with stack.browser() as browser:
        await browser.login("vre-admin")
    await stack.launch("vre-admin")
    record = stack.record("vre-admin")
    record.outer.send(9)  # only bubblewrap outside: what is inside would live on
    await until(lambda: stack.stopped("vre-admin"), 30)
    await until(lambda: not record.init.alive(), 10)
    assert "vre-admin" not in json.loads(stack.network.record.read_text())["leases"]
