"""The process: restarts, kill -9, short lifetimes, stopping, and refusing to start with one sentence."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from jupyterhub_dmsp.box.issuer import Lifetimes, command, demo_clients, ensure_users, ready, write_config
from jupyterhub_dmsp.identity import claims
from jupyterhub_dmsp.settings import User


async def test_kill_keeps_keys_refresh_tokens_and_sessions(make_issuer):
    async with make_issuer() as issuer, issuer.browser() as browser:
        first = await browser.tokens()
        keys = (await browser.http.get(issuer.url + "/jwks")).json()
        started = (
            await browser.http.post(
                issuer.url + "/device_authorization", data={"client_id": "dmsp-cli", "scope": "openid"}
            )
        ).json()
        second = (await browser.refresh(first["refresh_token"])).json()
        await issuer.stop(kill=True)
        assert not await ready(issuer.url)
        await issuer.start()
        assert (await browser.http.get(issuer.url + "/jwks")).json() == keys
        headers = {"Authorization": f"Bearer {second['access_token']}"}
        assert (await browser.http.get(issuer.url + "/userinfo", headers=headers)).status_code == 200
        # The retry of a refresh whose answer got lost with the process.
        retried = await browser.refresh(first["refresh_token"])
        assert retried.json()["refresh_token"] == second["refresh_token"]
        assert (await browser.refresh(second["refresh_token"])).status_code == 200
        assert (await browser.refresh(first["refresh_token"])).status_code == 400
        assert (await browser.authorize()).headers["location"].startswith("http://127.0.0.1:18999/")
        poll = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": started["device_code"],
            "client_id": "dmsp-cli",
        }
        answer = await browser.http.post(issuer.url + "/token", data=poll)
        assert answer.json()["error"] == "authorization_pending"


async def test_files_are_private_and_hold_no_tokens(make_issuer):
    async with make_issuer() as issuer, issuer.browser() as browser:
        tokens = await browser.tokens()
        await issuer.stop(kill=True)
        for path in (issuer.state / "issuer").rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode & 0o077 == 0, f"{path.name} {mode:o}"
            if path.is_file():
                content = path.read_bytes()
                for secret in (tokens["refresh_token"], tokens["access_token"], *issuer.passwords.values()):
                    assert secret.encode() not in content, path.name


async def test_logs_hold_no_codes_and_no_tokens(make_issuer):
    async with make_issuer() as issuer:
        async with issuer.browser() as browser:
            code = await browser.code()
            tokens = (await browser.redeem(code)).json()
            await browser.exchange(tokens["access_token"])
            # Refused requests too: no token against forgery, undecodable arguments.
            await browser.http.post(issuer.url + "/login?next=whatever")
            await browser.http.get(issuer.url + "/login?next=%ff%fewhatever")
            await browser.http.get(issuer.url + "/logout?id_token_hint=" + tokens["id_token"][:-4])
        await issuer.stop()
        log = "".join(issuer.log)
    assert "GET /oidc/authorize 303" in log
    for secret in (
        code,
        tokens["access_token"],
        tokens["refresh_token"],
        tokens["id_token"][:-4],
        "whatever",
        "state",
        "?",
    ):
        assert secret not in log


async def test_access_tokens_end_and_refresh_goes_on(make_issuer):
    async with make_issuer(token_lifetime=2) as issuer, issuer.browser() as browser:
        tokens = await browser.tokens()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        url = issuer.url + "/userinfo"
        assert (await browser.http.get(url, headers=headers)).status_code == 200
        exchanged = (await browser.exchange(tokens["access_token"])).json()
        ends = [claims.expiry(claims.read(t["access_token"])) for t in (tokens, exchanged)]
        assert ends[1] <= ends[0]
        async with asyncio.timeout(10):
            while (await browser.http.get(url, headers=headers)).status_code == 200:
                await asyncio.sleep(0.1)
        assert (await browser.exchange(tokens["access_token"])).json()["error"] == "invalid_request"
        for _ in range(3):
            tokens = (await browser.refresh(tokens["refresh_token"])).json()
        assert (await browser.exchange(tokens["access_token"])).status_code == 200


async def test_refresh_tokens_end(make_issuer):
    lifetimes = Lifetimes(refresh_token=1)
    async with make_issuer(lifetimes=lifetimes) as issuer, issuer.browser() as browser:
        tokens = await browser.tokens()
        await asyncio.sleep(1.1)
        assert (await browser.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_users_file_is_read_again(make_issuer):
    async with make_issuer() as issuer, issuer.browser() as browser:
        tokens = await browser.tokens()
        changed = [User(name="km3net-user", groups=["/dmsp"]), User(name="late-user", groups=["/dmsp"])]
        issuer.passwords |= await asyncio.to_thread(ensure_users, changed, issuer.state / "secrets")
        tokens = (await browser.refresh(tokens["refresh_token"])).json()
        assert claims.groups(claims.read(tokens["access_token"])) == ["/dmsp"]
        browser.http.cookies.clear()
        late = await browser.tokens("late-user")
        await asyncio.to_thread(ensure_users, changed[:1], issuer.state / "secrets")
        assert (await browser.refresh(late["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await browser.exchange(late["access_token"])).json()["error"] == "invalid_request"
        assert "/login?" in (await browser.authorize()).headers["location"]


async def test_terminate_lets_running_requests_finish(make_issuer):
    async with make_issuer() as issuer, issuer.browser() as browser:
        page = await browser.http.get(issuer.url + "/login")
        assert page.status_code == 200
        login = asyncio.create_task(browser.log_in())
        async with asyncio.timeout(10):
            while not any("GET /oidc/login" in line for line in issuer.log[-2:]):
                await asyncio.sleep(0.005)
        code = await issuer.stop()
        assert code == 0
        assert any("Stopping." in line for line in issuer.log)
        await asyncio.gather(login, return_exceptions=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def fails(path):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "jupyterhub_dmsp.box.issuer",
        "--config",
        str(path),
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    text = complaint.decode()
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) == 1
    return text


async def test_refuses_to_start(make_issuer):
    async with make_issuer() as issuer:
        config = issuer.state / "issuer" / "config.json"
        assert "cannot listen on 127.0.0.1" in await fails(config)
        await issuer.stop()
        users = issuer.state / "issuer" / "users.json"
        users.rename(users.with_suffix(".away"))
        assert "users file" in await fails(config)
        users.with_suffix(".away").rename(users)
        key = issuer.state / "issuer" / "signing-key.json"
        key.chmod(0o644)
        assert "open to other users" in await fails(config)
        key.chmod(0o600)
        key.write_text("{")
        assert "signing key" in await fails(config)
        config.write_text(json.dumps({"issuer": "http://example.org/", "port": 0}))
        assert "must not end with a slash" in await fails(config)
        config.chmod(0o640)
        assert "open to other users" in await fails(config)


async def test_ready_is_about_this_issuer(issuer):
    assert await ready(issuer.url)
    assert not await ready(issuer.url + "/x")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert not await ready(f"http://127.0.0.1:{silent.getsockname()[1]}/oidc", timeout=0.2)


@pytest.mark.root
async def test_runs_as_a_user_of_its_own():
    """As the box runs it: files given to the issuer's uid, which cannot enter `secrets/`."""
    owner = (61999, 61999)
    state = Path(tempfile.mkdtemp(prefix="dmsp-issuer-"))
    state.chmod(0o711)
    try:
        await asyncio.to_thread(
            ensure_users, [User(name="km3net-user")], state / "secrets", state / "issuer" / "users.json", owner
        )
        port = free_port()
        url = f"http://127.0.0.1:{port}/oidc"
        clients = demo_clients(state / "secrets" / "hub", ["http://127.0.0.1:1/cb"])
        path = write_config(state / "issuer", issuer=url, port=port, clients=clients, owner=owner)
        process = await asyncio.create_subprocess_exec(
            *command(path), user=owner[0], group=owner[1], extra_groups=[], cwd="/"
        )
        try:
            async with asyncio.timeout(30):
                while not await ready(url):
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
        finally:
            if process.returncode is None:
                process.terminate()
            code = await process.wait()
        assert code == 0
        for made in (state / "issuer").rglob("*"):
            assert made.stat().st_uid == owner[0], made.name
        assert (state / "secrets").stat().st_uid == 0
    finally:
        shutil.rmtree(state)


async def test_command_line_and_environment_hold_no_secret(issuer):
    assert issuer.process is not None
    base = f"/proc/{issuer.process.pid}"
    for name in ("cmdline", "environ"):
        with open(f"{base}/{name}", "rb") as stream:  # noqa: ASYNC230, PTH123
            content = stream.read()
        assert issuer.secret.encode() not in content
    assert os.stat(base).st_uid == os.getuid()  # noqa: PTH116
