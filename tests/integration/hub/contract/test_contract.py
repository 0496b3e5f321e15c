"""One contract for both spawners: what is offered, allowed, started, told and cleared up is the same in both places.

What holds in one place only is at the end of its class, or in a file of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from places import Place

KM3NET, COLLIDER, ADMIN = "km3net-user", "collider-user", "vre-admin"

REFUSED: dict[str, tuple[Any, str]] = {
    "unknown profile": ({"profile": "nothing"}, "There is no profile 'nothing'."),
    "forbidden profile": ({"profile": "closed"}, "The profile closed is not open to your groups."),
    "list": ({"profile": ["plain"]}, "`profile` must be the short name"),
    "number": ({"profile": 1}, "`profile` must be the short name"),
    "mapping": ({"profile": {"a": 1}}, "`profile` must be the short name"),
    "unknown option": ({"profile": "plain", "image": "evil"}, "The option 'image' is not known."),
    "choice that is not there": ({"profile": "plain", "memory": "2G"}, "`memory` is not offered; offered: 4G."),
    "choice beyond the list": ({"profile": "chosen", "cpu": 64}, "`cpu` is not offered"),
    "choice beyond the groups": ({"profile": "chosen", "memory": "2G"}, "more than your groups may choose"),
    "choice of another type": ({"profile": "chosen", "cpu": [1]}, "`cpu` is not offered"),
    "unknown variant": ({"profile": "chosen", "variant": "../x"}, "Chosen has no variant '../x'"),
    "expression": ({"profile": ".*"}, "There is no profile '.*'."),
    "path": ({"profile": "../../etc/passwd"}, "There is no profile"),
    "megabyte": ({"profile": "x" * 2**20}, "There is no profile 'xxx"),
}


@pytest.fixture(scope="class")
def place(request: pytest.FixtureRequest) -> Any:
    """The class's place."""
    return request.getfixturevalue(request.cls.where)


@pytest.fixture(autouse=True, scope="class")
async def users(place: Place) -> AsyncIterator[None]:
    """All logged in before, and without a server after."""
    for user in (KM3NET, COLLIDER, ADMIN):
        await place.login(user)
    yield
    for user in (KM3NET, COLLIDER, ADMIN):
        for server in ("", "second"):
            if await place.known(user, server):
                await place.quit(user, server)


