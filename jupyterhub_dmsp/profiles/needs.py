"""What a profile needs of the machine, beyond its environment."""

from __future__ import annotations

import shutil
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.profiles.catalogue import Profile

HEADERS = Path("/usr/include/c++")


class NeedMissing(DmspError):
    """The machine lacks something that a profile needs."""


def has_headers() -> bool:
    """Whether the C++ standard library's headers are there, which ROOT's interpreter reads at every start."""
    return shutil.which("g++") is not None and any(HEADERS.glob("*/vector"))


def check(profile: Profile) -> None:
    """Raise :class:`NeedMissing` when this machine cannot run a profile."""
    if "headers" in profile.needs and not has_headers():
        raise NeedMissing(
            f"{profile.name} needs the C++ headers, which are not installed here.", "apt install g++"
        )
