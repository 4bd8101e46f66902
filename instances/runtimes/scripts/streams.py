"""Streams as results of steps: what an attempt says of its stream becomes what the journal keeps, and is read again.

The sandbox hands a stream over in pieces, each after the one before is committed. What is known of the whole is counted
here, not in there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from instances.projections.values import PREVIEW, StoredStream
from instances.runtimes.protocol import StepKey
from instances.runtimes.scripts.messages import Id, Violation
from instances.runtimes.scripts.operations import CallFailed, Handler, RunFacts
from instances.streams import StreamReader

KEEP = "keep"
"""Kind of the call by which an attempt stores a piece of the stream it returns."""
PIECE_BYTES = 192 * 1024
"""Bytes of a piece, at most: a divisor of whole base64."""
_PIECE_TEXT = PIECE_BYTES // 3 * 4


class Keep(msgspec.Struct, frozen=True):
    """The arguments of such a call: whose it is, and the piece in base64."""

    id: Id
    attempt: Id
    b64: Annotated[str, Meta(min_length=4, max_length=_PIECE_TEXT)]


def decode_keep(arguments: bytes) -> tuple[Keep, bytes]:
    """The call, and the bytes in it. Raises :class:`Violation`."""
    try:
        call = msgspec.json.decode(arguments, type=Keep)
        return call, base64.b64decode(call.b64, validate=True)
    except (msgspec.DecodeError, UnicodeError, RecursionError, binascii.Error) as error:
        raise Violation(f"a piece of a stream: {error}") from None


class OutgoingStream:
    """The stream one attempt is storing."""

    def __init__(self) -> None:
        self.pending: asyncio.Task[None] | None = None
        """Stores the piece in hand."""
        self._bytes = 0
        self._text: str | None = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def take(self, piece: bytes) -> None:
        """Count a piece in."""
        self._bytes += len(piece)
        self._read(piece)

    def _read(self, piece: bytes, *, final: bool = False) -> None:
        if self._text is None:
            return
        try:
            more = self._decoder.decode(piece, final)
        except UnicodeDecodeError:
            self._text = None
        else:
            self._text += more[: PREVIEW + 1 - len(self._text)]

    def value(self, key: StepKey, attempt: int, run: int) -> str:
        """What the journal keeps of the step's output: the stream is over."""
        self._read(b"", final=True)
        return StoredStream(key.name, key.count, attempt, run, self._bytes, self._text).stored()


_Int = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _Of(msgspec.Struct):
    name: str
    count: _Int
    attempt: _Int
    run: _Int
    bytes: Annotated[int, Meta(ge=0, le=2**53)]


class _Next(msgspec.Struct):
    stream: _Of
    after: Annotated[int, Meta(ge=0, le=2**53)] = 0


class IncomingStreams:
    """Answers calls of kind `piece`: the code of a run reads what its steps returned."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader

    def handlers(self) -> Mapping[str, Handler]:
        return {"piece": self.next}

    async def next(self, facts: RunFacts, arguments: Any) -> dict[str, Any]:
        """The piece behind seq `after`: `{seq, b64}`, or nothing. Raises :class:`CallFailed`."""
        try:
            call = msgspec.convert(arguments, _Next)
        except msgspec.ValidationError as error:
            raise CallFailed("TypeError", f"no stream can be read like that: {error}") from None
        of = call.stream
        stream = StoredStream(of.name, of.count, of.attempt, of.run, of.bytes)
        found = await self._reader.piece(facts.account_id, facts.key, stream, call.after)
        return {} if found is None else {"v": {"seq": found[0], "b64": found[1]}}
