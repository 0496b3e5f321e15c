"""From a DID or a PFN to a path below the mount; nothing leaves the mount."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from jupyterhub_dmsp.errors import DmspError


class OutsideMount(DmspError):
    """A name or address that would lead to a place outside the mount."""

    code = "outside_mount"
    action = "contact"
    status = 409


def hash_path(scope: str, name: str) -> str:
    """Rucio's deterministic path ``hash`` (``rucio.rse.translation``), relative to the RSE's prefix.

    ``<scope>/<md5[0:2]>/<md5[2:4]>/<name>`` of ``scope:name``; the dots of a scope become slashes only where it
    starts with ``user`` or ``group``.
    """
    digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
    if scope.startswith(("user", "group")):
        scope = scope.replace(".", "/")
    return f"{scope}/{digest[0:2]}/{digest[2:4]}/{name}"


class Paths:
    """Where files of the scratch RSE are seen.

    Args:
        mount: the directory where the RSE is mounted.
        prefix: the path prefix of the RSE's PFNs that the mount replaces (for :meth:`of_pfn`).
    """

    def __init__(self, mount: Path, prefix: str = "") -> None:
        self.mount = Path(os.path.normpath(mount))
        self._prefix = PurePosixPath("/" + prefix.strip("/")) if prefix else None

    def of(self, scope: str, name: str) -> str:
        """The path of a file; raises :class:`OutsideMount` for names such as ``../x``."""
        return self._inside(hash_path(scope, name), f"{scope}:{name}")

    def of_pfn(self, pfn: str) -> str:
        """The path of a PFN such as ``file://host/prefix/scope/ab/cd/name``.

        Raises:
            OutsideMount: the PFN is not below the prefix.
        """
        path = unquote(urlsplit(pfn).path)
        if self._prefix is None:
            raise OutsideMount("The address of a replica cannot be mapped: the RSE's prefix is not known.")
        parts, prefix = PurePosixPath("/" + path.lstrip("/")).parts, self._prefix.parts
        if parts[: len(prefix)] != prefix or len(parts) == len(prefix):
            raise OutsideMount("A replica lies outside the part of the RSE that is mounted.")
        return self._inside("/".join(parts[len(prefix) :]), "a replica")

    def _inside(self, relative: str, what: str) -> str:
        pieces = relative.split("/")
        if relative.startswith("/") or any(piece in {"", ".", ".."} for piece in pieces) or "\0" in relative:
            raise OutsideMount(
                f"The name of {what!r} cannot be a path on scratch.", "Ask its owners to rename it."
            )
        return f"{self.mount}/{relative}"

    def contains(self, path: str) -> bool:
        """Whether a path, symbolic links followed, is below the mount (blocking)."""
        real = os.path.realpath(path)
        root = os.path.realpath(self.mount)
        return real.startswith(root.rstrip("/") + "/")
