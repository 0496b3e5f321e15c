"""A box whose people log in elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_dmsp.box import hub_config
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.box.vre import Vre
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.settings import parse

ISSUER = "https://keycloak.example.org/realms/science"
PORTS = {
    name: 1000 + n
    for n, name in enumerate(("issuer", "database", "rucio", "hub", "proxy_api", "front", "public"))
}


def vre(path: Path, **identity: Any) -> Vre:
    (path / "secrets").mkdir(exist_ok=True)
    return Vre(State(path), parse({"identity": identity}), None, PORTS)


def test_there_is_no_issuer_beside_the_one_that_is_named(tmp_path: Path) -> None:
    own, other = vre(tmp_path), vre(tmp_path, issuer=ISSUER)
    assert "issuer" in [part.name for part in own.parts()]
    parts = {part.name: part for part in other.parts()}
    assert "issuer" not in parts
    assert parts["hub"].needs == ("proxy",)
    assert (other.issuer, own.issuer) == (ISSUER, "http://127.0.0.1:1000/oidc")


def test_the_secret_is_copied_for_the_hub_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_CLIENT", "hush")
    vre(tmp_path, issuer=ISSUER, client_secret="env:HUB_CLIENT")._prepare_identity()
    (copy,) = (tmp_path / "secrets").iterdir()
    assert copy.read_text() == "hush\n"
    assert copy.stat().st_mode & 0o777 == 0o600


def test_a_missing_secret_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(DmspError, match=r"no secret for its client .* Set identity\.client_secret"):
        vre(tmp_path, issuer=ISSUER)._prepare_identity()


@pytest.mark.parametrize("name", ["root", "dmsp-hub"])
async def test_accounts_of_the_lake_itself_are_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever logs in elsewhere may be called anything there."""
    facts = tmp_path / "facts.json"
    box = {
        "issuer": ISSUER,
        "rucio_url": "http://127.0.0.1:1",
        "rucio_secret": "file:/none",
        "scratch_rse": "S",
    }
    facts.write_text(json.dumps({"settings_file": "", "lake": {}, "box": box}))
    monkeypatch.setattr(hub_config, "configure", lambda c, **_: None)
    c = Config()
    hub_config.fill(c, str(facts))
    with pytest.raises(DmspError, match="belongs to the lake itself"):
        await c.DMSPAuthenticator.provision(name, {"sub": "1"}, [])
