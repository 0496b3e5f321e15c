"""What can go wrong while something is isolated."""

from __future__ import annotations

from jupyterhub_dmsp.errors import DmspError


class SandboxError(DmspError):
    """The machine refused a part of the isolation."""


class ToolMissing(SandboxError):
    """A program that isolation needs is not installed."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"The program {program} is not installed.", f"`dmsp doctor` says how to get {program}."
        )


class CommandFailed(SandboxError):
    """A system command ended with an error; the message carries its last line."""

    def __init__(self, command: str, cause: str) -> None:
        super().__init__(
            f"`{command}` failed: {cause.strip().splitlines()[-1] if cause.strip() else 'no reason'}."
        )
