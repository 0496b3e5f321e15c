"""The file of a backup: a tar archive in which every member has a checksum, read as if a stranger had made it.

The first member is the manifest, the last one the list of SHA-256 sums: an archive without it was cut off. Names,
owners, modes, times, hard and symbolic links and extended attributes are kept (GNU tar's ``SCHILY.xattr`` headers).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from jupyterhub_dmsp.errors import DmspError

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
XATTR = "SCHILY.xattr."
CHUNK = 1 << 20
#: Extended attributes that are kept; the others give powers, or belong to the kernel.
KEPT_XATTRS = ("user.", "system.posix_acl_")
#: A manifest or a list of sums that is larger is none.
MANIFEST_BYTES, SUMS_BYTES = 1 << 20, 1 << 30
_READ_ERRORS = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError)


class Damaged(DmspError):
    """An archive that cannot be trusted."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"The backup {path.name} is damaged: {why}.", "Use another one.")


def _is_zstd(path: Path) -> bool:
    if path.name.endswith(".tar.zst"):
        if shutil.which("zstd") is None:
            raise DmspError(
                "The program zstd is missing.", "apt install zstd, or use a name that ends in .tar.gz."
            )
        return True
    if path.name.endswith(".tar.gz"):
        return False
    raise DmspError(f"{path.name} is no name of a backup.", "It must end in .tar.zst or .tar.gz.")


class _Counted(io.RawIOBase):
    """Exactly ``size`` bytes of a file that may grow or shrink meanwhile, and their checksum."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._source, self._left = source, size
        self.sum = hashlib.sha256()
        self.changed = False

    def read(self, size: int = -1) -> bytes:
        want = self._left if size < 0 else min(size, self._left)
        data = self._source.read(want) if want else b""
        if len(data) < want:
            self.changed = True
            data += bytes(want - len(data))
        self._left -= len(data)
        self.sum.update(data)
        return data


class Writer:
    """Writes an archive under a temporary name; it gets its own when all went well, and is 0600 at any time.

    Args:
        path: ends in ``.tar.zst`` or ``.tar.gz``; must not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zstd = _is_zstd(path)
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self._sums: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.changed: list[str] = []
        """Files that changed while they were read."""

    def __enter__(self) -> Writer:
        try:
            descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise DmspError(
                f"{self.path} cannot be written: {error.strerror}.", "Name another place."
            ) from error
        self._file = os.fdopen(descriptor, "wb")
        if self._zstd:
            command = ["zstd", "-q", "-3", "-T0", "-c"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._file, cwd="/")
            assert self._process.stdin is not None
            self._stream: IO[bytes] = self._process.stdin
        else:
            self._stream = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=3)  # type: ignore[assignment]
        self._tar = tarfile.open(fileobj=self._stream, mode="w|", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            # Nothing of it is wanted any more when it failed, so it may fail again.
            for close in (self._tar.close, self._stream.close, self._file.close):
                with contextlib.suppress(OSError, ValueError):
                    close()
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._part.unlink(missing_ok=True)

    def _finish(self) -> None:
        self.text(SUMS, "".join(self._sums), listed=False)
        self._tar.close()
        self._stream.close()
        if self._process is not None and self._process.wait() != 0:
            raise OSError(5, "zstd failed")
        self._file.flush()
        os.fsync(self._file.fileno())
        # link, not rename: whatever appeared under the name meanwhile stays.
        os.link(self._part, self.path)

    def text(self, name: str, text: str, mode: int = 0o600, *, listed: bool = True) -> None:
        """Add a small file of ours."""
        data = text.encode("utf-8", "surrogateescape")
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), mode, int(time.time())
        self.file(info, io.BytesIO(data), listed=listed)

    def file(self, info: tarfile.TarInfo, source: IO[bytes], *, listed: bool = True) -> None:
        """Add a regular file of ``info.size`` bytes."""
        counted = _Counted(source, info.size)
        self._tar.addfile(info, counted)
        if counted.changed:
            self.changed.append(info.name)
        if listed:
            self._sums.append(_line(counted.sum.hexdigest(), info.name))

    def other(self, info: tarfile.TarInfo) -> None:
        """Add a directory or a link."""
        self._tar.addfile(info)
        self._sums.append(_line("-", info.name))


def _line(digest: str, name: str) -> str:
    return f"{digest} {json.dumps(name)}\n"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream; what is wrong with it becomes one sentence."""
    zstd = _is_zstd(path)
    process: subprocess.Popen[bytes] | None = None
    try:
        with path.open("rb") as file:
            if zstd:
                process = subprocess.Popen(
                    ["zstd", "-q", "-d", "-c"],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                )
                assert process.stdout is not None
                stream: Any = process.stdout
            else:
                stream = gzip.GzipFile(fileobj=file)
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                yield tar
            while stream.read(CHUNK):
                pass
            if process is not None and process.wait() != 0:
                raise Damaged(path, "it ends too early")
    except _READ_ERRORS as error:
        raise Damaged(path, "it cannot be read to its end") from error
    except FileNotFoundError as error:
        if error.filename and Path(error.filename) == path:
            raise DmspError(f"There is no file {path}.") from error
        raise
    finally:
        if process is not None:
            process.kill()
            process.wait()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone; raises :class:`DmspError` when it is none of ours."""
    with _opened(path) as tar:
        first = tar.next()
        if first is None or first.name != MANIFEST or not first.isreg() or first.size > MANIFEST_BYTES:
            raise DmspError(f"{path.name} is no backup of a box.")
        content = tar.extractfile(first)
        assert content is not None
        manifest = json.loads(content.read())
        if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
            raise DmspError(f"{path.name} is no backup of a box.")
        return manifest