class Contract:
    """What every place keeps; ``place`` is one of them."""

    async def test_catalogue_is_offered_by_groups(self, place: Place) -> None:
        open_to_all = {"plain", "chosen", "broken"}
        assert await place.offered(KM3NET) == open_to_all | {"closed"}
        assert await place.offered(COLLIDER) == open_to_all

    @pytest.mark.parametrize("kind", REFUSED)
    async def test_refusal_has_a_reason(self, place: Place, kind: str) -> None:
        options, sentence = REFUSED[kind]
        answer = await place.ask(COLLIDER, options)
        assert answer.status_code == 400, answer.text
        message = answer.json()["message"]
        assert sentence in message
        assert len(message) < 300
        assert not await place.known(COLLIDER) or await place.stopped(COLLIDER)

    async def test_hub_outlives_many_refusals(self, place: Place) -> None:
        answers = [await place.ask(COLLIDER, options) for options, _ in (list(REFUSED.values()) * 2)[:20]]
        assert {answer.status_code for answer in answers} == {400}
        assert place.stack.processes["hub"].poll() is None
        assert await place.leftovers(COLLIDER) == []

    async def test_progress_rises_and_says_what_is_done(self, place: Place) -> None:
        events = await place.start(KM3NET, {"profile": "chosen", "memory": "2G", "cpu": 1.5, "variant": "next"})
        assert events[-1].get("ready"), events
        percents = [event["progress"] for event in events]
        assert percents == sorted(percents)
        assert percents[-1] == 100
        messages = [event["message"] for event in events[:-1]]
        assert all(messages)
        assert len(set(messages)) >= 3
        assert "Starting the server" in messages

    async def test_choices_become_limits(self, place: Place) -> None:
        inside = await self._chosen(place)
        assert inside.memory == 2 * 1024**3
        assert inside.cpu == pytest.approx(1.5)

    async def test_environment(self, place: Place) -> None:
        inside = await self._chosen(place)
        env = inside.environment
        assert env["EDITION"] == "next"
        assert env["ODD"].replace("$$(", "$(") == "$(HOME) and ${HOME} 'quoted'"
        assert env["USER"] == env["JUPYTERHUB_USER"] == KM3NET
        assert env["HOME"] == f"/home/{KM3NET}"
        assert env["XDG_RUNTIME_DIR"] == f"/run/user/{inside.uid}"
        assert env["BEARER_TOKEN_FILE"] == f"/run/user/{inside.uid}/bt_u{inside.uid}"
        assert env["DMSP_SESSION"] == "/etc/dmsp/session.json"
        assert env["SITE_NAME"] == "SCRATCH"
        token = place.token(KM3NET)
        assert not [name for name, value in env.items() if token in value or "API_TOKEN" in name]

    async def test_description(self, place: Place) -> None:
        inside = await self._chosen(place)
        about = inside.about
        assert {"session.json", "rucio.cfg"} <= inside.files
        assert about["user"] == about["account"] == about["extra"] == KM3NET
        assert (about["profile"], about["variant"]) == ("chosen", "next")
        assert about["experiments"] == ["dmsp", "km3net"]
        assert about["scopes"] == ["dmsp", "scale", "km3net", f"user.{KM3NET}"]
        assert about["token"] == {"url": f"{place.stack.hub_url}/hub/api/dmsp/token", "audience": "rucio"}
        assert about["lake"]["rucio_url"] == "http://rucio.example"
        assert about["lake"]["mode"] == "replica"
        assert place.token(KM3NET) not in json.dumps(about)

    async def test_mounts(self, place: Place) -> None:
        mounts = (await self._chosen(place)).mounts
        assert mounts[f"/home/{KM3NET}"] is True
        assert mounts["/shared"] is False
        assert mounts["/scratch"] is False

    async def test_groups(self, place: Place) -> None:
        events = await place.start(COLLIDER, {"profile": "plain"})
        assert events[-1].get("ready"), events
        one, other = await self._chosen(place), await place.inside(COLLIDER)
        assert one.uid != other.uid
        assert min(one.uid, other.uid) >= 61000
        # Each its own, and `dmsp` in common; then one of its experiment, which the other one has not.
        assert {one.uid} < one.groups
        assert {other.uid} < other.groups
        assert len(one.groups) == len(other.groups) == 3
        assert len(one.groups & other.groups) == 1

    async def test_token_may_do_what_it_must_and_no_more(self, place: Place) -> None:
        await self._chosen(place)
        token = place.token(KM3NET)
        async with httpx.AsyncClient(
            base_url=f"{place.stack.hub_url}/hub/api/",
            headers={"Authorization": f"token {token}"},
            timeout=30,
            trust_env=False,
        ) as http:
            me = (await http.get("user")).json()
            assert me["name"] == KM3NET
            may = {scope for scope in me["scopes"] if not scope.startswith("read:")}
            assert may == {
                "custom:dmsp:token",
                f"access:servers!server={KM3NET}/",
                f"users:activity!user={KM3NET}",
            }
            # What it may read is about its own user.
            assert all(scope.endswith(f"!user={KM3NET}") for scope in set(me["scopes"]) - may)
            assert (await http.get("dmsp/token", params={"audience": "rucio"})).status_code == 200
            assert (await http.get("users")).status_code == 403
            assert (await http.delete(f"users/{KM3NET}/server")).status_code == 403
            assert (await http.post(f"users/{KM3NET}/tokens", json={})).status_code == 403

    async def test_launcher_took_the_token(self, place: Place) -> None:
        await self._chosen(place)
        assert await place.handed(KM3NET) is None
        for log in (place.stack.state / "logs").rglob("*.log"):
            assert place.token(KM3NET).encode() not in log.read_bytes()

    async def test_second_server_beside_the_first(self, place: Place) -> None:
        first = await self._chosen(place)
        events = await place.start(KM3NET, {"profile": "closed"}, "second")
        assert events[-1].get("ready"), events
        second = await place.inside(KM3NET, "second")
        assert second.same != first.same
        assert second.uid == first.uid
        assert second.environment["HOME"] == first.environment["HOME"]
        assert second.about["profile"] == "closed"
        assert place.token(KM3NET, "second") != place.token(KM3NET)
        await place.quit(KM3NET, "second")
        assert await place.leftovers(KM3NET, "second") == []
        assert await place.ready(KM3NET)
        assert (await place.inside(KM3NET)).same == first.same

    async def test_next_hub_adopts(self, place: Place) -> None:
        before = await self._chosen(place)
        await place.stack.stop("hub", kill=True)
        await place.stack.start_hub()
        assert await place.ready(KM3NET)
        assert (await place.inside(KM3NET)).same == before.same

    async def test_stop_leaves_nothing(self, place: Place) -> None:
        await self._chosen(place)
        assert await place.leftovers(KM3NET) != []
        await place.quit(KM3NET)
        assert await place.leftovers(KM3NET) == []

    async def test_failed_start_is_a_sentence(self, place: Place) -> None:
        event = (await place.start(ADMIN, {"profile": "broken"}))[-1]
        assert event.get("failed"), event
        assert place.failure in event["message"]
        assert event["message"].endswith("Ask an administrator.")
        assert str(place.stack.state) not in event["message"]
        await place.until(lambda: place.stopped(ADMIN))
        assert await place.leftovers(ADMIN) == []
        assert place.stack.processes["hub"].poll() is None

    async def test_session_that_dies_is_noticed_and_cleared(self, place: Place) -> None:
        events = await place.start(ADMIN, {"profile": "plain"})
        assert events[-1].get("ready"), events
        await place.kill(ADMIN)
        await place.until(lambda: place.stopped(ADMIN), 30)

        async def cleared() -> bool:
            return not await place.leftovers(ADMIN)

        await place.until(cleared, 30)

    async def test_good_and_bad_starts_at_once(self, place: Place) -> None:
        for user in (COLLIDER, ADMIN, KM3NET):
            if await place.known(user):
                await place.quit(user)

        async def refused() -> set[int]:
            return {(await place.ask(COLLIDER, {"profile": name})).status_code for name in ("closed", "x", 3)}

        good = [place.start(user, {"profile": "plain"}) for user in (KM3NET, ADMIN)]
        statuses, *started = await asyncio.gather(refused(), *good)
        assert statuses == {400}
        assert all(events[-1].get("ready") for events in started), started
        assert (await place.inside(KM3NET)).same != (await place.inside(ADMIN)).same

    async def _chosen(self, place: Place) -> Any:
        """The session of the first test; started here when that one did not run."""
        if not await place.ready(KM3NET):
            options = {"profile": "chosen", "memory": "2G", "cpu": 1.5, "variant": "next"}
            events = await place.start(KM3NET, options)
            assert events[-1].get("ready"), events
        return await place.inside(KM3NET)


@pytest.mark.root
class TestLocal(Contract):
    """Sessions on this machine."""

    where = "local"


class TestKube(Contract):
    """Sessions as pods."""

    where = "kube"
