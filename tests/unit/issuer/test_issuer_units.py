"""The parts of the issuer that need no server."""

from __future__ import annotations

import json
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_dmsp.box.issuer import (
    Client,
    Config,
    ConfigError,
    accounts,
    ensure_users,
    subjects,
    write_config,
)
from jupyterhub_dmsp.box.issuer.config import is_local, load
from jupyterhub_dmsp.box.issuer.endpoints import normal_user_code
from jupyterhub_dmsp.box.issuer.keys import InvalidToken, Keys
from jupyterhub_dmsp.box.issuer.limiter import CAPACITY, Limiter
from jupyterhub_dmsp.box.issuer.store import LATE_DEVICE, REUSE_MEMORY, Device, RefreshToken, Store, digest
from jupyterhub_dmsp.settings import User

USERS = [User(name="km3net-user", groups=["/dmsp"]), User(name="vre-admin")]


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def test_accounts_are_made_once(tmp_path):
    secrets_dir = tmp_path / "secrets"
    first = ensure_users(USERS, secrets_dir)
    users_file = tmp_path / "issuer" / "users.json"
    text = users_file.read_text()
    assert ensure_users(USERS, secrets_dir) == first
    assert users_file.read_text() == text
    assert accounts.read_passwords(secrets_dir, first) == first
    for name, password in first.items():
        assert len(password) == 19
        assert set(password) <= set(accounts.ALPHABET + "-")
        assert password not in text
        assert name not in subjects(secrets_dir)[name]
    for path in [*secrets_dir.iterdir(), users_file]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(secrets_dir.stat().st_mode) == 0o700


def test_accounts_follow_the_settings(tmp_path):
    secrets_dir = tmp_path / "secrets"
    ensure_users(USERS, secrets_dir)
    before = subjects(secrets_dir)
    ensure_users(USERS[:1], secrets_dir)
    users_file = tmp_path / "issuer" / "users.json"
    assert set(accounts.load(users_file)) == {"km3net-user"}
    accounts.password_file(secrets_dir, "km3net-user").write_text("a new one\n")
    changed = [USERS[0].model_copy(update={"groups": ["/dmsp", "/dmsp/admins"]}), USERS[1]]
    passwords = ensure_users(changed, secrets_dir)
    assert passwords["km3net-user"] == "a new one"
    assert subjects(secrets_dir) == before
    account = accounts.load(users_file)["km3net-user"]
    assert account.groups == ["/dmsp", "/dmsp/admins"]
    assert accounts.verify(account.password_hash, "a new one")
    assert not accounts.verify(account.password_hash, "a new one ")
    assert "argon2" not in repr(account)


def test_password_checks_never_raise():
    assert not accounts.verify("not a hash", "x")
    assert not accounts.verify(accounts.decoy_hash(), "x")


def test_damaged_files_are_sentences(tmp_path):
    secrets_dir = tmp_path / "secrets"
    ensure_users(USERS, secrets_dir)
    users_file = tmp_path / "issuer" / "users.json"
    users_file.write_text('[{"password_hash": "$argon2id$secret"}]')
    with pytest.raises(ConfigError) as caught:
        accounts.load(users_file)
    assert "$argon2id" not in str(caught.value)
    (secrets_dir / "subjects.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        subjects(secrets_dir)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"issuer": "http://127.0.0.1:1/oidc/"}, "slash"),
        ({"issuer": "http://93.184.216.34/oidc"}, "https"),
        ({"issuer": "ftp://127.0.0.1/oidc"}, "http or https"),
        ({"unknown": 1}, "unknown"),
        ({"clients": []}, "clients"),
        ({"clients": [{"id": "a-b"}, {"id": "a-b"}]}, "twice"),
        ({"clients": [{"id": "a-b", "grants": ["authorization_code"]}]}, "redirect_uris"),
        (
            {"clients": [{"id": "a-b", "grants": ["urn:ietf:params:oauth:grant-type:token-exchange"]}]},
            "public client",
        ),
        ({"clients": [{"id": "a-b", "grants": ["password"]}]}, "clients.0.grants.0"),
    ],
)
def test_configuration_faults_are_sentences(tmp_path, changes, fault):
    good = {
        "issuer": "http://127.0.0.1:1/oidc",
        "port": 1,
        "storage": str(tmp_path),
        "users_file": str(tmp_path / "users.json"),
        "clients": [{"id": "one-client"}],
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**good, **changes}))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=fault):
        load(path)


