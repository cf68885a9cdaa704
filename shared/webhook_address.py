"""Which addresses webhooks may go to.

A webhook makes this service call what a customer names, from inside a network the customer may not be in. So names
are resolved here, every address is judged, and the connection is made to an address that was judged: a name that
changes its mind between the look and the call (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from shared.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]

LOOK_S = 3.0  # how long a caller who sets a target waits for its name to be resolved

# Never called, whatever is allowed: the platform's own metadata and agent addresses live there
# (docs: "Azure Instance Metadata Service", "What is IP address 168.63.129.16?").
_NEVER = (
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("168.63.129.16/32", "platform"),
)
# From the special-purpose registries of IANA for IPv4 and IPv6; of IPv6 only 2000::/3 is given out as global.
_PRIVATE = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fc00::/7", "unique-local"),
    ("ff00::/8", "multicast"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("::/3", "reserved"),
    ("4000::/2", "reserved"),
    ("8000::/1", "reserved"),
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def _table(rows: Sequence[tuple[str, str]]) -> list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]]:
    return [(ipaddress.ip_network(network), kind) for network, kind in rows]


_NEVER_NETWORKS, _PRIVATE_NETWORKS = _table(_NEVER), _table(_PRIVATE)


class TargetRefused(Exception):
    """The target leads to an address that webhooks do not go to. The text is for the operator."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host as the system knows them, the preferred one first. OSError when there is none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def meant(address: Address) -> Address:
    """The IPv4 address inside an IPv6 address that only carries it: mapped, NAT64, 6to4, compatible."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if inner := address.ipv4_mapped or address.sixtofour:
        return inner
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class Addresses:
    """Judges targets. `allowed` are networks in CIDR notation that may be called although they are private."""

    def __init__(self, allowed: Sequence[str] = (), resolve: Resolver = resolve) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]
        self.resolve = resolve

    def refusal(self, text: str) -> str | None:
        """Why this address is not called; None when it is."""
        address = meant(ipaddress.ip_address(text.partition("%")[0]))
        for network, kind in _NEVER_NETWORKS:
            if address in network:
                return f"{text} is a {kind} address, which is never called"
        if any(address in network for network in self._allowed):
            return None
        for network, kind in _PRIVATE_NETWORKS:
            if address in network:
                article = "an" if kind[0] in "aeiou" else "a"
                return f"{text} is {article} {kind} address; WEBHOOK_PRIVATE_TARGETS can allow it"
        return None

    async def of(self, host: str, port: int) -> list[str]:
        """The addresses to call, in order. TargetRefused when one of them is not to be called: a name that leads
        inside and outside is no mistake to be generous with. OSError when the name leads nowhere."""
        found = await self.resolve(host, port)
        for address in found:
            if refusal := self.refusal(address):
                raise TargetRefused(refusal if host == address else f"the target's name leads inside: {refusal}")
        if not found:
            raise OSError("the name has no address")
        return found

    async def check(self, field: str, url: str | None) -> None:
        """InvalidInput naming the field when a target must not be set. A name that cannot be resolved now is
        accepted: it is judged again at every delivery."""
        if not url:
            return
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(LOOK_S):
                await self.of(parts.hostname or "", parts.port or 443)
        except TargetRefused as refused:
            raise InvalidInput.field(field, f'"{field}" can not be called: {refused}') from None
        except (OSError, UnicodeError, TimeoutError):
            return
