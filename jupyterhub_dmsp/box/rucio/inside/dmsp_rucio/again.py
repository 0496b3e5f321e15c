"""Requests that met another transaction on the same rows are made again here and not by every client.

Two rules on the same files, or a rule and the deletion of another one, may wait for each other: PostgreSQL ends one of
the two, which is then to be repeated ("deadlock detected", "could not serialize access"). Stock Rucio answers 500 to
it, and 409 to a rule on a file that somebody else's rule has just brought to the catalogue, or that is just being
deleted. In each case nothing was changed: the transaction was rolled back.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from rucio.common.exception import DatabaseException, ReplicationRuleCreationTemporaryFailed

LOG = logging.getLogger("dmsp.again")
#: Seconds for which a request is made again; the deletion of a rule may hold thousands of rows.
PATIENCE = 8.0
#: Seconds before the second attempt, on average; twice as many before each further one, up to a second.
FIRST_PAUSE = 0.05
#: SQLSTATE of serialization_failure, deadlock_detected and lock_not_available (PostgreSQL, appendix A).
_COLLISIONS = frozenset({"40001", "40P01", "55P03"})


def collided(error: BaseException) -> bool:
    """Whether another transaction was in the way, so that the same may succeed now."""
    if isinstance(error, ReplicationRuleCreationTemporaryFailed):
        return True
    seen: BaseException | None = error
    while seen is not None:  # Rucio wraps SQLAlchemy's error, which wraps the driver's
        driver = getattr(seen, "orig", None)
        if getattr(driver, "sqlstate", None) in _COLLISIONS:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def repeated(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which is one transaction, made again after a collision.

    Raises:
        ReplicationRuleCreationTemporaryFailed: it collided for too long (409 where a rule is made, else 503).
    """

    @functools.wraps(function)
    def attempts(*args: Any, **kwargs: Any) -> Any:
        end, pause = time.monotonic() + PATIENCE, FIRST_PAUSE
        while True:
            try:
                return function(*args, **kwargs)
            except (DatabaseException, ReplicationRuleCreationTemporaryFailed) as error:
                if not collided(error):
                    raise
                if time.monotonic() > end:
                    raise ReplicationRuleCreationTemporaryFailed("another transaction is in the way") from error
                LOG.info("%s met another transaction and is made again", function.__name__)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
            pause = min(1.0, 2 * pause)

    return attempts
