"""The issuer's keys stay while they are asked for again: nobody's login is refused meanwhile.

Rucio's OpenID Connect library (``oic``) asks for the keys every five minutes, when a token comes that Rucio has not
seen. It empties its list first: for as long as the issuer takes to answer, and after a failure until the next success,
every other new token would be refused.
"""

from __future__ import annotations

import copy
import functools
import logging
import threading
import time
from typing import Any

from oic.utils.keyio import JWKSError, KeyBundle, UpdateFailed  # type: ignore[import-not-found]

LOG = logging.getLogger("dmsp.keyring")
#: Seconds until an issuer that did not answer is asked again.
AGAIN = 15.0
# Held by the one thread that asks an issuer: the first keys are waited for, later ones are not.
_ASKING = threading.Lock()
_update = KeyBundle.update


@functools.wraps(_update)
def update(bundle: Any) -> bool:
    """As ``KeyBundle.update``; what is there serves until the new keys are.

    Raises:
        UpdateFailed: the issuer does not answer, and no keys are there yet.
    """
    before = bundle.last_updated
    if not _ASKING.acquire(blocking=not bundle.available_keys()):
        return False
    try:
        if bundle.last_updated != before:
            return False  # somebody else has asked meanwhile
        draft = copy.copy(bundle)
        try:
            changed = _update(draft)
        except (UpdateFailed, JWKSError) as error:
            if not bundle.available_keys():
                raise
            LOG.warning("the issuer's keys could not be renewed, those that are known go on: %s", error)
            bundle.time_out = time.time() + AGAIN
            return False
        bundle.__dict__.update(draft.__dict__)
        return bool(changed)
    finally:
        _ASKING.release()


def start() -> None:
    """Keep keys so in this process."""
    KeyBundle.update = update
