"""Every file that the box reads, torn, empty or overwritten: made anew, or one sentence with a way out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyterhub_dmsp.box import issuer, returning, run, soundness
from jupyterhub_dmsp.box.issuer.keys import Keys
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.local.records import Record
from jupyterhub_dmsp.lab.records import Attachment, Records
from jupyterhub_dmsp.profiles.builder import Manifest
from jupyterhub_dmsp.sandbox.ids import GROUPS_BASE, USERS_BASE, Ids
from jupyterhub_dmsp.sandbox.network import Network
from jupyterhub_dmsp.settings import Settings

HARMS: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: b"\x80\xff" * (len(data) // 2 + 1),
}
#: What can only come from a backup, or must be decided by somebody.
SENTENCE = {
    "version.json": "cannot be understood",
    "ports.json": "is damaged",
    "ids/users.json": "is damaged",
    "ids/groups.json": "is damaged",
    "ids/lake": "is damaged",
    "secrets/subjects.json": "is damaged",
    "secrets/database-password": "is damaged|is empty",
    "secrets/user-km3net-user.password": "is damaged",
}
ALLOWED = {
    ("ids/lake", HARMS["empty"]): "an empty name is no name: it is given again",
    ("secrets/user-km3net-user.password", HARMS["torn"]): "half of a password is one",
}
ANEW = [*soundness.JSON, *soundness.DATABASES, *soundness.SECRETS]
IGNORED = [
    "lock",
    "run/status.json",
    "run/network.json",
    "sessions/ada/record.json",
    "envs/minimal-0123456789ab/.dmsp-environment.json",
]


def database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a)")
        db.executemany("INSERT INTO t VALUES (?)", [(secrets.token_hex(200),) for _ in range(200)])
        db.commit()


@pytest.fixture
def state(tmp_path: Path, template: State) -> State:
    """A stopped box with all that it keeps."""
    shutil.copytree(template.path, tmp_path / "state")
    return State(tmp_path / "state")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> State:
    """Made once: keys and hashes of passwords take their time."""
    made = State(tmp_path_factory.mktemp("half-written") / "state")
    made.open()
    issuer.ensure_users(Settings().box.users, made / "secrets", made / "issuer" / "users.json")
    Keys(made / "issuer")
    made.ports(21950)
    made.lake_id("http://100.64.0.1:8003")
    for name, base in (("users", USERS_BASE), ("groups", GROUPS_BASE)):
        Ids(made / "ids" / f"{name}.json", base).get("ada")
    for name in ("hub-client-secret", "proxy-api-password", "rucio-root-password", "rucio-hub-password"):
        made.secret(name)
    made.secret("database-password")
    made.hex_secret("hub-crypt-key")
    (made / "hub" / "cookie_secret").write_text(secrets.token_hex(32) + "\n")
    (made / "rucio" / "run").mkdir()
    (made / "sessions" / "ada").mkdir()
    (made / "envs" / "minimal-0123456789ab").mkdir()
    for name in soundness.DATABASES:
        database(made / name)
    for name in (*soundness.JSON, *IGNORED):
        if not (made / name).exists():
            (made / name).write_text(json.dumps({"name": name, "pid": os.getpid(), "started": 1.0}))
    return made


def start(state: State) -> list[str]:
    """What `dmsp up` reads of its own state before it starts anything, in its order."""
    state.open()
    with state.locked():
        aside = soundness.check(state)
        state.ports(21950)
        users = [user for user in Settings().box.users if user.name == "km3net-user"]
        issuer.ensure_users(users, state / "secrets", state / "issuer" / "users.json")
        Keys(state / "issuer")
        state.secret("database-password")
        Ids(state / "ids" / "users.json", USERS_BASE).get("bob")
        Network.load(state.path)
    return aside


def test_a_sound_state_is_left_alone(state: State) -> None:
    before = {path: path.read_bytes() for path in state.path.rglob("*") if path.is_file()}
    assert start(state) == []
    for path, data in before.items():
        if path.name not in ("lock", "users.json", "ports.json"):
            assert path.read_bytes() == data, path


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
@pytest.mark.parametrize("name", SENTENCE)
def test_a_sentence_where_nothing_else_helps(state: State, name: str, harm: Callable[[bytes], bytes]) -> None:
    if (name, harm) in ALLOWED:
        pytest.skip(ALLOWED[name, harm])
    (state / name).write_bytes(harm((state / name).read_bytes()))
    with pytest.raises(DmspError, match=SENTENCE[name]) as caught:
        start(state)
    assert Path(name).name in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
@pytest.mark.parametrize("name", ANEW)
def test_what_can_be_made_anew_is(state: State, name: str, harm: Callable[[bytes], bytes]) -> None:
    data = harm((state / name).read_bytes())
    (state / name).write_bytes(data)
    aside = start(state)
    if aside:
        assert aside == [name]
        assert (state / f"{name}.damaged").read_bytes() == data
        assert not (state / name).exists() or (state / name).read_bytes() != data
    else:
        assert data == b"" or name.endswith(".toml"), "an empty database or rules file is none yet"
    assert start(state) == [], "the second start finds nothing"
    assert [user["name"] for user in run.demo_users(state)] == ["km3net-user"]


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
@pytest.mark.parametrize("name", IGNORED)
def test_what_is_not_needed_is_not_asked_for(state: State, name: str, harm: Callable[[bytes], bytes]) -> None:
    (state / name).write_bytes(harm((state / name).read_bytes()))
    assert state.owner() is None
    assert run.status(state) == {"address": None, "parts": []}
    assert Record.read(state.path, "ada") is None
    assert Manifest.read(state / "envs" / "minimal-0123456789ab") is None
    assert start(state) == []


@pytest.mark.parametrize(
    "text", ["[]", "7", '"x"', '{"pid": -1}', '{"pid": 1e400}', '{"pid": "x", "started": []}']
)
def test_a_lock_that_says_nonsense_is_held_by_nobody(state: State, text: str) -> None:
    (state / "lock").write_text(text)
    assert state.owner() is None
    assert start(state) == []


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
async def test_the_labs_own_file(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    """It is in a user's home: set aside, and the sidebar works; one that is only locked stays."""
    path = tmp_path / "attachments.sqlite"
    records = Records(path, "lake")
    for number in range(200):
        await records.save(Attachment(f"{number}", f"a:b{number}", "x"))
    await records.close()
    path.write_bytes(harm(path.read_bytes()))
    records = Records(path, "lake")
    assert await records.load() == []
    await records.save(Attachment("1", "a:b", "x"))
    assert [found.id for found in await records.load()] == ["1"]
    await records.close()


async def test_a_mark_of_a_restore_that_is_damaged(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake is looked through all the same; here the looking is a process that says what it found."""
    monkeypatch.chdir("/")
    (state / "restored.json").write_text("{")
    report = json.dumps({"lost": 2, "examples": ["a:b", "a:c"]})
    await returning.reconcile(state, ["echo", report], {}, lambda _: None)
    assert json.loads((state / "restored.json").read_text())["lost"] == 2
    await returning.reconcile(state, ["echo", json.dumps({"lost": 0, "examples": []})], {}, lambda _: None)
    assert not (state / "restored.json").exists()
    (state / "restored.json").write_text("{}")
    with pytest.raises(DmspError, match="could not be looked through"):
        await asyncio.wait_for(returning.reconcile(state, ["false"], {}, lambda _: None), 30)
