# ruff: noqa: E501 - lists of odd paths
"""The tries of a browser. Each is performed as the attacker, and then as it should succeed (``attack`` false)."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
from visitor import Visitor, form_of
from yarl import URL

from attacks.world import ATTACKER, VICTIM, World

EVIL = "evil.example"
CALLBACK = f"/user/{VICTIM}/oauth_callback"


def _who(w: World, attack: bool) -> Visitor:
    return w.attacker if attack else w.victim


def _cookies(who: Visitor, path: str) -> str:
    kept = who.http.cookie_jar.filter_cookies(URL(who.address.rstrip("/") + path))
    return "; ".join(f"{name}={morsel.value}" for name, morsel in kept.items())


async def _raw(who: Visitor, path: str, cookies: str, **headers: str) -> tuple[int, str, str]:
    """Status, Location and body for a path as it stands: no client tidies it up."""

    def ask() -> tuple[int, str, str]:
        connection = http.client.HTTPConnection(urlsplit(who.address).netloc, timeout=20)
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in {"Cookie": cookies, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        return answer.status, answer.headers.get("Location", ""), text

    return await asyncio.to_thread(ask)


async def lab_api(w: World, attack: bool) -> Any:
    status, said = await _who(w, attack).request("GET", f"{w.victim.base}api/kernels")
    return status == 200 and isinstance(said, list)


async def lab_files(w: World, attack: bool) -> Any:
    status, said = await _who(w, attack).request("GET", f"{w.victim.base}api/contents/private.txt")
    return status == 200 and "secret" in str(said)


async def lab_data(w: World, attack: bool) -> Any:
    status, said = await _who(w, attack).request("GET", f"{w.victim.base}dmsp/v1/attachments")
    return status == 200 and "attachments" in said


async def lab_websocket(w: World, attack: bool) -> Any:
    _, kernels = await w.victim.lab("GET", "api/kernels")
    url = f"{w.victim.base}api/kernels/{kernels[0]['id']}/channels"
    try:
        async with _who(w, attack).http.ws_connect(url) as socket:
            return not socket.closed
    except aiohttp.WSServerHandshakeError:
        return False


async def lab_oauth(w: World, attack: bool) -> Any:
    asked = {"client_id": f"jupyterhub-user-{VICTIM}", "redirect_uri": CALLBACK, "response_type": "code"}
    url = f"{w.box.address}hub/api/oauth2/authorize"
    async with _who(w, attack).http.get(url, params=asked, allow_redirects=False) as answer:
        return answer.status == 302 and "code=" in answer.headers["Location"]


async def path_confusion(w: World, attack: bool) -> Any:
    who = _who(w, attack)
    me = who.name
    cookies = _cookies(who, f"/user/{me}/") + "; " + _cookies(who, "/hub/")
    end = f"{VICTIM}/api/kernels"
    paths = [
        f"/user/{me}/../{end}", f"/user/{me}/%2e%2e/{end}", f"/user/{me}%2f..%2f{end}", f"/user/{me}/..;/{end}",
        f"//user/{end}", f"/user//{end}", f"/hub/../user/{end}", f"/user/{me}/\\..\\{end}", f"/USER/{end}",
        f"/user/{quote(VICTIM[0])}{end[1:]}", f"/user/%6b{end[1:]}", f"/user/{end}?/user/{me}/", f"/user/{end}#/user/{me}/",
        f"http://x/user/{end}", f"/user/{end}",
    ]  # fmt: skip
    _, kernels = await w.victim.lab("GET", "api/kernels")
    known = [kernel["id"] for kernel in kernels]
    answers = {path: await _raw(who, path, cookies) for path in paths}
    return [path for path, (_, _, body) in answers.items() if any(one in body for one in known)]


async def hub_stop(w: World, attack: bool) -> Any:
    status, _ = await _who(w, attack).hub("DELETE", f"users/{VICTIM}/server")
    return status in (202, 204)


async def hub_form(w: World, attack: bool) -> Any:
    who = _who(w, attack)
    async with who.http.get(f"{w.box.address}hub/spawn/{VICTIM}", allow_redirects=False) as answer:
        return answer.status in (200, 302) and "login" not in answer.headers.get("Location", "")


async def _from_elsewhere(w: World, url: str, body: Any, attack: bool) -> bool:
    """A request of the victim's browser: from another site, and from the page itself."""
    if not attack:
        return (await w.victim.request("POST", url, json=body))[0] in (200, 201)
    text, answers = json.dumps(body), []
    for more in (
        {"Sec-Fetch-Site": "cross-site", "Origin": f"https://{EVIL}"},
        {},
        {"Sec-Fetch-Mode": "no-cors"},
    ):
        headers = {"Content-Type": "text/plain", **more}
        async with w.victim.http.post(url, data=text, headers=headers) as answer:
            answers.append(answer.status)
    return any(status < 300 for status in answers)


