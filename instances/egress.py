"""The one way out: HTTP calls made for tenants (`call_api`, scripts' `fetch`, webhooks).

A tenant chooses the URL, so every address is checked where it is used: a name is resolved once per connection, each of
its addresses must be public, and the connection goes to the checked address itself. TLS and `Host` keep the name.
No proxies from the environment, no cookies, no redirects unless asked for (each is checked again).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import certifi
import httpcore
import httpx

from instances.egress_policy import (
    EgressError,
    EgressFailed,
    EgressPolicy,
    EgressRefused,
    EgressTimeout,
    EgressTooLarge,
    Target,
    literal,
    not_allowed,
)

__all__ = [
    "EgressClient",
    "EgressError",
    "EgressFailed",
    "EgressPolicy",
    "EgressRefused",
    "EgressResponse",
    "EgressTimeout",
    "EgressTooLarge",
    "Target",
]

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
Headers = Iterable[tuple[str, str]]

MIB = 1 << 20
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32_768
MAX_REDIRECTS = 5
MAX_SECONDS = 300.0
CONNECT_SECONDS = 5.0
CALLS_PER_LANE = 32
"""Calls one account may have in flight per process; the rest queue."""
CONNECTIONS = 512
MAX_MEMBERS = 16
"""Gzip files one answer may be made of."""

_OURS_TO_SET = frozenset(
    ("host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te",
     "trailer", "transfer-encoding", "upgrade", "http2-settings", "content-length", "expect", "via", "accept-encoding",
     "forwarded", "x-forwarded-for")
)  # fmt: skip
_SECRETS = frozenset(("authorization", "cookie", "proxy-authorization"))
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class EgressResponse:
    """An answer, whole. `body` is decompressed; `headers` have lower-case names and may repeat."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    url: str
    redirected: bool = False

    def header(self, name: str) -> str | None:
        """First header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """All A and AAAA records, by the system's resolver. Raises OSError."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in answers]


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to nothing the policy has not seen, at the moment of connecting."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver, *, plain: bool) -> None:
        self._policy = policy
        self._resolve = resolver
        self._plain = plain
        self._inner: Any = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        name = host.lower().strip("[]").rstrip(".")
        addresses = await self.addresses(name, port)
        failure: Exception | None = None
        for address in addresses[:3]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise EgressFailed(f"could not connect to {name!r}") from failure

    async def addresses(self, host: str, port: int) -> list[str]:
        """Checked addresses of a host. Raises :class:`EgressRefused`, or :class:`EgressFailed` without any."""
        address = literal(host)
        found = [str(address)] if address is not None else await self._lookup(host, port)
        checked = self._policy.check_addresses(host, found, port, plain=self._plain)
        await self._refuse_own(host, checked, port)
        return checked

    async def _lookup(self, host: str, port: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._resolve(host, port)
        except (OSError, UnicodeError, TimeoutError):
            raise EgressFailed(f"the host name {host!r} does not resolve") from None

    async def _refuse_own(self, host: str, addresses: Sequence[str], port: int) -> None:
        for own_host, own_port in self._policy.own:
            if own_port != port:
                continue
            own = literal(own_host)
            everywhere = own is not None and own.is_unspecified
            known = {str(own)} if own is not None else set(await self._lookup(own_host, own_port))
            for address in addresses:
                if host == own_host or address in known or (everywhere and ipaddress.ip_address(address).is_loopback):
                    raise not_allowed()

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.AsyncNetworkStream:
        raise EgressRefused("calls to local sockets are not allowed")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class EgressClient:
    """Makes the calls. One per process; close it with :meth:`close`."""

    def __init__(
        self, policy: EgressPolicy, *, resolver: Resolver = system_resolver, tls: ssl.SSLContext | None = None
    ) -> None:
        self.policy = policy
        self._backends = {
            scheme: _CheckedBackend(policy, resolver, plain=scheme == "http") for scheme in ("http", "https")
        }
        context = tls or _tls_context()
        self._pools = {
            scheme: httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=CONNECTIONS,
                max_keepalive_connections=64,
                keepalive_expiry=10.0,
                network_backend=backend,
            )
            for scheme, backend in self._backends.items()
        }
        self._lanes: dict[object, _Lane] = {}

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    async def vet(self, url: str) -> None:
        """Check a URL that is about to be stored, its name resolved: EgressRefused unless it may be called today.

        A name that does not resolve passes; it is checked again when it is called.
        """
        target = self.policy.check_url(url)
        try:
            await self._backends[target.scheme].addresses(target.host, target.port)
        except EgressFailed:
            return

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        timeout: float = 30.0,
        max_request: int = MIB,
        max_response: int = MIB,
        redirect: Literal["manual", "follow", "error"] = "manual",
        lane: object = None,
    ) -> EgressResponse:
        """One call, whole. `timeout` (seconds, at most 300) bounds all of it, queueing and redirects included.

        Sizes are bytes of the body; `max_response` holds before and after decompression. `redirect`: hand a 3xx answer
        out, follow up to 5, or fail. `lane`: whose call it is; one lane has at most 32 in flight.
        Raises :class:`EgressError`; headers that are the client's own to set (`Host`, `Connection`, ...) are dropped.
        """
        if len(body) > max_request:
            raise EgressRefused(f"the request body must have at most {max_request} bytes")
        target = self.policy.check_url(url)
        call = _Call(_method(method), target, _clean(headers), body)
        try:
            async with asyncio.timeout(min(timeout, MAX_SECONDS)), self._lane(lane):
                return await self._follow(call, redirect, max_response)
        except TimeoutError:
            raise EgressTimeout(f"no complete answer from {target.host!r} within {_seconds(timeout)}") from None

    async def _follow(self, call: _Call, redirect: str, max_response: int) -> EgressResponse:
        for hop in range(MAX_REDIRECTS + 1):
            response = await self._send(call, max_response, redirected=hop > 0)
            location = response.header("location")
            if redirect == "manual" or response.status not in (301, 302, 303, 307, 308) or location is None:
                return response
            if redirect == "error":
                break
            call = call.redirected(response.status, self._next(call.target, location))
        raise EgressFailed("the target redirects" if redirect == "error" else "the target redirects too often")

    def _next(self, current: Target, location: str) -> Target:
        try:
            joined = current.url.join(location)
        except (httpx.InvalidURL, ValueError):
            raise EgressFailed("the target redirects to something that is not a URL") from None
        return self.policy.check_url(str(joined))

    async def _send(self, call: _Call, max_response: int, *, redirected: bool) -> EgressResponse:
        target = call.target
        request = httpcore.Request(
            call.method,
            httpcore.URL(
                scheme=target.scheme.encode(), host=target.url.raw_host, port=target.port, target=target.url.raw_path
            ),
            headers=call.wire_headers(),
            content=call.body,
            extensions={"timeout": {"connect": CONNECT_SECONDS, "pool": MAX_SECONDS}},
        )
        try:
            response = await self._pools[target.scheme].handle_async_request(request)
            try:
                raw = await _read(response, max_response)
            finally:
                await response.aclose()
        except (httpcore.TimeoutException, httpcore.NetworkError):
            raise EgressFailed(f"the connection to {target.host!r} broke or could not be made") from None
        except (httpcore.ProtocolError, ssl.SSLError):
            raise EgressFailed(f"{target.host!r} did not answer with HTTP") from None
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers]
        body, headers = _decoded(raw, headers, max_response)
        reason = response.extensions.get("reason_phrase", b"").decode("latin-1")
        return EgressResponse(
            response.status, reason, headers, body, str(target.url.copy_with(fragment=None)), redirected
        )

    @asynccontextmanager
    async def _lane(self, key: object) -> AsyncIterator[None]:
        if key is None:
            yield
            return
        lane = self._lanes.setdefault(key, _Lane())
        lane.users += 1
        try:
            async with lane.slots:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key]


