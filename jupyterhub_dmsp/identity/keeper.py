"""Keeps the bearer-token file fresh, so that the rucio CLI, gfal and xrootd work in terminals and notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from pathlib import Path

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.identity.tokens import CLOCK_TOLERANCE, Token, TokenSource, write_bearer_file

log = logging.getLogger(__name__)
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0


class BearerKeeper:
    """A task that writes a source's token to a file ahead of each expiry.

    It looks at the clock at least every `check` seconds, so that a clock that was set or a machine that slept is
    noticed, and writes the file again when somebody removed it. On an error it backs off, 1 s to 60 s with jitter,
    logs the cause once for each new cause, and keeps the old file: an expired token tells its reader more than none.

    Args:
        source: plain or :class:`~jupyterhub_dmsp.identity.tokens.Refreshing`. When it caches, its leeway has to be
            at least this one's, or it would give the same token again: then the keeper waits a little.
        path: the file, such as ``$BEARER_TOKEN_FILE``; its directory exists.
        leeway: seconds before the end; half the life of a token that lives shorter.
        check: seconds between two looks.
    """

    def __init__(self, source: TokenSource, path: Path, leeway: float = 30.0, check: float = 15.0) -> None:
        self._source, self._path = source, path
        self._leeway, self._check = leeway, check
        self._token: Token | None = None
        self._lifetime = 0.0
        self._error: DmspError | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()

    @property
    def expires_at(self) -> float | None:
        """When the token in the file ends, epoch seconds; None before the first one."""
        return self._token.expires_at if self._token else None

    @property
    def error(self) -> DmspError | None:
        """Why there is no fresh token; None when all is well."""
        return self._error

    def start(self) -> None:
        """Start the task in the running loop; once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="bearer-keeper")
            self._task.add_done_callback(_ended)

    async def stop(self) -> None:
        """End the task; the file stays."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def wake(self) -> None:
        """Try now, whatever the back-off says: the user has logged in again, say."""
        self._wake.set()

    async def wait_changed(self, after: float | None = None) -> None:
        """Wait until a token with another end than `after` is in the file, or an error has come up."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._error is not None or self.expires_at != after)

    async def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            try:
                pause = await self._step()
                backoff = FIRST_BACKOFF
                await self._report(None)
            except (DmspError, OSError) as error:
                await self._report(_known(error))
                pause = backoff * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)
                backoff = min(2 * backoff, LONGEST_BACKOFF)
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: on Python 3.11 it can swallow a cancellation.
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def _step(self) -> float:
        """Write what has to be written; returns the seconds until the next look."""
        margin = min(self._leeway, self._lifetime / 2)
        left = self._token.seconds_left() if self._token else 0.0
        # More is left than it ever had: the clock was set back, and whoever checks `iat` refuses the token.
        due = left <= margin or left > self._lifetime + CLOCK_TOLERANCE
        if due:
            await self._write(await self._source.get())
        elif not await asyncio.to_thread(self._path.exists):
            log.info("The bearer token file was gone and is written again.")
            await self._write(self._token)
        assert self._token is not None
        left = self._token.seconds_left() - min(self._leeway, self._lifetime / 2)
        # Not below a second: a source that caches longer than we do gives the same token again.
        return min(self._check, max(left, FIRST_BACKOFF))

    async def _write(self, token: Token | None) -> None:
        if token is None:
            return
        await asyncio.to_thread(write_bearer_file, self._path, token)
        if self._token is None or token.expires_at != self._token.expires_at:
            self._lifetime = max(0.0, token.seconds_left())
        self._token = token

    async def _report(self, error: DmspError | None) -> None:
        if error is not None and str(error) != str(self._error):
            log.warning("The bearer token is not fresh: %s", error)
        elif error is None and self._error is not None:
            log.info("The bearer token is fresh again.")
        async with self._changed:
            self._error = error
            self._changed.notify_all()


def _ended(task: asyncio.Task[None]) -> None:
    """A defect of ours must not end the task unnoticed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("The keeper of the bearer token ended: %s", type(error).__name__, exc_info=error)


def _known(error: DmspError | OSError) -> DmspError:
    if isinstance(error, DmspError):
        return error
    return DmspError(
        f"The bearer token file cannot be written: {error.strerror}.", "Look at the disk and its rights."
    )
