"""Bodies decompressed as they come, in small pieces and never past a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from instances.egress.errors import EgressFailed, EgressTooLarge

PIECE = 65_536
"""Bytes decompressed at a time."""
MAX_MEMBERS = 16
"""Gzip files one answer may be made of."""
MAX_CODINGS = 3

_KNOWN = frozenset(("gzip", "x-gzip", "deflate"))
_GZIP = b"\x1f\x8b"


class Decoder:
    """Undoes the content encodings of one body, last one first."""

    def __init__(self, codings: list[str], limit: int) -> None:
        self._stages = [_Inflater(coding, limit) for coding in reversed(codings)]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` is decompressed, piece by piece, each made when it is asked for.

        Raises :class:`EgressTooLarge` as soon as a stage passes the limit, :class:`EgressFailed` for damaged data.
        """
        return self._through(0, data)

    def _through(self, stage: int, data: bytes) -> Iterator[bytes]:
        if stage == len(self._stages):
            yield data
            return
        for piece in self._stages[stage].feed(data):
            yield from self._through(stage + 1, piece)

    def end(self) -> None:
        """The body is over. Raises :class:`EgressFailed` if something is missing."""
        for stage in self._stages:
            stage.end()


def content_codings(headers: list[tuple[str, str]]) -> list[str]:
    """The codings a body went through, first one first; names in lower case."""
    values = [value for name, value in headers if name == "content-encoding"]
    codings = [coding.strip().lower() for value in values for coding in value.split(",")]
    return [coding for coding in codings if coding not in ("", "identity")]


def decodable(codings: list[str]) -> bool:
    return len(codings) <= MAX_CODINGS and _KNOWN.issuperset(codings)


class _Inflater:
    """One gzip or deflate stage; the latter with or without zlib's header, as servers disagree about it."""

    def __init__(self, coding: str, limit: int) -> None:
        self._deflate = coding == "deflate"
        self._limit = limit
        self._made = 0
        self._members = 0
        self._start = b""
        self._engine: Any = None
        self._over = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._start + data
        self._start = b""
        while not self._over:
            if self._engine is None:
                if len(data) < len(_GZIP):
                    self._start = data
                    return
                self._begin(data)
                continue
            try:
                piece = self._engine.decompress(data, PIECE)
            except zlib.error:
                raise EgressFailed("the compressed answer is damaged") from None
            self._made += len(piece)
            if self._made > self._limit:
                raise EgressTooLarge(self._limit)
            whole, data = self._engine.eof, self._engine.unconsumed_tail
            if whole:
                data, self._engine, self._over = self._engine.unused_data, None, self._deflate
            if piece:
                yield piece
            if not whole and not data and len(piece) < PIECE:
                return

    def _begin(self, data: bytes) -> None:
        """Start a (further) member with `data`; what follows the last one is nobody's."""
        if self._members and not data.startswith(_GZIP):
            self._over = True
            return
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise EgressFailed("the compressed answer is in too many parts")
        headless = self._deflate and not (data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0)
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS if headless else zlib.MAX_WBITS | 32)

    def end(self) -> None:
        if self._engine is not None or (self._start and not self._members):
            raise EgressFailed("the compressed answer is incomplete")
