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
from jupyterhub_dmsp.settings import Log

PUBLIC, API = "http", "auth_api"
"""Names of traefik's entry points, as jupyterhub-traefik-proxy expects them."""

PAGE = "dmsp_page"
"""The middleware that shows a page of ours in place of "bad gateway"."""

READY = "/ready"
"""Path at the API's address that answers once traefik has read the file with the routes."""

_STATIC = """\
[api]

[ping]
  entryPoint = "{api}"

[log]
  level = "{log_level}"
  format = "{log_format}"
  noColor = true

[global]
  checkNewVersion = false
  sendAnonymousUsage = false

[entryPoints.{public}]
  address = "{public_address}"
  # Uploads and long notebook requests have no limit in time; 0 switches traefik's 60 s off.
  [entryPoints.{public}.transport.respondingTimeouts]
    readTimeout = 0
  # Behind it tornado takes 64 KiB and hangs up on more: said here, it is a 431 and not a gateway that failed.
  [entryPoints.{public}.http]
    maxHeaderBytes = 57344
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

# Traefik's own health check answers before it has read any file, so it is asked by way of this one.
# A path that no route knows gets the page too, and never traefik's "404 page not found".
_DYNAMIC = """\
[http.routers.dmsp_ready]
  rule = "Path(`{ready}`)"
  entryPoints = ["{api}"]
  service = "ping@internal"
"""
_DYNAMIC_PAGE = """
[http.routers.{page}]
  rule = "PathPrefix(`/`)"
  priority = 1
  entryPoints = ["{public}"]
  service = "{page}"

[[http.services.{page}.loadBalancer.servers]]
  url = "{page_url}"

[http.middlewares.{page}.errors]
  status = ["502", "504"]
  service = "{page}"
  query = "/"
"""


def write_static(static: Path, *, public_url: str, api_url: str, dynamic: Path, log: Log | None = None) -> None:
    """Write traefik's static configuration.

    Args:
        static: file to write, ``*.toml``. It holds no secret.
        public_url: what browsers open; traefik listens there, unless it is handed a socket of the entry point's name
            (sd_listen_fds(3)).
        api_url: where the hub asks traefik whether a route is known; loopback only.
        dynamic: file that the hub writes and traefik watches, ``*.toml``.
        log: how it logs; from warnings on at most. Requests are the log of the hub and of users' servers: traefik's own
            access log would have their queries, with codes and tokens.
    """
    _toml(static)
    static.parent.mkdir(parents=True, exist_ok=True)
    static.write_text(
        _STATIC.format(
            public=PUBLIC,
            api=API,
            public_address=_address(public_url),
            api_address=_address(api_url),
            dynamic=_toml(dynamic),
            log_level="ERROR" if log and log.of("proxy") == "error" else "WARN",
            log_format="json" if log and log.format == "json" else "common",
        )
    )
    static.chmod(0o644)


def write_routes(dynamic: Path, *, page_url: str = "", gid: int | None = None) -> None:
    """Write the file with the routes as it is before the hub adds its own, which it does at its start.

    Args:
        dynamic: the file, ``*.toml``.
        page_url: where the page is that people get while the hub does not answer; empty for traefik's own errors.
        gid: group under which traefik runs, when it is not our own user.
    """
    text = _DYNAMIC.format(api=API, ready=READY)
    if page_url:
        text += _DYNAMIC_PAGE.format(public=PUBLIC, page=PAGE, page_url=page_url)
    _toml(dynamic).write_text(text)
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


def _toml(path: Path) -> Path:
    if path.suffix != ".toml":
        raise ValueError(f"{path.name} must end in .toml")
    return path


def _address(url: str) -> str:
    parts = urlparse(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError(f"{url} is not a URL with a host")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"
