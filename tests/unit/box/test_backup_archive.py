"""The file of a backup: what is kept, and what a hostile or damaged one may not do."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import socket
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyterhub_dmsp.box.backup import archive, restore
from jupyterhub_dmsp.box.backup.archive import MANIFEST, SUMS, Writer
from jupyterhub_dmsp.box.backup.walk import Walk
from jupyterhub_dmsp.box.state import SCHEMA, State
from jupyterhub_dmsp.errors import DmspError

SUFFIXES = [
    ".tar.gz",
    pytest.param(".tar.zst", marks=pytest.mark.skipif(not shutil.which("zstd"), reason="zstd")),
]


def manifest(**more: object) -> str:
    known = {"schema": SCHEMA, "root": os.geteuid() == 0, "scratch": "SCRATCH", "with_data": True}
    return json.dumps(known | more)


def home(root: Path) -> Path:
    """Everything that a home may hold."""
    made = root / "ada"
    (made / "work" / "deep").mkdir(parents=True)
    (made / "work" / "zwölf Äpfel\n.ipynb").write_bytes(b"{}" * 1000)
    Path(os.fsdecode(bytes(made) + b"/bad\xff")).write_bytes(b"latin")
    (made / "link").symlink_to("/etc/passwd")
    (made / "twin").hardlink_to(made / "work" / "zwölf Äpfel\n.ipynb")
    (made / "tool").write_bytes(b"#!/bin/sh\n")
    (made / "tool").chmod(0o4755)
    (made / "work").chmod(0o2750)
    os.mkfifo(made / "pipe")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(made / "sock"))
    with contextlib.suppress(OSError):
        os.setxattr(made / "tool", "user.colour", b"\xffred")
    return made


def kept(tree: Path) -> dict[str, tuple[int, bytes | str]]:
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        name = os.fsdecode(path.relative_to(tree))
        if path.is_symlink():
            found[name] = (0, str(path.readlink()))
        elif path.is_dir():
            found[name] = (stat.S_IMODE(status.st_mode), "")
        elif path.is_file():
            found[name] = (stat.S_IMODE(status.st_mode), path.read_bytes())
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tree_comes_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    source = home(tmp_path / "homes")
    path = tmp_path / f"b{suffix}"
    with Writer(path) as writer:
        writer.text(MANIFEST, manifest())
        walk = Walk(writer)
        walk.tree(tmp_path / "homes", "homes")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(walk.skipped) == ["homes/ada/pipe", "homes/ada/sock"]
    target = tmp_path / "out"
    target.mkdir()
    assert archive.check(path) == archive.check(path, target)
    before = kept(source)
    before["tool"] = (0o755, before["tool"][1])
    assert kept(target / "homes" / "ada") == before, "all but the bit that changes who runs it"
    twin = (target / "homes" / "ada" / "twin").stat()
    assert twin.st_nlink == 2
    assert int(twin.st_mtime) == int((source / "twin").stat().st_mtime)
    with contextlib.suppress(OSError):
        colour = os.getxattr(source / "tool", "user.colour")
        assert os.getxattr(target / "homes" / "ada" / "tool", "user.colour") == colour


def test_nothing_is_left_of_a_backup_that_fails(tmp_path: Path) -> None:
    (tmp_path / "homes").mkdir()

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "homes" / "f").write_text("x")
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "b.tar.gz") as writer:
        Walk(writer, told=interrupted).tree(tmp_path / "homes", "homes")
    shutil.rmtree(tmp_path / "homes")
    assert list(tmp_path.iterdir()) == []


def test_a_database_in_use_is_whole(tmp_path: Path) -> None:
    """One with a write-ahead log, one in the middle of a transaction; neither is touched."""
    homes = tmp_path / "homes"
    homes.mkdir()
    with (
        contextlib.closing(sqlite3.connect(homes / "wal.sqlite", isolation_level=None)) as wal,
        contextlib.closing(sqlite3.connect(homes / "busy.sqlite", isolation_level=None)) as busy,
    ):
        wal.execute("PRAGMA journal_mode=WAL")
        for database in (wal, busy):
            database.execute("CREATE TABLE t (a)")
            database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
        busy.execute("PRAGMA cache_spill=1")
        busy.execute("BEGIN IMMEDIATE")
        busy.execute("UPDATE t SET a = -1")
        before = {path.name: path.read_bytes() for path in homes.iterdir()}
        with Writer(tmp_path / "b.tar.gz") as writer:
            writer.text(MANIFEST, manifest())
            Walk(writer).tree(homes, "homes")
        assert {path.name: path.read_bytes() for path in homes.iterdir()} == before
        busy.execute("ROLLBACK")
    out = tmp_path / "out"
    out.mkdir()
    archive.check(tmp_path / "b.tar.gz", out)
    assert sorted(path.name for path in (out / "homes").iterdir()) == ["busy.sqlite", "wal.sqlite"]
    for name in ("wal", "busy"):
        with contextlib.closing(sqlite3.connect(out / "homes" / f"{name}.sqlite")) as database:
            assert database.execute("SELECT count(*), sum(a) FROM t").fetchone() == (1000, 499500)


def forged(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    """An archive as somebody else would make it, with a right list of sums."""
    lines: list[str] = []
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, data in [(tarfile.TarInfo(MANIFEST), manifest().encode()), *members]:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
            digest = __import__("hashlib").sha256(data).hexdigest() if info.isreg() else "-"
            lines.append(f"{digest} {json.dumps(info.name)}\n")
        text = "".join(lines).encode()
        info = tarfile.TarInfo(SUMS)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


HOSTILE = {
    "absolute": [member("/etc/cron.d/x")],
    "parent": [member("homes/../../x")],
    "dot": [member("./x")],
    "device": [member("homes/null", tarfile.CHRTYPE)],
    "pipe": [member("homes/p", tarfile.FIFOTYPE)],
    "setuid": [member("homes/sh", mode=0o4755)],
    "link at the top": [member("secrets", tarfile.SYMTYPE, "/etc")],
    "link instead of a home": [member("homes", tarfile.DIRTYPE), member("homes/ada", tarfile.SYMTYPE, "/root")],
    "through a link": [
        member("homes", tarfile.DIRTYPE),
        member("homes/ada", tarfile.DIRTYPE),
        member("homes/ada/l", tarfile.SYMTYPE, "/tmp"),
        member("homes/ada/l/x"),
    ],
    "hard link out": [member("homes", tarfile.DIRTYPE), member("homes/ada", tarfile.LNKTYPE, "/etc/shadow")],
    "hard link across": [
        member("homes", tarfile.DIRTYPE),
        member("homes/ada", tarfile.DIRTYPE),
        member("homes/bob", tarfile.DIRTYPE),
        member("homes/ada/a"),
        member("homes/bob/b", tarfile.LNKTYPE, "homes/ada/a"),
    ],
    "twice": [member("ports.json"), member("ports.json")],
    "unknown": [member("evil.service")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    path = tmp_path / "b.tar.gz"
    forged(path, *((info, b"x") for info in members))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DmspError, match="is damaged"):
        restore(path, State(tmp_path / "state"), lambda _: None)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """One byte of a member's content differs, the compression is right."""
    plain = bytearray(gzip.decompress(data))
    place = plain.index(b"precious")
    plain[place] ^= 1
    return gzip.compress(bytes(plain))


