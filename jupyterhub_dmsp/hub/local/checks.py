"""What is looked at before a session starts here; each refusal is a sentence for the user. No Jupyter.

A check that cannot change the outcome is a step on the progress page, not a refusal: a session without scratch is
of use (notebooks, files of one's own), and attached data appear in it when scratch is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.local import room
from jupyterhub_dmsp.profiles.launch import Launch
from jupyterhub_dmsp.scratch.mount import Mount
from jupyterhub_dmsp.settings import Settings

MIB = 1024**2
PAUSE = 0.5
Say = Callable[[str], None]

_mounts: dict[Path, Mount] = {}


class NotHere(DmspError):
    """This machine cannot give a session what its profile asks for."""


async def home(state: Path, user: str, settings: Settings, say: Say) -> None:
    """Refuse a start that would fill the disk that all share; warn about a home that is full by itself.

    Somebody whose own quota is used up needs a session to tidy up, and gets it.
    """
    least = settings.sessions.home_free
    if not least:
        return
    homes = state / "homes"
    left, own = await asyncio.to_thread(room.disk, homes, homes / user)
    if left >= least:
        return
    if own:
        say(f"Your home folder is nearly full ({left // MIB} MB are left): delete something before you go on")
        return
    raise NotHere(
        f"The disk with the home folders is full: {left // MIB} MB are left, and a session needs {least // MIB} MB."
    )


async def scratch(point: Path, wait: float, say: Say) -> bool:
    """Wait a little for a scratch mount that does not answer; whether it does.

    The box cures its mount within seconds; nothing is cured from here.

    Args:
        point: where it is mounted on this machine.
        wait: seconds to wait for the cure.
        say: takes what the user should know.
    """
    mount = _mounts.setdefault(point, Mount(point, timeout=2.0, needed=True))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    told = False
    while (await mount.health()).state != "ok":
        if loop.time() >= deadline:
            say(
                "Scratch does not answer: the session starts without it, and attached data appear when it is back"
            )
            return False
        if not told:
            say("Waiting for scratch, which does not answer")
            told = True
        # Nobody tells when a mount is back.
        await asyncio.sleep(PAUSE)
    if told:
        say("Scratch is back")
    return True


def mounts(launch: Launch, settings: Settings) -> None:
    """Refuse a profile whose folders this machine does not have, unless they are optional. Reads disks."""
    lake = PurePosixPath(settings.lake.mount)
    for mount in launch.mounts:
        inside = PurePosixPath(mount.path)
        if inside.is_relative_to(lake.parent) or lake.is_relative_to(inside):
            raise NotHere(f"{launch.profile.name} mounts {mount.path}, where scratch is.")
        if mount.optional:
            continue
        if mount.claim:
            raise NotHere(f"{launch.profile.name} needs the volume {mount.claim}, which only a cluster has.")
        if not Path(mount.host).is_dir():
            raise NotHere(f"{launch.profile.name} needs {mount.path}, which this machine does not have.")
