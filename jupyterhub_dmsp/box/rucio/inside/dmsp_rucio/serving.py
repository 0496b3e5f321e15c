"""Gunicorn's configuration for the Rucio server: ``gunicorn --config python:dmsp_rucio.serving``.

Rucio is imported once, in the master, and the workers are its copies: a second one costs neither the seconds of the
import nor its memory.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from .requestlog import RequestLog

preload_app = True
worker_class = "gthread"
threads = 8
timeout = 600
graceful_timeout = 2
keepalive = 30
accesslog = "-"
logger_class = RequestLog
worker_tmp_dir = "/dev/shm"  # noqa: S108 - a heartbeat file; on a disk it would wait for the disk


def post_fork(server: Any, worker: Any) -> None:
    """The master's connections to the database are the master's: a worker opens its own, and has caches."""
    del server, worker
    from rucio.db.sqla import session

    from . import caching, connections

    session.get_engine().dispose(close=False)
    connections.start()
    caching.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Requests have ended, or had their time: idle threads of Rucio's libraries must not keep the process."""
    del server
    if worker.booted:  # else the exit code tells the master that it cannot go on
        logging.shutdown()
        os._exit(0)
