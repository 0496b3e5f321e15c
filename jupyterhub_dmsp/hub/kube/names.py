"""Names in a cluster for the names of people: short, small letters, and never the same for two of them."""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r"[a-z0-9]([a-z0-9]|-(?!-))*")
LONGEST = 48


def slug(text: str) -> str:
    """A name that objects and labels may have; ``text`` itself where that is one.

    Whatever else gets three dashes and a hash, which no plain name holds: nobody can choose a name that becomes
    another one's.
    """
    if len(text) <= LONGEST and _PLAIN.fullmatch(text) and not text.endswith("-"):
        return text
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower())[: LONGEST - 12].strip("-") or "x"
    return f"{readable}---{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def session(prefix: str, user: str, server: str) -> str:
    """The name of a server's pod; that of a named server has a hash in any case."""
    return f"{prefix}-{slug(f'{user}/{server}' if server else user)}"
