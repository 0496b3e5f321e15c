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
#: Modules whose ``REGION`` is worth it. Tokens, permissions and rules are never cached.
MODULES = ("rucio.core.config", "rucio.core.rse")


def renew() -> None:
    """Start with empty caches."""
    for name in MODULES:
        region: Any = importlib.import_module(name).REGION
        region.configure("dogpile.cache.memory", expiration_time=LIFETIME, replace_existing_backend=True)


def start() -> None:
    """Cache in this process from now on (call it after a fork)."""
    renew()
    threading.Thread(target=_renew_for_ever, name="caching", daemon=True).start()


def _renew_for_ever() -> None:
    while True:
        time.sleep(LIFETIME)
        renew()
