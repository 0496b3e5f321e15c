"""Ends idle sessions, in the hub's own process.

The truth about activity is JupyterHub's own ``last_activity``, which each user's server reports: it counts busy
kernels, attachments that arrive, programs and leases (:mod:`jupyterhub_dmsp.lab.activity`). Any stock culler sees the
same. This one needs no process and no token of its own, knows profiles, says beforehand what it will do, and asks the
server once more before it ends it: the last report may be some minutes old, and its user back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from logging import Logger
from typing import Any

from jupyterhub import orm
from jupyterhub.utils import url_path_join
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from jupyterhub_dmsp.hub.metrics import numbers
from jupyterhub_dmsp.hub.metrics.watching import farewells, profile_of, running
from jupyterhub_dmsp.settings import Idle

ASK_TIMEOUT = 10.0
SILENCE = 600.0
"""Seconds for which a server that does not answer is given the benefit of the doubt."""


@dataclass(frozen=True)
class Verdict:
    """What is to become of a session.

    Attributes:
        reason: ``idle`` or ``age`` when it is to end; else empty.
        left: seconds until it ends if nothing changes; None when nothing ends it.
    """

    reason: str = ""
    left: float | None = None


def judge(rules: Idle, profile: str, started: datetime, active: datetime, now: datetime) -> Verdict:
    """The verdict on a session that started and was last active at these moments."""
    ends = []
    if timeout := rules.timeout_of(profile):
        ends.append((max(active, started) + timedelta(seconds=timeout), "idle"))
    if rules.max_age:
        ends.append((started + timedelta(seconds=rules.max_age), "age"))
    if not ends:
        return Verdict()
    end, reason = min(ends)
    left = (end - now).total_seconds()
    return Verdict(reason if left <= 0 else "", max(left, 0.0))


def interval(rules: Iterable[Idle]) -> float:
    """Seconds until the next look: short for short times, a minute at most."""
    times = [t for one in rules for t in (one.timeout, one.max_age, *one.profiles.values()) if t]
    return min(60.0, max(1.0, min(times, default=1200) / 20))


class Culler:
    """Looks at all running sessions again and again.

    Args:
        app: JupyterHub; from its proxy routes are removed before a server ends.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.log: Logger = app.log
        self._warned: set[tuple[str, str, datetime]] = set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            rules: list[Idle] = []
            try:
                rules = await self.look()
            except Exception:
                self.log.exception("The look at idle sessions failed")
            await asyncio.sleep(interval(rules))

    async def look(self) -> list[Idle]:
        """Judge every session once and end those whose time has come; the rules that held."""
        seen: list[Idle] = []
        for spawner in running():
            rules = (await asyncio.to_thread(spawner.dmsp_settings)).idle
            seen.append(rules)
            now, started, active = _times(spawner)
            verdict = judge(rules, profile_of(spawner), started, active, now)
            if verdict.reason == "idle":
                verdict = await self._asked(spawner, rules, started, active)
            if verdict.reason:
                await self._end(spawner, verdict.reason)
            elif verdict.left is not None and verdict.left <= rules.warning:
                self._warn(spawner, active, verdict.left)
        return seen

    def _warn(self, spawner: Any, active: datetime, left: float) -> None:
        key = (spawner.user.name, spawner.name, active)
        if key not in self._warned:
            self._warned = {one for one in self._warned if one[:2] != key[:2]} | {key}
            self.log.warning(
                "The session of %s will end in %.0f s: nothing has happened since %s",
                _name(spawner),
                left,
                active.isoformat(timespec="seconds"),
            )

    async def _asked(self, spawner: Any, rules: Idle, started: datetime, active: datetime) -> Verdict:
        """The verdict with the server's own answer, which may be newer than what it has reported."""
        now = datetime.now(UTC)
        try:
            told = await last_activity(spawner)
        except (HTTPClientError, OSError, TimeoutError, ValueError, KeyError) as error:
            silent = judge(rules, profile_of(spawner), started, active + timedelta(seconds=SILENCE), now)
            self.log.warning("%s does not say what it does (%s)", _name(spawner), type(error).__name__)
            return silent
        if told > active:
            spawner.orm_spawner.last_activity = told.replace(tzinfo=None)
            spawner.user.db.commit()
        return judge(rules, profile_of(spawner), started, max(told, active), now)

    async def _end(self, spawner: Any, reason: str) -> None:
        user, name = spawner.user, spawner.name
        if not spawner.ready:
            return  # while it was asked, somebody else has stopped it
        # As JupyterHub's own handler does it: before the first wait, so that nobody starts something meanwhile.
        spawner._stop_pending = True
        why = "nothing happened in it for long" if reason == "idle" else "it had run for as long as it may"
        self.log.warning("Ending the session of %s: %s", _name(spawner), why)
        try:
            await self.app.proxy.delete_user(user, name)
            await user.stop(name)
        except Exception:
            self.log.exception("Ending the session of %s failed", _name(spawner))
            return
        finally:
            spawner._stop_pending = False
        numbers.ENDED.labels(reason).inc()
        at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        farewells[user.name, name] = (
            f"Your last session was ended at {at}: {why}. Your files are as you left them."
        )


def _name(spawner: Any) -> str:
    """User, and a named server's name behind a slash."""
    return f"{spawner.user.name}/{spawner.name}" if spawner.name else str(spawner.user.name)


def _times(spawner: Any) -> tuple[datetime, datetime, datetime]:
    """Now, the start and the last activity; JupyterHub keeps the latter two in UTC without saying so."""
    now = datetime.now(UTC)
    row = spawner.orm_spawner
    started = row.started.replace(tzinfo=UTC) if row.started else now
    return now, started, row.last_activity.replace(tzinfo=UTC) if row.last_activity else started


async def last_activity(spawner: Any) -> datetime:
    """What the user's server itself says; the question does not count as activity."""
    user = spawner.user
    scope = f"access:servers!server={user.name}/{spawner.name}"
    token = user.new_api_token(note="look for activity", scopes=[scope], expires_in=60)
    try:
        request = HTTPRequest(
            url_path_join(spawner.server.url, "api", "status"),
            headers={"Authorization": f"token {token}"},
            connect_timeout=ASK_TIMEOUT,
            request_timeout=ASK_TIMEOUT,
        )
        answer = await AsyncHTTPClient().fetch(request)
    finally:
        _revoke(user, token)
    told = datetime.fromisoformat(json.loads(answer.body)["last_activity"])
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def _revoke(user: Any, token: str) -> None:
    row = orm.APIToken.find(user.db, token)
    if row is not None:
        user.db.delete(row)
        user.db.commit()
