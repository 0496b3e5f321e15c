"""What the box calls: write the configuration, start the process, ask whether it is ready."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx

from jupyterhub_dmsp.box.files import Owner, private_directory, write_private
from jupyterhub_dmsp.box.issuer.config import (
    AUTHORIZATION_CODE,
    DEVICE_CODE,
    REFRESH_TOKEN,
    TOKEN_EXCHANGE,
    Client,
    Config,
    Lifetimes,
    read_secret_file,
)


def demo_clients(
    hub_secret_file: Path, hub_redirect_uris: Sequence[str], hub_logout_uris: Sequence[str] = ()
) -> list[Client]:
    """The two clients of the box: the hub (confidential) and ``dmsp-cli`` (public, device flow).

    Args:
        hub_secret_file: made with a random secret when it is missing (see :func:`write_config`).
        hub_redirect_uris: such as ``http://127.0.0.1:8000/hub/oauth_callback``; compared to the letter.
        hub_logout_uris: where a logout may send the browser back to.
    """
    return [
        Client(
            id="jupyterhub",
            title="JupyterHub",
            secret_file=hub_secret_file,
            redirect_uris=list(hub_redirect_uris),
            logout_uris=list(hub_logout_uris),
            grants=[AUTHORIZATION_CODE, REFRESH_TOKEN, TOKEN_EXCHANGE],
            scopes=["openid", "profile", "email", "offline_access", "wlcg", "wlcg.groups"],
            exchange_audiences=["rucio"],
        ),
        Client(
            id="dmsp-cli",
            title="DMSP command line",
            grants=[DEVICE_CODE, REFRESH_TOKEN],
            scopes=["openid", "profile", "email", "offline_access", "wlcg", "wlcg.groups"],
            audiences=["dmsp-cli", "rucio"],
        ),
    ]


def ensure_secret(path: Path) -> None:
    """Make a random 256-bit secret (0600) unless the file is there already."""
    if not path.exists():
        private_directory(path.parent)
        write_private(path, secrets.token_urlsafe(32) + "\n")


def write_config(
    directory: Path,
    *,
    issuer: str,
    port: int,
    clients: Iterable[Client],
    host: str = "127.0.0.1",
    site_name: str = "Dark Matter Science Project",
    support: str = "",
    token_lifetime: int = 3600,
    lifetimes: Lifetimes | None = None,
    owner: Owner | None = None,
) -> Path:
    """Write ``<directory>/config.json`` and copies of the client secrets that the issuer can read.

    The copies are there because the issuer runs as a user of its own, who cannot enter ``secrets/``.

    Args:
        directory: the issuer's own, 0700; keys and database live there too.
        issuer: exactly as it is to stand in ``iss``, such as ``http://127.0.0.1:8002/oidc``.
        token_lifetime: seconds that access tokens live (``settings.box.token_lifetime``).
        lifetimes: the other lifetimes; `token_lifetime` wins over its ``access_token``.
        owner: uid and gid of the issuer, when it runs as a user of its own.

    Returns:
        The path for :func:`command`.
    """
    private_directory(directory, owner)
    copies = private_directory(directory / "clients", owner)
    readable = []
    for client in clients:
        if client.secret_file is not None:
            ensure_secret(client.secret_file)
            copy = copies / f"{client.id}.secret"
            write_private(copy, read_secret_file(client.secret_file) + "\n", owner)
            client = client.model_copy(update={"secret_file": copy})
        readable.append(client)
    config = Config(
        issuer=issuer,
        host=host,
        port=port,
        storage=directory,
        users_file=directory / "users.json",
        clients=readable,
        lifetimes=(lifetimes or Lifetimes()).model_copy(update={"access_token": token_lifetime}),
        site_name=site_name,
        support=support,
    )
    path = directory / "config.json"
    write_private(path, json.dumps(config.model_dump(mode="json"), indent=1) + "\n", owner)
    return path


def command(config_path: Path) -> list[str]:
    """The command line that runs the issuer; it holds no secret."""
    return [sys.executable, "-m", "jupyterhub_dmsp.box.issuer", "--config", str(config_path)]


async def ready(issuer: str, timeout: float = 2.0) -> bool:
    """Whether this very issuer answers: healthy, and its discovery document names itself.

    Args:
        issuer: as in ``iss``.
        timeout: seconds for each of the two requests.
    """
    try:
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
            health = await client.get(f"{issuer}/health")
            if health.status_code != httpx.codes.OK:
                return False
            discovery = await client.get(f"{issuer}/.well-known/openid-configuration")
            return discovery.status_code == httpx.codes.OK and discovery.json().get("issuer") == issuer
    except (httpx.HTTPError, ValueError):
        return False