def check(path: Path, target: Path | None = None) -> int:
    """Read a whole archive and compare every checksum; extract it where a target is given.

    Args:
        path: the archive.
        target: an empty private directory.

    Returns:
        How many members it has.

    Raises:
        DmspError: damaged, cut off, or holding what a backup never holds.
    """
    seen: dict[str, str] = {}
    sums: bytes | None = None
    extraction = Extraction(path, target) if target is not None else None
    with _opened(path) as tar:
        for info in tar:
            _check_member(path, info, seen)
            if sums is not None:
                raise Damaged(path, "something follows its end")
            if info.name == SUMS:
                content = tar.extractfile(info)
                assert content is not None
                sums = content.read() if info.size <= SUMS_BYTES else b""
            else:
                seen[info.name] = _digest(tar, info, extraction)
    if sums is None:
        raise Damaged(path, "its end is missing")
    wanted = "".join(_line(digest, name) for name, digest in seen.items()).encode("utf-8", "surrogateescape")
    if wanted != sums:
        raise Damaged(path, "the checksums differ")
    if extraction is not None:
        extraction.finish()
    return len(seen)


def _digest(tar: tarfile.TarFile, info: tarfile.TarInfo, extraction: Extraction | None) -> str:
    if not info.isreg():
        if extraction is not None:
            extraction.other(info)
        return "-"
    content = tar.extractfile(info)
    assert content is not None
    digest = hashlib.sha256()
    with extraction.writing(info) if extraction is not None else contextlib.nullcontext(None) as out:
        while data := content.read(CHUNK):
            digest.update(data)
            if out is not None:
                out.write(data)
    return digest.hexdigest()


def _check_member(path: Path, info: tarfile.TarInfo, seen: dict[str, str]) -> None:
    """Refuse what a backup never holds: the archive may have been made by somebody else."""
    parts = PurePosixPath(info.name).parts
    if info.name in seen:
        raise Damaged(path, "a name comes twice")
    if (
        not parts
        or info.name.startswith("/")
        or ".." in parts
        or "/".join(parts) != info.name
        or "\0" in info.name
    ):
        raise Damaged(path, "a name leads out of the state")
    if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        raise Damaged(path, "it holds a device or a pipe")
    if info.mode & stat.S_ISUID or (info.mode & stat.S_ISGID and not info.isdir()):
        raise Damaged(path, "it holds a file that changes who runs it")
    # Links are users' own affair, in their homes; what the box itself reads is never behind one.
    if info.issym() and (parts[0] != "homes" or len(parts) < 3):
        raise Damaged(path, "it holds a symbolic link outside of homes")
    if info.islnk() and (info.linkname not in seen or PurePosixPath(info.linkname).parts[:2] != parts[:2]):
        raise Damaged(path, "a hard link leads elsewhere")


class Extraction:
    """Puts checked members below a directory. Links come last, so nothing is ever written through one."""

    def __init__(self, path: Path, target: Path) -> None:
        self._path, self._target = path, target
        self._directories: list[tarfile.TarInfo] = []
        self._links: list[tarfile.TarInfo] = []

    def _place(self, info: tarfile.TarInfo) -> Path:
        place = self._target / info.name
        if not place.parent.is_dir() or place.parent.is_symlink():
            raise Damaged(self._path, "a folder is missing")
        return place

    @contextlib.contextmanager
    def writing(self, info: tarfile.TarInfo) -> Iterator[IO[bytes]]:
        """A regular file that is being extracted; it has its owner and mode afterwards."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(self._place(info), flags, 0o600), "wb") as file:
            yield file
            file.flush()
            _restore_metadata(file.fileno(), info)

    def other(self, info: tarfile.TarInfo) -> None:
        """A directory now, a link later."""
        if info.isdir():
            self._place(info).mkdir(mode=0o700)
            self._directories.append(info)
        elif info.islnk():
            os.link(self._target / info.linkname, self._place(info), follow_symlinks=False)
        else:
            self._links.append(info)

    def finish(self) -> None:
        """Make the links, then give the directories their owners, modes and times, the deepest first."""
        for info in self._links:
            place = self._place(info)
            os.symlink(info.linkname, place)  # noqa: PTH211 - the target is a text, not a path of ours
            if os.geteuid() == 0:
                os.chown(place, info.uid, info.gid, follow_symlinks=False)
        for info in reversed(self._directories):
            descriptor = os.open(self._target / info.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                _restore_metadata(descriptor, info)
            finally:
                os.close(descriptor)


def _restore_metadata(descriptor: int, info: tarfile.TarInfo) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, info.uid, info.gid)
    for key, value in info.pax_headers.items():
        name = key.removeprefix(XATTR)
        if name != key and name.startswith(KEPT_XATTRS):
            # The file system here may know no such attributes: the content matters more.
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, value.encode("utf-8", "surrogateescape"))
    os.fchmod(descriptor, info.mode & 0o7777)
    os.utime(descriptor, (info.mtime, info.mtime))
