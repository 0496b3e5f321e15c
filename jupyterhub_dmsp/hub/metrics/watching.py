"""Follows each start from the request to the server that answers, for the metrics and for the admin page."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from traitlets.config import LoggingConfigurable

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.errors import SpawnException
from jupyterhub_dmsp.hub.metrics import numbers

UNKNOWN = "other"
"""Label of what is not, or no longer, in the catalogue."""


@dataclass(frozen=True)
class Ended:
    """How an attempt to start a session ended.

    Attributes:
        at: Unix time.
        user: who asked.
        profile: slug, empty when none was found.
        outcome: ``ok``, ``refused`` or ``failed``.
        reason: a word from the code; empty for ``ok``.
        sentence: what the user was told; empty for ``ok``.
        seconds: how long it took.
    """

    at: float
    user: str
    profile: str
    outcome: str
    reason: str
    sentence: str
    seconds: float


recent: deque[Ended] = deque(maxlen=200)
"""The last attempts, oldest first; gone with the hub."""
durations: dict[str, deque[float]] = {}
"""The last durations of each stage, seconds."""

farewells: dict[tuple[str, str], str] = {}
"""By user and server: why the hub ended their last session; said on the launch page until they start another."""


@dataclass
class Attempt:
    """One request for a session, until its server answers or it is given up."""

    user: str
    profile: str = ""
    began: float = field(default_factory=time.monotonic)
    started: float | None = None
    over: bool = False

    def stage(self, name: str, seconds: float) -> None:
        """Remember how long a part took."""
        numbers.STAGES.labels(name).observe(seconds)
        durations.setdefault(name, deque(maxlen=100)).append(seconds)

    def up(self) -> None:
        """The server answers."""
        now = time.monotonic()
        if not self.over:
            self.stage("server", now - (self.started or self.began))
            self.stage("all", now - self.began)
            self._end("ok", "", "")

    def failed(self, error: BaseException) -> None:
        """It ended with this."""
        outcome, reason, sentence = told(error)
        self._end(outcome, reason, sentence)

    def unanswered(self) -> None:
        """The start went well, and nobody listens."""
        self._end("failed", "unanswered", "The session started, and its server did not answer.")

    def _end(self, outcome: str, reason: str, sentence: str) -> None:
        if self.over:
            return
        self.over = True
        numbers.SPAWNS.labels(self.profile or UNKNOWN, outcome, reason).inc()
        took = time.monotonic() - self.began
        recent.append(Ended(time.time(), self.user, self.profile, outcome, reason, sentence, took))


def told(error: BaseException) -> tuple[str, str, str]:
    """Outcome, reason and sentence of an error that ended a start."""
    if isinstance(error, SpawnException):
        outcome = "refused" if error.status_code < 500 else "failed"
        return outcome, error.kind or "other", str(error.jupyterhub_message)
    if isinstance(error, DmspError):
        return "failed", "error", error.message
    if isinstance(error, (asyncio.CancelledError, TimeoutError)):
        return "failed", "cancelled", "The start was given up: it took too long, or somebody stopped it."
    return "failed", "error", f"An error that nobody expected ({type(error).__name__}); the hub's log has it."


Method = Callable[..., Awaitable[Any]]


def choosing(method: Method) -> Method:
    """For :meth:`ProfileSpawner.choose`: begins an attempt, counts what is refused."""

    @functools.wraps(method)
    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = self.attempt = Attempt(str(self.user.name))
        try:
            launch = await method(self, *args, **kwargs)
        except BaseException as error:
            attempt.failed(error)
            raise
        attempt.profile = launch.profile.slug
        return launch

    return watched


def starting(method: Method) -> Method:
    """For a spawner's ``start``: counts what fails; what succeeds is counted when the server answers."""

    @functools.wraps(method)
    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            where = await method(self, *args, **kwargs)
        except BaseException as error:
            if self.attempt is not None:
                self.attempt.failed(error)
            raise
        self.server_begins()
        return where

    return watched


def stage(name: str) -> Callable[[Method], Method]:
    """For a spawner's method that is one part of a start; failures are not timed."""

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            with timed(self, name):
                return await method(self, *args, **kwargs)

        return watched

    return decorate


@contextlib.contextmanager
def timed(spawner: Any, name: str) -> Iterator[None]:
    """The same for some lines: ``with timed(self, "scheduled"): …``."""
    began = time.monotonic()
    yield
    if spawner.attempt is not None:
        spawner.attempt.stage(name, time.monotonic() - began)


class Watched(LoggingConfigurable):
    """A spawner whose starts are followed; below :class:`ProfileSpawner`, above JupyterHub's ``Spawner``."""

    attempt: Attempt | None = None
    """The last request; None when this hub has started nothing here."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        known.add(self)

    def add_poll_callback(self, *args: Any, **kwargs: Any) -> None:
        """JupyterHub calls this once the server answers and has its route, and at no other time."""
        super().add_poll_callback(*args, **kwargs)
        if self.attempt is not None:
            self.attempt.up()
            farewells.pop((str(self.user.name), str(self.name)), None)

    def run_post_stop_hook(self) -> Any:
        """JupyterHub calls this at every end, that of a start which nobody answered included."""
        if self.attempt is not None:
            self.attempt.unanswered()
        return super().run_post_stop_hook()

    def server_begins(self) -> None:
        """The place is made, what follows is the server's own start. Only the first word counts."""
        if self.attempt is not None and self.attempt.started is None:
            self.attempt.started = time.monotonic()

    def usage(self) -> dict[str, float]:
        """What the session uses now, as far as it is known: ``memory`` [bytes], ``cpu`` [s since its start]."""
        return {}


known: WeakSet[Watched] = WeakSet()
"""Every spawner object of this hub; JupyterHub makes one for each running server when it starts."""


def running() -> list[Any]:
    """The spawners whose servers run."""
    return [spawner for spawner in list(known) if getattr(spawner, "ready", False)]


def profile_of(spawner: Any) -> str:
    """Slug of what runs, :data:`UNKNOWN` when the catalogue has it no longer."""
    if spawner.launch is not None:
        return str(spawner.launch.profile.slug)
    slug = (spawner.user_options or {}).get("profile", "")
    try:
        return slug if isinstance(slug, str) and spawner.catalogue().get(slug) else UNKNOWN
    except DmspError:
        return UNKNOWN


numbers.Running(lambda: map(profile_of, running())).register()
