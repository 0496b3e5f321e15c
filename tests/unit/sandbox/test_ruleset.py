"""The text for nftables; the real thing is in the integration tests."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from jupyterhub_dmsp.sandbox import network as net
from jupyterhub_dmsp.sandbox.network import Network
from jupyterhub_dmsp.sandbox.ruleset import REFUSE, ruleset


def make(**options: object) -> Network:
    return Network(Path("/x"), "dm012345", IPv4Network("100.64.9.0/24"), **options)  # type: ignore[arg-type]


def test_closed_by_default() -> None:
    text = ruleset(make(), ["192.0.2.53"])
    assert "dport" not in text
    assert text.count(REFUSE) == 2
    assert "nfproto ipv4 accept" not in text


def test_order_of_names_private_ranges_and_the_rest() -> None:
    text = ruleset(make(ports=(8081, 8082), internet=True, reach=("10.1.2.3:443",)), ["10.0.0.53"])
    through = text[text.index("chain through") :]
    places = [
        through.index(part) for part in ("10.1.2.3 tcp dport 443", "10.0.0.53", "172.16.0.0/12", "nfproto ipv4")
    ]
    assert places == sorted(places)
    assert "ip daddr 100.64.9.1 tcp dport { 8081, 8082 } accept" in text


def test_reach_must_have_a_port() -> None:
    with pytest.raises(ValueError):
        ruleset(make(reach=("10.1.2.3:x; accept",)), [])


def test_facts_come_back() -> None:
    one = make(ports=(1,), internet=True, reach=("10.1.2.3:443",))
    assert Network.from_facts(one.facts()) == one
    assert one.gateway == "100.64.9.1"


def test_free_network_avoids_what_is_used() -> None:
    taken = [IPv4Network("100.64.0.0/11"), IPv4Network("100.96.0.0/16")]
    found = net._free(taken, 0)
    assert found == IPv4Network("100.97.0.0/24")
    with pytest.raises(net.SandboxError, match="No free network"):
        net._free([IPv4Network("100.64.0.0/10")], 5)


def test_leases_are_stable_and_end() -> None:
    data: dict[str, object] = {}
    small = IPv4Network("100.64.9.0/29")
    assert [net._lease(data, key, small) for key in "abacde"] == [2, 3, 2, 4, 5, 6]
    with pytest.raises(net.SandboxError, match="No address is left"):
        net._lease(data, "f", small)


def test_name_servers_on_loopback_are_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "resolv.conf", tmp_path / "real.conf"
    first.write_text("# stub\nnameserver 127.0.0.53\nnameserver ::1\n")
    second.write_text("nameserver 192.0.2.7\nnameserver fe80::1%eth0\nnameserver\n")
    monkeypatch.setattr(net, "RESOLV", (first, second))
    assert net.nameservers() == ["192.0.2.7"]
    monkeypatch.setattr(net, "RESOLV", (first, tmp_path / "none"))
    assert net.nameservers() == []
