"""``python -m jupyterhub_dmsp.box.issuer --config <file>``: run the issuer until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.box.issuer.app import Server
from jupyterhub_dmsp.box.issuer.config import load
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.shared import dmsp_log

log = logging.getLogger("jupyterhub_dmsp.box.issuer")  # not `__main__`


async def serve(config_path: Path) -> None:
    """Run the server of this configuration until a signal comes."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = Server(load(config_path))
    await server.start()
    log.info("The issuer %s listens on %s:%d.", server.config.issuer, server.config.host, server.config.port)
    await stopping.wait()
    log.info("Stopping.")
    await server.stop()


def main(arguments: list[str] | None = None) -> int:
    """The process; returns its exit code: 1 with one sentence on stderr when it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m jupyterhub_dmsp.box.issuer", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configuration written by the box")
    options = parser.parse_args(arguments)
    # Everything this process makes is its own: SQLite's journals too.
    os.umask(0o077)
    dmsp_log.start("issuer", rid=tracing.current)
    try:
        asyncio.run(serve(options.config))
    except DmspError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