async def hub_xsrf(w: World, attack: bool) -> Any:
    return await _from_elsewhere(w, f"{w.box.address}hub/api/users/{VICTIM}/tokens", {"note": "x"}, attack)


async def lab_xsrf(w: World, attack: bool) -> Any:
    return await _from_elsewhere(w, f"{w.victim.base}api/terminals", {}, attack)


async def open_redirect(w: World, attack: bool) -> Any:
    """Follow what the hub says after a login, until it leaves the site (or does not)."""
    where = ["/hub/home"]
    if attack:
        where = [f"//{EVIL}/", f"https://{EVIL}/", f"/\\{EVIL}/", f"///{EVIL}/", f"\\\\{EVIL}/", f"https:{EVIL}/",
                 f"/%09/{EVIL}/", f"/\t/{EVIL}/", f"http:///{EVIL}/", f"{w.box.address.rstrip('/')}@{EVIL}/"]  # fmt: skip
    ours = {urlsplit(w.box.address).netloc, urlsplit(w.issuer).netloc}
    for target in where:
        for way in ("login", "oauth_login"):
            url = f"{w.box.address}hub/{way}?next={quote(target, safe='')}"
            for _ in range(8):
                async with w.victim.http.get(URL(url, encoded=True), allow_redirects=False) as answer:
                    location = answer.headers.get("Location", "")
                if not location:
                    break
                # As browsers do: a backslash is a slash, tabs vanish.
                url = urljoin(url, location.replace("\\", "/").replace("\t", ""))
                if urlsplit(url).netloc not in ours:
                    return url
                if not attack and urlsplit(url).path == where[0]:
                    return url
    return ""


async def forwarded_host(w: World, attack: bool) -> Any:
    who, host = w.victim, urlsplit(w.box.address).netloc
    headers = [{"Host": host}]
    if attack:
        headers = [{"X-Forwarded-Host": EVIL}, {"Forwarded": f"host={EVIL}"}, {"X-Original-URL": f"//{EVIL}/"},
                   {"X-Forwarded-Prefix": f"//{EVIL}"}, {"X-Forwarded-Server": EVIL}]  # fmt: skip
    for more in headers:
        for path in ("/", "/hub/", "/hub/login", "/hub/home", f"/user/{ATTACKER}/lab"):
            status, location, body = await _raw(who, path, "", **more)
            if (EVIL in location or EVIL in body) if attack else (status == 302 and location):
                return location or body
    return ""


async def share(w: World, attack: bool) -> Any:
    who = w.attacker if attack else w.admin
    body = {"user": VICTIM if attack else w.admin.name}
    status, said = await who.hub("POST", f"shares/{ATTACKER}/", json=body)
    if status < 300:
        await w.admin.hub("DELETE", f"shares/{ATTACKER}/")
    return status < 300 and said


def _issuer(w: World) -> str:
    return w.issuer


async def login_csrf(w: World, attack: bool) -> Any:
    """The victim's browser is made to log in as the attacker: without our form, and with it from elsewhere."""
    issuer = _issuer(w)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{issuer}/login") as answer:
            action, fields = form_of(await answer.text(), str(answer.url))
        typed = {"username": ATTACKER, "password": w.attacker.password}
        ways = [({**fields, **typed}, {"Origin": issuer.rsplit("/", 1)[0]})]
        if attack:
            ways = [(typed, {}), (typed, {"Origin": f"https://{EVIL}"}), ({**fields, **typed}, {"Origin": f"https://{EVIL}"}),
                    ({**fields, **typed}, {"Origin": "null"})]  # fmt: skip
        for form, headers in ways:
            async with browser.post(action, data=form, headers=headers, allow_redirects=False) as answer:
                if answer.status == 303:
                    return answer.headers["Location"]
    return ""


