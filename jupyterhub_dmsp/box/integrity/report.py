"""What a check found, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: Kinds of problems, and what several of them are called.
KINDS = {
    "missing": "missing files",
    "short": "files that are too short",
    "long": "files that are too long",
    "checksum": "files with a wrong checksum",
    "unreadable": "files that cannot be read",
    "bad": "files that were declared bad before",
    "dark": "files that the catalogue does not know",
    "temporary": "copies that were never finished",
    "odd": "things that are neither file nor directory",
    "orphan_directory": "empty directories",
    "access": "wrong owners, groups or modes",
}
#: What a repair came to. Empty: none was tried. The first three leave nothing to do.
OUTCOMES = {
    "cured": "copied anew",
    "removed": "removed",
    "fixed": "put right",
    "lost": "no other copy",
    "failed": "not cured",
    "waiting": "not cured yet",
}
DONE = frozenset({"cured", "removed", "fixed"})


@dataclass(frozen=True)
class Problem:
    """One fault.

    Attributes:
        kind: one of :data:`KINDS`.
        did: the file in the catalogue; empty where it has none.
        path: relative to the storage element's root.
        text: a sentence.
        outcome: one of :data:`OUTCOMES`, or empty.
    """

    kind: str
    path: str
    text: str
    did: str = ""
    outcome: str = ""

    @property
    def solved(self) -> bool:
        """Whether a repair has put it right."""
        return self.outcome in DONE

    def as_dict(self) -> dict[str, str]:
        """For ``--json``."""
        return {
            "kind": self.kind,
            "did": self.did,
            "path": self.path,
            "text": self.text,
            "outcome": self.outcome,
        }


@dataclass
class Report:
    """The result of a check.

    Attributes:
        rse: the storage element.
        files: files that the catalogue says are there.
        bytes: their size.
        read: bytes whose checksum was computed.
        problems: what is wrong, or was.
    """

    rse: str
    files: int = 0
    bytes: int = 0
    read: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong any more."""
        return all(problem.solved for problem in self.problems)

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "rse": self.rse,
            "files": self.files,
            "bytes": self.bytes,
            "read_bytes": self.read,
            "clean": self.clean,
            "counts": self.counts(),
            "problems": [problem.as_dict() for problem in self.problems],
        }

    def lines(self) -> Iterable[str]:
        """For people: a line for each problem, then the sum."""
        for problem in self.problems:
            outcome = f" → {OUTCOMES[problem.outcome]}" if problem.outcome else ""
            yield f"{problem.kind:<16} {problem.did or problem.path}  {problem.text}{outcome}"
        if self.problems:
            yield ""
        for kind, count in self.counts().items():
            yield f"{count:>8} {KINDS[kind]}"
        left = sum(1 for problem in self.problems if not problem.solved)
        seen = f"{self.rse}: {self.files} files, {self.bytes / 1e6:.1f} MB"
        if not self.problems:
            yield f"{seen}, all as the catalogue says."
        elif left:
            yield f"{seen}; {left} problems are left."
        else:
            yield f"{seen}; all problems are solved."
