"""Kernels of an environment: what a profile declares, and the ``kernel.json`` that Jupyter reads.

The format of ``kernel.json`` is Jupyter's (jupyter_client, "Kernel specs").
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CONNECTION_FILE = "{connection_file}"

PYTHON_COMMAND = (
    f"python -m ipykernel_launcher -f {CONNECTION_FILE} --InteractiveShellApp.extra_extensions=dmsp"
)
"""Starts IPython's kernel with ``dmsp`` loaded, so a notebook's variables are bound before its first cell."""


class Kernel(BaseModel):
    """A kernel that a profile offers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,59}$")] = Field(
        description="Name of the kernelspec, as notebooks store it."
    )
    display_name: str = Field(min_length=1, max_length=80, description="As the launcher shows it.")
    language: str = Field(min_length=1, max_length=40, description="Language, as notebooks store it.")
    command: str = Field(
        "",
        description=f"How it starts, with {CONNECTION_FILE} in it; a first word without a slash is looked up "
        "in the environment. May stay empty for python.",
    )

    @field_validator("command")
    @classmethod
    def _runnable(cls, value: str) -> str:
        if value and CONNECTION_FILE not in shlex.split(value):
            raise ValueError(f"must contain {CONNECTION_FILE} as a word of its own")
        return value

    @model_validator(mode="after")
    def _has_command(self) -> Self:
        if not self.command and self.language != "python":
            raise ValueError(f"{self.name} needs a command: only python has a default one")
        return self

    def argv(self, environment: Path) -> list[str]:
        """The command line inside an environment."""
        first, *rest = shlex.split(self.command or PYTHON_COMMAND)
        if "/" not in first:
            first = str(environment / "bin" / first)
        return [first, *rest]

    def spec(self, environment: Path, profile: str) -> dict[str, Any]:
        """The content of ``kernel.json``."""
        return {
            "argv": self.argv(environment),
            "display_name": self.display_name,
            "language": self.language,
            "env": {"PATH": f"{environment}/bin:${{PATH}}", "DMSP_PROFILE": profile},
            "metadata": {"debugger": self.language == "python", "dmsp": {"profile": profile}},
        }


def write_kernelspecs(environment: Path, profile: str, kernels: tuple[Kernel, ...]) -> list[Path]:
    """Write ``share/jupyter/kernels/<name>/kernel.json`` for each kernel and remove all others.

    Packages such as ipykernel and metakernel bring kernelspecs of their own, which name no interpreter and
    would be offered beside the profile's.
    """
    folder = environment / "share" / "jupyter" / "kernels"
    wanted = {kernel.name for kernel in kernels}
    if folder.is_dir():
        for found in folder.iterdir():
            if found.name not in wanted:
                _remove(found)
    written = []
    for kernel in kernels:
        target = folder / kernel.name
        target.mkdir(parents=True, exist_ok=True)
        path = target / "kernel.json"
        # The package's file may be a hard link into uv's cache: replace it, never write through it.
        path.unlink(missing_ok=True)
        path.write_text(json.dumps(kernel.spec(environment, profile), indent=2) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            _remove(child)
        path.rmdir()
    else:
        path.unlink()
