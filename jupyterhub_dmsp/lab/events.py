"""Hints to browsers through Jupyter's event system. The truth is the REST interface: nothing is replayed.

Must be used from the event loop's thread (``jupyter_events`` requires it).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from jupyterhub_dmsp.lab.records import Attachment

log = logging.getLogger(__name__)
ATTACHMENT = "https://dmsp.example/schemas/attachment/v1"
LISTING = "https://dmsp.example/schemas/listing/v1"
CONTENTS = "https://events.jupyter.org/jupyter_server/contents_service/v1"
"""Jupyter Server's own events about files."""
_DIRECTORY = Path(__file__).parent / "schemas"
_EVERY = 0.25


class Logger(Protocol):
    """The part of ``jupyter_events.EventLogger`` that is used."""

    @property
    def schemas(self) -> Any: ...

    def register_event_schema(self, schema: Path) -> None: ...

    def add_listener(self, *, schema_id: str, listener: Callable[..., Awaitable[None]]) -> None: ...

    def emit(self, *, schema_id: str, data: dict[str, Any]) -> object: ...


class Events:
    """Emits at once when a state changes, and at most four times a second for progress of the same thing."""

    def __init__(self, logger: Logger, epoch: str) -> None:
        self._logger = logger
        self._epoch = epoch
        self._last: dict[str, tuple[str, float]] = {}
        self._late: dict[str, asyncio.TimerHandle] = {}
        for file in sorted(_DIRECTORY.glob("*.yaml")):
            schema = ATTACHMENT if file.stem == "attachment" else LISTING
            # A second registration raises: another extension application may have done it in this process.
            if schema not in logger.schemas:
                logger.register_event_schema(file)

    def close(self) -> None:
        """Drop what is still to be sent."""
        for handle in self._late.values():
            handle.cancel()
        self._late.clear()

    def attachment(self, attachment: Attachment) -> None:
        """Tell of an attachment."""
        data = {
            "id": attachment.id,
            "seq": attachment.seq,
            "epoch": self._epoch,
            "state": attachment.state,
            "files_ready": attachment.files_ready,
            "bytes_ready": attachment.bytes_ready,
        }
        self._send(ATTACHMENT, f"a {attachment.id}", attachment.state, data)

    def listing(self, parent: str, snapshot: str, total: int, complete: bool) -> None:
        """Tell of a listing that has grown or learned more."""
        data = {"parent": parent, "snapshot": snapshot, "total": total, "complete": complete}
        self._send(LISTING, f"l {parent}", f"{snapshot} {complete}", data)

    def _send(self, schema: str, key: str, state: str, data: dict[str, Any]) -> None:
        handle = self._late.pop(key, None)
        if handle is not None:
            handle.cancel()
        before, at = self._last.get(key, ("", 0.0))
        wait = _EVERY - (time.monotonic() - at)
        if state != before or wait <= 0:
            self._emit(schema, key, state, data)
            return
        self._late[key] = asyncio.get_running_loop().call_later(wait, self._emit, schema, key, state, data)

    def _emit(self, schema: str, key: str, state: str, data: dict[str, Any]) -> None:
        self._late.pop(key, None)
        self._last[key] = (state, time.monotonic())
        self._logger.emit(schema_id=schema, data=data)
