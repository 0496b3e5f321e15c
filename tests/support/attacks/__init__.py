"""The tries of the attack test, as data: what the second user does to reach what is not theirs.

``TRIES`` is all of them; ``docs/explanation/security.md`` shows the same table, and a unit test compares the two.
Most are a few lines of Python that run in the attacker's session: ``t`` holds what the attacker could know or guess,
and a true result means that the try succeeded. The same lines run where they should succeed
(:attr:`Try.control`), so a broken probe cannot pass.
"""

from __future__ import annotations

from attacks import browser, files, hub, lake, system
from attacks.model import RUNNER, Try

__all__ = ["PLAIN", "RUNNER", "TRIES", "Try", "table"]

PLAIN: list[Try] = [*files.TRIES, *system.TRIES, *hub.TRIES, *lake.TRIES]
"""Those that are code run in a session."""

TRIES: list[Try] = [*PLAIN, *browser.TRIES]

CONTROLS = {
    "victim": "its owner",
    "own": "on own things",
    "root": "the machine's root",
    "admin": "an administrator",
}


def table() -> str:
    """The table for the security page, Markdown."""
    lines = ["| try | from | what | why it fails | succeeds for |", "| --- | --- | --- | --- | --- |"]
    for one in TRIES:
        lines.append(f"| `{one.id}` | {one.where} | {one.what} | {one.why} | {CONTROLS[one.control]} |")
    return "\n".join(lines) + "\n"
