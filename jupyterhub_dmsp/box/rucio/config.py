"""Configuration files of the embedded Rucio, and of the Rucio clients in sessions."""

from __future__ import annotations

import configparser
import io
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.box.files import write_private
from jupyterhub_dmsp.box.rucio import storage

#: Account of the hub in Rucio: may manage the accounts of users and nothing else.
SERVICE_ACCOUNT = "dmsp-hub"
#: Audience of tokens for this Rucio.
AUDIENCE = "rucio"


@dataclass(frozen=True)
class Files:
    """Where the embedded Rucio keeps things below its state directory; all belong to the Rucio uid."""

    directory: Path

    @property
    def config(self) -> Path:
        """``rucio.cfg``, 0600: it holds the database's password."""
        return self.directory / "rucio.cfg"

    @property
    def alembic(self) -> Path:
        """``alembic.ini``, read when the schema is made."""
        return self.directory / "alembic.ini"

    @property
    def issuers(self) -> Path:
        """``idpsecrets.json``: the OIDC issuers whose tokens count."""
        return self.directory / "idpsecrets.json"

    @property
    def health(self) -> Path:
        """What the daemons say about themselves, renewed every second."""
        return self.directory / "run" / "daemons.json"

    @property
    def cache(self) -> Path:
        """Unix socket of a memcached. Rucio unpickles what it finds there: never a TCP port."""
        return self.directory / "run" / "cache.sock"


@dataclass(frozen=True)
class Marks:
    """How full scratch may get: ``dmsp_rucio.evicting`` keeps to it.

    Args:
        limit: bytes that it may hold; None: what its disk has.
        high: per cent above which data are released.
        low: per cent at which releasing ends.
        notice: seconds that a running session is told ahead.
    """

    limit: int | None = None
    high: int = 90
    low: int = 80
    notice: int = 900


@dataclass(frozen=True)
class Plan:
    """What the lake must hold; the bootstrap adds what is missing and never takes anything away.

    Args:
        sites: RSEs with the data.
        scratch: RSE to which users replicate.
        storage: directory below which every RSE has its own.
        mount: where sessions see the files of the scratch RSE.
        site: value of the RSE attribute ``site`` of scratch and of ``SITE_NAME`` in sessions.
        scopes: scopes of the experiments.
        restricted: scope to experiment, for scopes that only its members may replicate.
        marks: how full scratch may get.
    """

    sites: tuple[str, ...]
    scratch: str
    storage: Path
    mount: str = "/scratch/lake"
    site: str = "DMSP-BOX"
    scopes: tuple[str, ...] = ()
    restricted: Mapping[str, str] = field(default_factory=dict)
    marks: Marks = Marks()

    def document(self, passwords: Mapping[str, str]) -> dict[str, Any]:
        """What ``dmsp_rucio.bootstrap`` reads from its standard input (it holds the passwords)."""
        return {
            "accounts": {
                "root": {"type": "SERVICE", "password": passwords["root"], "attributes": {}},
                SERVICE_ACCOUNT: {
                    "type": "SERVICE",
                    "password": passwords[SERVICE_ACCOUNT],
                    "attributes": {"provisioner": "true"},
                },
            },
            "rses": [
                *({"name": name, "prefix": self._prefix(name)} for name in self.sites),
                {
                    "name": self.scratch,
                    "prefix": self._prefix(self.scratch),
                    "mount": self.mount.rstrip("/") + "/",
                    "site": self.site,
                },
            ],
            "scopes": sorted({*self.scopes, *self.restricted}),
        }

    def _prefix(self, rse: str) -> str:
        return f"{storage.root(self.storage, rse)}/"


def write(
    directory: Path, *, plan: Plan, database_url: str, issuer: str, transfers: int, uid: int, gid: int
) -> Files:
    """Write the server's configuration below ``directory`` (0700, of the Rucio uid).

    Args:
        directory: state directory of Rucio.
        plan: what the lake holds.
        database_url: from :func:`jupyterhub_dmsp.box.database.url`.
        issuer: OIDC issuer, exactly as it stands in ``iss``; http is fine on loopback.
        transfers: copies that run at the same time.
        uid: the Rucio uid.
        gid: the Rucio gid.

    Returns:
        Where the files are.
    """
    files = Files(directory)
    for place in (directory, directory / "run", directory / "log"):
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o700)
        _own(place, uid, gid)
    texts = {
        files.config: _server(files, plan, database_url, transfers),
        files.alembic: _alembic(),
        files.issuers: _issuers(issuer),
    }
    for path, text in texts.items():
        write_private(path, text, (uid, gid) if os.geteuid() == 0 else None)
    return files


