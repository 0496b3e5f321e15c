"""Data identifiers (DIDs): ``scope:name``, as people type them and as a URL needs them.

Rucio's own limits (``rucio.common.schema.generic``): a scope has at most 25 characters of ``[A-Za-z0-9_.-]``, a
name at most 250. Names are checked more loosely than there, because a site's policy package may allow more
(spaces, unicode): only what can do harm in a URL, a log or a path is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from jupyterhub_dmsp.errors import DmspError

SCOPE_LENGTH = 25
NAME_LENGTH = 250
_SCOPE = re.compile(r"[A-Za-z0-9_.\-]{1,25}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class BadDid(DmspError):
    """The text is not a DID that could exist."""

    code = "bad_did"
    action = "none"
    status = 400


def _shown(text: str) -> str:
    """The text fit for a message: escaped and short."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return short.encode("unicode_escape").decode()


def check_scope(scope: str) -> str:
    """The scope itself; raises :class:`BadDid` when Rucio could not hold it."""
    if not _SCOPE.fullmatch(scope) or scope in {".", ".."}:
        raise BadDid(
            f"“{_shown(scope)}” is not a scope.",
            f"A scope has 1 to {SCOPE_LENGTH} letters, digits, dots, dashes or underscores.",
        )
    return scope


@dataclass(frozen=True, slots=True, order=True)
class Did:
    """A data identifier; ``str()`` gives ``scope:name``, :attr:`quoted` its path in Rucio's URLs."""

    scope: str
    name: str

    def __post_init__(self) -> None:
        check_scope(self.scope)
        if not self.name or len(self.name) > NAME_LENGTH:
            raise BadDid(
                f"“{_shown(self.name)}” cannot be the name of a DID.",
                f"A name has 1 to {NAME_LENGTH} characters.",
            )
        if _CONTROL.search(self.name) or self.name in {".", ".."}:
            raise BadDid(
                f"“{_shown(self.name)}” cannot be the name of a DID.",
                "Control characters and the names “.” and “..” are not allowed.",
            )

    @classmethod
    def parse(cls, text: str) -> Did:
        """A DID from ``scope:name``; everything after the first colon is the name.

        Raises:
            BadDid: no colon, or a part that Rucio could not hold.
        """
        scope, colon, name = text.partition(":")
        if not colon:
            raise BadDid(f"“{_shown(text)}” is not a DID.", "Write it as scope:name.")
        return cls(scope, name)

    @property
    def quoted(self) -> str:
        """``scope/name``, each percent-encoded (slashes of the name too), for a URL path."""
        return f"{quote(self.scope, safe='')}/{quote(self.name, safe='')}"

    def as_dict(self) -> dict[str, str]:
        """The shape that Rucio's request bodies want."""
        return {"scope": self.scope, "name": self.name}

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"
