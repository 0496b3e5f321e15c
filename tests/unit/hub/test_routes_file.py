"""The file with the routes: what traefik reads is what the hub means, and an old route costs a new one nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import toml

from jupyterhub_dmsp.hub.routes import traefik
from jupyterhub_dmsp.hub.routes.traefik import SharedFile, SharedTraefikProxy


def proxy(tmp_path: Path) -> SharedTraefikProxy:
    one = SharedTraefikProxy(dynamic_config_file=str(tmp_path / "rules.toml"), traefik_api_password="x")
    one._load_dynamic_config()
    return one


def add(one: Any, number: int) -> None:
    routes, ours = one._dynamic_config_for_route(
        f"/user/ä user.{number}/", f"http://10.0.0.{number}:8888", {"user": f"ä {number}", "server_name": 'a"b'}
    )
    one.dynamic_config["http"]["routers"].update(routes["http"]["routers"])
    one.dynamic_config["http"]["services"].update(routes["http"]["services"])
    one.dynamic_config["jupyterhub"]["routes"].update(ours["routes"])


def test_the_file_says_what_is_meant(tmp_path: Path) -> None:
    one = proxy(tmp_path)
    one.dynamic_config["http"]["middlewares"] = {"page": {"errors": {"status": ["502"], "query": "/"}}}
    for number in range(5):
        add(one, number)
        one._persist_dynamic_config()
        assert tomllib.loads((tmp_path / "rules.toml").read_text()) == one.dynamic_config
    alias = next(iter(one.dynamic_config["http"]["routers"]))
    del one.dynamic_config["http"]["routers"][alias]
    one.dynamic_config["http"]["middlewares"]["page"]["errors"]["query"] = "/other"
    one._persist_dynamic_config()
    assert tomllib.loads((tmp_path / "rules.toml").read_text()) == one.dynamic_config
    assert one.dynamic_config_handler.load() == one.dynamic_config


def test_only_what_changed_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = proxy(tmp_path)
    made: list[Any] = []
    monkeypatch.setattr(traefik.toml, "dumps", lambda data: made.append(data) or toml.encoder.dumps(data))
    for number in range(20):
        add(one, number)
        one._persist_dynamic_config()
    assert len(made) == 3 * 20
    file = one.dynamic_config_handler
    assert isinstance(file, SharedFile)
    one.dynamic_config["http"]["routers"].clear()
    one._persist_dynamic_config()
    assert len(file._texts) == 2 * 20
