"""The hub's side of the proxy: routes written into a file that traefik, another user's process, may read."""

from __future__ import annotations

from typing import Any

import bcrypt
from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy  # type: ignore[import-untyped]
from traitlets import Integer, Unicode, default

from jupyterhub_dmsp.hub import proxy


class SharedTraefikProxy(TraefikFileProviderProxy):
    """traefik with the file provider, started apart from the hub, perhaps under another uid."""

    reader_gid = Integer(
        None,
        allow_none=True,
        config=True,
        help="""Numeric group that may read the dynamic configuration file: the group traefik runs in.

        Default: None, traefik runs as the same user as the hub.
        """,
    )

    page = Unicode(
        "",
        config=True,
        help="""Middleware of traefik's dynamic configuration that answers while the hub does not.

        Default: empty, traefik's "Bad Gateway" is passed on.
        """,
    )

    @default("should_start")
    def _default_should_start(self) -> bool:
        return False

    @default("traefik_api_hashed_password")
    def _default_hash(self) -> str:
        # traefik checks it at every request of the hub, two for each new session. The password is 256 random
        # bits: a cheap hash gives nothing away, and costs 1 ms where the usual 12 rounds cost a quarter second.
        password = self.traefik_api_password.encode()
        return str(bcrypt.hashpw(password, bcrypt.gensalt(rounds=4)).decode())

    def _persist_dynamic_config(self) -> None:
        super()._persist_dynamic_config()
        proxy.share(self.dynamic_config_file, self.reader_gid)

    def _dynamic_config_for_route(
        self, routespec: str, target: str, data: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        routes, ours = super()._dynamic_config_for_route(routespec, target, data)
        if self.page and routespec == "/":
            # The hub's own route: while nobody listens there people see a page, not "Bad Gateway".
            for router in routes["http"]["routers"].values():
                router["middlewares"] = [self.page]
        return routes, ours
