"""Where calls made for tenants may go: public addresses on ordinary ports, and the holes the operator opened."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

from app.settings import Settings, SettingsError
from instances.egress.errors import EgressFailed, EgressRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Service = tuple[str, int]
"""Host and port."""

MAX_URL = 8_192
MAX_NAME = 253

# IANA's special-purpose registries, where `is_global` is too generous (differently so in each Python), and one cloud's
# services on an address that looks public.
_NOT_PUBLIC: tuple[Network, ...] = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments, port control and relay anycast among them
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("168.63.129.16/32"),  # Azure's platform: DHCP, DNS, secrets of the machine
    IPv6Network("2001::/23"),  # Teredo and other protocol assignments
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("3fff::/20"),  # documentation
)
# Leaves out NAT64 (64:ff9b::/96, 64:ff9b:1::/48), IPv4 in IPv6 (::/96), segment routing (5f00::/16), and everything
# local to a site, a link or a machine.
_GLOBAL_UNICAST = IPv6Network("2000::/3")

# Services that answer something else than HTTP, or HTTP without asking who is there.
_DENIED_PORTS = frozenset(
    (1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3128, 3306, 3389, 3659, 4045, 4190, 4369, 5060,
     5061, 5432, 5672, 5900, 6000, 6379, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 7000, 7001, 9042, 9092,
     9100, 9200, 9300, 10080, 10250, 10255, 11211, 15672, 26379, 27017, 27018, 27019, 50070)
)  # fmt: skip

_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_HOST_PORT = re.compile(r"(\[[^]]*\]|[^:]*)(?::(\d*))?")
_NUMERIC_HOST = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+))*")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart and found acceptable as far as it can be without resolving its name."""

    url: httpx.URL
    scheme: str
    host: str
    """Lower case, IDNA, without brackets and trailing dot."""
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def text(self) -> str:
        """The URL without its fragment."""
        return str(self.url).partition("#")[0]


