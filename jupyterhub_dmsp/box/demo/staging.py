"""Make the demo's files: run ``inside/make.py`` in its environment, read the catalogue that it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.profiles.builder import run_lines
from jupyterhub_dmsp.profiles.environments import Environments, EnvironmentSpec

INSIDE = Path(__file__).parent / "inside"
SPEC = EnvironmentSpec(slug="demo", lock=Path(__file__).parent / "requirements.lock")
TIMEOUT = 900.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class StagedFile:
    """A file in the staging folder."""

    did: Did
    bytes: int
    adler32: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A dataset to be: its files, and the positions of the sites that hold them."""

    did: Did
    files: tuple[Did, ...]
    sites: tuple[int, ...]
    open: bool
    meta: dict[str, Any]


@dataclass(frozen=True)
class Container:
    """A container to be."""

    did: Did
    children: tuple[Did, ...]
    meta: dict[str, Any]


@dataclass(frozen=True)
class Content:
    """What ``inside/make.py`` made."""

    folder: Path
    files: tuple[StagedFile, ...]
    datasets: tuple[Dataset, ...]
    containers: tuple[Container, ...]

    @classmethod
    def read(cls, folder: Path) -> Content | None:
        """The content of a staging folder; None when it is not finished."""
        try:
            data = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return cls(
            folder,
            tuple(StagedFile(_did(r), r["bytes"], r["adler32"], r["meta"]) for r in data["files"]),
            tuple(
                Dataset(_did(r), _dids(r, "files"), tuple(r["sites"]), r["open"], r["meta"])
                for r in data["datasets"]
            ),
            tuple(Container(_did(r), _dids(r, "children"), r["meta"]) for r in data["containers"]),
        )

    @cached_property
    def by_did(self) -> dict[Did, StagedFile]:
        """The files by their DID."""
        return {file.did: file for file in self.files}

    def limited_to(self, scopes: set[str]) -> Content:
        """Only what is in these scopes."""
        return Content(
            self.folder,
            tuple(file for file in self.files if file.did.scope in scopes),
            tuple(dataset for dataset in self.datasets if dataset.did.scope in scopes),
            tuple(container for container in self.containers if container.did.scope in scopes),
        )

    def path(self, did: Did) -> Path:
        """Where a file lies in the staging folder."""
        return self.folder / did.scope / did.name

    def sites_of(self, site_count: int) -> dict[Did, tuple[int, ...]]:
        """Where each file belongs: at the sites of all datasets that hold it."""
        found: dict[Did, set[int]] = {}
        for dataset in self.datasets:
            for did in dataset.files:
                found.setdefault(did, set()).update(site % site_count for site in dataset.sites)
        return {did: tuple(sorted(sites)) for did, sites in found.items()}


async def make(environments: Environments, folder: Path, owner: tuple[int, int] | None, say: Say) -> Content:
    """Make all files in ``folder``, which is emptied first.

    Args:
        environments: where the ``demo`` environment is, or will be built.
        folder: the staging folder.
        owner: uid and gid that the generator runs under and the files belong to; None for our own.
        say: told what is under way.

    Raises:
        DmspError: the environment or the files cannot be made.
    """
    environment = await environments.ensure(SPEC, lambda progress: say(progress.message))
    code = _prepare(folder, owner)
    argv = [str(environment / "bin" / "python"), "-B", str(code / "make.py"), str(folder)]
    environ = {"PATH": f"{environment}/bin:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    last = ""
    try:
        async with contextlib.aclosing(
            run_lines(argv, env=environ, timeout=TIMEOUT, user=owner, cwd=str(folder))
        ) as lines:
            async for line in lines:
                last = line.strip() or last
                if line.startswith("making "):
                    say(line)
    except (ChildProcessError, TimeoutError, OSError) as error:
        cause = last if isinstance(error, ChildProcessError) else str(error) or "it took too long"
        raise DmspError(
            f"The demo lake's files cannot be made: {cause}.", "Start again to try again."
        ) from error
    content = Content.read(folder)
    if content is None:
        raise DmspError("The demo lake's files cannot be made: their catalogue is missing.", "Start again.")
    shutil.rmtree(code)
    return content


def _prepare(folder: Path, owner: tuple[int, int] | None) -> Path:
    """An empty staging folder with a copy of the generator: its user may be unable to enter our own folder."""
    if folder.exists():
        shutil.rmtree(folder)
    code = folder / "code"
    code.mkdir(parents=True)
    for source in sorted(INSIDE.glob("*.py")):
        shutil.copyfile(source, code / source.name)
    if owner:
        for path in (folder, code, *code.iterdir()):
            os.chown(path, *owner)
    folder.chmod(0o700)
    return code


def _did(row: dict[str, Any]) -> Did:
    return Did(row["scope"], row["name"])


def _dids(row: dict[str, Any], key: str) -> tuple[Did, ...]:
    return tuple(Did(row["scope"], name) for name in row[key])
