"""The hub's own Prometheus metrics, in JupyterHub's registry: ``/hub/metrics`` shows them beside the stock ones.

No label takes what a stranger typed: profiles are named when the catalogue has them, audiences when they are offered,
reasons come from the code.
"""

from __future__ import annotations

import functools
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.errors import IssuerDown, LoginAgain

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800)

SPAWNS = Counter(
    "dmsp_spawns_total",
    "Starts that were asked for: ok, refused (with the reason), failed (with the reason)",
    ["profile", "outcome", "reason"],
)
STAGES = Histogram("dmsp_spawn_stage_seconds", "Parts of a start that succeeded", ["stage"], buckets=SECONDS)
REFRESHES = Counter("dmsp_token_refreshes_total", "Uses of a refresh token at the issuer", ["outcome"])
EXCHANGES = Counter("dmsp_token_exchanges_total", "Exchanges at the issuer (RFC 8693)", ["audience", "outcome"])
REQUESTS = Counter("dmsp_token_requests_total", "Answers of the token endpoint", ["outcome"])
SCRATCH_OK = Gauge("dmsp_scratch_ok", "1 while the scratch mount answers, else 0")
SCRATCH_FREE = Gauge("dmsp_scratch_free_bytes", "Free space on scratch")
SCRATCH_SIZE = Gauge("dmsp_scratch_size_bytes", "Size of scratch")
ENDED = Counter("dmsp_sessions_ended_total", "Sessions that the hub ended by itself", ["reason"])

OUTCOMES = ("ok", "login_again", "issuer_down", "refused")
"""What comes of a question to the issuer."""
ANSWERS = {
    200: "ok",
    400: "audience",
    403: "forbidden",
    409: "login_again",
    429: "too_many",
    502: "exchange_refused",
    503: "issuer_down",
}
"""Statuses of the token endpoint, as the label says them; any other counts as ``error``."""
REASONS = ("idle", "age", "left")
"""Why the hub ends a session by itself."""

for _gauge in (SCRATCH_OK, SCRATCH_FREE, SCRATCH_SIZE):
    _gauge.set(float("nan"))  # where there is no scratch to look at; an alarm at 0 stays silent

# Series that are there from the beginning: an alert on a rate needs the zero before the first event.
for _outcome in OUTCOMES:
    REFRESHES.labels(_outcome)
for _answer in (*ANSWERS.values(), "error"):
    REQUESTS.labels(_answer)
for _reason in REASONS:
    ENDED.labels(_reason)


class Running(Collector):
    """Counts running sessions at the moment when somebody looks.

    Args:
        sessions: gives the profile of each running session.
    """

    def __init__(self, sessions: Callable[[], Iterable[str]]) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Any]:
        """One gauge, by profile."""
        family = GaugeMetricFamily("dmsp_sessions", "Sessions that run now", labels=["profile"])
        for profile, number in sorted(Tally(self._sessions()).items()):
            family.add_metric([profile], number)
        yield family

    def register(self) -> Running:
        """Show it at ``/hub/metrics``."""
        REGISTRY.register(self)
        return self


Asking = Callable[..., Awaitable[Any]]

last: dict[str, tuple[float, str]] = {}
"""When the issuer was asked last to refresh and to exchange (Unix time), and what came of it."""


def outcome_of(error: BaseException) -> str:
    """One of :data:`OUTCOMES` for what a question to the issuer raised."""
    if isinstance(error, LoginAgain):
        return "login_again"
    if isinstance(error, (IssuerDown, OSError, TimeoutError)):
        return "issuer_down"
    if isinstance(error, DmspError):
        return "refused"
    status = getattr(error, "code", 0)
    return "issuer_down" if status >= 500 or status == 429 else "refused"


def refresh(ask: Asking) -> Asking:
    """Count what comes of a refresh; for the method that makes the request."""

    @functools.wraps(ask)
    async def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            answer = await ask(*args, **kwargs)
        except Exception as error:
            _refreshed(outcome_of(error))
            raise
        _refreshed("ok")
        return answer

    return counted


def exchange(ask: Asking) -> Asking:
    """Count what comes of an exchange; for a method ``(self, user, audience)``, asked for offered audiences only."""

    @functools.wraps(ask)
    async def counted(self: Any, user: Any, audience: str) -> Any:
        try:
            answer = await ask(self, user, audience)
        except Exception as error:
            _exchanged(audience, outcome_of(error))
            raise
        _exchanged(audience, "ok")
        return answer

    return counted


def _refreshed(outcome: str) -> None:
    REFRESHES.labels(outcome).inc()
    last["refresh"] = (time.time(), outcome)


def _exchanged(audience: str, outcome: str) -> None:
    EXCHANGES.labels(audience, outcome).inc()
    last["exchange"] = (time.time(), outcome)


def table(counter: Counter) -> list[tuple[dict[str, str], int]]:
    """Labels and value of each series of a counter, zeros left out."""
    samples = [s for family in counter.collect() for s in family.samples if s.name.endswith("_total")]
    return [(dict(s.labels), int(s.value)) for s in samples if s.value]


def answered(status: int) -> None:
    """Count an answer of the token endpoint."""
    REQUESTS.labels(ANSWERS.get(status, "error")).inc()