async def device_csrf(w: World, attack: bool) -> Any:
    issuer = _issuer(w)
    if not attack:
        return (await w.victim.device_token(issuer)).count(".") == 2
    form = {"client_id": "dmsp-cli", "scope": "openid"}
    async with w.attacker.http.post(f"{issuer}/device_authorization", data=form) as answer:
        started = await answer.json()
    decision = {"user_code": started["user_code"], "decision": "approved"}
    for headers in ({}, {"Origin": f"https://{EVIL}"}):
        async with w.victim.http.post(f"{issuer}/device", data=decision, headers=headers) as answer:
            await answer.read()
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "dmsp-cli"}
    async with w.attacker.http.post(
        f"{issuer}/token", data=form | {"device_code": started["device_code"]}
    ) as answer:
        return "access_token" in await answer.json()


async def redirect_uri(w: World, attack: bool) -> Any:
    good = f"{w.box.address}hub/oauth_callback"
    where = (
        [f"https://{EVIL}/", f"{good}@{EVIL}/", f"{good}/../../user/{ATTACKER}/", good + "?x=1"]
        if attack
        else [good]
    )
    for target in where:
        asked = {"client_id": "jupyterhub", "redirect_uri": target, "response_type": "code", "scope": "openid",
                 "state": "x", "code_challenge": "x" * 43, "code_challenge_method": "S256"}  # fmt: skip
        async with w.victim.http.get(f"{_issuer(w)}/authorize", params=asked, allow_redirects=False) as answer:
            if answer.status == 303 and answer.headers["Location"].startswith(target):
                return answer.headers["Location"]
    return ""


async def _as_client(w: World, path: str, form: dict[str, str], attack: bool) -> dict[str, Any]:
    """An answer of the issuer, without a client's secret or with the hub's."""
    headers = {}
    if not attack:
        pair = f"jupyterhub:{w.box.secret('hub-client-secret')}"
        headers = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    async with w.attacker.http.post(f"{_issuer(w)}/{path}", data=form, headers=headers) as answer:
        said: dict[str, Any] = await answer.json()
        return said


async def introspect(w: World, attack: bool) -> Any:
    answers = [await _as_client(w, "introspect", {"token": w.facts["victim"]["rucio_token"], **more}, attack)
               for more in ({}, {"client_id": "dmsp-cli"}, {"client_id": "jupyterhub", "client_secret": ""})]  # fmt: skip
    return any("active" in answer for answer in answers)


async def exchange(w: World, attack: bool) -> Any:
    """With the hub's secret the token itself is looked at; without, not even that."""
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "audience": "rucio",
            "subject_token": w.facts["victim"]["rucio_token"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}  # fmt: skip
    answers = [await _as_client(w, "token", {**form, **more}, attack)
               for more in ({}, {"client_id": "dmsp-cli"}, {"client_id": "jupyterhub"})]  # fmt: skip
    return any(a.get("error") not in ("invalid_client", "unauthorized_client") for a in answers)


async def content_path(w: World, attack: bool) -> Any:
    who = w.attacker
    if not attack:
        body = {"type": "file", "format": "text", "content": "nobody:x"}
        await who.lab("PUT", "api/contents/own.txt", json=body)
        return "nobody:x" in str(await who.lab("GET", "api/contents/own.txt"))
    base = f"/user/{ATTACKER}"
    cookies = _cookies(who, base + "/")
    for up in ("../..", "%2e%2e/%2e%2e", "..%2f..", "%2fetc%2f..", "....//....//", "%5c..%5c.."):
        for start in ("api/contents", "files", "view", "static"):
            _, _, body = await _raw(who, f"{base}/{start}/{up}/etc/passwd", cookies)
            if "nobody:x" in body:
                return up
    return ""


