"""Compression of complete answers over 1 KiB: Brotli when the client takes it, else gzip. Streams are never touched.

The start of an answer is held back until its first body message shows whether the answer is complete.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

import brotli

MINIMUM_BYTES = 1024
IN_THREAD_BYTES = 128 * 1024
"""Larger answers are compressed in a thread: at these levels they would hold up the event loop for milliseconds."""
_BROTLI_QUALITY = 4
_GZIP_LEVEL = 5
_COMPRESSIBLE = (
    b"application/json",
    b"text/",
    b"application/yaml",
    b"application/problem+json",
    b"application/openapi",
    b"application/vnd.workflow-orchestration.",
)

Message = Any
Send = Callable[[Message], Awaitable[None]]


@lru_cache(256)
def encoding_for(accept: bytes) -> str | None:
    """`br`, `gzip` or None for an `Accept-Encoding` header; a coding with `q=0` is one the client refuses."""
    taken: set[str] = set()
    for part in accept.decode("latin-1").lower().split(","):
        coding, _, parameters = part.strip().partition(";")
        if not _refused(parameters):
            taken.add(coding.strip())
    return next((coding for coding in ("br", "gzip") if coding in taken), None)


def _refused(parameters: str) -> bool:
    name, _, value = parameters.strip().partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in ("", "0.", ".")


class Compressor:
    """Wraps `send` for one answer to a client that accepts `coding`."""

    __slots__ = ("_coding", "_held", "_send")

    def __init__(self, send: Send, coding: str) -> None:
        self._send = send
        self._coding = coding
        self._held: Message | None = None

    async def send(self, message: Message) -> None:
        """ASGI send."""
        if message["type"] == "http.response.start" and not _is_stream(message["headers"]):
            self._held = message
            return
        start, self._held = self._held, None
        if start is not None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                message = await self._compressed(start, message)
            await self._send(start)
        await self._send(message)

    async def _compressed(self, start: Message, message: Message) -> Message:
        body: bytes = message.get("body", b"")
        if not _worthwhile(start["headers"], body):
            return message
        squeeze = _brotli if self._coding == "br" else _gzip
        body = await asyncio.to_thread(squeeze, body) if len(body) > IN_THREAD_BYTES else squeeze(body)
        kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        start["headers"] = [
            *kept,
            (b"content-length", str(len(body)).encode()),
            (b"content-encoding", self._coding.encode()),
            (b"vary", b"accept-encoding"),
        ]
        return {"type": "http.response.body", "body": body, "more_body": False}


def _is_stream(headers: Any) -> bool:
    return any(name.lower() == b"content-type" and kind.startswith(b"text/event-stream") for name, kind in headers)


def _worthwhile(headers: Any, body: bytes) -> bool:
    if len(body) <= MINIMUM_BYTES:
        return False
    kind = b""
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-encoding":
            return False
        if lowered == b"content-type":
            kind = value
    return kind.startswith(_COMPRESSIBLE)


def _brotli(body: bytes) -> bytes:
    return brotli.compress(body, quality=_BROTLI_QUALITY)


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, _GZIP_LEVEL, mtime=0)
