"""One HTTP/1.1 connection: h11 knows the protocol, asyncio moves the bytes, one exchange at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11

from instances.egress.errors import EgressFailed
from instances.egress.messages import Call

MAX_HEAD = 65_536
"""Bytes of an answer's status line and headers, give or take a :data:`PIECE`."""
MAX_INTERIM = 16
"""Answers of 1xx before the real one."""
PIECE = 65_536
"""Bytes h11 is given at a time."""
HIGH, LOW = 262_144, 65_536
"""Received bytes nobody has asked for at which reading from the socket stops, and goes on."""


class Stale(Exception):
    """A connection that was kept turned out to be closed before anything of an answer came."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer. Header names are in lower case and may repeat."""

    status: int
    reason: str
    headers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """First header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)


class Connection(asyncio.Protocol):
    """Made by a pool, which is told by `on_lost` when it is gone.

    What is received is held until somebody asks for it, and beyond some of it the socket is not read: a server sends
    no faster than its answer is wanted.
    """

    def __init__(self, host: str, on_lost: Callable[[Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._on_lost = on_lost
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._transport: Any = None
        self._received = bytearray()
        self._paused = False
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._exchanges = 0
        self._busy = True
        self._answered = False
        self.since = self._loop.time()

    # --- what asyncio says -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._busy:  # an answer to nothing that was asked
            self.abort()
            return
        self._answered = True
        self._received += data
        if len(self._received) > HIGH and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        if not self._busy:
            self.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        if exc is not None and self._failure is None:
            self._failure = self._lost()
        self._wake()
        self._on_lost(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- one exchange ----------------------------------------------------------------------------------------------

    async def exchange(self, call: Call) -> Head:
        """Send a request and read the beginning of its answer; the rest comes from :meth:`event`.

        Raises :class:`EgressFailed`, :class:`Stale`; the connection is closed then, and when this is cancelled.
        """
        self._exchanges += 1
        self._busy, self._answered = True, False
        try:
            self._send(call)
            for _ in range(MAX_INTERIM):
                event = await self.event()
                if type(event) is h11.Response:
                    return _head(event)
            raise EgressFailed(f"{self._host!r} did not answer with HTTP")
        except BaseException:
            self.abort()
            raise

    def _send(self, call: Call) -> None:
        """Hand the whole request over at once: an answer may come, and be read, before all of it is sent."""
        self._transport.write(self._http.send(call.request()))
        if call.body:
            self._transport.write(self._http.send(h11.Data(data=call.body)))
        self._http.send(h11.EndOfMessage())

    async def event(self) -> Any:
        """The next h11 event of the answer: a response, data, or its end. Raises :class:`EgressFailed`."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                raise self._wrong() from None
            if event is not h11.NEED_DATA:
                return event
            await self._feed()

    async def _feed(self) -> None:
        """Give h11 more of what was received, waiting for it if need be."""
        if not self._received and not self._ended and self._failure is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._received:
            piece = bytes(memoryview(self._received)[:PIECE])
            del self._received[:PIECE]
            self._http.receive_data(piece)
            if self._paused and len(self._received) < LOW and not self._transport.is_closing():
                self._paused = False
                self._transport.resume_reading()
        elif self._failure is not None:
            raise self._failure
        elif not self._answered:
            raise self._lost()
        else:
            self._http.receive_data(b"")

    def _lost(self) -> Exception:
        return Stale() if self._exchanges > 1 and not self._answered else self._broken()

    def _wrong(self) -> EgressFailed:
        """What h11 does not understand is either cut short or not HTTP."""
        return self._broken() if self._ended else EgressFailed(f"{self._host!r} did not answer with HTTP")

    def _broken(self) -> EgressFailed:
        return EgressFailed(f"the connection to {self._host!r} broke")

    # --- its end ---------------------------------------------------------------------------------------------------

    def rest(self) -> bool:
        """The answer has been read to its end: make ready for another exchange; whether that is possible."""
        self._busy = False
        http = self._http
        if (
            http.our_state is not h11.DONE
            or http.their_state is not h11.DONE
            or http.trailing_data[0]
            or self._received
            or self._ended
            or self._failure is not None
            or self._transport.is_closing()
            or self._transport.get_write_buffer_size()
        ):
            return False
        http.start_next_cycle()
        return True

    @property
    def closing(self) -> bool:
        return self._ended or self._transport.is_closing()

    def abort(self, failure: Exception | None = None) -> None:
        """Close at once. Whoever waits for the answer gets `failure`."""
        if self._failure is None:
            self._failure = failure or self._broken()
        self._received.clear()
        if self._transport is not None:
            self._transport.abort()
        self._wake()


def _head(event: h11.Response) -> Head:
    headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers]
    return Head(event.status_code, bytes(event.reason).decode("latin-1"), headers)
