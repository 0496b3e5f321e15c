"""A network of their own for sessions: a bridge that no outside interface joins, a namespace each.

A session's port on the bridge is isolated from the others' (``bridge link set … isolated on``), and an nftables
table of ours lets sessions reach only the given ports on the bridge address and, where wanted, the outside.
Nobody from outside is routed in. Names come from the state directory, so two installations run side by side.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

from jupyterhub_dmsp.sandbox import ids
from jupyterhub_dmsp.sandbox.errors import SandboxError
from jupyterhub_dmsp.sandbox.ruleset import ruleset
from jupyterhub_dmsp.sandbox.run import attempt, run

RANGE = IPv4Network("100.64.0.0/10")
"""Shared address space of RFC 6598: the range that collides least with the networks of users."""

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
NAMESPACES = Path("/run/netns")
RESOLV = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
ALIAS = "dmsp sessions"

T = TypeVar("T")


@dataclass(frozen=True)
class Attachment:
    """A session's place in the network.

    Attributes:
        namespace: path of the network namespace, for ``nsenter --net=``.
        address: the session's address; everything in it may listen there.
    """

    namespace: Path
    address: str


@dataclass(frozen=True)
class Network:
    """The network of one installation. :meth:`load_or_choose` gives it, :meth:`ensure` makes it.

    Attributes:
        record: JSON file that remembers the subnet and who has which address.
        name: of the bridge and of the nftables table, at most eight characters.
        subnet: a /24; the bridge has its first address.
        ports: TCP ports on the bridge address that sessions may reach.
        internet: whether sessions may reach the outside.
        reach: further ``address:port`` pairs that sessions may reach, such as a site's Rucio server.
    """

    record: Path
    name: str
    subnet: IPv4Network
    ports: tuple[int, ...] = ()
    internet: bool = False
    reach: tuple[str, ...] = ()

    @classmethod
    async def load_or_choose(
        cls, state: Path, *, ports: Iterable[int] = (), internet: bool = False, reach: Iterable[str] = ()
    ) -> Network:
        """The network of the installation in ``state``: the remembered subnet, else a free one."""
        record = state / "run" / "network.json"
        digest = _digest(state)
        name = f"dm{digest[:6]}"
        taken = await _networks_in_use(except_device=name)
        remembered = _read(record).get("subnet")
        subnet = IPv4Network(remembered) if remembered else None
        if subnet is None or any(subnet.overlaps(other) for other in taken):
            subnet = _free(taken, int(digest[6:12], 16))
        _update(record, lambda data: data.update(subnet=str(subnet), name=name))
        return cls(record, name, subnet, tuple(ports), internet, tuple(reach))

    @classmethod
    def load(cls, state: Path) -> Network | None:
        """The network that an installation made earlier, to take it away; None when it made none."""
        record = state / "run" / "network.json"
        data = _read(record)
        if "name" not in data or "subnet" not in data:
            return None
        return cls(record, str(data["name"]), IPv4Network(data["subnet"]))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Network:
        """The network that :meth:`facts` described."""
        return cls(
            record=Path(facts["record"]),
            name=facts["name"],
            subnet=IPv4Network(facts["subnet"]),
            ports=tuple(facts["ports"]),
            internet=bool(facts["internet"]),
            reach=tuple(facts.get("reach", ())),
        )

    def facts(self) -> dict[str, Any]:
        """Plain data for a configuration file."""
        return {
            "record": str(self.record),
            "name": self.name,
            "subnet": str(self.subnet),
            "gateway": self.gateway,
            "ports": list(self.ports),
            "internet": self.internet,
            "reach": list(self.reach),
        }

    @property
    def gateway(self) -> str:
        """The bridge's address: where hub and Rucio listen for sessions."""
        return str(self.subnet[1])

    async def ensure(self) -> None:
        """Make bridge, filter and forwarding what they should be; changes nothing that is right already."""
        code, _, _ = await attempt(["ip", "link", "show", "dev", self.name])
        if code:
            await run(["ip", "link", "add", self.name, "type", "bridge"])
        lines = [
            f'link set dev {self.name} alias "{ALIAS}"',
            # Left to itself a bridge takes the lowest address of its ports, another one as sessions come and go:
            # what the others send to the address that they remember is lost until they ask again, some 10 s.
            f"link set dev {self.name} address {_hardware_address(self.name)}",
            f"link set dev {self.name} addrgenmode none",
            f"address replace {self.gateway}/{self.subnet.prefixlen} dev {self.name}",
            f"link set dev {self.name} up",
        ]
        await run(["ip", "-batch", "-"], "\n".join(lines))
        await run(["nft", "-f", "-"], ruleset(self, nameservers()))
        if self.internet and (await asyncio.to_thread(FORWARD.read_text)).strip() == "0":
            await asyncio.to_thread(FORWARD.write_text, "1")
            _update(self.record, lambda data: data.update(forward_was="0"))

    async def remove(self) -> None:
        """Take it all away; forwarding too, if we turned it on and no other such network is left."""
        await self.remove_stale(keep=())
        await attempt(["nft", "delete", "table", "inet", self.name])
        await attempt(["ip", "link", "delete", self.name])
        _, others, _ = await attempt(["ip", "-j", "link", "show", "type", "bridge"])
        if _read(self.record).get("forward_was") == "0" and ALIAS not in others:
            await asyncio.to_thread(FORWARD.write_text, "0")
        _update(self.record, lambda data: data.pop("forward_was", None))

    async def attach(self, key: str) -> Attachment:
        """Make the namespace of session ``key``; a left-over one is replaced. The key keeps its address."""
        number = _update(self.record, lambda data: _lease(data, key, self.subnet))
        namespace, device = self._names(number)
        address = str(self.subnet[number])
        await attempt(["ip", "netns", "delete", namespace])
        await attempt(["ip", "link", "delete", device])
        await run(["ip", "netns", "add", namespace])
        outside = [
            f"link add {device} type veth peer name eth0 netns {namespace}",
            f"link set {device} addrgenmode none",
            f"link set {device} master {self.name} up",
        ]
        # No IPv6 in there: link-local addresses would bypass what is said here about addresses.
        inside = [
            "link set eth0 addrgenmode none",
            f"address add {address}/{self.subnet.prefixlen} dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {self.gateway}",
        ]
        await run(["ip", "-batch", "-"], "\n".join(outside))
        await run(["bridge", "link", "set", "dev", device, "isolated", "on"])
        await run(["ip", "-n", namespace, "-batch", "-"], "\n".join(inside))
        return Attachment(NAMESPACES / namespace, address)

    async def detach(self, key: str) -> None:
        """Remove the namespace of session ``key``; nothing happens when there is none."""
        number = _read(self.record).get("leases", {}).get(key)
        if number is not None:
            await self._delete(int(number))
            _update(self.record, lambda data: data.get("leases", {}).pop(key, None))

    async def remove_stale(self, keep: Iterable[str]) -> list[str]:
        """Remove the namespaces of all sessions but ``keep``, also ones that the record forgot; their names."""
        leases: dict[str, int] = _read(self.record).get("leases", {})
        kept = {leases[key] for key in keep if key in leases}
        code, out, _ = await attempt(["ip", "-j", "netns", "list"])
        present = [entry["name"] for entry in json.loads(out or "[]")] if not code else []
        removed = []
        for name in present:
            prefix, _, number = name.rpartition("-")
            if prefix == self.name and number.isdigit() and int(number) not in kept:
                await self._delete(int(number))
                removed.append(name)
        _update(self.record, lambda data: _forget(data, kept))
        return removed

    def with_ports(self, *ports: int) -> Network:
        """The same network with more ports open."""
        return replace(self, ports=(*self.ports, *ports))

    def resolv_conf(self) -> str:
        """Text of resolv.conf for sessions; empty when there is no name server that they could reach."""
        return "".join(f"nameserver {server}\n" for server in nameservers()) if self.internet else ""

    def _names(self, number: int) -> tuple[str, str]:
        return f"{self.name}-{number}", f"{self.name}v{number}"

    async def _delete(self, number: int) -> None:
        namespace, device = self._names(number)
        # The device first: the namespace itself lives on until its last process is reaped.
        await attempt(["ip", "link", "delete", device])
        await attempt(["ip", "netns", "delete", namespace])


