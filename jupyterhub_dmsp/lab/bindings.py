"""Which variable of which notebook holds which attachment: kept for ever, and mirrored for kernels that start.

A kernel knows its notebook by ``JPY_SESSION_NAME`` (the path on disk), so the mirror is one file a notebook below
``$DMSP_RUNTIME/bindings``, named by the SHA-256 of that path.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path

from jupyterhub_dmsp.lab.errors import BadRequest
from jupyterhub_dmsp.lab.manifest import write_atomic
from jupyterhub_dmsp.lab.records import Records
from jupyterhub_dmsp.lab.snippets import valid


class Bindings:
    """Bindings by notebook.

    Args:
        records: where they are kept.
        runtime: the runtime directory.
        root: the directory that notebooks' paths are relative to.
    """

    def __init__(self, records: Records, runtime: Path, root: Path) -> None:
        self._records = records
        self._mirror = runtime / "bindings"
        self._root = root
        self._known: dict[str, dict[str, str]] = {}

    async def load(self) -> None:
        """Read all, and write the mirror of what is new: at the start, and when another session has written."""
        found: dict[str, dict[str, str]] = {}
        for notebook, variable, ident in await self._records.bindings():
            found.setdefault(notebook, {})[variable] = ident
        before, self._known = self._known, found
        for notebook in before.keys() | found.keys():
            if before.get(notebook) != found.get(notebook):
                await self._write(notebook)

    def of(self, notebook: str) -> list[dict[str, str]]:
        """The bindings of a notebook."""
        known = self._known.get(self._path(notebook), {})
        return [{"variable": variable, "attachment": ident} for variable, ident in known.items()]

    async def put(self, notebook: str, variable: str, ident: str) -> None:
        """Bind a variable."""
        if not valid(variable):
            raise BadRequest(f"“{variable[:40]}” cannot be the name of a variable in all languages.")
        path = self._path(notebook)
        await self._records.bind(path, variable, ident)
        self._known.setdefault(path, {})[variable] = ident
        await self._write(path)

    async def delete(self, notebook: str, variable: str) -> bool:
        """Forget a binding; False when there was none."""
        path = self._path(notebook)
        self._known.get(path, {}).pop(variable, None)
        found = await self._records.unbind(path, variable)
        await self._write(path)
        return found

    async def forget(self, notebook: str) -> None:
        """The notebook (or a folder of notebooks) is gone: another of the same name starts with nothing."""
        for path in self._below(self._path(notebook)):
            for variable in list(self._known[path]):
                await self.delete(path, variable)

    async def move(self, before: str, after: str) -> None:
        """The notebook (or a folder of notebooks) has another name."""
        old, new = self._path(before), self._path(after)
        for path in self._below(old):
            for variable, ident in list(self._known[path].items()):
                await self.put(new + path.removeprefix(old), variable, ident)
                await self.delete(path, variable)

    def _below(self, path: str) -> list[str]:
        return [known for known in self._known if known == path or known.startswith(path + os.sep)]

    def _path(self, notebook: str) -> str:
        """The notebook's path on disk; absolute ones (from kernels) are taken as they are."""
        if not notebook or "\0" in notebook or len(notebook) > 4096:
            raise BadRequest("The notebook's path is missing or is none.")
        return os.path.normpath(self._root / notebook)

    async def _write(self, path: str) -> None:
        name = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        body = [{"variable": v, "attachment": ident} for v, ident in self._known.get(path, {}).items()]
        text = json.dumps({"notebook": path, "bindings": body})
        await asyncio.to_thread(write_atomic, self._mirror / f"{name}.json", text)
