"""``/hub/dmsp``: what runs and how it goes, at a glance, for admins. Rendered here, without scripts."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from jupyterhub_dmsp.hub import keeping
from jupyterhub_dmsp.hub.launch.form import TEMPLATES
from jupyterhub_dmsp.hub.metrics import numbers, watching

HOUR = 3600.0
SHOWN = 20
"""How many refused and failed starts are listed."""
EVERY = 30
"""Seconds between two loads of the page by itself, when that is wanted."""

STAGE_NAMES = {
    "environment": "Environment found or built",
    "sandbox": "Sandbox made",
    "scheduled": "Pod placed on a node",
    "pulled": "Image pulled",
    "server": "Server answers",
    "all": "All of it",
}
OUTCOME_NAMES = {
    "ok": "ok",
    "refused": "refused",
    "failed": "failed",
    "login_again": "new login needed",
    "issuer_down": "identity provider did not answer",
    "audience": "audience not offered",
    "forbidden": "not a user's own server",
    "too_many": "too many requests",
    "exchange_refused": "exchange refused",
    "error": "error",
}


def since(then: float | datetime | None, now: float) -> str:
    """How long ago, as people say it."""
    if then is None:
        return "-"
    if isinstance(then, datetime):
        then = (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
    seconds = max(0.0, now - then)
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def in_bytes(amount: float | None) -> str:
    """Bytes as people read them."""
    if amount is None or math.isnan(amount):
        return "-"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{amount:.1f} {unit}"
        amount /= 1000
    return ""


def in_seconds(amount: float | None) -> str:
    """Seconds as people read them, with as many digits as matter."""
    if amount is None:
        return "-"
    return f"{amount:.2f} s" if amount < 10 else f"{amount:.0f} s" if amount < 600 else f"{amount / 60:.0f} min"


def rows(now: float) -> list[tuple[Any, dict[str, str]]]:
    """Spawner, and what JupyterHub's database says of its session."""
    found = []
    for spawner in watching.running():
        row = spawner.orm_spawner
        about = {
            "user": spawner.user.name,
            "server": spawner.name,
            "since": since(row.started, now),
            "active": since(row.last_activity, now),
        }
        found.append((spawner, about))
    return sorted(found, key=lambda one: (one[1]["user"], one[1]["server"]))


def usage_of(spawner: Any) -> dict[str, str]:
    """Profile, memory and processor time, as texts."""
    used = spawner.usage()
    cpu = used.get("cpu")
    return {
        "profile": watching.profile_of(spawner),
        "memory": in_bytes(used.get("memory")),
        "cpu": in_seconds(cpu),
    }


def stages() -> list[dict[str, Any]]:
    """Median and slowest of the last durations of each stage; ``width`` is the bar's, of 100."""
    found = []
    known = [*(name for name in STAGE_NAMES if name in watching.durations), *sorted(watching.durations)]
    longest = max((max(values) for values in watching.durations.values()), default=1.0)
    for name in dict.fromkeys(known):
        values = watching.durations[name]
        middle, most = statistics.median(values), max(values)
        found.append(
            {
                "name": STAGE_NAMES.get(name, name),
                "median": in_seconds(middle),
                "most": in_seconds(most),
                "number": len(values),
                # The root: a build of minutes must not make the seconds of every day invisible.
                "width": 100 * math.sqrt(middle / longest),
                "tail": 100 * math.sqrt(most / longest),
            }
        )
    return found


def tally(now: float) -> dict[str, int]:
    """Starts of the last hour by outcome."""
    young = [one.outcome for one in watching.recent if now - one.at < HOUR]
    return {outcome: young.count(outcome) for outcome in ("ok", "refused", "failed")}


def bad_starts(now: float) -> list[dict[str, str]]:
    """The last refused and failed starts, newest first."""
    wrong = [one for one in reversed(watching.recent) if one.outcome != "ok"][:SHOWN]
    return [
        {
            "ago": since(one.at, now),
            "user": one.user,
            "profile": one.profile or "-",
            "outcome": one.outcome,
            "sentence": one.sentence,
        }
        for one in wrong
    ]


def counted(counter: Any, names: Sequence[str]) -> list[list[str]]:
    """Rows of labels and a number."""

    def said(name: str, label: str) -> str:
        # A reason may be the same word as an outcome, and mean something else.
        return (OUTCOME_NAMES.get(label, label) if name == "outcome" else label) or "-"

    return [
        [*(said(name, labels[name]) for name in names), str(value)]
        for labels, value in sorted(numbers.table(counter), key=lambda one: list(one[0].values()))
    ]


def asked(now: float) -> list[str]:
    """When the issuer was asked last, in sentences."""
    names = {"refresh": "Last refresh", "exchange": "Last exchange"}
    return [
        f"{names[kind]} {since(at, now)} ago: {OUTCOME_NAMES[outcome]}."
        for kind, (at, outcome) in numbers.last.items()
    ]


def free(capacity: Any) -> str:
    """What a spawner's ``capacity()`` said, as text."""
    if capacity is None:
        return "not known"
    said: Iterable[str | None] = (
        f"{in_bytes(capacity.memory_bytes)} memory" if capacity.memory_bytes is not None else None,
        f"{capacity.cpu:g} cores" if capacity.cpu is not None else None,
        f"{capacity.gpus} GPUs" if capacity.gpus is not None else None,
    )
    return ", ".join(text for text in said if text) or "not known"


class AdminPage(BaseHandler):
    """The page. Whoever may see JupyterHub's admin page and everybody's servers may see it."""

    @web.authenticated
    @needs_scope("admin-ui")
    @needs_scope("read:servers")
    async def get(self) -> None:
        """Render it; ``?refresh`` has it load itself again."""
        now = time.time()
        # The database is for this thread only, files and processes for another.
        found = await asyncio.to_thread(lambda pairs: [row | usage_of(one) for one, row in pairs], rows(now))
        house = keeping.current()
        scratch = house.scratch if house else None
        html = await self.render_admin(
            now=datetime.now(UTC).strftime("%H:%M:%S UTC"),
            refresh=EVERY if self.get_query_argument("refresh", None) is not None else 0,
            every=EVERY,
            sessions=found,
            starts=tally(now),
            bad=bad_starts(now),
            stages=stages(),
            spawns=counted(numbers.SPAWNS, ("profile", "outcome", "reason")),
            refreshes=counted(numbers.REFRESHES, ("outcome",)),
            exchanges=counted(numbers.EXCHANGES, ("audience", "outcome")),
            answers=counted(numbers.REQUESTS, ("outcome",)),
            ended=counted(numbers.ENDED, ("reason",)),
            asked=asked(now),
            scratch=scratch,
            scratch_free=in_bytes(scratch.free_bytes) if scratch else "",
            scratch_size=in_bytes(scratch.total_bytes) if scratch else "",
            free=free(await self.capacity()),
        )
        self.finish(html)

    async def capacity(self) -> Any:
        """What is free, as the spawner of whoever looks says it; None when it does not."""
        spawner = self.current_user.spawners[""]
        return await spawner.capacity() if hasattr(spawner, "capacity") else None

    async def render_admin(self, **values: Any) -> str:
        """Our template on top of the hub's own page, whatever templates the hub is configured with."""
        stock = self.settings["jinja2_env"]
        loader = jinja2.ChoiceLoader([stock.loader, jinja2.FileSystemLoader(TEMPLATES)])
        environment = stock.overlay(loader=loader, enable_async=True)
        names = self.template_namespace | values
        return str(await environment.get_template("dmsp.html").render_async(**names))


ADMIN_HANDLERS = [(r"/dmsp", AdminPage)]
