"""What kernels read: one directory an attachment below the runtime directory, written atomically.

``manifest.json`` tells state, files and what is missing; ``paths.txt`` has one path a line, for languages without
JSON, and exists only while the attachment is ready.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.lab.records import Attachment
from jupyterhub_dmsp.lake.models import LakeFile


def write_atomic(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that a reader sees the old or the new one (blocking)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def digest_of(files: Sequence[LakeFile]) -> str:
    """SHA-256 over DID, size and checksum of all files: equal for equal content, whatever the order."""
    lines = sorted(f"{f.did} {f.bytes} {f.adler32}\n" for f in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


class Manifests:
    """The manifests below ``$DMSP_RUNTIME/attachments``; methods block."""

    def __init__(self, runtime: Path) -> None:
        self.root = runtime / "attachments"

    def directory(self, ident: str) -> Path:
        """The directory of an attachment."""
        return self.root / ident

    def write(
        self,
        attachment: Attachment,
        files: Sequence[LakeFile] = (),
        paths: Sequence[str] = (),
        missing: Sequence[str] = (),
    ) -> None:
        """Write an attachment's manifest.

        Args:
            files: the files that are usable, in order.
            paths: where they are.
            missing: names of files that should be there and are not.
        """
        directory = self.directory(attachment.id)
        body: dict[str, Any] = {
            "id": attachment.id,
            "did": attachment.did,
            "state": attachment.state,
            "files": [
                {"name": f.did.name, "path": path, "bytes": f.bytes}
                for f, path in zip(files, paths, strict=True)
            ],
            "missing": list(missing),
            "files_total": attachment.files_total,
            "bytes": attachment.bytes_total,
            "digest": attachment.digest,
            "error": attachment.error,
            "created_at": time.time(),
        }
        listed = directory / "paths.txt"
        if attachment.state == "ready":
            write_atomic(listed, "".join(f"{path}\n" for path in paths))
        else:
            listed.unlink(missing_ok=True)
        write_atomic(directory / "manifest.json", json.dumps(body))

    def remove(self, ident: str) -> None:
        """Remove an attachment's directory."""
        shutil.rmtree(self.directory(ident), ignore_errors=True)