def without_end(data: bytes) -> bytes:
    plain = gzip.decompress(data)
    return gzip.compress(plain[: plain.index(SUMS.encode())] + bytes(1024))


@pytest.mark.parametrize("harm", [torn, flipped, without_end, lambda _: b"", lambda _: b"nonsense" * 100])
def test_a_damaged_archive_is_refused(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "b.tar.gz"
    (tmp_path / "homes").mkdir()
    (tmp_path / "homes" / "f").write_bytes(b"precious" + os.urandom(50_000))
    with Writer(path) as writer:
        writer.text(MANIFEST, manifest())
        Walk(writer).tree(tmp_path / "homes", "homes")
    archive.check(path)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DmspError, match=r"damaged|no backup"):
        archive.check(path)
    with pytest.raises(DmspError, match=r"damaged|no backup"):
        restore(path, State(tmp_path / "state"), lambda _: None)
    assert not (tmp_path / "state").exists()
    assert not list(tmp_path.glob(".state*"))


def test_what_cannot_be_restored_is_said_first(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    for text, message in (
        (manifest(schema=SCHEMA + 1), f"has version {SCHEMA + 1}, this program reads up to {SCHEMA}"),
        (manifest(root=os.geteuid() != 0), "was made by"),
        ("[]", "no backup of a box"),
    ):
        path.unlink(missing_ok=True)
        with Writer(path) as writer:
            writer.text(MANIFEST, text)
        with pytest.raises(DmspError, match=message):
            restore(path, State(tmp_path / "state"), lambda _: None)
    path.unlink()
    with Writer(path) as writer:
        writer.text(MANIFEST, manifest())
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "thesis.tex").write_text("x")
    with pytest.raises(DmspError, match="is not empty"):
        restore(path, State(tmp_path / "state"), lambda _: None)
    with pytest.raises(DmspError, match="is missing"):
        restore(path, State(tmp_path / "new"), lambda _: None)
    with pytest.raises(DmspError, match="There is no file"):
        restore(tmp_path / "no.tar.gz", State(tmp_path / "new"), lambda _: None)
    with pytest.raises(DmspError, match="must end in"):
        restore(tmp_path / "state" / "thesis.tex", State(tmp_path / "new"), lambda _: None)


def test_a_backup_needs_a_box_and_a_new_name(tmp_path: Path) -> None:
    from jupyterhub_dmsp.box.backup import create

    state = State(tmp_path / "state")
    with pytest.raises(DmspError, match="holds no box"):
        create(state, tmp_path / "b.tar.gz", lambda _: None)
    state.open()
    (tmp_path / "there.tar.gz").write_text("")
    for path, message in (
        (tmp_path / "there.tar.gz", "exists already"),
        (state / "b.tar.gz", "inside of the state"),
        (tmp_path / "no" / "b.tar.gz", "no directory"),
        (tmp_path / "b.zip", "no name of a backup"),
        (tmp_path / "b.tar.gz", "no database yet"),
    ):
        with pytest.raises(DmspError, match=message):
            create(state, path, lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "there.tar.gz"]
