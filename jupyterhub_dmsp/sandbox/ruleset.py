"""The nftables rules of a session network, as text for ``nft -f -``."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Protocol

NOT_OUTSIDE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
"""Destinations that are not the public Internet (RFC 6890): the site's own networks stay out of reach."""


REFUSE = "reject with icmpx type admin-prohibited"
"""Refused at once, not dropped: a program that tries gets an error and need not wait for its timeout."""


class Bridge(Protocol):
    """What the rules must know of a :class:`jupyterhub_dmsp.sandbox.network.Network`."""

    @property
    def name(self) -> str: ...
    @property
    def subnet(self) -> IPv4Network: ...
    @property
    def gateway(self) -> str: ...
    @property
    def ports(self) -> tuple[int, ...]: ...
    @property
    def internet(self) -> bool: ...
    @property
    def reach(self) -> tuple[str, ...]: ...


def _set(items: Sequence[object]) -> str:
    return "{ " + ", ".join(map(str, items)) + " }"


def ruleset(network: Bridge, nameservers: Sequence[str]) -> str:
    """A table that replaces the former one in one transaction.

    Order matters: the name servers and the admitted addresses come before the private ranges are refused.
    """
    bridge = network.name
    return f"""
table inet {bridge}
delete table inet {bridge}
table inet {bridge} {{
  chain to_host {{
    type filter hook input priority filter; policy accept;
    iifname != {{ "lo", "{bridge}" }} ip daddr {network.subnet} drop
    iifname "{bridge}" ct state established,related accept
    {_host_ports(network, nameservers)}
    iifname "{bridge}" {REFUSE}
  }}
  chain through {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" iifname != "{bridge}" ct state established,related accept
    oifname "{bridge}" drop
    {_outside(network, nameservers)}
  }}
  chain masked {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network.subnet} oifname != "{bridge}" masquerade
  }}
}}
"""


def _host_ports(network: Bridge, nameservers: Sequence[str]) -> str:
    lines = []
    if network.ports:
        lines.append(
            f'iifname "{network.name}" ip daddr {network.gateway} tcp dport {_set(network.ports)} accept'
        )
    if network.internet and nameservers:
        # A name server may run on this very machine, on one of its other addresses.
        lines.append(_names(network.name, nameservers))
    return "\n    ".join(lines)


def _names(bridge: str, nameservers: Sequence[str]) -> str:
    return f'iifname "{bridge}" ip daddr {_set(nameservers)} meta l4proto {{ tcp, udp }} th dport 53 accept'


def _outside(network: Bridge, nameservers: Sequence[str]) -> str:
    bridge = network.name
    lines = [f'iifname "{bridge}" ct state established,related accept']
    for pair in network.reach:
        address, _, port = pair.rpartition(":")
        lines.append(f'iifname "{bridge}" ip daddr {address} tcp dport {int(port)} accept')
    if network.internet:
        if nameservers:
            lines.append(_names(bridge, nameservers))
        lines.append(f'iifname "{bridge}" ip daddr {_set(NOT_OUTSIDE)} {REFUSE}')
        lines.append(f'iifname "{bridge}" meta nfproto ipv4 accept')
    lines.append(f'iifname "{bridge}" {REFUSE}')
    return "\n    ".join(lines)
