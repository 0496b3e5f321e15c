"""Bringing the state that an earlier version wrote up to date: `dmsp up` does it, under the box's lock.

A step may be interrupted at any point and is then run again from its beginning, so each is idempotent; the version is
written when it is done. What a step changes is copied to ``upgrades/<version>/`` first, once. The databases of
JupyterHub, the issuer and Rucio have versions of their own and are brought up to date by their programs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_dmsp.box.state import SCHEMA, State
from jupyterhub_dmsp.errors import DmspError

SAFETY = "upgrades"
log = logging.getLogger("dmsp.box")


@dataclass(frozen=True)
class Step:
    """From the version before to ``version``.

    Attributes:
        version: which the state has afterwards.
        title: what is done, for people.
        changes: files and directories, relative to the state, that are copied first.
        run: does it; run again after an interruption, it must come to the same end.
    """

    version: int
    title: str
    changes: tuple[str, ...]
    run: Callable[[State], None]


def upgrade(state: State, say: Callable[[str], None], steps: Sequence[Step] | None = None) -> None:
    """Run the steps that the state lacks, one after the other. The caller holds the lock.

    Raises:
        DmspError: a step could not be done; the state has the version of the last one that was.
    """
    for step in STEPS if steps is None else steps:
        if state.schema() >= step.version:
            continue
        say(f"Upgrading the state to version {step.version}: {step.title}.")
        log.info("upgrading the state from %d to %d: %s", state.schema(), step.version, step.title)
        try:
            keep(state, str(step.version), step.changes)
            step.run(state)
            state.write_schema(step.version)
        except OSError as error:
            raise DmspError(
                f"The state could not be upgraded to version {step.version}: {error.strerror or error}.",
                f"What it was before lies in {state / SAFETY / str(step.version)}.",
            ) from error


def keep(state: State, name: str, paths: Sequence[str]) -> Path:
    """Copy files or directories to ``upgrades/<name>/``, owners and modes too; nothing if that was done before.

    Returns:
        The folder of the copy.
    """
    folder = state / SAFETY / name
    if folder.exists():
        return folder
    part = folder.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    (state / SAFETY).chmod(0o700)
    for path in paths:
        source, target = state / path, part / path
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, copy_function=_copy)
        else:
            _copy(str(source), str(target))
    part.rename(folder)
    return folder


def _copy(source: str, target: str) -> None:
    shutil.copy2(source, target, follow_symlinks=False)
    if os.geteuid() == 0:
        status = os.stat(source, follow_symlinks=False)  # noqa: PTH116
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)


def _name_the_lake(state: State) -> None:
    """Sessions kept what is attached under Rucio's address, and lost sight of it when the address changed."""
    try:
        port = int(json.loads((state / "ports.json").read_text())["rucio"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # the box never was up: the lake is named at its first start
    host = "127.0.0.1"
    if os.geteuid() == 0:
        try:
            subnet = str(json.loads((state / "run" / "network.json").read_text())["subnet"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        host = f"{subnet.rsplit('.', 1)[0]}.1"
    state.lake_id(f"http://{host}:{port}")


STEPS = (Step(2, "the lake gets a name that does not change with its address", ("ids",), _name_the_lake),)

if not STEPS or STEPS[-1].version != SCHEMA:
    raise AssertionError("the last step leads to the schema of today")
