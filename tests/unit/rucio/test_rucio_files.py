"""Configuration files, storage directories, the bubblewrap argv."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import stat
from pathlib import Path, PurePosixPath

import pytest

from jupyterhub_dmsp.box import confine, database
from jupyterhub_dmsp.box.rucio import config, parts, storage
from jupyterhub_dmsp.errors import DmspError

PLAN = config.Plan(
    sites=("SITE-A",),
    scratch="SCRATCH",
    storage=Path("/state/storage"),
    scopes=("dmsp", "km3net"),
    restricted={"km3net": "km3net"},
)


def test_server_configuration_is_private_and_says_what_it_must(tmp_path: Path) -> None:
    uid, gid = os.getuid(), os.getgid()
    url = "postgresql+psycopg://rucio:a%40b@127.0.0.1:5/postgres"
    files = config.write(
        tmp_path / "r", plan=PLAN, database_url=url, issuer="http://i/", transfers=3, uid=uid, gid=gid
    )
    assert stat.S_IMODE(files.config.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
    parser = configparser.ConfigParser()  # with interpolation, as Rucio reads it
    parser.read(files.config)
    assert parser["database"]["default"] == url
    assert json.loads(parser["dmsp"]["scopes"]) == {"km3net": "km3net"}
    assert parser["transfers"]["multihop_rse_expression"] == "", "Rucio would look for such RSEs and warn"
    assert parser["cache"]["url"].startswith("unix:/"), "a cache on TCP would be unpickled from anybody"
    issuers = json.loads(files.issuers.read_text())
    assert issuers["dmsp"]["issuer"] == "http://i/"
    assert "SCIM" in issuers["dmsp"]


def test_client_configuration_holds_no_secret() -> None:
    text = config.client_config(rucio_url="http://h:1", auth_url="http://h:2", account="km3net-user")
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert dict(parser["client"]) == {
        "rucio_host": "http://h:1",
        "auth_host": "http://h:2",
        "auth_type": "oidc",
        "account": "km3net-user",
        "request_retries": "3",
    }


def test_plan_document() -> None:
    document = PLAN.document({"root": "r", config.SERVICE_ACCOUNT: "h"})
    assert [rse["name"] for rse in document["rses"]] == ["SITE-A", "SCRATCH"]
    assert document["rses"][1]["mount"] == "/scratch/lake/"
    assert document["rses"][1]["prefix"] == "/state/storage/SCRATCH/lake/"
    assert document["scopes"] == ["dmsp", "km3net"]
    assert document["accounts"][config.SERVICE_ACCOUNT]["attributes"] == {"provisioner": "true"}


@pytest.mark.parametrize(
    ("scope", "path"),
    [("km3net", "km3net"), ("km3net.v2", "km3net.v2"), ("user.a", "user/a"), ("group.x.y", "group/x/y")],
)
def test_scope_path_is_rucios(scope: str, path: str) -> None:
    assert storage.scope_path(scope) == path


def test_storage_modes(tmp_path: Path) -> None:
    uid, gid = os.getuid(), os.getgid()
    for _ in range(2):  # a second time changes nothing
        storage.prepare(
            tmp_path / "s",
            sites=["A"],
            scratch="S",
            scopes={"km3net": gid, "user.x": gid},
            uid=uid,
            gid=gid,
        )
    modes = {
        str(path.relative_to(tmp_path / "s")): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "s").rglob("*")
    }
    assert modes == {
        "A": 0o750,
        "A/lake": 0o750,
        "S": 0o755,
        "S/lake": 0o755,
        "S/lake/km3net": 0o2750,
        "S/lake/user": 0o755,
        "S/lake/user/x": 0o2750,
    }


def test_pruning_keeps_the_directory_of_the_scope() -> None:
    from jupyterhub_dmsp.box.rucio.inside.dmsp_rucio import protocol

    for scope, path, name in (
        ("km3net", "km3net", "f"),
        ("user.ab", "user/ab", "x/y/z"),
        ("km3net.v2", "km3net.v2", "f"),
    ):
        digest = hashlib.md5(f"{scope}:{name}".encode()).hexdigest()
        parts_ = PurePosixPath(path, digest[:2], digest[2:4], name).parts
        assert protocol.scope_depth(parts_) == len(PurePosixPath(path).parts)
    assert protocol.scope_depth(("what", "ever", "this", "is")) == 4


def test_pruning(tmp_path: Path) -> None:
    from jupyterhub_dmsp.box.rucio.inside.dmsp_rucio import protocol

    digest = hashlib.md5(b"dmsp:a/b").hexdigest()
    place = tmp_path / "dmsp" / digest[:2] / digest[2:4] / "a"
    place.mkdir(parents=True)
    protocol.prune(PurePosixPath(tmp_path), PurePosixPath(place / "b"))
    assert (tmp_path / "dmsp").is_dir()
    assert list((tmp_path / "dmsp").iterdir()) == []


def test_confined_argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "w").mkdir()
    argv = confine.confine(
        ["/usr/bin/true", "-x"],
        uid=5,
        gid=6,
        name="_part",
        etc=tmp_path / "etc",
        writable=[tmp_path / "w"],
    )
    assert argv[-2:] == ["/usr/bin/true", "-x"]
    text = " ".join(argv)
    assert "--no-new-privs" in text
    assert "--reuid 5 --regid 6 --groups 6 " in text
    assert "--die-with-parent" in text
    assert "--unshare-net" not in text
    assert "nsenter" not in text
    assert f"--bind {tmp_path}/w {tmp_path}/w" in text
    assert "_part:x:5:6:" in (tmp_path / "etc" / "passwd").read_text()
    with pytest.raises(DmspError, match="does not exist"):
        confine.confine(["x"], uid=5, gid=6, name="n", etc=tmp_path / "etc", readable=[tmp_path / "no"])


def test_nothing_is_confined_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command = confine.confine(["a", "b"], uid=1, gid=1, name="n", etc=tmp_path / "etc")
    assert command == ["setpriv", "--pdeathsig", "TERM", "a", "b"]


def test_database_url_quotes_the_password(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a@b/c\n")
    url = database.url(tmp_path / "p", 5)
    assert url == "postgresql+psycopg://rucio:a%40b%2Fc@127.0.0.1:5/postgres"


def test_commands_hold_no_secret(tmp_path: Path) -> None:
    argv = parts.server_command(Path("/e"), [("127.0.0.1", 1), ("100.64.0.1", 1)])
    assert argv.count("--bind") == 2
    assert parts.environment(tmp_path)["RUCIO_CONFIG"] == str(tmp_path / "rucio.cfg")
    assert "postgresql" not in json.dumps([argv, database.command(tmp_path, 5), parts.environment(tmp_path)])


def test_silent_daemons_are_not_ready(tmp_path: Path) -> None:
    assert not parts.daemons_health(tmp_path).ready
    health = config.Files(tmp_path).health
    health.parent.mkdir()
    document = {"pid": 1, "started": 5.0, "tick": 6.0, "ready": True, "copying": 0, "copied": 0, "failed": 0}
    health.write_text(json.dumps({**document, "loops": {}}))
    assert not parts.daemons_health(tmp_path).ready
    health.write_text("{")
    assert not parts.daemons_health(tmp_path).ready
