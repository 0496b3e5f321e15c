# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
"""Make the demo lake's files and their catalogue: ``python make.py STAGING``.

Runs in the ``demo`` environment, knows nothing of Rucio. Files go to ``STAGING/<scope>/<name>``; the last thing
written is ``STAGING/catalogue.json``: ``{"files": [{scope, name, bytes, adler32, meta}], "datasets": [{scope, name,
files, sites, open, meta}], "containers": [{scope, name, children, meta}]}``. ``files`` and ``children`` are names in
the same scope, ``sites`` are positions in the list of site RSEs. Containers come after what they contain.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import collider
import km3net
import open_data

Meta = dict[str, Any]


class Catalogue:
    """What has been made so far."""

    def __init__(self, staging: Path) -> None:
        self.staging = staging
        self.files: dict[tuple[str, str], dict[str, Any]] = {}
        self.datasets: list[dict[str, Any]] = []
        self.containers: list[dict[str, Any]] = []

    def place(self, scope: str, name: str) -> Path:
        """Where a file is to be written."""
        folder = self.staging / scope
        folder.mkdir(exist_ok=True)
        return folder / name

    def add_file(self, scope: str, name: str, meta: Meta) -> str:
        """Take in a file that has been written; gives its name."""
        path = self.place(scope, name)
        self.files[scope, name] = {
            "scope": scope,
            "name": name,
            "bytes": path.stat().st_size,
            "adler32": adler32(path),
            "meta": meta,
        }
        return name

    def copy(self, scope: str, source: Path, meta: Meta, name: str = "") -> str:
        """Take in a file that exists elsewhere; gives its name."""
        target = self.place(scope, name or source.name)
        target.write_bytes(source.read_bytes())
        return self.add_file(scope, target.name, meta)

    def dataset(
        self,
        scope: str,
        name: str,
        files: Iterable[str],
        meta: Meta,
        sites: tuple[int, ...],
        *,
        is_open: bool = False,
    ) -> str:
        """Add a dataset of files taken in before; gives its name."""
        row = {"scope": scope, "name": name, "files": list(files), "meta": meta}
        self.datasets.append({**row, "sites": list(sites), "open": is_open})
        return name

    def container(self, scope: str, name: str, children: Iterable[str], meta: Meta) -> str:
        """Add a container of what was added before; gives its name."""
        self.containers.append({"scope": scope, "name": name, "children": list(children), "meta": meta})
        return name

    def write(self) -> None:
        """Write the catalogue, whole or not at all."""
        data = {"files": list(self.files.values()), "datasets": self.datasets, "containers": self.containers}
        part = self.staging / "catalogue.json.part"
        part.write_text(json.dumps(data, indent=1), encoding="utf-8")
        part.replace(self.staging / "catalogue.json")


def adler32(path: Path) -> str:
    """The checksum that Rucio keeps: eight hex digits."""
    value = 1
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.adler32(block, value)
    return f"{value & 0xFFFFFFFF:08x}"


def main() -> None:
    """Make everything, telling what is under way on standard output."""
    catalogue = Catalogue(Path(sys.argv[1]))
    for title, module in (("KM3NeT files", km3net), ("Z samples", collider), ("open data", open_data)):
        sys.stdout.write(f"making {title}\n")
        sys.stdout.flush()
        module.fill(catalogue)
    catalogue.write()


if __name__ == "__main__":
    main()
