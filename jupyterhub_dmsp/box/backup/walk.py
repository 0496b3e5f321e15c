"""Putting a tree of files into an archive while others change it.

Homes belong to users, and root reads them: every step goes through a directory's descriptor and follows no symbolic
link, so nobody can have another's file put into their own home by exchanging one for the other.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from jupyterhub_dmsp.box.backup.archive import CHUNK, KEPT_XATTRS, XATTR, Writer

#: Folders that are nested deeper are left out: each level holds a descriptor.
DEEPEST = 200
#: How often a database that is being written is read again.
TRIES = 5
SQLITE = b"SQLite format 3\0"
#: What SQLite keeps beside a database while it is written.
BESIDE = ("-wal", "-journal", "-shm")


@dataclass
class Walk:
    """One tree after the other goes into the same archive.

    Attributes:
        archive: where it goes.
        told: called with the bytes so far.
        size: bytes of regular files so far.
        files: regular files so far.
        ours: whether the trees belong to the box, not to users: then SQLite may open its files in place.
        skipped: names of what cannot be kept: sockets, pipes, devices, what lies too deep or vanished.
    """

    archive: Writer
    told: Callable[[int], None] = lambda _: None
    size: int = 0
    files: int = 0
    ours: bool = False
    skipped: list[str] = field(default_factory=list)
    _seen: dict[tuple[int, int], str] = field(default_factory=dict)

    def tree(self, path: Path, name: str, leave_out: frozenset[str] = frozenset()) -> None:
        """Add a directory and all below it, as ``name``; nothing when it is not there.

        Args:
            path: the directory, reached by no symbolic link.
            name: its name in the archive.
            leave_out: names directly in it that are not wanted.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            self._directory(descriptor, name, leave_out, 0)
        finally:
            os.close(descriptor)

    def member(self, descriptor: int, name: str) -> None:
        """Add one file of an open directory, at the top of the archive."""
        self._file(descriptor, name, name, set())

    def _directory(self, descriptor: int, name: str, leave_out: frozenset[str], depth: int) -> None:
        self.archive.other(_info(name, os.fstat(descriptor), tarfile.DIRTYPE, descriptor))
        found = sorted(set(os.listdir(descriptor)) - leave_out)
        for entry in found:
            inner = f"{name}/{entry}"
            try:
                status = os.stat(entry, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    self._below(descriptor, entry, inner, depth)
                elif stat.S_ISLNK(status.st_mode):
                    info = _info(inner, status, tarfile.SYMTYPE)
                    info.linkname = os.readlink(entry, dir_fd=descriptor)
                    self.archive.other(info)
                elif stat.S_ISREG(status.st_mode):
                    self._file(descriptor, entry, inner, set(found))
                else:
                    self.skipped.append(inner)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                # It was taken away, or exchanged for something else, since the folder was read.
                self.skipped.append(inner)

    def _below(self, descriptor: int, entry: str, inner: str, depth: int) -> None:
        if depth >= DEEPEST:
            self.skipped.append(inner)
            return
        below = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        try:
            self._directory(below, inner, frozenset(), depth + 1)
        finally:
            os.close(below)

    def _file(self, descriptor: int, entry: str, inner: str, around: set[str]) -> None:
        if any(entry.endswith(suffix) and entry.removesuffix(suffix) in around for suffix in BESIDE):
            return  # it is taken together with its database
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with _open(entry, flags, descriptor) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(inner)
            first = self._seen.setdefault((status.st_dev, status.st_ino), inner)
            if first != inner:
                info = _info(inner, status, tarfile.LNKTYPE)
                info.linkname = first
                self.archive.other(info)
                return
            head = os.pread(file.fileno(), len(SQLITE), 0)
            if head == SQLITE:
                self._database(descriptor, entry, inner, file)
            else:
                self._add(_info(inner, status, tarfile.REGTYPE, file.fileno()), file)

    def _add(self, info: tarfile.TarInfo, file: IO[bytes]) -> None:
        self.archive.file(info, file)
        self.size += info.size
        self.files += 1
        self.told(self.size)

    def _database(self, descriptor: int, entry: str, inner: str, file: IO[bytes]) -> None:
        """A SQLite database: a copy in which everything that was committed is, and nothing half.

        A user's is never opened in place: what SQLite leaves beside it would be ours and lock its owner out.
        """
        info = _info(inner, os.fstat(file.fileno()), tarfile.REGTYPE, file.fileno())
        with tempfile.TemporaryDirectory(prefix=".dmsp-backup-", dir=self.archive.path.parent) as folder:
            copy = Path(folder, "db")
            if self.ours:
                _backup(Path(f"/proc/self/fd/{descriptor}/{entry}"), copy)
            elif not _settled_copy(descriptor, entry, file, copy):
                self.archive.changed.append(inner)
            with copy.open("rb") as source:
                info.size = copy.stat().st_size
                self._add(info, source)


def _backup(path: Path, copy: Path) -> None:
    """SQLite's own way of copying what others are writing."""
    with (
        contextlib.closing(sqlite3.connect(path, timeout=30)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def _settled_copy(descriptor: int, entry: str, file: IO[bytes], copy: Path) -> bool:
    """Copy a database with what lies beside it until nothing changed meanwhile and it is sound."""
    for _ in range(TRIES):
        before = _stamps(descriptor, entry)
        for leftover in copy.parent.iterdir():
            leftover.unlink()
        _copy(file.fileno(), copy)
        for suffix in ("-wal", "-journal"):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with contextlib.suppress(OSError), _open(entry + suffix, flags, descriptor) as beside:
                if stat.S_ISREG(os.fstat(beside.fileno()).st_mode):
                    _copy(beside.fileno(), Path(f"{copy}{suffix}"))
        if before == _stamps(descriptor, entry) and _merge(copy):
            return True
    # Better what is there than nothing: it may be sound after all.
    for leftover in copy.parent.iterdir():
        leftover.unlink()
    _copy(file.fileno(), copy)
    return False


def _stamps(descriptor: int, entry: str) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for suffix in ("", "-wal", "-journal"):
        try:
            status = os.stat(entry + suffix, dir_fd=descriptor, follow_symlinks=False)
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            stamps.append(None)
    return stamps


def _merge(copy: Path) -> bool:
    """Bring log or journal of a copied database into it; whether it is sound."""
    try:
        with contextlib.closing(sqlite3.connect(copy, timeout=5)) as db:
            sound: bool = db.execute("PRAGMA quick_check").fetchone() == ("ok",)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return sound
    except sqlite3.DatabaseError:
        return False


def _copy(descriptor: int, target: Path) -> None:
    place = 0
    with target.open("wb") as out:
        while data := os.pread(descriptor, CHUNK, place):
            out.write(data)
            place += len(data)


def _open(entry: str, flags: int, directory: int) -> IO[bytes]:
    return os.fdopen(os.open(entry, flags, dir_fd=directory), "rb")


def _info(name: str, status: os.stat_result, kind: bytes, descriptor: int | None = None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = status.st_size if kind == tarfile.REGTYPE else 0
    info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    info.mode = stat.S_IMODE(status.st_mode) & ~stat.S_ISUID
    if kind != tarfile.DIRTYPE:
        info.mode &= ~stat.S_ISGID
    if descriptor is not None:
        with contextlib.suppress(OSError):  # a file system without attributes
            kept = [key for key in os.listxattr(descriptor) if key.startswith(KEPT_XATTRS)]
            values = {XATTR + key: os.getxattr(descriptor, key) for key in kept}
            info.pax_headers = {key: value.decode("utf-8", "surrogateescape") for key, value in values.items()}
    return info
