"""A hash lock as text: which packages it pins, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")
_INDEX = re.compile(r"^\s*(-i\b|--(index|extra-index|find-links|default-index|trusted-host))", re.MULTILINE)


def packages(path: Path) -> dict[str, str]:
    """Names and versions that a lock pins, as it spells them; empty when it cannot be read. Reads a file."""
    try:
        found = path.stat()
        return dict(_packages(path, found.st_mtime_ns, found.st_size))
    except (OSError, UnicodeDecodeError):
        return {}


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.lower())


def faults(path: Path, wanted: Collection[str], shown: Collection[str] = ()) -> list[str]:
    """What is wrong with a lock, one sentence each: it must exist, pin by hash, and name no index of its own.

    Args:
        path: the lock.
        wanted: packages that it must have.
        shown: packages that the launch page names.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return [f"{path.name} is missing."]
    except (OSError, UnicodeDecodeError):
        return [f"{path.name} cannot be read."]
    pinned = {normal(name): block for name, block in _blocks(text)}
    made = [f"{path.name} has no hash for {name}." for name, block in pinned.items() if "--hash=" not in block]
    if _INDEX.search(text):
        made.append(f"{path.name} names a package index; which one is used is the machine's affair.")
    made += [f"{path.name} lacks {name}." for name in sorted(set(wanted) - set(pinned))]
    made += [
        f"`highlights` names {name}, which {path.name} lacks." for name in shown if normal(name) not in pinned
    ]
    return made


def _blocks(text: str) -> list[tuple[str, str]]:
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    return [(match[1], block) for block in blocks if (match := _PIN.match(block))]


@lru_cache(maxsize=256)
def _packages(path: Path, _mtime: int, _size: int) -> tuple[tuple[str, str], ...]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple((match[1], match[2]) for line in lines if (match := _PIN.match(line)))
