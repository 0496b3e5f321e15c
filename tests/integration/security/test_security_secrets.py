"""None of the box's secrets stands in a log, a process listing, an open file or a notebook. Runs last of all tests."""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from urllib.parse import quote

import events
import leaks
import pytest
from boxes import Box
from leaks import Finder
from visitor import Visitor

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def secrets(box: Box) -> list[tuple[str, str]]:
    """What was generated for the box, and what a login, a session and the stored state of that login add."""
    found = leaks.of_box(box)
    passwords = box.passwords
    async with (
        Visitor(box.address, "collider-user", passwords["collider-user"]) as user,
        Visitor(box.address, "vre-admin", passwords["vre-admin"]) as admin,
    ):
        await user.start("minimal")
        kernel = await user.kernel()
        await kernel.run("import os; print(sorted(os.environ))")
        code, bearer = await user.terminal("cat $BEARER_TOKEN_FILE")
        assert code == 0
        found.append(("bearer token", bearer.strip().splitlines()[-1]))
        status, made = await user.hub("POST", "users/collider-user/tokens", json={"note": "secrets"})
        assert status == 201
        found.append(("hub token", made["token"]))
        assert (await user.hub("GET", "user", headers={"Authorization": f"token {made['token']}"}))[0] == 200
        for one in user.http.cookie_jar:
            # The cookie against forgery is worth nothing by itself, and pages repeat it.
            if "xsrf" not in one.key and len(one.value) >= 24:
                found.append((f"cookie {one.key}", one.value.strip('"')))
        for name in ("collider-user", "km3net-user"):
            status, model = await admin.hub("GET", f"users/{name}")
            kept = model.get("auth_state") or {}
            assert kept, "an administrator of the hub may see it; else this test would miss them"
            found += [
                (f"{key} of {name}", kept[key])
                for key in ("access_token", "refresh_token", "id_token")
                if kept.get(key)
            ]
        assert not leaks.in_processes(Finder(found)), "while the session runs"
        await user.stop()
    return found


@pytest.fixture(scope="module")
def finder(secrets: list[tuple[str, str]]) -> Finder:
    names = [name for name, _ in secrets]
    for wanted in (
        "hub-crypt-key",
        "rucio-root-password",
        "bearer token",
        "hub token",
        "refresh_token of collider-user",
    ):
        assert wanted in names, names
    return Finder(secrets)


def test_no_secret_in_any_log(box: Box, finder: Finder) -> None:
    assert len(list((box.state / "logs").rglob("*.log"))) >= 6
    assert leaks.in_logs(box, finder) == []


def test_each_line_is_an_event(box: Box) -> None:
    """Of our own parts, after all that the other tests did: nothing from outside has forged or broken one."""
    assert events.strays(box, "text") == []


def test_no_secret_in_any_process(finder: Finder) -> None:
    assert leaks.in_processes(finder) == []


def test_secrets_on_disk_are_private(box: Box, finder: Finder) -> None:
    assert leaks.in_state(box, finder) == []


def test_no_secret_in_homes_and_notebooks(box: Box, finder: Finder) -> None:
    assert leaks.in_homes(box, finder) == []


def test_state_directory_is_closed(box: Box) -> None:
    """Modes of the places where secrets are, whatever is in them now."""
    for name in ("secrets", "run", "logs", "hub", "database"):
        assert (box.state / name).stat().st_mode & 0o077 == 0, name
    for path in (box.state / "secrets").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path.name
    for path in (box.state / "sessions").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
    for path in (box.state / "homes").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


@pytest.mark.parametrize("form", ["plain", "percent", "base64", "urlsafe"])
def test_what_is_planted_is_found(box: Box, form: str) -> None:
    """The positive control, for every place and every form."""
    secret = f"{uuid.uuid4().hex}/+?~{uuid.uuid4().hex}"
    shown = {
        "plain": secret,
        "percent": quote(secret, safe=""),
        "base64": base64.b64encode(secret.encode()).decode(),
        "urlsafe": base64.urlsafe_b64encode(secret.encode()).decode(),
    }[form]
    finder = Finder([("planted", secret)])
    log, file = box.state / "logs" / "planted.log", box.state / "ids" / "planted"
    home = box.state / "homes" / "collider-user" / "planted.ipynb"
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, "PLANTED": shown})
    try:
        log.write_text(f"GET /x?token={shown} 200\n")
        for path in (file, home):
            path.write_text(f"token = {shown}\n")
            path.chmod(0o644)
        assert leaks.in_logs(box, finder) == ["logs/planted.log: planted"]
        assert leaks.in_processes(finder) == [f"environ of {process.pid}: planted"]
        assert leaks.in_state(box, finder) == ["ids/planted (644): planted"]
        assert leaks.in_homes(box, finder) == ["homes/collider-user/planted.ipynb: planted"]
    finally:
        process.kill()
        process.wait()
        for path in (log, file, home):
            path.unlink(missing_ok=True)
