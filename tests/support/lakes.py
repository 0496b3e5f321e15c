"""The lake of a running box, as its administrator sees it: for tests and benchmarks that need data of their own."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from boxes import Box

from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile
from jupyterhub_dmsp.lake.userpass import UserPassSource

SITE = "SITE-NORTH"
SCRATCH = "SCRATCH"
CHUNK = 1 << 20


def administrator(box: Box) -> RucioClient:
    """Rucio's root account on a box."""
    url = box.part("rucio")["address"]
    tokens = UserPassSource(url, "root", "root", lambda: box.secret("rucio-root-password"))
    return RucioClient(url, url, "root", tokens)


def place(box: Box, rse: str, did: Did) -> Path:
    """Where a file lies in the storage of an RSE (Rucio's `hash` algorithm)."""
    digest = hashlib.md5(str(did).encode(), usedforsecurity=False).hexdigest()
    scope = did.scope.replace(".", "/") if did.scope.startswith(("user", "group")) else did.scope
    return box.state / "storage" / rse / "lake" / scope / digest[:2] / digest[2:4] / did.name


def write_file(path: Path, size: int, seed: int, owner: Path) -> str:
    """Write a file of random bytes that belongs to the lake; returns its adler32 as Rucio writes it."""
    status = owner.stat()
    path.parent.mkdir(parents=True, exist_ok=True)
    block = hashlib.shake_256(str(seed).encode()).digest(min(size, CHUNK)) or b""
    checksum, left = 1, size
    with path.open("wb") as file:
        while left > 0:
            part = block[:left]
            checksum = zlib.adler32(part, checksum)
            file.write(part)
            left -= len(part)
    path.chmod(0o640)
    if os.geteuid() == 0:
        for made in (path, path.parent, path.parent.parent, path.parent.parent.parent):
            os.chown(made, status.st_uid, status.st_gid)
    return f"{checksum:08x}"


async def make_dataset(
    box: Box, client: RucioClient, dataset: Did, sizes: Iterable[int], *, rse: str = SITE
) -> list[LakeFile]:
    """Write files at a site, register them, and put them into a new dataset."""
    owner = box.state / "storage" / rse / "lake"
    files = []
    for number, size in enumerate(sizes):
        did = Did(dataset.scope, f"{dataset.name}.{number:06d}.bin")
        checksum = write_file(place(box, rse, did), size, number, owner)
        files.append(LakeFile(did, size, checksum))
    await client.add_replicas(rse, files)
    await client.add_dids([(dataset, "DATASET")])
    await client.attach(dataset, [file.did for file in files])
    return files
