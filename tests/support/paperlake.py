"""A lake of paper: it does what it is told, which a real one cannot be made to do on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.lab.attachments import Attachments
from jupyterhub_dmsp.lab.flow import Tools
from jupyterhub_dmsp.lab.manifest import Manifests
from jupyterhub_dmsp.lab.records import Attachment, Records
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import LakeError
from jupyterhub_dmsp.lake.models import Failure, LakeFile, Room, Rule, Usage
from jupyterhub_dmsp.lake.rules import Pinned
from jupyterhub_dmsp.scratch.links import Links
from jupyterhub_dmsp.scratch.mount import Mount
from jupyterhub_dmsp.scratch.paths import Paths

LAKE = "http://rucio.test"
DS = Did("dmsp", "ds")


@dataclass
class Paper:
    """A lake that does what it is told."""

    contents: list[LakeFile]
    rule_now: Rule
    raises: dict[str, LakeError] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    room_now: Room | None = None
    account: str = "me"
    stuck: int = 0

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.raises:
            raise self.raises[name]

    async def files(self, did: Did) -> AsyncIterator[list[LakeFile]]:
        self._call("files")
        yield self.contents

    async def pin(self, did: Did, rse: str, lifetime: int, comment: str) -> Pinned:
        self._call("pin")
        return Pinned("rule1", None, True)

    async def did(self, did: Did) -> None:
        self._call("did")

    async def rule(self, rule_id: str) -> Rule:
        self._call("rule")
        return self.rule_now

    async def own_rules(self) -> list[Rule]:
        self._call("own_rules")
        return [self.rule_now]

    async def analysis(self, rule_id: str) -> str:
        self._call("analysis")
        return "RequestErrMsg.TRANSFER_FAILED:source file is missing"

    async def failures(self, rule_id: str) -> list[Failure]:
        self._call("failures")
        return [Failure(Did("dmsp", f"f{n:03d}"), f"reason {n}") for n in range(self.stuck)]

    async def boost(self, rule_id: str) -> None:
        self._call("boost")

    async def mark_in_use(self, rule: Rule, until: float) -> None:
        self._call("mark_in_use")
        self.rule_now = replace(self.rule_now, in_use_until=until)

    async def usage(self, account: str) -> list[Usage]:
        self._call("usage")
        return self.usages

    async def room(self, rse: str) -> Room | None:
        self._call("room")
        return self.room_now

    async def set_lifetime(self, rule_id: str, seconds: int) -> None:
        self._call("set_lifetime")

    async def end_rule(self, rule_id: str, purge: bool) -> None:
        self._call(f"end_rule {purge}")

    async def bytes_done(self, did: Did, rse: str) -> int | None:
        self._call("bytes_done")
        return 5


@dataclass
class Bench:
    """A manager on a temporary scratch."""

    root: Path
    lake: Paper
    told: list[tuple[str, int]] = field(default_factory=list)
    closed: bool = False
    run: str = "run"

    def __post_init__(self) -> None:
        (self.root / "mount").mkdir(exist_ok=True)
        self.paths = Paths(self.root / "mount")
        self.mount = Mount(self.root / "mount", timeout=2)
        self.records = Records(self.root / "attachments.sqlite", LAKE)
        self.tools = Tools(
            self.lake,
            "SCRATCH",
            self.paths,
            self.mount,
            self.records,
            Manifests(self.root / self.run),
            Links(self.root / "home" / "datasets"),
            self._changed,
        )
        self.manager = Attachments(self.tools, LAKE, 86400)

    def _changed(self, attachment: Attachment) -> None:
        self.told.append((attachment.state, attachment.seq))
        self.manager.note(attachment)

    def land(self, *numbers: int, content: bytes = b"x" * 10) -> None:
        for number in numbers:
            path = Path(self.paths.of("dmsp", f"f{number}"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def set_rule(self, **changes: Any) -> None:
        self.lake.rule_now = replace(self.lake.rule_now, **changes)

    async def until(self, ident: str, *states: str) -> Attachment:
        async with asyncio.timeout(10):
            while (found := self.manager.get(ident)).state not in states:
                await asyncio.sleep(0.01)
        return found

    def manifest(self, ident: str) -> dict[str, Any]:
        return dict(json.loads((self.root / self.run / "attachments" / ident / "manifest.json").read_text()))

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        await self.manager.stop()
        await self.records.close()
