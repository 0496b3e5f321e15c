"""Rucio's protocol for the storage of the box: ``posix`` that deletes for sure and leaves no empty directories."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from rucio.common import exception
from rucio.rse.protocols import posix


class Posix(posix.Default):
    """``posix.Default`` for the daemons.

    The stock class swallows every error of a removal but "not there": the catalogue would forget a file that stays on
    the disk.
    """

    def delete(self, pfn: str) -> None:
        """Remove a file and the hash directories that it leaves empty.

        Raises:
            SourceNotFound: the file is not there.
            ServiceUnavailable: it cannot be removed; Rucio tries again later.
        """
        path = inside(self.attributes["prefix"], self.pfn2path(pfn))
        try:
            Path(path).unlink()
        except FileNotFoundError as error:
            raise exception.SourceNotFound("the file is not there") from error
        except OSError as error:
            raise exception.ServiceUnavailable(f"the file cannot be removed: {error.strerror}") from error
        prune(PurePosixPath(self.attributes["prefix"]), path)


def inside(prefix: str, path: str) -> PurePosixPath:
    """``path`` without doubled slashes; raises ``RSEFileNameNotSupported`` when it leads out of ``prefix``."""
    clean = PurePosixPath(path)
    root = PurePosixPath(prefix)
    if ".." in clean.parts or root not in clean.parents:
        raise exception.RSEFileNameNotSupported("The name leads out of the storage.")
    return clean


def prune(root: PurePosixPath, path: PurePosixPath) -> None:
    """Remove the directories that ``path`` has left empty, up to, and never including, its scope's."""
    keep = scope_depth(path.relative_to(root).parts)
    for parent in path.parents:
        if len(parent.relative_to(root).parts) <= keep:
            return
        try:
            Path(parent).rmdir()
        except OSError:
            return  # another file is there, or has just come


def scope_depth(parts: tuple[str, ...]) -> int:
    """How many of the components are the scope in ``<scope>/<xx>/<yy>/<name>`` (Rucio's ``hash`` layout).

    Both scope and name may have several components; the md5 of ``scope:name`` tells where they part. Where it tells
    nothing every directory is kept.
    """
    for depth in range(1, len(parts) - 2):
        name = "/".join(parts[depth + 2 :])
        for scope in {"/".join(parts[:depth]), ".".join(parts[:depth])}:
            digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
            if (digest[0:2], digest[2:4]) == (parts[depth], parts[depth + 1]):
                return depth
    return len(parts)
