"""Where calls made for tenants may go: public addresses on ordinary ports, and the holes the operator opened."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

import httpx

from app.settings import Settings

Address = IPv4Address | IPv6Address

MAX_URL = 8_192

# What `is_global` calls public although it leads elsewhere: Teredo and other protocol ranges, 6to4 and its relay,
# documentation. NAT64, IPv4-compatible, translated, site-local and the like are outside global unicast altogether.
_NOT_PUBLIC = [
    ipaddress.ip_network(text) for text in ("2001::/23", "2002::/16", "3fff::/20", "192.88.99.0/24", "2001:db8::/32")
]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

# Services that answer something else than HTTP, or HTTP without asking who is there.
_DENIED_PORTS = frozenset(
    (1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3128, 3306, 3389, 3659, 4045, 4190, 4369, 5060,
     5061, 5432, 5672, 5900, 6000, 6379, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 7000, 7001, 9042, 9092,
     9100, 9200, 9300, 10080, 10250, 10255, 11211, 15672, 26379, 27017, 27018, 27019, 50070)
)  # fmt: skip

_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMERIC_HOST = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+))*")


class EgressError(Exception):
    """A call that gave no answer. `permanent`: the same call would fail again."""

    permanent = False


class EgressRefused(EgressError):
    """The call is not allowed or not well formed. Never says which internal address a name led to."""

    permanent = True


class EgressFailed(EgressError):
    """The target could not be reached, or did not speak HTTP."""


class EgressTimeout(EgressError):
    """The time for the whole call ran out."""


class EgressTooLarge(EgressError):
    """The answer is larger than allowed, as sent or decompressed."""

    permanent = True


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart and found acceptable as far as it can be without resolving its name."""

    url: httpx.URL
    scheme: str
    host: str
    """Lower case, IDNA, without brackets and trailing dot."""
    port: int


class EgressPolicy:
    """Where calls may go: public addresses on ordinary ports, and the holes the operator opened.

    `allow`: CIDRs, addresses and host names, reachable on any port, also by plain http. `own`: host and port of the
    platform's services, refused even inside a hole. `plain_http`: also for public addresses.
    """

    def __init__(
        self, allow: Iterable[str] = (), *, own: Iterable[tuple[str, int]] = (), plain_http: bool = False
    ) -> None:
        self.plain_http = plain_http
        self.own = tuple((host.lower().rstrip("."), port) for host, port in own)
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._names: set[str] = set()
        for entry in allow:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                self._names.add(entry.lower().rstrip("."))

    @classmethod
    def from_settings(cls, settings: Settings, *, plain_http: bool = False) -> EgressPolicy:
        """`MILLRACE_EGRESS_ALLOW` opens holes; PostgreSQL, Redis and the metrics port stay closed."""
        own = [_service(settings.database_url, 5432), _service(settings.redis_url, 6379)]
        own.append(_service(f"tcp://{settings.metrics_bind}", 0))
        return cls(settings.egress_allow, own=[found for found in own if found], plain_http=plain_http)

    def check_url(self, url: str) -> Target:
        """Take a URL apart. Raises :class:`EgressRefused` with a rule (`the URL must ...`)."""
        if len(url) > MAX_URL:
            raise EgressRefused(f"the URL must have at most {MAX_URL} characters")
        try:
            parsed = httpx.URL(url)
            scheme, host, port = parsed.scheme, parsed.raw_host.decode("ascii"), parsed.port
        except (httpx.InvalidURL, ValueError, UnicodeError):
            raise EgressRefused("the URL must be a well-formed absolute URL") from None
        if scheme not in ("http", "https") or not host:
            raise EgressRefused("the URL must start with https://")
        if parsed.userinfo:
            raise EgressRefused("the URL must not carry credentials")
        target = Target(
            parsed, scheme, host.lower().strip("[]").rstrip("."), port or (443 if scheme == "https" else 80)
        )
        if target.port > 65_535:
            raise EgressRefused("the URL must have a port below 65536")
        address = literal(target.host)
        if address is None and not _NAME.fullmatch(target.host):
            raise EgressRefused("the URL must name a host or an address")
        if address is not None:
            self.check_addresses(target.host, [str(address)], target.port, plain=scheme == "http")
        elif target.host not in self._names and not self._networks:
            if target.host == "localhost" or target.host.endswith(".localhost"):
                raise not_allowed()
            self._check_port(target.port)
            if scheme == "http" and not self.plain_http:
                raise EgressRefused("the URL must start with https://")
        return target

    def problem(self, url: str) -> str | None:
        """Why `url` may not be called, as a rule beginning with `must`; None when nothing is known against it."""
        try:
            self.check_url(url)
        except EgressRefused as error:
            return str(error).removeprefix("the URL ")
        return None

    def check_addresses(self, host: str, addresses: Sequence[str], port: int, *, plain: bool) -> list[str]:
        """The addresses of `host`, every one allowed; one bad address spoils the name. Raises EgressRefused."""
        checked: list[str] = []
        hole = host in self._names
        for text in dict.fromkeys(addresses):
            address = unmapped(text)
            if address is None:
                raise not_allowed()
            if not (hole or self._in_hole(address)):
                self._check_port(port)
                if not is_public(address):
                    raise not_allowed()
                if plain and not self.plain_http:
                    raise EgressRefused("the URL must start with https://")
            checked.append(str(address))
        if not checked:
            raise EgressFailed(f"the host name {host!r} has no address")
        return checked

    def _in_hole(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)

    @staticmethod
    def _check_port(port: int) -> None:
        if port not in (80, 443) and (port < 1024 or port in _DENIED_PORTS):
            raise EgressRefused("the URL must use port 443, 80, or one above 1023 that is not a known service's")


def is_public(address: Address) -> bool:
    """Whether an address is a unicast one on the public internet."""
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _GLOBAL_UNICAST):
        return False
    return not any(address.version == network.version and address in network for network in _NOT_PUBLIC)


def literal(host: str) -> Address | None:
    """The address a host spells, in any spelling a resolver would take (`127.1`, `0x7f000001`, `0177.0.0.1`), or None.

    Raises :class:`EgressRefused` for what only looks like one.
    """
    address = unmapped(host.partition("%")[0])
    if address is not None:
        return address
    if not _NUMERIC_HOST.fullmatch(host) and ":" not in host:
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        raise EgressRefused("the URL must name a host or an address") from None


def unmapped(text: str) -> Address | None:
    """The address, IPv4 taken out of its mapped IPv6 form; None for no address and for one with a zone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            return None
        return address.ipv4_mapped or address
    return address


def not_allowed() -> EgressRefused:
    return EgressRefused("calls to this address are not allowed")


def _service(url: str, default_port: int) -> tuple[str, int] | None:
    """Host and port of one of the platform's own services; None for a socket file or when it has no address."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port or default_port) if parts.hostname else None
    except ValueError:
        return None
