"""Files of a session, written where a user may have prepared a trap."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.hub.local.records import Record
from jupyterhub_dmsp.hub.local.session import Session
from jupyterhub_dmsp.profiles.launch import resolve
from jupyterhub_dmsp.profiles.schema import Profile
from jupyterhub_dmsp.sandbox.bwrap import Identity
from jupyterhub_dmsp.sandbox.process import Process
from jupyterhub_dmsp.settings import Settings

TOKEN = "0123456789abcdef" * 2


def session(state: Path, asked: Mapping[str, object] | None = None, **more: object) -> Session:
    settings = Settings()
    who = Identity("km3net-user", os.getuid(), os.getgid(), home="/home/km3net-user")
    kernels = [{"name": "python3", "display_name": "Python 3", "language": "python"}]
    data = {"name": "KM3NeT", "kernels": kernels, "folder": Path("/catalogue/km3net"), **more}
    launch = resolve(Profile.model_validate(data), asked or {}, ())
    return Session(
        state, "km3net-user", who, launch, state / "envs" / "km3net-1", settings.experiments[:2], settings
    )


def test_token_is_in_one_private_file_only(tmp_path: Path) -> None:
    one = session(tmp_path)
    description = one.description("http://hub/token")
    one.write(TOKEN, {"rucio.cfg": "[client]"}, description, "")
    file = tmp_path / "sessions" / "km3net-user" / "run" / "hub-token"
    assert file.read_text() == TOKEN
    assert file.stat().st_mode & 0o777 == 0o600
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN in path.read_text()]
    assert holders == [file]
    assert TOKEN not in json.dumps(one.variables())
    assert (tmp_path / "homes" / "km3net-user").stat().st_mode & 0o777 == 0o700
    assert (file.parent.parent / "etc" / "dmsp" / "rucio.cfg").read_text() == "[client]"


def test_symlinks_of_a_former_session_are_not_followed(tmp_path: Path) -> None:
    one = session(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = tmp_path / "sessions" / "km3net-user" / "run"
    run.mkdir(parents=True)
    (run / "hub-token").symlink_to(victim)
    (run / "folder").symlink_to(tmp_path)
    one.write(TOKEN, {}, {}, "")
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in run.iterdir()) == ["hub-token"]


def test_home_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    one = session(tmp_path)
    (tmp_path / "homes").mkdir()
    (tmp_path / "homes" / "km3net-user").symlink_to(tmp_path)
    with pytest.raises(OSError):
        one.write(TOKEN, {}, {}, "")


def test_files_have_plain_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        session(tmp_path).write(TOKEN, {"../x": ""}, {}, "")


def test_description_has_no_null_where_urls_are_known(tmp_path: Path) -> None:
    one = session(tmp_path)
    about = one.description("http://hub/token")
    assert about["scopes"] == ["dmsp", "scale", "km3net", "user.km3net-user"]
    assert about["token"] == {"url": "http://hub/token", "audience": "rucio"}
    assert about["lake"]["mount"] == "/scratch/lake"


def test_sandbox_shows_the_runtime_and_nothing_of_other_users(tmp_path: Path) -> None:
    one = session(tmp_path)
    one.write(TOKEN, {}, {}, "")
    command = one.sandbox(None).command(["program"])
    text = " ".join(command)
    assert f"--bind {tmp_path}/homes/km3net-user /home/km3net-user" in text
    assert f"--bind {tmp_path}/sessions/km3net-user/run /run/user/{os.getuid()}" in text
    assert f"--ro-bind {tmp_path} " not in text
    assert f"{tmp_path}/secrets" not in text


def test_records_survive_nonsense(tmp_path: Path) -> None:
    record = Record("a", "a", "minimal", Process(1, 2), Process(3, 4), "100.64.0.2", 8888)
    (tmp_path / "sessions" / "a").mkdir(parents=True)
    record.write(tmp_path)
    assert Record.read(tmp_path, "a") == record
    assert list(records.all_records(tmp_path)) == [record]
    assert not record.alive()
    for text in ("", "[]", "{}", '{"outer": 1}'):
        (tmp_path / "sessions" / "a" / records.FILE).write_text(text)
        assert Record.read(tmp_path, "a") is None


async def test_ending_what_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "sessions" / "a").mkdir(parents=True)
    Record("a", "a", "minimal", Process(2**22, 2), Process(2**22 + 1, 4), "127.0.0.1", 8888).write(tmp_path)
    assert await records.end_sessions(tmp_path) == []
    assert list(records.all_records(tmp_path)) == []


def inside(one: Session) -> dict[str, str]:
    """What the sandbox shows where, by bubblewrap's option."""
    (one.folder / "etc").mkdir(parents=True, exist_ok=True)
    words = one.sandbox(None).command(["true"])
    kinds = {"--bind", "--ro-bind", "--ro-bind-try", "--bind-try", "--dev-bind"}
    return {words[i + 2]: f"{word} {words[i + 1]}" for i, word in enumerate(words) if word in kinds}


def test_profile_decides_what_a_session_sees(tmp_path: Path) -> None:
    mounts = [
        {"name": "data", "path": "/data", "host": "/usr/share", "read_only": False},
        {"name": "cvmfs", "path": "/cvmfs", "host": "/nowhere", "optional": True},
        {"name": "claim", "path": "/claim", "claim": "pvc", "optional": True},
    ]
    variants = [{"name": "next", "environment": {"EDITION": "next"}}]
    one = session(
        tmp_path,
        {"variant": "next"},
        mounts=mounts,
        variants=variants,
        environment={"EDITION": "old", "LANG": "x"},
    )
    seen = inside(one)
    assert seen["/data"] == "--bind /usr/share"
    assert not {"/cvmfs", "/claim"} & set(seen)
    assert (one.variables()["EDITION"], one.variables()["LANG"]) == ("next", "C.UTF-8")
    about = one.description("http://hub/token")
    assert (about["profile"], about["variant"], about["lake"]["mode"]) == ("km3net", "next", "replica")


def test_download_mode_has_no_scratch(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "storage" / "SCRATCH" / "lake").mkdir(parents=True)
    replica, download = session(tmp_path), session(tmp_path, mode="download")
    assert any(path.startswith("/scratch") for path in inside(replica))
    assert not any(path.startswith("/scratch") for path in inside(download))
    assert download.description("http://hub/token")["lake"]["mode"] == "download"


def test_devices_are_shown_as_devices(tmp_path: Path) -> None:
    one = dataclasses.replace(session(tmp_path), devices=[Path("/dev/null")])
    assert inside(one)["/dev/null"] == "--dev-bind /dev/null"
