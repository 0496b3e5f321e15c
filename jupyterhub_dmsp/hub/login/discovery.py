"""Where the issuer's endpoints are (OpenID Connect Discovery 1.0), remembered for a start while the issuer is down."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.sandbox.ids import replace

log = logging.getLogger(__name__)

TIMEOUT = 10.0


@dataclass(frozen=True)
class Endpoints:
    """URLs of an issuer."""

    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    end_session_endpoint: str = ""
    revocation_endpoint: str = ""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Endpoints:
        """Pick ours out of a discovery document; raises :class:`DmspError` when one is missing."""
        names = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")
        missing = [name for name in names if not isinstance(data.get(name), str)]
        if missing:
            raise DmspError(f"The issuer's discovery document lacks {', '.join(missing)}.")
        found = {name: str(data[name]) for name in names}
        further = ("end_session_endpoint", "revocation_endpoint")
        return cls(**found, **{name: str(data.get(name) or "") for name in further})


def discover(issuer: str, cache: Path) -> Endpoints:
    """The issuer's endpoints; from ``cache`` when the issuer does not answer. Blocks: for the start only.

    Raises:
        DmspError: the issuer does not answer and nothing is remembered, or it is another issuer.
    """
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        answer = httpx.get(url, timeout=TIMEOUT, follow_redirects=True)
        answer.raise_for_status()
        data = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return _remembered(issuer, cache, type(error).__name__)
    if data.get("issuer") != issuer:
        raise DmspError(
            f"The identity provider at {issuer} calls itself {data.get('issuer')}.",
            "Write identity.issuer in dmsp.yaml exactly so, to the slash.",
        )
    endpoints = Endpoints.of(data)
    replace(cache, json.dumps({"issuer": issuer, **asdict(endpoints)}, indent=1), 0o600)
    return endpoints


def _remembered(issuer: str, cache: Path, cause: str) -> Endpoints:
    try:
        data = json.loads(cache.read_text())
    except (OSError, ValueError):
        data = {}
    if data.get("issuer") != issuer:
        raise DmspError(
            f"The identity provider {issuer} does not answer ({cause}).",
            "Start it, or correct identity.issuer.",
        )
    log.warning("The issuer %s does not answer (%s): using what it said last time", issuer, cause)
    return Endpoints.of(data)