class EgressPolicy:
    """Where calls may go: public addresses on ordinary ports, and the holes the operator opened.

    `allow` and `deny` hold CIDRs, addresses and host names. What is allowed may be reached on any port, also by plain
    http; what is denied is refused even then. `own`: the platform's services, refused even inside a hole.
    `plain_http`: also for public addresses. Raises ValueError for an entry that is none of these.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        deny: Iterable[str] = (),
        own: Iterable[Service] = (),
        plain_http: bool = False,
    ) -> None:
        self.plain_http = plain_http
        self.own = tuple((host.lower().rstrip("."), port) for host, port in own)
        self._allowed = _Places(allow)
        self._denied = _Places(deny)

    @classmethod
    def from_settings(cls, settings: Settings) -> EgressPolicy:
        """As `MILLRACE_EGRESS_*` say; PostgreSQL, Redis and the metrics port stay closed. Raises SettingsError."""
        try:
            return cls(
                settings.egress_allow,
                deny=settings.egress_deny,
                own=own_services(settings),
                plain_http=settings.egress_plain_http,
            )
        except ValueError as error:
            raise SettingsError(f"MILLRACE_EGRESS_ALLOW and MILLRACE_EGRESS_DENY: {error}.") from None

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
        if port is None:
            port = 443 if scheme == "https" else 80
        if not 0 < port < 65_536:
            raise EgressRefused("the URL must have a port between 1 and 65535")
        target = Target(parsed, scheme, host.lower().strip("[]").removesuffix("."), port)
        address = literal(target.host)
        if address is not None:
            self.check_addresses(target, [str(address)])
        elif not _NAME.fullmatch(target.host) or len(target.host) > MAX_NAME:
            raise _no_host()
        elif target.host in self._denied.names:
            raise not_allowed()
        elif target.host not in self._allowed.names and not self._allowed.networks:
            if target.host == "localhost" or target.host.endswith(".localhost"):
                raise not_allowed()
            self._check_ordinary(target)
        return target

    def problem(self, url: str) -> str | None:
        """Why `url` may not be called, as a rule beginning with `must`; None when nothing is known against it."""
        try:
            self.check_url(url)
        except EgressRefused as error:
            return error.rule
        return None

    def check_addresses(self, target: Target, addresses: Sequence[str]) -> list[str]:
        """The addresses of a target, every one allowed; one bad address spoils the name. Raises EgressRefused."""
        checked: list[str] = []
        for text in dict.fromkeys(addresses):
            address = unmapped(text)
            if address is None or self._denied.hold(address):
                raise not_allowed()
            if target.host not in self._allowed.names and not self._allowed.hold(address):
                if not is_public(address):
                    raise not_allowed()
                self._check_ordinary(target)
            checked.append(str(address))
        if not checked:
            raise EgressFailed(f"the host name {target.host!r} has no address")
        return checked

    def _check_ordinary(self, target: Target) -> None:
        """What holds outside of holes."""
        if target.port not in (80, 443) and (target.port < 1024 or target.port in _DENIED_PORTS):
            raise EgressRefused("the URL must use port 443, 80, or one above 1023 that is not a known service's")
        if target.scheme == "http" and not self.plain_http:
            raise EgressRefused("the URL must start with https://")


class _Places:
    """Networks and names an operator wrote down. Raises ValueError for what is neither."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.networks: list[Network] = []
        self.names: set[str] = set()
        for entry in entries:
            try:
                self.networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                name = entry.lower().removesuffix(".")
                if not _NAME.fullmatch(name) or _NUMERIC_HOST.fullmatch(name):
                    raise ValueError(f"{entry!r} is neither a CIDR nor an address nor a host name") from None
                self.names.add(name)

    def hold(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address is a unicast one on the public internet."""
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _GLOBAL_UNICAST):
        return False
    return not any(address.version == network.version and address in network for network in _NOT_PUBLIC)


def literal(host: str) -> Address | None:
    """The address a host spells, in any spelling a resolver would take (`127.1`, `0x7f000001`, `0177.0.0.1`), or None.

    Raises :class:`EgressRefused` for what only looks like one, and for zones (`fe80::1%eth0`).
    """
    if ":" in host or "%" in host:
        address = unmapped(host)
        if address is None:
            raise _no_host()
        return address
    if not _NUMERIC_HOST.fullmatch(host):
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        raise _no_host() from None


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
    return EgressRefused("the URL must lead to an address that may be called")


def _no_host() -> EgressRefused:
    return EgressRefused("the URL must name a host or an address")


def own_services(settings: Settings) -> list[Service]:
    """Where PostgreSQL, Redis and the metrics of this installation listen; sockets and ports chosen later left out.

    A setting that cannot be read is left to whoever uses it.
    """
    services: list[Service] = []
    with contextlib.suppress(ValueError):
        services += _postgres_hosts(settings.database_url)
    for url, default_port in ((settings.redis_url, 6379), (f"tcp://{settings.metrics_bind}", 0)):
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or default_port
            if host and port:
                services.append((host, port))
    return services


def _postgres_hosts(dsn: str) -> Iterator[Service]:
    """Every host of a libpq URL: it may name several, each with a port, and more in its query. May raise ValueError."""
    parts = urlsplit(dsn)
    query = {key: values[-1].split(",") for key, values in parse_qs(parts.query).items()}
    places = [_HOST_PORT.fullmatch(place) for place in parts.netloc.rpartition("@")[2].split(",")]
    named = [(unquote(place[1]).strip("[]"), place[2] or "") for place in places if place]
    ports = query.get("port") or [port for _, port in named] or [""]
    for hosts in ([host for host, _ in named], query.get("host", []), query.get("hostaddr", [])):
        for number, host in enumerate(hosts):
            port = ports[min(number, len(ports) - 1)]
            if host and not host.startswith(("/", "@")):
                yield host, int(port) if port.isdecimal() else 5432
