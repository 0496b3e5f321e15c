"""Hands that damage a lake on purpose, and look whether it is whole again."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

from testlake import GROUPS, RUCIO_UID, SCRATCH, SITES, Lake

from jupyterhub_dmsp.box.integrity import audit
from jupyterhub_dmsp.box.integrity.facts import Facts
from jupyterhub_dmsp.box.integrity.report import Report


class Damage:
    """A lake that may be damaged."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    @property
    def facts(self) -> Facts:
        lake = self.lake
        return Facts(
            storage=lake.plan.storage,
            rucio=lake.state / "rucio",
            env=lake.env,
            etc=lake.state / "etc" / "integrity",
            scratch=SCRATCH,
            sites=SITES,
            scopes=GROUPS,
            uid=RUCIO_UID,
            gid=RUCIO_UID,
        )

    async def check(self, rse: str = SCRATCH, **options: Any) -> Report:
        """``dmsp scratch check``."""
        return await audit.check(self.facts, rse, audit.Options(**options))

    def dataset(self, dataset: str, files: dict[str, bytes], *sites: str) -> list[str]:
        """Files at sites (the first one when none is named), in a dataset; their DIDs."""
        first, *others = sites or (SITES[0],)
        dids = self.lake.put(dataset, files, first)
        for did in dids:
            self.own(first, did)
        scope = dataset.split(":")[0]
        for other in others:
            self.copy(other, {f"{scope}:{name}": content for name, content in files.items()})
        return dids

    def copy(self, rse: str, files: dict[str, bytes], *, register: bool = True) -> None:
        """The same files at another storage element."""
        replicas = []
        for did, content in files.items():
            self.write(rse, did, content)
            scope, name = did.split(":", 1)
            adler = f"{zlib.adler32(content):08x}"
            replicas.append({"scope": scope, "name": name, "bytes": len(content), "adler32": adler})
        root = self.lake.root
        for start in range(0, len(replicas), 1000) if register else ():
            root("POST", "/replicas", {"rse": rse, "files": replicas[start : start + 1000]})

    def write(self, rse: str, did: str, content: bytes) -> Path:
        """Write a file behind Rucio's back, as the lake would own it."""
        place = self.lake.place(rse, did)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("r+b" if place.exists() else "wb") as file:  # in place: it stays the same file
            file.write(content)
            file.truncate(len(content))
        self.own(rse, did)
        return place

    def own(self, rse: str, did: str) -> None:
        """File and directories belong to whom they should."""
        group = GROUPS[did.split(":")[0]] if rse == SCRATCH else RUCIO_UID
        place = self.lake.place(rse, did)
        for path in (place, *place.parents):
            if path == self.facts.root(rse):
                return
            os.chown(path, RUCIO_UID, group)
            path.chmod(0o640 if path == place else 0o2750)

    def end_all(self) -> None:
        """Nothing is on scratch any more, neither in the catalogue nor on the disk."""
        root = self.lake.root
        for rule in root("GET", "/rules/"):
            if rule["rse_expression"] == SCRATCH:
                root("PUT", f"/rules/{rule['id']}", {"options": {"lifetime": 0, "purge_replicas": True}})
        count = f"select count(*) from replicas r join rses e on e.id=r.rse_id where e.rse='{SCRATCH}'"
        self.lake.until(lambda: self.lake.sql(count) == "[(0,)]", 1800, "an empty catalogue")
        assert self.files() == []

    def files(self, rse: str = SCRATCH) -> list[Path]:
        """All files that are there now; directories may vanish meanwhile."""
        return sorted(Path(where, name) for where, _, names in os.walk(self.facts.root(rse)) for name in names)

    def flip(self, rse: str, did: str) -> None:
        """One bit, the same size."""
        content = bytearray(self.lake.place(rse, did).read_bytes())
        content[len(content) // 2] ^= 1
        self.write(rse, did, bytes(content))

    def truncate(self, rse: str, did: str) -> None:
        """The second half is gone."""
        content = self.lake.place(rse, did).read_bytes()
        self.write(rse, did, content[: len(content) // 2])

    def remove(self, rse: str, did: str) -> None:
        """The file is gone, and the catalogue does not know."""
        self.lake.place(rse, did).unlink()
