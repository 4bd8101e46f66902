"""What is sent: a request checked and put into words, and what a redirect makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import h11
import httpx

from instances.egress.errors import EgressFailed, EgressRefused
from instances.egress.policy import EgressPolicy, Target

Headers = Iterable[tuple[str, str]]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32_768
REDIRECTS = frozenset((301, 302, 303, 307, 308))

_OURS_TO_SET = frozenset(
    ("host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te",
     "trailer", "transfer-encoding", "upgrade", "http2-settings", "content-length", "expect", "via", "accept-encoding",
     "forwarded", "x-forwarded-for")
)  # fmt: skip
_SECRETS = frozenset(("authorization", "cookie", "proxy-authorization"))
_OF_THE_BODY = frozenset(("content-encoding", "content-language", "content-location", "content-type"))
_SAFE_TO_REPEAT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\xa0-\xff]*")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be sent, as far as can be said before its name is resolved."""

    method: str
    target: Target
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once (RFC 9110 §9.2.2, or by its own word)."""
        return self.method in _SAFE_TO_REPEAT or any(name.lower() == "idempotency-key" for name, _ in self.headers)

    def redirected(self, status: int, target: Target) -> Call:
        """The call a redirect asks for: secrets stay with the origin, a 303 (or a POST's 301, 302) becomes a GET."""
        headers, method, body = self.headers, self.method, self.body
        if self.target.origin != target.origin:
            headers = [(name, value) for name, value in headers if name.lower() not in _SECRETS]
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET", b""
            headers = [(name, value) for name, value in headers if name.lower() not in _OF_THE_BODY]
        return Call(method, target, headers, body)

    def request(self) -> h11.Request:
        return h11.Request(method=self.method, target=self.target.url.raw_path, headers=self._wire_headers())

    def _wire_headers(self) -> list[tuple[bytes, bytes]]:
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


def checked_call(policy: EgressPolicy, method: str, url: str, headers: Headers, body: bytes, max_body: int) -> Call:
    """A call made of what a caller asks for; headers that are not a caller's to set are dropped.

    Raises :class:`EgressRefused`.
    """
    if len(body) > max_body:
        raise EgressRefused(f"the request body must have at most {max_body} bytes")
    target = policy.check_url(url)
    if not _TOKEN.fullmatch(method) or len(method) > 32 or method.upper() in ("CONNECT", "TRACE", "TRACK"):
        raise EgressRefused(f"the method {method[:32]!r} is not allowed")
    return Call(method.upper(), target, _clean(headers), body)


def _clean(headers: Headers) -> list[tuple[str, str]]:
    kept: list[tuple[str, str]] = []
    size = 0
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise EgressRefused(f"the header name {name[:64]!r} is not allowed")
        text = value.strip(" \t")
        if not _VALUE.fullmatch(text):
            raise EgressRefused(f"the value of header {name!r} must be printable Latin-1 text")
        size += len(name) + len(text)
        if name.lower() not in _OURS_TO_SET:
            kept.append((name, text))
    if len(kept) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise EgressRefused(f"the headers must be at most {MAX_HEADERS} and {MAX_HEADER_BYTES} bytes")
    return kept


def redirect_target(policy: EgressPolicy, current: Target, location: str) -> Target:
    """Where a `Location` leads from `current`. Raises :class:`EgressFailed`, :class:`EgressRefused`."""
    try:
        # Browsers read raw bytes in a Location as UTF-8; headers come decoded as Latin-1.
        text = location.encode("latin-1").decode("utf-8", "replace")
        joined = str(current.url.join(text))
    except (httpx.InvalidURL, ValueError):
        raise EgressFailed("the target redirects to something that is not a URL") from None
    return policy.check_url(joined)
