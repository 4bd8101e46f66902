"""Who is at the other end of a connection: the client's address, looked up behind trusted proxies only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The proxies whose `X-Forwarded-For` is believed. Raises ValueError for a text that is no address or CIDR."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks: tuple[_Network, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in trusted)

    def client_of(self, peer: str, forwarded: bytes | None) -> str:
        """The address of the client: the last one in `X-Forwarded-For` that no trusted proxy of ours added.

        Everything left of that one is the client's own claim. A Unix socket (empty peer) is a proxy on this machine
        and counts as trusted whenever any proxy is.
        """
        if not self._networks or forwarded is None or (peer and not self._trusts(peer)):
            return peer
        hops = [hop.strip() for hop in forwarded.decode("latin-1").split(",")]
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                return peer
            if not self._trusts(address):
                return address
            peer = address
        return peer

    def _trusts(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def _address(hop: str) -> str | None:
    """The address in one element of `X-Forwarded-For`, which may carry a port and brackets."""
    for text in (hop, hop.rpartition(":")[0], hop.strip("[]"), hop.rpartition(":")[0].strip("[]")):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    return None
