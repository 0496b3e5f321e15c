"""Looks for the real secrets of a running box where none may stand: logs, processes, files, notebooks."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from boxes import Box

LARGEST = 64 << 20
NOT_TEXT = ("envs", "storage", "database", "scratch")
"""Packages, the lake's data, tables: large, and not written by anything that is told a secret to keep."""


def forms(secret: str) -> set[bytes]:
    """How a secret may look: as it is, percent-encoded, in base64 of either alphabet, in hexadecimal."""
    raw = secret.encode()
    return {
        raw,
        quote(secret, safe="").encode(),
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        json.dumps(secret)[1:-1].encode(),
    }


class Finder:
    """Searches for many secrets at once.

    Args:
        secrets: name (for messages: a secret is never printed) and text.
    """

    def __init__(self, secrets: Iterable[tuple[str, str]]) -> None:
        self._names = {form: name for name, secret in secrets for form in forms(secret)}
        self._pattern = re.compile(
            b"|".join(re.escape(form) for form in sorted(self._names, key=len, reverse=True))
        )

    def search(self, content: bytes) -> set[str]:
        """Names of the secrets in it."""
        return {self._names[found[0]] for found in self._pattern.finditer(content)}


def of_box(box: Box) -> list[tuple[str, str]]:
    """All that was generated for a box: keys, passwords of services and of people."""
    found = [(f"password of {name}", password) for name, password in box.passwords.items()]
    for path in (box.state / "secrets").rglob("*"):
        if path.is_file():
            text = path.read_text().strip()
            if not text.startswith("{") and len(text) >= 12:
                found.append((path.name, text))
    found.append(("hub's cookie secret", (box.state / "hub" / "cookie_secret").read_text().strip()))
    return found


def in_logs(box: Box, finder: Finder) -> list[str]:
    """Log files with a secret in them, packed ones too."""
    bad = []
    for path in sorted((box.state / "logs").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            bad += [f"{path.relative_to(box.state)}: {name}" for name in finder.search(content)]
    return bad


def in_processes(finder: Finder) -> list[str]:
    """Processes of this machine with a secret in their command line or environment."""
    bad = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            bad += [f"{name} of {process.name}: {secret}" for secret in finder.search(content)]
    return bad


def _files(top: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        if Path(directory) == top:
            names[:] = [name for name in names if name not in NOT_TEXT]
        yield from (Path(directory, name) for name in files)


def _private(path: Path, top: Path) -> bool:
    """Whether only the owner (or the group, where it is the owner's) gets at a file, by its mode or a directory's."""
    while path != top:
        if not path.lstat().st_mode & 0o077:
            return True
        path = path.parent
    return False


def in_state(box: Box, finder: Finder) -> list[str]:
    """Files of the state directory that hold a secret and are not private."""
    bad = []
    for path in _files(box.state):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            continue
        found = finder.search(path.read_bytes())
        if found and not _private(path, box.state):
            bad += [
                f"{path.relative_to(box.state)} ({path.stat().st_mode & 0o777:o}): {name}" for name in found
            ]
    return bad


def in_homes(box: Box, finder: Finder) -> list[str]:
    """Files of users' homes with a secret: settings of Lab, notebooks, histories."""
    return [
        f"{path.relative_to(box.state)}: {name}"
        for path in _files(box.state / "homes")
        if path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST
        for name in finder.search(path.read_bytes())
    ]
