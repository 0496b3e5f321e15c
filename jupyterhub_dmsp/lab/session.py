"""What a user's server knows of its place: ``/etc/dmsp/session.json``, or traits where there is no hub."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jupyterhub_dmsp.errors import DmspError


class SessionUnreadable(DmspError):
    """The session file is missing or is not what it should be."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class LakeInfo(_Part):
    """The lake, as the session is told of it."""

    id: str = ""
    name: str = "Data lake"
    rucio_url: str
    auth_url: str = ""
    scratch_rse: str = "SCRATCH"
    mount: str = "/scratch/lake"
    prefix: str = ""
    rule_lifetime: int = Field(14 * 86400, ge=60)
    mode: Literal["replica", "download"] = "replica"
    site: str = ""

    @property
    def key(self) -> str:
        """What attachments are kept under: it stays when the lake's address changes."""
        return self.id or self.rucio_url


class TokenInfo(_Part):
    """Where tokens come from: the hub's endpoint, or a file, or a command."""

    url: str = ""
    audience: str = "rucio"
    file: str = ""
    command: tuple[str, ...] = ()


class IdleInfo(_Part):
    """When the hub ends the session."""

    timeout: int = 0

    @property
    def interval(self) -> float:
        """Seconds between two looks at what goes on: a fraction of the time-out, a minute at most."""
        return min(60.0, max(0.5, self.timeout / 20)) if self.timeout else 60.0


class Session(_Part):
    """The whole session file."""

    user: str = ""
    account: str
    profile: str = ""
    experiments: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None
    lake: LakeInfo
    token: TokenInfo = TokenInfo()
    environment: str = ""


def load(path: Path) -> Session:
    """Read a session file; raises :class:`SessionUnreadable`."""
    try:
        return Session.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SessionUnreadable(f"The session file cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise SessionUnreadable(f"The session file is not valid at `{where}`: {fault['msg']}.") from error


def idle_info() -> IdleInfo:
    """When the hub ends this session, also where the rest of ``$DMSP_SESSION`` is of no use."""
    try:
        found = json.loads(Path(os.environ["DMSP_SESSION"]).read_bytes())
        return IdleInfo.model_validate(found["idle"])
    except (OSError, ValueError, LookupError, TypeError):
        return IdleInfo()


def runtime_directory() -> Path:
    """``$DMSP_RUNTIME``, else a directory below ``$XDG_RUNTIME_DIR``, else one of our own below /tmp; 0700.

    Raises:
        SessionUnreadable: it belongs to somebody else or cannot be made.
    """
    chosen = os.environ.get("DMSP_RUNTIME")
    if not chosen:
        base = os.environ.get("XDG_RUNTIME_DIR") or ""
        own = Path(tempfile.gettempdir()) / f"dmsp-{os.getuid()}"
        chosen = str(Path(base) / "dmsp") if base and Path(base).is_dir() else str(own)
    path = Path(chosen)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if status.st_uid != os.getuid() or path.is_symlink():
            raise SessionUnreadable(
                f"{path} belongs to somebody else.", "Set DMSP_RUNTIME to a directory of yours."
            )
        path.chmod(0o700)
    except OSError as error:
        raise SessionUnreadable(f"{path} cannot be used: {error.strerror}.") from error
    return path


def data_directory() -> Path:
    """``~/.local/share/dmsp`` (or below ``$XDG_DATA_HOME``), 0700: what survives the server."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    path = Path(base) / "dmsp"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
