"""The hosts that scripts may fetch from.

The setting `allow_net` names the hosts, and this module checks their addresses.

A host that is named may have any public address. Loopback and private addresses are permitted only by an entry with a
port, such as ``localhost:8000``, or by an entry that is the address itself. All other addresses are permitted only by
an entry that is the address itself: link-local addresses (where clouds serve secrets), and multicast, unspecified and
reserved addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["AllowedHosts", "netloc", "parse_host"]

Address = IPv4Address | IPv6Address

_ENTRY = re.compile(
    r"(?P<star>\*\.)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)(?::(?P<port>\d{1,5}))?"
)
_NUMERIC = re.compile(r"\d+|0x[0-9a-f]*")


def _networks(text: str) -> list[IPv4Network | IPv6Network]:
    return [ip_network(each) for each in text.split()]


_LOCAL = _networks("10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16 ::1/128 fc00::/7")

#: The networks in IANA's registries of special addresses that are not in `_LOCAL`.
_SPECIAL = _networks(
    "0.0.0.0/8 169.254.0.0/16 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "
    "224.0.0.0/4 240.0.0.0/4 2001::/23 2001:db8::/32 3fff::/20"
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class _AllowedHost:
    name: str
    port: int | None
    is_suffix: bool
    address: Address | None

    def matches(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.is_suffix:
            return host.endswith("." + self.name)
        return host == self.name or (self.address is not None and self.address == _address_of(host))

    def permits(self, address: Address) -> bool:
        kind = _kind_of(address)
        if kind == "public" or self.address == address:
            return True
        return kind == "local" and self.port is not None and not self.is_suffix and self.address is None


def parse_host(text: str) -> _AllowedHost | None:
    """Parse an entry of `allow_net`: ``host``, ``host:port``, ``*.host`` or ``*.host:port``.

    Returns None if it is invalid.
    """
    text = text.lower()
    found = _ENTRY.fullmatch(f"[{text}]" if text.count(":") > 1 and "[" not in text else text)
    if found is None:
        return None
    name = found["host"].strip("[]")
    address = _address_of(name)
    port = None if found["port"] is None else int(found["port"])
    if address is None and ("[" in found["host"] or ".." in name or _NUMERIC.fullmatch(name.rpartition(".")[2])):
        return None
    if (address is not None and found["star"]) or (port is not None and not 0 < port < 65536):
        return None
    return _AllowedHost(name, port, found["star"] is not None, address)


class AllowedHosts:
    """The hosts that the entries of `allow_net` permit. Immutable. Raises `ValueError` for an invalid entry."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._hosts = []
        for entry in entries:
            host = parse_host(entry)
            if host is None:
                raise ValueError(f"not a host: {entry!r}")
            self._hosts.append(host)

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def names(self, host: str, port: int) -> bool:
        """Whether an entry names this host of a URL. `host` is in lower case; an IPv6 address has no brackets."""
        return any(each.matches(host.removesuffix("."), port) for each in self._hosts)

    def refusal(self, host: str, port: int, address: str) -> str | None:
        """Returns the reason why a script must not connect to `host`, which has this `address`.

        None if it may connect.
        """
        found = _address_of(address)
        if found is None:
            return f"{address!r} is not an address"
        if any(each.matches(host.removesuffix("."), port) and each.permits(found) for each in self._hosts):
            return None
        if _kind_of(found) == "local":
            return f"{address} is a private address: --allow-net {netloc(host, port)} would allow it"
        return f"{address} is not an address of the internet: only --allow-net {netloc(address, port)} would allow it"


def netloc(host: str, port: int) -> str:
    """Returns the host and the port in the form that a URL has."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address_of(text: str) -> Address | None:
    """Parse an address. A scope is removed.

    An IPv6 address that stands for an IPv4 address (``::ffff:…``) becomes the IPv4 address.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _kind_of(address: Address) -> str:
    """The kind of an address: ``public``, ``local`` or ``special``."""
    if isinstance(address, IPv6Address):
        inner = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.sixtofour
        if inner is not None:
            return "public" if _kind_of(inner) == "public" else "special"
    if any(address in network for network in _LOCAL):
        return "local"
    if any(address in network for network in _SPECIAL):
        return "special"
    return "public" if isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST else "special"
