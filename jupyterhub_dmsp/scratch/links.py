"""The readable view: ``~/datasets/<scope>/<dataset>/<file>``, symbolic links to files on the mount.

Names come from the lake and may be hostile: slashes, dots, control characters, too long, or equal to one another
once made safe. What was not made here is never touched.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError

_LONGEST = 200
_MARK = ".dmsp-attachment"


class LinksRefused(DmspError):
    """The readable view cannot be made."""

    code = "links"
    action = "none"
    status = 409


def safe_name(name: str) -> str:
    """A single path component for any name; different from others by a digest where something was changed."""
    cleaned = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name).strip(" .")
    if cleaned == name and len(name.encode()) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    while len(cleaned.encode()) > _LONGEST:
        cleaned = cleaned[:-1]
    return f"{cleaned or 'file'}~{digest}"


class Links:
    """Directories of links below a root; all methods block.

    Args:
        root: such as ``~/datasets``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, scope: str, dataset: str) -> Path:
        """Where the links of a dataset are."""
        return self.root / safe_name(scope) / safe_name(dataset)

    def make(self, scope: str, dataset: str, files: Sequence[tuple[str, str]], owner: str) -> Path:
        """Make the links of a dataset anew.

        Args:
            files: name and path on the mount of each file.
            owner: mark by which :meth:`remove` knows what it may remove.

        Raises:
            LinksRefused: something of the user's is in the way, or the home cannot be written.
        """
        target = self.directory(scope, dataset)
        try:
            if target.is_symlink() or (target.exists() and not (target / _MARK).is_file()):
                raise LinksRefused(
                    f"{target} is not ours, so no links were made.", "Move it away to get the links."
                )
            fresh = target.with_name(f".{owner}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            (fresh / _MARK).write_text(owner)
            for name, path in files:
                link = fresh / safe_name(name)
                if link.is_symlink():  # the same name in another scope of a container
                    link = fresh / f"{link.name}~{hashlib.sha256(path.encode()).hexdigest()[:8]}"
                link.symlink_to(path)
            if target.exists():
                shutil.rmtree(target)
            fresh.rename(target)
        except OSError as error:
            raise LinksRefused(f"The links in {self.root} could not be made: {error.strerror}.") from error
        return target

    def remove(self, scope: str, dataset: str, owner: str) -> None:
        """Remove the links of a dataset if they are this owner's, and its scope's directory when empty."""
        target = self.directory(scope, dataset)
        try:
            if target.is_symlink() or (target / _MARK).read_text() != owner:
                return
        except OSError:
            return
        shutil.rmtree(target)
        try:
            target.parent.rmdir()
        except OSError:
            return
