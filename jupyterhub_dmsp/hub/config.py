"""Fills a JupyterHub configuration object from plain facts; the file that JupyterHub loads stays three lines long."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jupyterhub import version_info

from jupyterhub_dmsp import settings as dmsp_settings
from jupyterhub_dmsp.hub import quiet
from jupyterhub_dmsp.hub.headers import HUB, cookies
from jupyterhub_dmsp.hub.launch.form import TEMPLATES
from jupyterhub_dmsp.hub.login.discovery import Endpoints, discover
from jupyterhub_dmsp.hub.login.token import SCOPE
from jupyterhub_dmsp.hub.requests import log_request
from jupyterhub_dmsp.settings import Settings, read_secret

USERNAME = r"^[a-z][a-z0-9_-]{0,31}$"
"""User names become folder names: no dots, no slashes, no leading underscore (services have those)."""

SERVER_SCOPES = ["access:servers!server", "users:activity!user", SCOPE]


def configure(
    c: Any,
    *,
    state: str,
    public_url: str,
    hub_url: str,
    issuer: str,
    client_secret: str,
    crypt_key: str,
    proxy_api_url: str,
    proxy_api_password: str,
    proxy_dynamic: str,
    proxy_gid: int | None = None,
    proxy_page: str = "",
    endpoints: Mapping[str, str] | None = None,
    settings_file: str = "",
    catalogue_path: str = "",
    network: Mapping[str, Any] | None = None,
    lake: Mapping[str, Any] | None = None,
    binds: Sequence[str] = (),
) -> None:
    """Fill ``c``. Secrets are references (``file:…``) and stay in this process's memory.

    Args:
        c: JupyterHub's configuration object.
        state: state directory; the hub's database and cookie secret are in ``hub/`` below it.
        public_url: what browsers open, with a slash at its end.
        hub_url: where the hub's API listens, as sessions reach it.
        issuer: the OIDC issuer, exactly as in ``iss``.
        client_secret: reference to the client's secret at the issuer.
        crypt_key: reference to 64 hex digits that encrypt the stored tokens.
        proxy_api_url: where traefik answers the hub.
        proxy_api_password: reference to the password for that.
        proxy_dynamic: file with the routes; see :mod:`jupyterhub_dmsp.hub.routes.proxy`.
        proxy_gid: group that may read it.
        proxy_page: middleware that answers while the hub does not; empty where the file has none.
        endpoints: the issuer's endpoints; asked from the issuer when None.
        settings_file: ``dmsp.yaml``; empty for the defaults.
        catalogue_path: folder of profiles; empty for what the settings say.
        network: the sessions' network (``Network.facts()``); None without root.
        lake: what sessions should know about the lake beyond the settings.
        binds: further host paths, seen read-only in sessions.
    """
    hub = Path(state) / "hub"
    hub.mkdir(mode=0o700, parents=True, exist_ok=True)
    chosen = dmsp_settings.load(Path(settings_file) if settings_file else None)
    _hub(c, hub, public_url, hub_url, chosen)
    _proxy(c, proxy_api_url, proxy_api_password)
    c.SharedTraefikProxy.dynamic_config_file = proxy_dynamic
    c.SharedTraefikProxy.reader_gid = proxy_gid
    c.SharedTraefikProxy.page = proxy_page
    found = Endpoints.of(dict(endpoints)) if endpoints else discover(issuer, hub / "issuer.json")
    c.CryptKeeper.keys = [bytes.fromhex(read_secret(crypt_key))]
    _login(c, chosen, found, public_url, read_secret(client_secret))
    offer_tokens(c)
    c.JupyterHub.spawner_class = "jupyterhub_dmsp.hub.local.spawner.LocalProfileSpawner"
    c.Spawner.default_url = "/lab"
    c.Spawner.env_keep = []
    # A first start builds the environment: that is minutes, and the progress page tells.
    c.Spawner.start_timeout = 1800
    c.Spawner.http_timeout = 90
    c.Spawner.poll_interval = 10
    spawner = c.LocalProfileSpawner
    spawner.state_dir = state
    spawner.settings_file = settings_file
    spawner.catalogue_path = catalogue_path
    spawner.network = dict(network) if network else None
    spawner.lake = dict(lake or {})
    spawner.binds = list(binds)


def _hub(c: Any, hub: Path, public_url: str, hub_url: str, chosen: Settings) -> None:
    quiet.install()
    c.JupyterHub.bind_url = public_url
    c.JupyterHub.hub_bind_url = hub_url
    c.JupyterHub.db_url = f"sqlite:///{hub}/jupyterhub.sqlite"
    # An earlier JupyterHub's database is upgraded at the start; JupyterHub copies it first, beside itself.
    c.JupyterHub.upgrade_db = True
    c.JupyterHub.cookie_secret_file = str(hub / "cookie_secret")
    # Sessions and proxy belong to others: a hub that ends, for whatever reason, leaves them alone.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    # Without root there is one session.
    c.JupyterHub.allow_named_servers = chosen.sessions.named > 0 and os.geteuid() == 0
    c.JupyterHub.named_server_limit_per_user = chosen.sessions.named
    c.JupyterHub.template_paths = [str(TEMPLATES)]
    c.JupyterHub.template_vars = {
        "dmsp_site": chosen.site.name,
        "dmsp_description": chosen.site.description,
        "dmsp_support": chosen.site.support,
    }
    # A launch that takes longer than this (seconds) goes on behind the progress page.
    c.JupyterHub.tornado_settings = {
        "headers": dict(HUB),
        "slow_spawn_timeout": 1,
        "log_function": log_request,
        "cookie_options": cookies(public_url),
        "xsrf_cookie_kwargs": cookies(public_url),
    }


def _proxy(c: Any, api_url: str, password: str) -> None:
    c.JupyterHub.proxy_class = "jupyterhub_dmsp.hub.routes.traefik.SharedTraefikProxy"
    proxy = c.SharedTraefikProxy
    proxy.should_start = False
    # The hub speaks http to traefik's public entry point; who terminates TLS is decided elsewhere.
    proxy.traefik_entrypoint = "http"
    proxy.traefik_api_url = api_url
    proxy.traefik_api_username = "hub"
    proxy.traefik_api_password = read_secret(password)


def _login(c: Any, chosen: Settings, found: Endpoints, public_url: str, secret: str) -> None:
    identity = chosen.identity
    c.JupyterHub.authenticator_class = "jupyterhub_dmsp.hub.login.authenticator.DMSPAuthenticator"
    c.Authenticator.enable_auth_state = True
    c.Authenticator.manage_groups = True
    c.Authenticator.username_pattern = USERNAME
    c.Authenticator.blocked_users = {"root", "nobody", "daemon"}
    c.Authenticator.refresh_pre_spawn = True
    c.Authenticator.auth_refresh_age = 60
    a = c.DMSPAuthenticator
    a.manage_groups = True
    a.client_id = identity.client_id
    a.client_secret = secret
    a.authorize_url = found.authorization_endpoint
    a.token_url = found.token_endpoint
    a.userdata_url = found.userinfo_endpoint
    a.oauth_callback_url = f"{public_url.rstrip('/')}/hub/oauth_callback"
    a.revocation_url = found.revocation_endpoint
    a.basic_auth = True
    a.login_service = identity.name or _login_name(found, chosen)
    a.claims_preset = identity.preset
    a.groups_claim = identity.groups_claim
    a.entitlement_namespaces = list(identity.entitlement_namespaces)
    # An empty one would replace the preset's.
    if identity.scopes:
        a.scope = list(identity.scopes)
    if identity.username_claim:
        a.username_claim = identity.username_claim
    a.allowed_groups = set(identity.allowed_groups)
    a.allow_all = not identity.allowed_groups
    a.admin_groups = set(identity.admin_groups)
    a.exchange_audiences = list(identity.offered)
    a.exchange_scopes = dict(identity.offered)
    a.revoke_at = list(identity.revoke_at)
    a.token_requests = identity.token_requests
    a.token_leeway = identity.refresh_leeway
    a.custom_403_message = f"Your account is not in a group that may use {chosen.site.name}." + (
        f" Ask {chosen.site.support}." if chosen.site.support else ""
    )


def _login_name(found: Endpoints, chosen: Settings) -> str:
    """What people call the provider: its host's name, or the site where that is a number or this machine."""
    host = urlparse(found.authorization_endpoint).hostname or ""
    return chosen.site.name if not re.search("[a-z]", host) or host == "localhost" or ":" in host else host


def offer_tokens(c: Any) -> None:
    """Let users' servers ask for tokens; nobody may read what is stored about a login.

    For a ``jupyterhub_config.py`` of one's own: call it once with ``c``.
    """
    c.JupyterHub.custom_scopes = {SCOPE: {"description": "Obtain short-lived tokens for the data lake."}}
    if version_info[0] >= 6:
        c.JupyterHub.extra_user_scopes = {SCOPE}
    else:
        c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", SCOPE]}]
    c.Spawner.server_token_scopes = list(SERVER_SCOPES)
