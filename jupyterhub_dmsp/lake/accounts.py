"""Making a user known to Rucio: account, identity, scope, limit, attributes of experiments."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import SCOPE_LENGTH

log = logging.getLogger(__name__)
EXPERIMENT = "experiment-"


class Provisioner:
    """Ensures what a user needs in Rucio; every step may be repeated.

    Args:
        client: an account that Rucio's policy lets manage users' accounts.
        issuer: the identity provider, exactly as it stands in `iss`.
        limits: bytes that each user may keep on an RSE (-1: no limit), by RSE name; set once, so that an
            admin's own setting for a user stays.
    """

    def __init__(self, client: RucioClient, issuer: str, limits: Mapping[str, int] | None = None) -> None:
        self._client = client
        self._issuer = issuer
        self._limits = dict(limits or {})

    async def ensure(
        self, user: str, subject: str, issuer: str, email: str, experiments: Iterable[str]
    ) -> None:
        """Account, identity ``SUB=…, ISS=…``, scope ``user.<name>``, limits, and one attribute an experiment.

        Attributes of experiments that the user has left are taken away.

        Raises:
            LakeError: Rucio did not answer or refused.
        """
        client = self._client
        if await client.add_account(user, email):
            log.info("Rucio account %s made", user)
        await client.add_identity(user, f"SUB={subject}, ISS={issuer or self._issuer}", "OIDC", email)
        scope = f"user.{user}"
        if len(scope) <= SCOPE_LENGTH:
            await client.add_scope(user, scope)
        else:
            log.warning("%s: no own scope, Rucio allows %d characters", user, SCOPE_LENGTH)
        await self._set_limits(user)
        await self._set_experiments(user, {f"{EXPERIMENT}{name}" for name in experiments})

    async def _set_limits(self, user: str) -> None:
        if not self._limits:
            return
        present = await self._client.limits(user)
        for rse, limit in self._limits.items():
            if present.get(rse) is None:
                await self._client.set_limit(user, rse, limit)

    async def _set_experiments(self, user: str, wanted: set[str]) -> None:
        present = {key for key in await self._client.attributes(user) if key.startswith(EXPERIMENT)}
        for key in sorted(wanted - present):
            await self._client.add_attribute(user, key, "true")
        for key in sorted(present - wanted):
            await self._client.delete_attribute(user, key)
