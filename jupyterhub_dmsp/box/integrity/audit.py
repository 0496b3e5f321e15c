"""Checks a storage element of a running lake: owners and modes here, all else in Rucio's environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.box import confine
from jupyterhub_dmsp.box.integrity import access
from jupyterhub_dmsp.box.integrity.facts import Facts
from jupyterhub_dmsp.box.integrity.report import Problem, Report
from jupyterhub_dmsp.box.rucio import parts
from jupyterhub_dmsp.errors import DmspError

#: Told what is done, how much of it and of how much (0: not known), and the bytes read.
Say = Callable[[str, int, int, int], None]
#: The longest line that the checking process writes: a name has 250 characters, a text some more.
_LINE = 1 << 16


@dataclass(frozen=True)
class Options:
    """How to check.

    Attributes:
        checksums: compute adler32 of every file; else sizes alone.
        repair: put right what can be.
        give_up: with ``repair``: have Rucio take files without another copy out of their datasets.
        older_than: seconds since the last change after which an unknown file is not one that is just arriving.
        wait: seconds to wait for new copies.
    """

    checksums: bool = True
    repair: bool = False
    give_up: bool = False
    older_than: float = 3600.0
    wait: float = 600.0


def _quiet(_what: str, _done: int, _total: int, _read: int) -> None:
    return None


async def check(facts: Facts, rse: str, options: Options, say: Say = _quiet) -> Report:
    """Check a storage element, and repair it if asked to.

    Args:
        facts: the lake; its database must run, for a repair its daemons too.
        rse: which storage element.
        options: how.
        say: told about progress.

    Raises:
        DmspError: there is no such storage element, or the check could not be done.
    """
    report = Report(rse)
    # First what root must do, so that Rucio can then read and remove.
    say("looking at owners and modes", 0, 0, 0)
    report.problems = await asyncio.to_thread(access.check, facts, rse, repair=options.repair)
    await _compare(facts, rse, options, say, report)
    return report


async def _compare(facts: Facts, rse: str, options: Options, say: Say, report: Report) -> None:
    process = await asyncio.create_subprocess_exec(
        *_command(facts),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=parts.environment(facts.rucio),
        cwd="/",
        limit=_LINE,
    )
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("no pipes")
    try:
        errors = asyncio.create_task(process.stderr.read())
        process.stdin.write(json.dumps(_order(facts, rse, options)).encode())
        process.stdin.close()
        finished = False
        found: dict[tuple[str, str], Problem] = {}
        async for line in process.stdout:
            finished = _take(json.loads(line), found, say, report) or finished
        code = await process.wait()
        last = (await errors).decode(errors="replace").strip().rpartition("\n")[2]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code or not finished:
        text = last or f"the checking process ended with code {code}"
        raise DmspError(f"{rse} could not be checked: {text}", "`dmsp status` shows whether the database runs.")
    report.problems += found.values()


def _order(facts: Facts, rse: str, options: Options) -> dict[str, Any]:
    return {
        "rse": rse,
        "scratch": facts.scratch,
        "checksums": options.checksums,
        "repair": options.repair,
        "give_up": options.give_up,
        "older_than": options.older_than,
        "wait": options.wait,
        "threads": max(2, min(4, os.cpu_count() or 2)),
        "keep": access.kept_directories(facts, rse),
    }


def _take(said: dict[str, Any], found: dict[tuple[str, str], Problem], say: Say, report: Report) -> bool:
    """Take in one line; whether it was the last."""
    if progress := said.get("progress"):
        say(progress["what"], progress["done"], progress["total"], progress["bytes"])
    if problem := said.get("problem"):
        found[(problem["kind"], problem["path"])] = Problem(**problem)
    if outcome := said.get("outcome"):
        key = (outcome["kind"], outcome["path"])
        found[key] = replace(found[key], text=outcome["text"], outcome=outcome["outcome"])
    if final := said.get("report"):
        report.files, report.bytes, report.read = final["files"], final["bytes"], final["read"]
        return True
    return False


def _command(facts: Facts) -> list[str]:
    """The checking process, confined as Rucio's other processes are."""
    return confine.confine(
        parts.audit_command(facts.env),
        uid=facts.uid,
        gid=facts.gid,
        name="rucio",
        etc=facts.etc,
        writable=[facts.rucio, facts.storage],
        readable=[Path(sys.prefix), Path(sys.base_prefix), *parts.readable(facts.env)],
    )