def nameservers() -> list[str]:
    """IPv4 name servers of this machine that another network namespace can reach (not those on loopback)."""
    for path in RESOLV:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found = [parts[1] for line in lines if len(parts := line.split()) > 1 and parts[0] == "nameserver"]
        usable = [server for server in found if _usable(server)]
        if usable:
            return usable
    return []


def _usable(server: str) -> bool:
    try:
        return not IPv4Address(server).is_loopback
    except ipaddress.AddressValueError:
        return False


def _hardware_address(name: str) -> str:
    """An address for the bridge itself: locally administered, one station (IEEE 802, section 8.4)."""
    return ":".join(("02", *(f"{byte:02x}" for byte in hashlib.sha256(name.encode()).digest()[:5])))


def _digest(state: Path) -> str:
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()


async def _networks_in_use(except_device: str) -> list[IPv4Network]:
    """Networks that this machine's addresses and routes know already."""
    found: list[IPv4Network] = []
    for device in json.loads(await run(["ip", "-j", "-4", "address"]) or "[]"):
        if device.get("ifname") != except_device:
            found += [
                IPv4Network(f"{a['local']}/{a['prefixlen']}", strict=False) for a in device.get("addr_info", [])
            ]
    for route in json.loads(await run(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]"):
        if route.get("dev") != except_device and route.get("dst", "default") != "default":
            found.append(IPv4Network(route["dst"], strict=False))
    return [network for network in found if network.prefixlen > 0]


def _free(taken: list[IPv4Network], seed: int) -> IPv4Network:
    """A /24 of :data:`RANGE` that nobody uses; the seed spreads installations that choose at the same time."""
    count = 1 << (24 - RANGE.prefixlen)
    for step in range(count):
        start = int(RANGE.network_address) + (((seed + step) % count) << 8)
        candidate = IPv4Network((start, 24))
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise SandboxError(f"No free network is left in {RANGE}.", "Remove routes that cover the whole range.")


def _lease(data: dict[str, Any], key: str, subnet: IPv4Network) -> int:
    leases: dict[str, int] = data.setdefault("leases", {})
    if key not in leases:
        taken = set(leases.values())
        free = (number for number in range(2, subnet.num_addresses - 1) if number not in taken)
        number = next(free, None)
        if number is None:
            raise SandboxError("No address is left for another session.", "Stop a session first.")
        leases[key] = number
    return leases[key]


def _forget(data: dict[str, Any], kept: set[int]) -> None:
    data["leases"] = {key: number for key, number in data.get("leases", {}).items() if number in kept}


def _read(record: Path) -> dict[str, Any]:
    try:
        data = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        # A lost record costs nothing: addresses are given anew, stale namespaces are found by their names.
        return {}
    return data if isinstance(data, dict) else {}


def _update(record: Path, change: Callable[[dict[str, Any]], T]) -> T:
    with ids.locked(record):
        data = _read(record)
        result = change(data)
        ids.replace(record, json.dumps(data, indent=1) + "\n", 0o600)
    return result
