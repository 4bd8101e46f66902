"""Request bodies: how large each route's may be, and how deep JSON may nest.

Sizes are checked against `Content-Length` before anything is read, and while reading. Depth is checked once the body is
complete, before any decoder sees it: decoders recurse, and payloads are otherwise handed on without being decoded.
"""

from __future__ import annotations

import re

from litestar.types import HTTPReceiveMessage, Receive

from app.errors import InvalidRequest, PayloadTooLarge
from tenants import limits
from tenants.bodies import check_depth

_SCRIPT_UPLOAD = re.compile(r"/client/v4/accounts/[^/]+/workers/scripts/[^/]+(/versions|/content)?")


def limit_of(method: str, path: str) -> int:
    """Bytes a request's body may have, by its canonical path."""
    if method == "POST":
        if path.endswith("/instances") or "/events/" in path or path.startswith("/hooks/"):
            return limits.BODY_SINGLE_BYTES
        if path.endswith("/instances/batch"):
            return limits.BODY_BATCH_BYTES
        if path == "/graphql":
            return limits.BODY_OPERATION_BYTES
    if method in ("PUT", "POST") and _SCRIPT_UPLOAD.fullmatch(path):
        return limits.BODY_UPLOAD_BYTES
    return limits.BODY_BYTES


def guard(receive: Receive, *, limit: int, declared: bytes | None, json: bool) -> Receive:
    """Wrap `receive` so that reading more than `limit` bytes, or JSON nested too deep, raises.

    Raises :class:`PayloadTooLarge` at once when the declared length is over the limit, and :class:`InvalidRequest` when
    the client goes before it has sent all of the body.
    """
    if declared is not None and (not declared.isdigit() or int(declared) > limit):
        raise _too_large(limit)
    return _Guard(receive, limit, json).receive


class _Guard:
    __slots__ = ("_chunks", "_complete", "_json", "_limit", "_receive", "_size")

    def __init__(self, receive: Receive, limit: int, json: bool) -> None:
        self._receive = receive
        self._limit = limit
        self._json = json
        self._size = 0
        self._complete = False
        self._chunks: list[bytes] = []

    async def receive(self) -> HTTPReceiveMessage:
        message: HTTPReceiveMessage = await self._receive()  # type: ignore[assignment]
        if message["type"] != "http.request":
            if not self._complete:
                raise InvalidRequest("The request body ended before it was complete.")
            return message
        chunk = message.get("body", b"")
        self._size += len(chunk)
        if self._size > self._limit:
            raise _too_large(self._limit)
        self._complete = not message.get("more_body", False)
        if self._json:
            self._chunks.append(chunk)
            if self._complete:
                check_depth(self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))
                self._chunks.clear()
        return message


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than the {limit} bytes allowed here.")
