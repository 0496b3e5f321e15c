"""The hub's side of the proxy: routes written into a file that traefik, another user's process, may read."""

from __future__ import annotations

from typing import Any

import bcrypt
import toml  # type: ignore[import-untyped]
from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy  # type: ignore[import-untyped]
from jupyterhub_traefik_proxy.traefik_utils import (  # type: ignore[import-untyped]
    TraefikConfigFileHandler,
    atomic_writing,
)
from traitlets import Integer, Unicode, default, observe

from jupyterhub_dmsp.hub.routes import proxy


class SharedFile(TraefikConfigFileHandler):
    """A file that its reader may read from the first moment on: traefik looks at once, and only then.

    Args:
        path: the file, ``*.toml``.
        gid: group of the reader; None when it is our own user.
    """

    def __init__(self, path: str, gid: int | None) -> None:
        super().__init__(path)
        self.gid = gid
        self._texts: dict[tuple[str, str, str], tuple[str, str]] = {}

    def atomic_dump(self, data: dict[str, Any]) -> None:
        """Replace the file."""
        with atomic_writing(self.file_path) as file:
            proxy.share(file.name, self.gid)
            file.write(self.text(data))

    def text(self, data: dict[str, Any]) -> str:
        """The file's text. What was there before is taken from then: a new route must not cost more for each old one.

        The stock way writes all routes as TOML anew with each change: with 1000 sessions a quarter of a second in which
        the hub answers nobody.
        """
        before, self._texts = self._texts, {}
        parts = []
        for section, kinds in data.items():
            for kind, entries in kinds.items():
                if not entries:
                    parts.append(toml.dumps({section: {kind: {}}}))
                for name, entry in entries.items():
                    place, seen = (section, kind, name), repr(entry)
                    kept = before.get(place)
                    if kept is None or kept[0] != seen:
                        kept = (seen, toml.dumps({section: {kind: {name: entry}}}))
                    self._texts[place] = kept
                    parts.append(kept[1])
        return "\n".join(parts)


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

    @default("dynamic_config_handler")
    def _default_handler(self) -> SharedFile:
        return SharedFile(self.dynamic_config_file, self.reader_gid)

    @observe("dynamic_config_file", "reader_gid")
    def _set_dynamic_config_file(self, change: Any) -> None:
        del change
        self.dynamic_config_handler = self._default_handler()

    def _dynamic_config_for_route(
        self, routespec: str, target: str, data: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        routes, ours = super()._dynamic_config_for_route(routespec, target, data)
        if self.page and routespec == "/":
            # The hub's own route: while nobody listens there people see a page, not "Bad Gateway".
            for router in routes["http"]["routers"].values():
                router["middlewares"] = [self.page]
        return routes, ours
