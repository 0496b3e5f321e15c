"""What a check must know of the box, remembered at each start of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyterhub_dmsp.box.files import write_private
from jupyterhub_dmsp.box.rucio import storage
from jupyterhub_dmsp.errors import DmspError

_FILE = "integrity.json"


@dataclass(frozen=True)
class Facts:
    """The storage of a lake and who may read it.

    Attributes:
        storage: directory of all storage elements.
        rucio: Rucio's state directory.
        env: Rucio's environment.
        etc: directory for the generated ``/etc`` files of the checking process.
        scratch: the storage element that sessions see.
        sites: the others.
        scopes: scope to the gid of its members, on scratch.
        uid: the Rucio uid.
        gid: the Rucio gid.
    """

    storage: Path
    rucio: Path
    env: Path
    etc: Path
    scratch: str
    sites: tuple[str, ...]
    scopes: Mapping[str, int]
    uid: int
    gid: int

    def root(self, rse: str) -> Path:
        """Where the files of a storage element are; raises :class:`DmspError` when the box has none of that name."""
        if rse not in (self.scratch, *self.sites):
            known = ", ".join((self.scratch, *self.sites))
            raise DmspError(f"This box has no storage element {rse}.", f"Known: {known}.")
        return storage.root(self.storage, rse)

    def remember(self, state: Path) -> None:
        """Write them for :meth:`of`."""
        paths = {name: str(getattr(self, name)) for name in ("storage", "rucio", "env", "etc")}
        write_private(state / "run" / _FILE, json.dumps({**asdict(self), **paths}))

    @classmethod
    def of(cls, state: Path) -> Facts:
        """Those of a box that is up; raises :class:`DmspError`."""
        try:
            data = json.loads((state / "run" / _FILE).read_text())
        except (OSError, ValueError) as error:
            raise DmspError(
                "This box was started by another version of the program.", "`dmsp down`, then `dmsp up`."
            ) from error
        paths = {name: Path(data[name]) for name in ("storage", "rucio", "env", "etc")}
        return cls(**{**data, **paths, "sites": tuple(data["sites"])})
