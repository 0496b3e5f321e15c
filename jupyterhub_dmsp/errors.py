"""The errors that reach people: one clear sentence, and the way out."""

from __future__ import annotations


class DmspError(Exception):
    """Something a user or an admin can act upon.

    Args:
        message: one sentence that says what is wrong, without secrets and without server paths.
        remedy: what to do about it, one sentence; empty when the message says it already.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()