def client_config(*, rucio_url: str, auth_url: str, account: str) -> str:
    """``rucio.cfg`` of a session. The token is found through ``BEARER_TOKEN_FILE``, no secret stands here.

    Args:
        rucio_url: address of the Rucio server as sessions reach it.
        auth_url: address of its authentication server; the same in the box.
        account: the user's Rucio account.
    """
    return _rucio(
        {
            "client": {
                "rucio_host": rucio_url,
                "auth_host": auth_url,
                "auth_type": "oidc",
                "account": account,
                "request_retries": "3",
            },
            "policy": {"lfn2pfn_algorithm_default": "hash"},
        }
    )


def generate_password() -> str:
    """A password that nobody types: 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)


def _server(files: Files, plan: Plan, database_url: str, transfers: int) -> str:
    return _rucio(
        {
            "common": {"logdir": str(files.directory / "log"), "loglevel": "WARNING"},
            "database": {
                "default": database_url,
                "pool_size": "10",
                "max_overflow": "20",
                "pool_recycle": "3600",
                "echo": "0",
                "pool_reset_on_return": "rollback",
            },
            "alembic": {"cfg": str(files.alembic)},
            "policy": {
                "package": "dmsp_rucio",
                "permission": "generic",
                "schema": "generic",
                "lfn2pfn_algorithm_default": "hash",
            },
            # Every site copies straight to scratch: no RSE stands between.
            "transfers": {"multihop_rse_expression": ""},
            "conveyor": {"scheme": "posix", "transfertool": "dmsp"},
            "cache": {"url": f"unix:{files.cache}", "use_external_cache_for_auth_tokens": "False"},
            "oidc": {
                "idpsecrets": str(files.issuers),
                "admin_issuer": "dmsp",
                "expected_audience": AUDIENCE,
                "expected_scope": "openid profile",
            },
            "dmsp": {
                "scopes": json.dumps(dict(plan.restricted), sort_keys=True),
                "storage": str(plan.storage),
                "transfers": str(transfers),
                "health": str(files.health),
                "scratch": plan.scratch,
                "scratch_limit": "" if plan.marks.limit is None else str(plan.marks.limit),
                "scratch_high": str(plan.marks.high),
                "scratch_low": str(plan.marks.low),
                "scratch_notice": str(plan.marks.notice),
            },
        }
    )


def _alembic() -> str:
    # The place of the migrations is that of the Rucio environment: the bootstrap fills it in.
    return _text(
        {
            "alembic": {},
            "loggers": {"keys": "root"},
            "handlers": {"keys": "console"},
            "formatters": {"keys": "plain"},
            "logger_root": {"level": "WARNING", "handlers": "console"},
            "handler_console": {
                "class": "StreamHandler",
                "args": "(sys.stderr,)",
                "level": "NOTSET",
                "formatter": "plain",
            },
            "formatter_plain": {"class": "dmsp_log.Formatter"},
        }
    )


def _issuers(issuer: str) -> str:
    base = issuer.rstrip("/")
    # Rucio wants to know how it could log in itself; it only ever verifies tokens here.
    entry = {
        "issuer": issuer,
        "redirect_uris": [f"{base}/unused"],
        "client_id": AUDIENCE,
        "client_secret": "",
        "SCIM": {"client_id": AUDIENCE, "client_secret": "", "grant_type": "client_credentials"},
    }
    return json.dumps({"dmsp": entry}, indent=1)


def _rucio(sections: Mapping[str, Mapping[str, str]]) -> str:
    # Rucio reads with interpolation: a percent sign stands for itself only when doubled.
    return _text(
        {name: {k: v.replace("%", "%%") for k, v in values.items()} for name, values in sections.items()}
    )


def _text(sections: Mapping[str, Mapping[str, str]]) -> str:
    parser = configparser.RawConfigParser()
    for section, values in sections.items():
        parser[section] = dict(values)
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def _own(path: Path, uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, uid, gid)
