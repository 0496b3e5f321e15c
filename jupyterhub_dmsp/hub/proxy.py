"""The public proxy as a part of its own: traefik, started and stopped apart from the hub.

So a hub that dies takes no connection with it, and leaves no orphan. The hub writes routes into a file that traefik
watches; this module writes what traefik reads once, at its start. Light: imports no JupyterHub.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlparse

from jupyterhub_dmsp.errors import DmspError

PUBLIC, API = "http", "auth_api"
"""Names of traefik's entry points, as jupyterhub-traefik-proxy expects them."""

_STATIC = """\
[api]

[ping]
  entryPoint = "{api}"

[log]
  level = "WARN"

[global]
  checkNewVersion = false
  sendAnonymousUsage = false

[entryPoints.{public}]
  address = "{public_address}"
  # Uploads and long notebook requests have no limit in time; 0 switches traefik's 60 s off.
  [entryPoints.{public}.transport.respondingTimeouts]
    readTimeout = 0
  # At the end open connections (notebooks, event streams) are not waited for: their servers have gone before.
  [entryPoints.{public}.transport.lifeCycle]
    graceTimeOut = "1s"

[entryPoints.{api}]
  address = "{api_address}"

[providers]
  providersThrottleDuration = "0s"
  [providers.file]
    filename = "{dynamic}"
    watch = true
"""


def write_static(static: Path, *, public_url: str, api_url: str, dynamic: Path, gid: int | None = None) -> None:
    """Write traefik's static configuration, and an empty dynamic one if there is none yet.

    Args:
        static: file to write, ``*.toml``. It holds no secret.
        public_url: what browsers open; traefik listens on its host and port.
        api_url: where the hub asks traefik whether a route is known; loopback only.
        dynamic: file that the hub writes and traefik watches, ``*.toml``.
        gid: group under which traefik runs, when it is not our own user.
    """
    for path in (static, dynamic):
        if path.suffix != ".toml":
            raise ValueError(f"{path.name} must end in .toml")
    static.parent.mkdir(parents=True, exist_ok=True)
    static.write_text(
        _STATIC.format(
            public=PUBLIC,
            api=API,
            public_address=_address(public_url),
            api_address=_address(api_url),
            dynamic=dynamic,
        )
    )
    static.chmod(0o644)
    if not dynamic.exists():
        dynamic.touch(0o640)
    share(dynamic, gid)


def share(path: Path | str, gid: int | None) -> None:
    """Let a group read a file that carries the (hashed) password of traefik's API."""
    if gid is not None:
        os.chown(path, -1, gid)
    Path(path).chmod(0o640 if gid is not None else 0o600)


def command(static: Path) -> list[str]:
    """The command line that runs the proxy; it needs no environment and no working directory."""
    program = Path(sys.prefix, "bin", "traefik")
    if not program.exists():
        raise DmspError("The proxy (traefik) is not installed beside Python.", "Install jupyterhub-dmsp[box].")
    return [str(program), f"--configFile={static}"]


def _address(url: str) -> str:
    parts = urlparse(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError(f"{url} is not a URL with a host")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"
