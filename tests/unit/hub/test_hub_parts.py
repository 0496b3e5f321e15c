"""Discovery, the proxy's files, the launcher's defaults, the authenticator's arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from traitlets.config import Config

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub import singleuser
from jupyterhub_dmsp.hub.config import configure
from jupyterhub_dmsp.hub.login import discovery
from jupyterhub_dmsp.hub.login.authenticator import DMSPAuthenticator
from jupyterhub_dmsp.hub.routes import proxy
from jupyterhub_dmsp.hub.routes.traefik import SharedTraefikProxy
from jupyterhub_dmsp.settings import Log

ISSUER = "https://iam.example/realm"
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "userinfo_endpoint": f"{ISSUER}/userinfo",
}


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def get(url: str, **options: Any) -> httpx.Response:
        assert options["timeout"]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(200, json=answer, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)


def test_discovery_is_remembered_for_when_the_issuer_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "issuer.json"
    answer_with(monkeypatch, DOCUMENT)
    found = discovery.discover(ISSUER, cache)
    assert found.token_endpoint == f"{ISSUER}/token"
    answer_with(monkeypatch, httpx.ConnectError("no"))
    assert discovery.discover(ISSUER, cache) == found
    with pytest.raises(DmspError, match="does not answer"):
        discovery.discover(f"{ISSUER}/other", cache)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (DOCUMENT | {"issuer": f"{ISSUER}/"}, "calls itself"),
        ({"issuer": ISSUER}, "lacks authorization_endpoint"),
    ],
)
def test_wrong_discovery_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: dict[str, str], sentence: str
) -> None:
    answer_with(monkeypatch, document)
    with pytest.raises(DmspError, match=sentence):
        discovery.discover(ISSUER, tmp_path / "x")


def test_proxy_files(tmp_path: Path) -> None:
    static, dynamic = tmp_path / "p" / "traefik.toml", tmp_path / "p" / "rules.toml"
    proxy.write_static(
        static, public_url="http://127.0.0.1:8000/", api_url="http://[::1]:8001", dynamic=dynamic
    )
    proxy.write_routes(dynamic, page_url="http://127.0.0.1:8007/")
    text = static.read_text()
    assert 'address = "127.0.0.1:8000"' in text
    assert 'address = "[::1]:8001"' in text
    assert '[log]\n  level = "WARN"\n  format = "common"' in text
    assert "accessLog" not in text, "it would have queries, with codes and tokens"
    assert dynamic.stat().st_mode & 0o777 == 0o600
    routes = tomllib.loads(dynamic.read_text())["http"]
    assert routes["services"][proxy.PAGE]["loadBalancer"]["servers"] == [{"url": "http://127.0.0.1:8007/"}]
    proxy.write_routes(dynamic)
    assert set(tomllib.loads(dynamic.read_text())["http"]["routers"]) == {"dmsp_ready"}
    assert proxy.command(static)[1:] == [f"--configFile={static}"]
    log = Log(format="json", level="error")
    proxy.write_static(static, public_url="http://a/", api_url="http://a:1/", dynamic=dynamic, log=log)
    assert 'level = "ERROR"\n  format = "json"' in static.read_text()
    with pytest.raises(ValueError, match="toml"):
        proxy.write_static(tmp_path / "x.yaml", public_url="http://a/", api_url="http://a/", dynamic=dynamic)
    with pytest.raises(ValueError, match="URL"):
        proxy.write_static(static, public_url="nonsense", api_url="http://a/", dynamic=dynamic)


def test_launcher_takes_the_token_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "hub-token").write_text("secret\n")
    assert singleuser.take_token() == "secret"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        singleuser.take_token()


def test_light_modules_import_no_jupyter() -> None:
    code = (
        "import sys, jupyterhub_dmsp.hub.routes.proxy\n"
        "from jupyterhub_dmsp.hub.local import records, session\n"
        "print([m for m in ('jupyterhub', 'jupyter_server', 'tornado') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def authenticator(**traits: Any) -> DMSPAuthenticator:
    return DMSPAuthenticator(manage_groups=True, client_id="x", client_secret="y", **traits)


@pytest.mark.parametrize(
    ("left", "life", "leeway", "fresh"),
    [(31, 3600, 30, True), (29, 3600, 30, False), (11, 20, 30, True), (9, 20, 30, False), (0, 0, 30, False)],
)
def test_leeway(left: float, life: float, leeway: int, fresh: bool) -> None:
    now = time.time()
    state = {"expires_at": now + left, "obtained_at": now + left - life}
    assert authenticator(token_leeway=leeway).is_fresh(state) is fresh


@pytest.mark.parametrize(
    ("claim", "groups"),
    [(["/a", "/b"], ["/a", "/b"]), ("/a", ["/a"]), ([], []), ({"a": 1}, []), ([1, "/a"], [])],
)
def test_groups_from_userinfo(claim: Any, groups: list[str]) -> None:
    state = {"oauth_user": {"wlcg.groups": claim}, "access_token": "unused"}
    assert authenticator().groups_of(state) == groups


def test_configuration_reads_secrets_from_files(tmp_path: Path) -> None:
    for name, text in (("client", "client-secret"), ("crypt", "ab" * 32), ("api", "api-password")):
        (tmp_path / name).write_text(text)
    c = Config()
    configure(
        c,
        state=str(tmp_path / "state"),
        public_url="http://127.0.0.1:8000/",
        hub_url="http://100.64.0.1:8081",
        issuer=ISSUER,
        endpoints=DOCUMENT,
        client_secret=f"file:{tmp_path / 'client'}",
        crypt_key=f"file:{tmp_path / 'crypt'}",
        proxy_api_url="http://127.0.0.1:8001",
        proxy_api_password=f"file:{tmp_path / 'api'}",
        proxy_dynamic=str(tmp_path / "rules.toml"),
    )
    assert c.CryptKeeper["keys"] == [bytes.fromhex("ab" * 32)]
    assert c.DMSPAuthenticator.client_secret == "client-secret"
    assert c.DMSPAuthenticator.oauth_callback_url == "http://127.0.0.1:8000/hub/oauth_callback"
    assert c.SharedTraefikProxy.should_start is False
    assert c.JupyterHub.cleanup_servers is False
    assert "custom:dmsp:token" in c.Spawner.server_token_scopes
    assert not any("auth_state" in scope for scope in c.Spawner.server_token_scopes)
    assert (tmp_path / "state" / "hub").stat().st_mode & 0o777 == 0o700
    json.dumps(dict(c.LocalProfileSpawner))


def test_routes_are_readable_before_they_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """traefik looks at the file when it is renamed, and not again."""
    seen: list[tuple[int, int]] = []
    path = tmp_path / "rules.toml"
    replace = os.replace

    def look(source: str, target: str) -> None:
        about = Path(source).stat()
        seen.append((about.st_mode & 0o777, about.st_gid))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    for gid, expected in ((os.getgid(), (0o640, os.getgid())), (None, (0o600, os.getgid()))):
        routes = SharedTraefikProxy(reader_gid=gid, dynamic_config_file=str(path), traefik_api_password="x")
        routes._persist_dynamic_config()
        assert seen.pop() == expected
    assert "jupyterhub" in tomllib.loads(path.read_text())


def test_only_the_hubs_route_has_the_page(tmp_path: Path) -> None:
    routes = SharedTraefikProxy(page=proxy.PAGE, dynamic_config_file=str(tmp_path / "rules.toml"))
    for spec, expected in (("/", [proxy.PAGE]), ("/user/ada/", None)):
        made, _ = routes._dynamic_config_for_route(spec, "http://127.0.0.1:1", {})
        (router,) = made["http"]["routers"].values()
        assert router.get("middlewares") == expected
