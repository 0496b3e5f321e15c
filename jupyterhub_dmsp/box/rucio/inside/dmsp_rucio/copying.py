"""Copying one file between two directories: verified on the way, under a temporary name, nothing left on failure.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

#: Bytes read at once.
CHUNK = 1 << 20
#: Temporary names: ``.box-<boot>-<request>.part`` in the directory of the destination.
PREFIX, SUFFIX = ".box-", ".part"
#: Directories between that of a scope and its files, in Rucio's ``hash`` layout; slashes in a name make more.
HASH_LEVELS = 2
#: How often a directory is made again that others remove: each must lose the race once for it.
ATTEMPTS = 50


class CopyError(Exception):
    """A copy did not succeed; the text is for users and names no path of the server.

    Attributes:
        passing: whether another try may help (a full disk, an I/O error) or not (a wrong checksum).
    """

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


@dataclass(slots=True, eq=False)
class Job:
    """One file to copy, and how it is going.

    Attributes:
        levels: how many directories above the destination may go when they are empty: none of them is the scope's.
    """

    request_id: str
    external_id: str
    source: str
    destination: str
    source_rse: str
    destination_rse: str
    size: int
    adler32: str | None
    attempt: int = 0
    rule_id: str = "-"  # the rule that asked for it first
    done: int = 0  # bytes so far
    cancelled: bool = False
    started: datetime | None = None
    finished: datetime | None = None
    error: str | None = None
    passing: bool = False
    temporary: str = field(default="")
    others: list[tuple[str, str]] = field(default_factory=list)  # further sources: path and RSE
    levels: int = 0

    def fail(self, error: CopyError) -> None:
        """Record why it failed."""
        self.error, self.passing = str(error), error.passing


def normal_checksum(adler32: str | None) -> str | None:
    """An adler32 as eight lower-case hexadecimal digits; None when the catalogue has none."""
    return adler32.lower().zfill(8) if adler32 else None


def safe_path(url: str, root: str) -> str:
    """The path of a PFN such as ``posix://localhost/root/scope/ab/cd/name``, below ``root``.

    Raises:
        CopyError: the path leads out of the storage (names may hold slashes and dots).
    """
    path = PurePosixPath("/" + url.partition("://")[2].partition("/")[2])
    if ".." in path.parts or PurePosixPath(root) not in path.parents:
        raise CopyError("The name of the file leads out of the storage.")
    return str(path)


def checksum(path: str) -> str:
    """adler32 of a file, eight hexadecimal digits."""
    value, buffer = 1, memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        while count := file.readinto(buffer):
            value = zlib.adler32(buffer[:count], value)
    return f"{value:08x}"


def is_complete(job: Job) -> bool:
    """Whether the destination is there already, whole and right (a copy whose report was lost)."""
    try:
        if os.stat(job.destination).st_size != job.size:  # noqa: PTH116
            return False
        return job.adler32 is None or checksum(job.destination) == job.adler32
    except OSError:
        return False


def fill(job: Job, boot: str, *, sync: bool, pause: float = 0.0) -> bool:
    """Copy to the temporary name. The caller renames it with :func:`land` when True comes back.

    Args:
        job: what to copy; ``done`` advances.
        boot: mark of this process in temporary names.
        sync: bring the data to the disk before returning.
        pause: seconds to wait after each chunk (slows tests down).

    Returns:
        False when the destination is complete already.

    Raises:
        CopyError: with a text for users; the temporary file is gone.
    """
    if is_complete(job):
        job.done = job.size
        return False
    directory = os.path.dirname(job.destination)  # noqa: PTH120
    job.temporary = f"{directory}/{PREFIX}{boot}-{job.request_id}{SUFFIX}"
    try:
        source = _open_source(job)
        try:
            target = _open_target(directory, job.temporary)
            try:
                _transfer(job, source, target, pause)
                if sync:
                    os.fdatasync(target)
            finally:
                os.close(target)
        finally:
            os.close(source)
    except OSError as error:
        discard(job)
        raise _explain(job, error) from error
    except CopyError:
        discard(job)
        raise
    return True


def fill_from_any(job: Job, boot: str, *, sync: bool, pause: float = 0.0) -> bool:
    """As :func:`fill`; a source that is missing or wrong is left for the next one.

    Rucio's own retries do not help: of 16 damaged files with a good second source all four tries went to the bad one.

    Raises:
        CopyError: of the first source, when no other is any better.
    """
    first: CopyError | None = None
    while True:
        try:
            return fill(job, boot, sync=sync, pause=pause)
        except CopyError as error:
            first = first or error
            if error.passing or job.cancelled or not job.others:
                raise first from error
            job.source, job.source_rse = job.others.pop(0)


def land(job: Job) -> None:
    """Give the file its name; raises :class:`CopyError`."""
    try:
        os.replace(job.temporary, job.destination)  # noqa: PTH105
    except OSError as error:
        discard(job)
        raise _explain(job, error) from error


def discard(job: Job) -> None:
    """Remove the temporary file, if there is one, and the directories that were made for it."""
    if job.temporary:
        with contextlib.suppress(OSError):
            os.unlink(job.temporary)  # noqa: PTH108
        prune(job.temporary, job.levels)


def prune(path: str, levels: int) -> None:
    """Remove up to ``levels`` directories above ``path``, as long as they are empty.

    Whoever wants to write there meanwhile makes them again (:func:`_open_target`): a directory is never removed with
    something in it.
    """
    for _ in range(levels):
        path = os.path.dirname(path)  # noqa: PTH120
        try:
            os.rmdir(path)  # noqa: PTH106
        except OSError:
            return  # another file is there, or has just come


def sweep(root: str, boot: str) -> int:
    """Remove the temporary files that a dead process left below ``root``, and their directories; returns how many."""
    count = 0
    for directory, _, names in os.walk(root):
        for name in names:
            if name.startswith(PREFIX) and name.endswith(SUFFIX) and not name.startswith(f"{PREFIX}{boot}-"):
                path = os.path.join(directory, name)  # noqa: PTH118
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108
                    count += 1
                prune(path, HASH_LEVELS)
    return count


def _open_source(job: Job) -> int:
    try:
        return os.open(job.source, os.O_RDONLY)
    except FileNotFoundError:
        raise CopyError(f"The file is missing at {job.source_rse}.") from None


def _open_target(directory: str, temporary: str) -> int:
    # Directories get their mode and group from the umask and from the setgid bit of their scope's directory.
    for _ in range(ATTEMPTS):
        try:
            os.makedirs(directory, exist_ok=True)  # noqa: PTH103
            return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        except FileNotFoundError:
            continue  # next door the directory, or one above it, has just been pruned
        except FileExistsError:
            if os.path.lexists(directory) and not os.path.isdir(directory):  # noqa: PTH112
                raise
    raise CopyError("The directory of the file keeps vanishing.", passing=True)


def _transfer(job: Job, source: int, target: int, pause: float) -> None:
    value = 1
    job.done = 0
    buffer = memoryview(bytearray(min(CHUNK, job.size + 1)))
    while count := os.readv(source, [buffer]):
        if job.cancelled:
            raise CopyError("The transfer was cancelled.")
        chunk = buffer[:count]
        value = zlib.adler32(chunk, value)
        while chunk:
            chunk = chunk[os.write(target, chunk) :]
        job.done += count
        if pause:
            time.sleep(pause)
    if job.done != job.size:
        raise CopyError(f"The file at {job.source_rse} has {job.done} bytes, the catalogue says {job.size}.")
    if job.adler32 and f"{value:08x}" != job.adler32:
        raise CopyError(
            f"The file at {job.source_rse} is damaged: its adler32 is {value:08x}, the catalogue says {job.adler32}."
        )


def _explain(job: Job, error: OSError) -> CopyError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CopyError(f"No space is left at {job.destination_rse}.", passing=True)
    where = job.source_rse if error.filename == job.source else job.destination_rse
    return CopyError(f"{os.strerror(error.errno or errno.EIO)} at {where}.", passing=True)