async def did_path(w: World, attack: bool) -> Any:
    """Refused, or a failed attachment; nothing may lie outside of ``~/datasets``, and nothing may fail unexpectedly."""
    name = w.attack["open"]
    names = ["../../../etc/passwd", "..", "%2e%2e%2f%2e%2e", "a\x00b", "a\nb", "<script>alert(1)</script>", "/etc/passwd",
             "a/../../../b", "\u202e" + name, "x" * 251, "$(touch ~/pwned)", "`id`"]  # fmt: skip
    home = w.box.state / "homes" / ATTACKER
    before = {path.name for path in home.iterdir()} | {"datasets"}
    got = []
    for did in (
        [f"dmsp:{one}" for one in names] + ["..:x", "../..:x", f"dmsp/../km3net:{name}"]
        if attack
        else [f"dmsp:{name}"]
    ):
        status, said = await w.attacker.lab(
            "POST", "dmsp/v1/attachments", json={"did": did}, params={"wait": "1"}
        )
        if status < 300:
            _, said = await w.attacker.lab("GET", f"dmsp/v1/attachments/{said['id']}", params={"wait": "20"})
            got += [did] if said["state"] == "ready" else []
        got += [did] if status >= 500 else []
    return got + sorted({path.name for path in home.iterdir()} - before)


async def variable_name(w: World, attack: bool) -> Any:
    names = (
        ["x; import os", "__import__('os')", "a\nb", "x]", "os.path", "", " ", "class", "1a"]
        if attack
        else ["data_x"]
    )
    got = []
    for name in [one for one in names if one]:
        body = {"did": f"dmsp:{w.attack['open']}", "variable": name}
        status, _ = await w.attacker.lab("POST", "dmsp/v1/attachments", json=body)
        got += [name] if status < 300 else []
    return got


PLANT = """
ln -sfn {canary} ~/datasets.new && rm -rf ~/datasets && mv ~/datasets.new ~/datasets
ln -sfn {canary} ~/.config; ln -sfn {canary} ~/.cache
cd $XDG_RUNTIME_DIR; for n in hub-token bt_new etc run record.json; do ln -sfn {canary}/file $n; done
mv dmsp dmsp.old; mv jupyter jupyter.old; ln -s {canary} dmsp; ln -s {canary} jupyter; ln dmsp.old/lake.sock hard
"""


async def planted_links(w: World, attack: bool) -> Any:
    """Links to a directory of root's, in all places that a start or stop of the session touches."""
    with tempfile.TemporaryDirectory(prefix="dmsp-canary-") as directory:
        canary = Path(directory)
        (canary / "file").write_text("canary")
        before = {path: _about(path) for path in (canary, canary / "file")}
        link = w.box.state / "sessions" / ATTACKER / "run" / "dmsp"
        if not attack:
            link = canary / "link"
            link.symlink_to(canary)
            return (link / "file").read_text() == "canary"  # root who followed a link would get there
        await w.attacker.terminal(PLANT.format(canary=canary).strip().replace("\n", "; "))
        assert link.is_symlink()
        await w.attacker.stop()
        after = {path: _about(path) for path in before}
        await w.attacker.start("minimal")
        after = {path: (_about(path), after[path]) for path in before}
        await w.attacker.terminal("rm -f ~/datasets ~/.config ~/.cache")
        return [str(path) for path in before if after[path] != (before[path], before[path])] + [
            path.name for path in canary.iterdir() if path.name != "file"
        ]


def _about(path: Path) -> tuple[Any, ...]:
    status = os.lstat(path)
    content = path.read_text() if path.is_file() else sorted(one.name for one in path.iterdir())
    return status.st_uid, status.st_gid, status.st_mode, status.st_nlink, content


async def perform(name: str, w: World, *, attack: bool) -> tuple[bool, str]:
    """Whether the try ``name`` succeeds, and what came of it."""
    function: Callable[[World, bool], Awaitable[Any]] = globals()[name.replace("-", "_")]
    began = time.monotonic()
    found = await function(w, attack)
    if os.environ.get("DMSP_ATTACK_TIMES"):
        print(name, round(time.monotonic() - began, 1))
    return bool(found), str(found)[:300]