class _Lane:
    __slots__ = ("slots", "users")

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(CALLS_PER_LANE)
        self.users = 0


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    target: Target
    headers: list[tuple[str, str]]
    body: bytes

    def redirected(self, status: int, target: Target) -> _Call:
        """The call a redirect asks for: secrets stay with the origin, a 303 (or a POST's 301, 302) becomes a GET."""
        headers, method, body = self.headers, self.method, self.body
        old = self.target
        if (old.scheme, old.host, old.port) != (target.scheme, target.host, target.port):
            headers = [(name, value) for name, value in headers if name.lower() not in _SECRETS]
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET", b""
            headers = [(name, value) for name, value in headers if not name.lower().startswith("content-")]
        return _Call(method, target, headers, body)

    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        wire = [(b"Host", self.target.url.netloc)]
        wire += [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.headers]
        names = {name.lower() for name, _ in self.headers}
        if "user-agent" not in names:
            wire.append((b"User-Agent", b"Millrace"))
        if "accept" not in names:
            wire.append((b"Accept", b"*/*"))
        wire.append((b"Accept-Encoding", b"gzip, deflate"))
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            wire.append((b"Content-Length", str(len(self.body)).encode()))
        return wire


def _method(method: str) -> str:
    if not _TOKEN.fullmatch(method) or len(method) > 32 or method.upper() in ("CONNECT", "TRACE", "TRACK"):
        raise EgressRefused(f"the method {method[:32]!r} is not allowed")
    return method.upper()


