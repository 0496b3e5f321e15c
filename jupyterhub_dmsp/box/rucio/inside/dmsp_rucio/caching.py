"""Short-lived caches in each process, in place of the memcached that Rucio expects.

Without one Rucio asks the database for every configuration option and every property of a storage element again and
again, for each file. The caches here live in the process and are thrown away every few seconds: what another process
has changed is seen after :data:`LIFETIME` at the latest, and nothing is ever unpickled.
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

#: Seconds after which every cache starts afresh.
LIFETIME = 5.0
#: Modules whose ``REGION`` is worth it. Permissions and rules are never cached.
MODULES = ("rucio.core.config", "rucio.core.rse")
#: Seconds after which the cache of tokens starts afresh. Rucio itself keeps tokens in it, and never takes one out.
TOKENS_KEPT = 900.0


def renew() -> None:
    """Start with empty caches."""
    for name in MODULES:
        region: Any = importlib.import_module(name).REGION
        region.configure("dogpile.cache.memory", expiration_time=LIFETIME, replace_existing_backend=True)


def start() -> None:
    """Cache in this process from now on (call it after a fork)."""
    renew()
    threading.Thread(target=_renew_for_ever, name="caching", daemon=True).start()


def forget_tokens() -> None:
    """Start with an empty cache of tokens; those that are still good are found in the database."""
    from rucio.core.authentication import TOKENREGION

    TOKENREGION.configure(
        "dogpile.cache.memory", expiration_time=int(TOKENS_KEPT), replace_existing_backend=True
    )


def _renew_for_ever() -> None:
    forgotten = time.monotonic()
    while True:
        time.sleep(LIFETIME)
        renew()
        if time.monotonic() - forgotten > TOKENS_KEPT:
            forget_tokens()
            forgotten = time.monotonic()
