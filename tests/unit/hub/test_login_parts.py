"""Parts of the login: discovery by the issuer's name, presets, the rate limit, who else can enter a server."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from jupyterhub import orm
from jupyterhub.utils import utcnow
from tornado import web

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.login.authenticator import DMSPAuthenticator
from jupyterhub_dmsp.hub.login.limits import MANY, RateLimit
from jupyterhub_dmsp.hub.login.sharing import shared
from jupyterhub_dmsp.identity import shapes

ISSUER = "https://iam.example/realm"
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "userinfo_endpoint": f"{ISSUER}/userinfo",
    "revocation_endpoint": f"{ISSUER}/revoke",
}


def test_an_issuer_is_all_that_has_to_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(url: str, **_: Any) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, json=DOCUMENT, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    one = DMSPAuthenticator(issuer=ISSUER, discovery_file=str(tmp_path / "issuer.json"), client_id="hub")
    assert one.get_handlers(None)
    assert (one.authorize_url, one.token_url) == (f"{ISSUER}/authorize", f"{ISSUER}/token")
    assert (one.userdata_url, one.revocation_url) == (f"{ISSUER}/userinfo", f"{ISSUER}/revoke")
    assert asked == [f"{ISSUER}/.well-known/openid-configuration"]
    assert one.login_service == "iam.example"
    assert one.enable_auth_state
    assert one.manage_groups
    assert one.basic_auth


def test_without_an_issuer_the_hub_does_not_start() -> None:
    with pytest.raises(DmspError, match=r"Set c\.DMSPAuthenticator\.issuer"):
        DMSPAuthenticator(client_id="hub").get_handlers(None)


@pytest.mark.parametrize("name", shapes.PRESET_NAMES)
def test_a_preset_sets_what_was_not_set(name: shapes.PresetName) -> None:
    one = DMSPAuthenticator(claims_preset=name)
    assert one.scope == list(shapes.PRESETS[name].scopes)
    assert one.username_claim == shapes.PRESETS[name].username_claim
    own = DMSPAuthenticator(claims_preset=name, scope=["openid"], username_claim="sub")
    assert (own.scope, own.username_claim) == (["openid"], "sub")


def test_opaque_tokens_say_nothing_of_groups() -> None:
    one = DMSPAuthenticator(claims_preset="egi")
    about = {"eduperson_entitlement": ["urn:mace:egi.eu:group:vo#aai.egi.eu"]}
    state = {"oauth_user": about, "access_token": "opaque", "id_token": None}
    assert one.groups_of(state) == ["/vo"]
    assert one.groups_of({**state, "oauth_user": {}}) == []


def test_a_missing_name_is_one_sentence_without_the_person(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(web.HTTPError) as error:
        DMSPAuthenticator().user_info_to_username({"sub": "1", "email": "ada@example.org"})
    assert error.value.status_code == 403
    assert "does not tell your user name" in str(error.value)
    assert "ada@" not in caplog.text


def test_rate_limit_is_a_burst_and_a_rate() -> None:
    now = 0.0
    limit = RateLimit(lambda: now)
    assert [limit.wait("ada", 60) for _ in range(60)] == [0.0] * 60
    assert limit.wait("ada", 60) == pytest.approx(1.0)
    assert limit.wait("bob", 60) == 0.0
    now = 2.5
    assert [limit.wait("ada", 60) > 0 for _ in range(3)] == [False, False, True]
    assert all(limit.wait("eve", 0) == 0.0 for _ in range(1000))


def test_rate_limit_forgets_who_asks_no_more() -> None:
    now = 0.0
    limit = RateLimit(lambda: now)
    for number in range(MANY):
        limit.wait(str(number), 60)
    now = 60.0
    limit.wait("last", 60)
    assert set(limit._buckets) == {"last"}


@pytest.fixture
def db() -> Any:
    session = orm.new_session_factory("sqlite:///:memory:")()
    for name in ("ada", "bob"):
        session.add(orm.User(name=name))
    session.commit()
    ada = orm.User.find(session, "ada")
    for name in ("", "other"):
        session.add(orm.Spawner(name=name, user=ada))
    session.commit()
    yield session
    session.close()


def access(name: str = "") -> list[str]:
    return [f"access:servers!server=ada/{name}"]


def test_a_share_and_an_invitation_make_a_server_not_ones_own(db: Any) -> None:
    ada, bob = orm.User.find(db, "ada"), orm.User.find(db, "bob")
    assert shared(db, ada, "") == shared(db, ada, "none-such") == ""
    orm.Share.grant(db, ada.orm_spawners["other"], bob, access("other"))
    assert shared(db, ada, "") == ""
    assert shared(db, ada, "other") == "is shared with others"
    share, _ = orm.ShareCode.new(db, ada.orm_spawners[""], scopes=access())
    assert shared(db, ada, "") == "is open to whoever has its code"
    share.expires_at = utcnow(with_tz=False) - timedelta(seconds=1)
    db.commit()
    assert shared(db, ada, "") == ""


@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize(
    ("scope", "why"),
    [
        ("access:servers!user=ada", "can be entered by others"),
        ("access:servers!server=ada/", "can be entered by others"),
        ("access:servers!server=ada/other", ""),
        ("access:servers!user=bob", ""),
        ("access:servers", ""),
    ],
)
def test_a_role_that_names_the_server_counts(db: Any, scope: str, why: str, by_group: bool) -> None:
    ada, bob = orm.User.find(db, "ada"), orm.User.find(db, "bob")
    role = orm.Role(name="helpers", scopes=[scope])
    db.add(role)
    role.users.append(ada)
    db.commit()
    assert shared(db, ada, "") == "", "one's own role"
    if by_group:
        group = orm.Group(name="helpers")
        db.add(group)
        group.users.append(bob)
        role.groups.append(group)
    else:
        role.users.append(bob)
    db.commit()
    assert shared(db, ada, "") == why


class Person:
    """What the end of a login needs of a user."""

    def __init__(self, state: dict[str, Any] | None, *active: bool) -> None:
        self.name, self.state, self._auth_refreshed = "ada", state, 7.0
        self.spawners = {str(n): type("Spawner", (), {"active": a})() for n, a in enumerate(active)}

    async def get_auth_state(self) -> dict[str, Any] | None:
        return self.state

    async def save_auth_state(self, state: dict[str, Any]) -> None:
        self.state = state


STATE = {"access_token": "secret-a", "refresh_token": "secret-r", "oauth_user": {"sub": "1", "email": "x"}}


@pytest.mark.parametrize("fails", [False, True])
async def test_the_end_of_a_login_leaves_the_subject_alone(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = DMSPAuthenticator(client_id="hub", client_secret="hush", revocation_url="https://iam.example/revoke")
    sent = []

    async def httpfetch(url: str, **options: Any) -> None:
        sent.append((url, options["body"], options["headers"]["Authorization"]))
        if fails:
            raise TimeoutError

    monkeypatch.setattr(one, "httpfetch", httpfetch)
    busy = Person(dict(STATE), False, True)
    assert not await one.endings.end(busy, "a test")
    assert busy.state == STATE
    done = Person(dict(STATE), False)
    assert await one.endings.end(done, "a test")
    assert done.state == {"oauth_user": {"sub": "1"}}
    assert done._auth_refreshed is None
    assert [(url, body) for url, body, _ in sent] == [
        ("https://iam.example/revoke", b"token=secret-r&token_type_hint=refresh_token")
    ]
    assert not await one.endings.end(done, "a test"), "there is nothing left to end"
    assert await one.refresh_user(done) is False
    assert len(sent) == 1


async def test_a_server_that_starts_again_keeps_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    one = DMSPAuthenticator(revoke_delay=0.0)
    user = Person(dict(STATE), True)
    one.post_spawn_stop(user, None)
    one.post_spawn_stop(user, None)
    while one.endings._waiting:
        await asyncio.sleep(0)
    assert user.state == STATE
    one.revoke_at = []
    one.post_spawn_stop(user, None)
    await one.endings.at_logout(user)
    assert not one.endings._waiting
    assert user.state == STATE


async def test_the_next_one_of_a_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one = DMSPAuthenticator(revoke_delay=0.0)
    user = Person(dict(STATE))
    one.post_spawn_stop(user, None)
    (waiting,) = one.endings._waiting.values()
    await one.delete_user(user)
    assert not one.endings._waiting
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert user.state == STATE, "nothing is written for a user who is deleted"