def test_write_config_round_trips_and_holds_no_secret(tmp_path):
    secret_file = tmp_path / "secrets" / "one"
    client = Client(id="one-client", secret_file=secret_file)
    path = write_config(
        tmp_path / "issuer", issuer="http://100.64.0.1:8/oidc", port=8, clients=[client], token_lifetime=60
    )
    secret = secret_file.read_text().strip()
    assert len(secret) >= 43
    assert secret not in path.read_text()
    config = load(path)
    assert isinstance(config, Config)
    assert config.base_path == "/oidc"
    assert config.lifetimes.access_token == 60
    assert config.clients[0].secret_file != secret_file
    assert config.clients[0].secret_file.read_text().strip() == secret
    again = write_config(tmp_path / "issuer", issuer=config.issuer, port=8, clients=[client])
    assert secret_file.read_text().strip() == secret
    assert load(again).lifetimes.access_token == 3600


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("100.64.1.2", True),
        ("10.0.0.1", True),
        ("8.8.8.8", False),
        ("example.org", False),
    ],
)
def test_local_addresses(host, local):
    assert is_local(host) is local


def test_keys_persist_and_verify(tmp_path):
    keys, again = Keys(tmp_path), Keys(tmp_path)
    assert keys.jwks == again.jwks
    assert set(keys.jwks["keys"][0]) == {"kty", "n", "e", "use", "alg", "kid"}
    assert keys.successor("a") == again.successor("a") != keys.successor("b")
    token = keys.sign({"iss": "i", "sub": "s", "exp": 100}, "at+jwt")
    assert again.verify(token, "i", "at+jwt", now=99)["sub"] == "s"
    for issuer, typ, now in (("j", "at+jwt", 99), ("i", "JWT", 99), ("i", "at+jwt", 101)):
        with pytest.raises(InvalidToken):
            keys.verify(token, issuer, typ, now)
    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidToken):
        Keys(tmp_path / "other").verify(token, "i", "at+jwt", now=99)


@settings(database=None, deadline=None)
@given(st.text())
def test_any_text_is_an_invalid_token(text):
    with pytest.raises(InvalidToken):
        SHARED.verify(text, "i", "at+jwt", 0)


@pytest.fixture(autouse=True, scope="module")
def _shared(tmp_path_factory):
    global SHARED
    SHARED = Keys(tmp_path_factory.mktemp("keys"))


@settings(database=None, deadline=None)
@given(st.text(alphabet="bcdfBCDF -xyXY", max_size=20))
def test_user_codes_have_one_form(typed):
    normal = normal_user_code(typed)
    assert normal_user_code(normal) == normal
    assert normal == normal.upper()


def test_limiter_counts_and_forgets():
    clock = Clock()
    limiter = Limiter(2, 10, clock)
    for _ in range(2):
        assert limiter.wait("a") == 0
        limiter.hit("a")
        clock.now += 1
    assert limiter.wait("a") == pytest.approx(8)
    assert limiter.wait("b") == 0
    clock.now += 8
    assert limiter.wait("a") == 0
    limiter.hit("a")
    assert limiter.wait("a") > 0
    limiter.refund("a")
    assert limiter.wait("a") == 0
    limiter.refund("never")
    for n in range(CAPACITY + 5):
        limiter.hit(n)
    assert len(limiter._attempts) == CAPACITY


@pytest.fixture
def store(tmp_path):
    one = Store(tmp_path / "issuer.sqlite", Clock())
    yield one
    one.close()


def row(token, family="f", lifetime=100.0):
    return RefreshToken(digest(token), family, "hub", "sub", "openid", 0, 1_000_000.0 + lifetime)


def test_store_is_private_and_keeps_hashes(store, tmp_path):
    with store.transaction():
        store.add_refresh(row("the-secret-token"))
        store.add_session("the-secret-cookie", "sub", 10)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
        assert b"the-secret" not in path.read_bytes()


def test_store_transactions_are_all_or_nothing(store):
    def fails_halfway():
        with store.transaction():
            store.add_session("a", "sub", 10)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails_halfway()
    assert store.session("a") is None


def test_store_forgets_what_is_over(store):
    with store.transaction():
        store.add_session("s", "sub", 10)
        store.add_refresh(row("short", lifetime=10))
        store.add_refresh(row("long", lifetime=1e9))
        store.mark_rotated(store.refresh(digest("long")), "x")
        store.revoke("j", 10)
        store.add_device(Device(digest("d"), "BBBB-BBBB", "cli", "", 1_000_010.0, 5))
    assert store.session("s").sub == "sub"
    assert store.is_revoked("other", "j")
    store.clock.now += 11
    assert store.session("s") is None
    assert store.refresh(digest("short")) is None
    assert store.clean() == 3
    assert store.device("d") is not None
    store.clock.now += LATE_DEVICE
    assert store.clean() == 1
    assert store.refresh(digest("long")) is not None
    store.clock.now += REUSE_MEMORY
    assert store.clean() == 1
    assert store.refresh(digest("long")) is None


def test_store_revokes_a_family(store):
    with store.transaction():
        for token, family in (("a", "f"), ("b", "f"), ("c", "g")):
            store.add_refresh(row(token, family))
        store.revoke_family("f", 100)
    assert store.refresh(digest("a")) is None
    assert store.refresh(digest("c")) is not None
    assert store.is_revoked("f")
    assert not store.is_revoked("g")


def test_store_refuses_what_is_not_its_own(tmp_path):
    path = tmp_path / "issuer.sqlite"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(path)
