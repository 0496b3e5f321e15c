"""Connections that ended while they lay in the pool: a database that came back must not cost a request an error.

An idle connection to PostgreSQL has nothing to say. When there is something to read from it, that is the server's
farewell, or the end of the stream; SQLAlchemy opens another one then (``PoolEvents.checkout``). That is one system
call, where a query to try each connection would be a round trip.
"""

from __future__ import annotations

import select
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError


def start() -> None:
    """Look at each connection of this process before it is used (call it after a fork)."""
    from rucio.db.sqla import session

    event.listen(session.get_engine(), "checkout", _look)


def _look(connection: Any, record: Any, proxy: Any) -> None:
    """Raises :class:`DisconnectionError` for a connection (psycopg) whose server is gone."""
    del record, proxy
    if connection.closed or _has_something_to_say(connection.fileno()):
        raise DisconnectionError("the database has ended this connection")


def _has_something_to_say(descriptor: int) -> bool:
    looked = select.poll()
    looked.register(descriptor, select.POLLIN)
    return bool(looked.poll(0))
