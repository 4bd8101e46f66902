"""Answers: whole, or with a body that is still to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import h11

from instances.egress.connection import Connection, Head
from instances.egress.decoding import Decoder, content_codings, decodable
from instances.egress.errors import EgressError, EgressFailed, EgressTooLarge

SMALLEST_MEAN = 16
"""Bytes the pieces of a body must have on average, after the first :data:`SMALL_PIECES`: each costs time to take in."""
SMALL_PIECES = 4_096
TURNS_IN_A_ROW = 32
"""Steps of taking in a body without letting others have the loop."""


@dataclass(frozen=True, slots=True)
class EgressResponse(Head):
    """An answer, whole. `body` is decompressed; `headers` have lower-case names and may repeat."""

    body: bytes
    url: str
    redirected: bool = False


class OpenResponse:
    """An answer whose body is still to come: iterate over it, or :meth:`read` it, and close it.

    `status`, `reason` and `headers` are as in :class:`Head`; `url` is where the answer came from, without fragment.
    Known content encodings are undone, and their headers gone; with any other, `encoded` is true and the body is as it
    came. Nothing is read from the network that is not asked for. The answer holds a connection and a turn until its
    body has been read, it is closed, its time is over, or something is wrong.
    """

    def __init__(
        self,
        head: Head,
        connection: Connection,
        *,
        url: str,
        redirected: bool,
        bodiless: bool,
        max_body: int,
        on_end: Callable[[bool], None],
    ) -> None:
        codings = [] if bodiless else content_codings(head.headers)
        self.encoded = not decodable(codings)
        self.status, self.reason, self.headers = head.status, head.reason, head.headers
        self.url, self.redirected = url, redirected
        self._decoder = None
        if codings and not self.encoded:
            self._decoder = Decoder(codings, max_body)
            self.headers = [pair for pair in head.headers if pair[0] not in ("content-encoding", "content-length")]
        self._connection = connection
        self._max_body = max_body
        self._on_end = on_end
        self._pieces: Iterator[bytes] = iter(())
        self._received = self._events = self._turns = 0
        self._reading = self._ended = False
        self._failure: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def header(self, name: str) -> str | None:
        """First header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the body, at most 64 KiB.

        Raises :class:`EgressFailed`, :class:`EgressTimeout`, :class:`EgressTooLarge`, after which, and when cancelled,
        the answer is closed.
        """
        if self._reading:
            raise RuntimeError("the body is being read already")
        self._reading = True
        try:
            piece = await self._next()
        except BaseException as error:
            self._end(error if isinstance(error, EgressError) else _closed())
            raise
        finally:
            self._reading = False
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def _next(self) -> bytes | None:
        """A piece; None at the end."""
        while not self._ended:
            self._turns += 1
            if self._turns % TURNS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            piece = next(self._pieces, None)
            if piece is not None:
                return piece
            event = await self._connection.event()
            if type(event) is h11.Data:
                self._pieces = self._take_in(bytes(event.data))
            elif not self._ended:
                if self._decoder is not None:
                    self._decoder.end()
                self._end(None)
        if self._failure is not None:
            raise self._failure
        return None

    def _take_in(self, data: bytes) -> Iterator[bytes]:
        self._received += len(data)
        self._events += 1
        if self._received > self._max_body:
            raise EgressTooLarge(self._max_body)
        if self._events > SMALL_PIECES and self._received < self._events * SMALLEST_MEAN:
            raise EgressFailed("the answer comes in too many small pieces")
        return self._decoder.feed(data) if self._decoder is not None else iter((data,))

    async def read(self) -> bytes:
        """The rest of the body. Raises as iterating does."""
        body = bytearray()
        async for piece in self:
            body += piece
        return bytes(body)

    def close(self, failure: EgressError | None = None) -> None:
        """Let go of the answer; whoever reads it, now or later, gets `failure`. Does nothing after the end."""
        self._end(failure or _closed())

    def close_at(self, deadline: float, failure: EgressError) -> None:
        """Close it at a time of the event loop, with what readers get then."""
        self._timer = asyncio.get_running_loop().call_at(deadline, self.close, failure)

    def _end(self, failure: Exception | None) -> None:
        if self._ended:
            return
        self._ended, self._failure = True, failure
        if self._timer is not None:
            self._timer.cancel()
        if failure is not None:
            self._connection.abort(failure)
        self._on_end(failure is None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _closed() -> EgressFailed:
    return EgressFailed("the answer was closed before its end")