def _clean(headers: Headers) -> list[tuple[str, str]]:
    """The caller's headers, checked, without those that are the client's to set."""
    kept: list[tuple[str, str]] = []
    size = 0
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise EgressRefused(f"the header name {name[:64]!r} is not allowed")
        text = value.strip(" \t")
        if not all(character == "\t" or " " <= character <= "~" or "\xa0" <= character <= "\xff" for character in text):
            raise EgressRefused(f"the value of header {name!r} must be printable Latin-1 text")
        size += len(name) + len(text)
        if name.lower() not in _OURS_TO_SET:
            kept.append((name, text))
    if len(kept) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise EgressRefused(f"the headers must be at most {MAX_HEADERS} and {MAX_HEADER_BYTES} bytes")
    return kept


async def _read(response: httpcore.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> EgressTooLarge:
    return EgressTooLarge(f"the answer has more than {limit} bytes")


def _decoded(body: bytes, headers: list[tuple[str, str]], limit: int) -> tuple[bytes, list[tuple[str, str]]]:
    """Undo the content encodings, last one first, stopping as soon as the result passes `limit`."""
    codings = [
        coding.strip().lower() for name, value in headers if name == "content-encoding" for coding in value.split(",")
    ]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not body or not codings:
        return body, headers
    if len(codings) > 3 or not set(codings) <= {"gzip", "x-gzip", "deflate"}:
        raise EgressFailed("the answer is encoded in a way that was not asked for")
    for coding in reversed(codings):
        body = _inflate(body, coding, limit)
    return body, [(name, value) for name, value in headers if name not in ("content-encoding", "content-length")]


def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    raw_deflate = coding == "deflate" and not _has_zlib_header(body)
    made = bytearray()
    members = 0
    try:
        while body:
            members += 1
            if members > MAX_MEMBERS:
                raise EgressFailed("the compressed answer is in too many parts")
            engine = zlib.decompressobj(-zlib.MAX_WBITS if raw_deflate else zlib.MAX_WBITS | 32)
            made += engine.decompress(body, limit - len(made) + 1)
            if len(made) > limit:
                raise _too_large(limit)
            if not engine.eof:
                raise EgressFailed("the compressed answer is incomplete")
            # Gzip files may be several, one after the other.
            body = engine.unused_data if coding != "deflate" else b""
    except zlib.error:
        raise EgressFailed("the compressed answer is damaged") from None
    return bytes(made)


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _seconds(timeout: float) -> str:
    return f"{min(timeout, MAX_SECONDS):g} s"


def _tls_context() -> ssl.SSLContext:
    """The system's certificate authorities and certifi's: slim images come without the former."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
