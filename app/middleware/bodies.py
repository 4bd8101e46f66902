"""Request bodies: how large each route's may be, and how deep JSON may nest.

Sizes are checked against `Content-Length` before anything is read, and while reading. Depth is checked once the body is
complete, before any decoder sees it: decoders recurse, and payloads are otherwise handed on without being decoded.
"""

from __future__ import annotations

import re
from itertools import accumulate

from litestar.types import HTTPReceiveMessage, Receive

from app.errors import InvalidRequest, PayloadTooLarge
from tenants import limits

_SCRIPT_UPLOAD = re.compile(r"/client/v4/accounts/[^/]+/workers/scripts/[^/]+(/versions)?")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # the last quote is optional: no rescans, so linear
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")


def limit_of(method: str, path: str) -> int:
    """Bytes a request's body may have, by its canonical path."""
    if method == "POST":
        if path.endswith("/instances") or "/events/" in path:
            return limits.BODY_SINGLE_BYTES
        if path.endswith("/instances/batch"):
            return limits.BODY_BATCH_BYTES
    if method in ("PUT", "POST") and _SCRIPT_UPLOAD.fullmatch(path):
        return limits.BODY_UPLOAD_BYTES
    return limits.BODY_BYTES


def guard(receive: Receive, *, limit: int, declared: bytes | None, json: bool) -> Receive:
    """Wrap `receive` so that reading more than `limit` bytes, or JSON nested too deep, raises.

    Raises :class:`PayloadTooLarge` at once when the declared length is over the limit.
    """
    if declared is not None and (not declared.isdigit() or int(declared) > limit):
        raise _too_large(limit)
    return _Guard(receive, limit, json).receive


class _Guard:
    __slots__ = ("_chunks", "_json", "_limit", "_receive", "_size")

    def __init__(self, receive: Receive, limit: int, json: bool) -> None:
        self._receive = receive
        self._limit = limit
        self._json = json
        self._size = 0
        self._chunks: list[bytes] = []

    async def receive(self) -> HTTPReceiveMessage:
        message: HTTPReceiveMessage = await self._receive()  # type: ignore[assignment]
        if message["type"] != "http.request":
            return message
        chunk = message.get("body", b"")
        self._size += len(chunk)
        if self._size > self._limit:
            raise _too_large(self._limit)
        if self._json:
            self._chunks.append(chunk)
            if not message.get("more_body", False):
                check_depth(self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))
                self._chunks.clear()
        return message


def check_depth(body: bytes, limit: int = limits.JSON_DEPTH) -> None:
    """Raise :class:`InvalidRequest` when the JSON text `body` nests deeper than `limit`.

    Linear and without recursion, whatever the text is: strings are cut out, what is left is reduced to brackets, and
    those to +1 and -1, whose running sum is the depth. Text that is not JSON is the decoder's to refuse.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    steps = _STRING.sub(b"", body).translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > limit:
        raise InvalidRequest(f"JSON must not nest deeper than {limit} levels.")


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than the {limit} bytes allowed here.")
