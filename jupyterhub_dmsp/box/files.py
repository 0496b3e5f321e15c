"""Small private files, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

Owner = tuple[int, int]
"""uid and gid that a file is given to, when root writes it for a service."""


def private_directory(path: Path, owner: Owner | None = None) -> Path:
    """Make a directory that only its owner enters (0700)."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    if owner is not None:
        os.chown(path, *owner)
    return path


def write_private(path: Path, text: str, owner: Owner | None = None) -> None:
    """Write a 0600 file atomically: a reader sees the old text or the new, also after a crash."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
