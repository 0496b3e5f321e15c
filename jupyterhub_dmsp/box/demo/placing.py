"""Put staged files where Rucio's ``hash`` algorithm expects them on an RSE."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from jupyterhub_dmsp.box.rucio import storage
from jupyterhub_dmsp.box.rucio.inside.dmsp_rucio.copying import checksum, normal_checksum
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake.did import Did

FILE_MODE, FOLDER_MODE = 0o640, 0o2750


def deterministic_path(root: Path, did: Did) -> Path:
    """``<root>/<scope>/<md5[0:2]>/<md5[2:4]>/<name>`` (``rucio.rse.translation``, algorithm ``hash``)."""
    digest = hashlib.md5(f"{did.scope}:{did.name}".encode(), usedforsecurity=False).hexdigest()
    return root / storage.scope_path(did.scope) / digest[0:2] / digest[2:4] / did.name


def place(source: Path, root: Path, did: Did, *, link: bool, adler32: str = "") -> bool:
    """Put a file on an RSE under a temporary name, then rename it; what is there already stays.

    Args:
        source: the staged file.
        root: the RSE's prefix; files and folders below get its owner.
        did: the file's DID.
        link: share the staged file's blocks instead of copying them (one RSE may: storage of two RSEs must not
            be the same blocks).
        adler32: what the catalogue will say; what is there, or was put there, must have it. Empty: not looked at.

    Returns:
        Whether the file was put there now.

    Raises:
        DmspError: the disk is full, a file of another size is there, or the file is not the right one.
    """
    target = deterministic_path(root, did)
    owner = root.stat()
    try:
        if target.exists():
            _check_same(source, target, did)
            _check_sum(target, adler32, did)
            return False
        _folders(root, target.parent, owner)
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        if link:
            part.hardlink_to(source)
        else:
            shutil.copyfile(source, part)
        _check_sum(part, adler32, did)
        part.chmod(FILE_MODE)
        _own(part, owner)
        part.replace(target)
    except OSError as error:
        raise DmspError(f"{did} cannot be put on its site: {error.strerror}.") from error
    return True


def _check_same(source: Path, target: Path, did: Did) -> None:
    if target.stat().st_size != source.stat().st_size:
        raise DmspError(
            f"{did} lies on its site with another size than it should have.", "Remove the state and start anew."
        )


def _check_sum(path: Path, adler32: str, did: Did) -> None:
    if adler32 and checksum(str(path)) != normal_checksum(adler32):
        raise DmspError(f"{did} is damaged: it has another checksum than it should have.", "Start again.")


def _folders(root: Path, folder: Path, owner: os.stat_result) -> None:
    for parent in reversed([folder, *folder.parents][: len(folder.relative_to(root).parts)]):
        if not parent.exists():
            parent.mkdir()
            _own(parent, owner)
            parent.chmod(FOLDER_MODE)


def _own(path: Path, owner: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
