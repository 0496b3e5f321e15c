"""Tokens, their files, and keeping them fresh."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import stat
import sys
import time

import pytest

from jupyterhub_dmsp.identity.errors import (
    IssuerDown,
    TokenCommandFailed,
    TokenExpired,
    TokenMalformed,
    TokenMissing,
    TokenRefused,
    redact,
)
from jupyterhub_dmsp.identity.keeper import BearerKeeper
from jupyterhub_dmsp.identity.tokens import (
    RETRY,
    CommandTokenSource,
    FileTokenSource,
    Refreshing,
    Token,
    write_bearer_file,
)


def jwt_of(**claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


class Clocks:
    """A wall clock and a monotonic one that tests move."""

    def __init__(self):
        self.wall_now, self.monotonic_now = 1_000_000.0, 50.0

    def wall(self):
        return self.wall_now

    def monotonic(self):
        return self.monotonic_now

    def pass_(self, seconds):
        self.wall_now += seconds
        self.monotonic_now += seconds


class Source:
    """Gives numbered tokens of a lifetime, or raises what it is told to."""

    def __init__(self, clocks=None, lifetime=100.0):
        self.clocks, self.lifetime = clocks, lifetime
        self.calls, self.error, self.gate = 0, None, None

    async def get(self):
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        now = self.clocks.wall() if self.clocks else time.time()
        return Token.of(f"token-{self.calls}", now + self.lifetime, "rucio")


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def source(clocks):
    return Source(clocks)


def refreshing(source, clocks, leeway=30.0):
    return Refreshing(source, leeway, wall=clocks.wall, monotonic=clocks.monotonic)


def test_a_token_hides_itself():
    token = Token.of(" secret-token\n", 100.0, "rucio")
    assert token.reveal() == "secret-token"
    assert token.headers() == {"Authorization": "Bearer secret-token"}
    assert token.seconds_left(40.0) == 60.0
    for shown in (repr(token), str(token), f"{token}", str([token]), "%r" % (token,)):  # noqa: UP031
        assert "secret" not in shown


@pytest.mark.parametrize("text", ["", "  ", "two words", "new\nline", "ümlaut", "a" * 70_000])
def test_what_is_no_token(text):
    with pytest.raises(TokenMalformed) as caught:
        Token.of(text, 0, "rucio")
    assert not text.strip() or text not in str(caught.value)


def test_bearer_file_is_private_and_replaced(tmp_path):
    path = tmp_path / "bt_u1000"
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path.symlink_to(victim)
    write_bearer_file(path, Token.of("one", 1, "rucio"))
    assert victim.read_text() == "untouched"
    assert path.read_text() == "one"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    before = path.open()
    write_bearer_file(path, Token.of("two", 1, "rucio"))
    with before:
        assert before.read() == "one"
    assert path.read_text() == "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bt_u1000", "victim"]
    with pytest.raises(FileNotFoundError):
        write_bearer_file(tmp_path / "no" / "where", Token.of("x", 1, "rucio"))


async def test_refreshing_caches_until_the_leeway(source, clocks):
    tokens = refreshing(source, clocks)
    assert (await tokens.get()).reveal() == "token-1"
    clocks.pass_(69)
    assert (await tokens.get()).reveal() == "token-1"
    clocks.pass_(1)
    assert (await tokens.get()).reveal() == "token-2"
    tokens.invalidate()
    assert (await tokens.get()).reveal() == "token-3"


async def test_refreshing_uses_half_of_a_short_life(clocks):
    source = Source(clocks, lifetime=20)
    tokens = refreshing(source, clocks, leeway=30)
    for _ in range(5):
        await tokens.get()
    assert source.calls == 1
    clocks.pass_(10)
    await tokens.get()
    assert source.calls == 2


async def test_refreshing_flies_once(source, clocks):
    source.gate = asyncio.Event()
    tokens = refreshing(source, clocks)
    callers = [asyncio.create_task(tokens.get()) for _ in range(20)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    source.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert {r.reveal() for r in results[1:]} == {"token-1"}
    assert source.calls == 1


async def test_refreshing_raises_to_everybody_and_recovers(source, clocks):
    source.error = TokenRefused("No.")
    tokens = refreshing(source, clocks)
    results = await asyncio.gather(*(tokens.get() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(r, TokenRefused) for r in results)
    assert source.calls == 1
    source.error = None
    assert (await tokens.get()).reveal() == "token-2"


async def test_refreshing_gives_the_old_token_while_it_lives(source, clocks, caplog):
    tokens = refreshing(source, clocks)
    await tokens.get()
    clocks.pass_(80)
    source.error = IssuerDown("The hub cannot be reached.")
    with caplog.at_level(logging.WARNING):
        assert (await tokens.get()).reveal() == "token-1"
        assert (await tokens.get()).reveal() == "token-1"
    assert source.calls == 2
    assert "The hub cannot be reached." in caplog.text
    assert "token-1" not in caplog.text
    clocks.pass_(RETRY)
    await tokens.get()
    assert source.calls == 3
    clocks.pass_(30)
    with pytest.raises(IssuerDown):
        await tokens.get()
    source.error = None
    assert (await tokens.get()).reveal() == "token-5"


async def test_refreshing_notices_clocks(source, clocks):
    tokens = refreshing(source, clocks)
    await tokens.get()
    clocks.wall_now -= 3600  # Set back: the monotonic clock knows better.
    clocks.monotonic_now += 80
    await tokens.get()
    assert source.calls == 2
    clocks.wall_now += 3600  # Set ahead, or a machine that slept.
    await tokens.get()
    assert source.calls == 3


async def test_refreshing_does_not_believe_a_clock_that_is_behind(clocks):
    class Hub:
        calls = 0

        async def get(self):
            self.calls += 1
            ahead = clocks.wall() + 3600
            return Token.from_jwt(jwt_of(iat=ahead, exp=ahead + 60), "rucio")

    hub = Hub()
    tokens = refreshing(hub, clocks, leeway=10)
    await tokens.get()
    clocks.pass_(51)
    await tokens.get()
    assert hub.calls == 2


async def test_refreshing_refuses_expired_tokens(clocks):
    tokens = refreshing(Source(clocks, lifetime=-1), clocks)
    with pytest.raises(TokenExpired, match="clocks"):
        await tokens.get()


async def test_file_source(tmp_path):
    path = tmp_path / "token"
    source = FileTokenSource(path, "rucio")
    with pytest.raises(TokenMissing, match="No such file"):
        await source.get()
    path.write_text("\n")
    with pytest.raises(TokenMissing, match="empty"):
        await source.get()
    path.write_text("opaque-token-of-somebody")
    with pytest.raises(TokenMalformed) as caught:
        await source.get()
    assert "opaque" not in str(caught.value)
    path.write_text(jwt_of(sub="x"))
    with pytest.raises(TokenMalformed, match="expires"):
        await source.get()
    path.write_text(jwt_of(exp=time.time() - 1))
    with pytest.raises(TokenExpired):
        await source.get()
    end = int(time.time()) + 60
    path.write_text(jwt_of(exp=end) + "\n")
    token = await source.get()
    assert token.expires_at == end
    assert token.audience == "rucio"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TokenMissing, match="not text"):
        await source.get()


def python(code):
    return [sys.executable, "-c", code]


async def test_command_source():
    text = jwt_of(exp=time.time() + 60)
    assert (await CommandTokenSource(python(f"print('{text}')"), "rucio").get()).reveal() == text
    with pytest.raises(TokenCommandFailed, match="cannot run"):
        await CommandTokenSource(["/does/not/exist"], "rucio").get()
    with pytest.raises(TokenCommandFailed, match="exit code 3"):
        await CommandTokenSource(python("raise SystemExit(3)"), "rucio").get()
    with pytest.raises(TokenMalformed):
        await CommandTokenSource(python("print('hello')"), "rucio").get()
    secret = "s" * 40
    with pytest.raises(TokenCommandFailed) as caught:
        await CommandTokenSource(python(f"raise SystemExit('account {secret} not loaded')"), "rucio").get()
    assert "not loaded" in str(caught.value)
    assert secret not in str(caught.value)


async def test_command_source_leaves_no_process_behind(tmp_path):
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(TokenCommandFailed, match="took over"):
        await CommandTokenSource(python(code), "rucio", timeout=3).get()

    def alive(pid):
        # A killed grandchild may stay a zombie until init looks: that is not alive.
        try:
            with open(f"/proc/{pid}/stat") as status:  # noqa: PTH123
                return status.read().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    async with asyncio.timeout(5):
        while any(alive(pid) for pid in pids.read_text().split()):
            await asyncio.sleep(0.02)


def test_redact():
    token = jwt_of(sub="x")
    assert token not in redact(f"bad token {token} here")
    assert redact("plain words\nand lines") == "plain words and lines"
    assert len(redact("x " * 1000)) == 200


async def test_keeper_writes_ahead_of_expiry(tmp_path):
    path = tmp_path / "bt"
    source = Source(lifetime=2.0)
    keeper = BearerKeeper(source, path, leeway=30)
    assert keeper.expires_at is None
    keeper.start()
    keeper.start()
    async with asyncio.timeout(20):
        await keeper.wait_changed()
        first = keeper.expires_at
        assert path.read_text() == "token-1"
        await keeper.wait_changed(first)
    assert path.read_text() == "token-2"
    assert time.time() < first, "it came after the expiry"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await keeper.stop()
    await keeper.stop()
    assert path.exists()


async def test_keeper_backs_off_tells_and_recovers(tmp_path, caplog):
    path = tmp_path / "bt"
    source = Source(lifetime=100.0)
    source.error = IssuerDown("The hub cannot be reached.")
    keeper = BearerKeeper(source, path)
    with caplog.at_level(logging.INFO, logger="jupyterhub_dmsp.identity.keeper"):
        keeper.start()
        async with asyncio.timeout(10):
            await keeper.wait_changed()
        assert keeper.error is source.error
        assert not path.exists()
        calls = source.calls
        keeper.wake()
        async with asyncio.timeout(10):
            while source.calls == calls:
                await asyncio.sleep(0)
        source.error = None
        keeper.wake()
        async with asyncio.timeout(10):
            while keeper.error is not None:
                await asyncio.sleep(0.01)
        await keeper.stop()
    assert path.read_text().startswith("token-")
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "token-" not in caplog.text


async def test_keeper_restores_a_removed_file(tmp_path):
    path = tmp_path / "bt"
    keeper = BearerKeeper(Source(lifetime=1000.0), path, check=0.05)
    keeper.start()
    async with asyncio.timeout(10):
        await keeper.wait_changed()
        path.unlink()
        while not path.exists():
            await asyncio.sleep(0.01)
    assert path.read_text() == "token-1"
    await keeper.stop()


async def test_keeper_says_when_the_disk_refuses(tmp_path):
    keeper = BearerKeeper(Source(), tmp_path / "no" / "bt")
    keeper.start()
    async with asyncio.timeout(10):
        await keeper.wait_changed()
    assert "cannot be written" in str(keeper.error)
    await keeper.stop()


async def test_keeper_with_refreshing(tmp_path):
    """The two together fetch once for each life, although both have a leeway."""
    source = Source(lifetime=3.0)
    keeper = BearerKeeper(Refreshing(source), tmp_path / "bt")
    keeper.start()
    ends = []
    async with asyncio.timeout(20):
        for _ in range(3):
            await keeper.wait_changed(keeper.expires_at)
            ends.append(keeper.expires_at)
            assert time.time() < ends[-1]
    await keeper.stop()
    assert ends == sorted(set(ends))
    assert source.calls <= 4
