"""Streams that do not end by themselves, and how they end when the process does.

A server that stops waits for its open requests; a live stream would hold it up until its time is over. So when the
platform drains, every open stream is told that its client has gone, which ends it; the client finds another server and
continues behind the last event it saw.
"""

from __future__ import annotations

import asyncio

from litestar.types import HTTPReceiveMessage, Receive

KIND = b"text/event-stream"


class Streams:
    """The open streams of one process."""

    def __init__(self) -> None:
        self._open: set[asyncio.Event] = set()
        self._ending = False

    def begin(self) -> asyncio.Event:
        """A stream begins; the event is set when it should end. Give it back to :meth:`over`."""
        event = asyncio.Event()
        self._open.add(event)
        if self._ending:
            event.set()
        return event

    def over(self, event: asyncio.Event) -> None:
        self._open.discard(event)

    def end_all(self) -> None:
        """End every stream, and every one that begins from now on."""
        self._ending = True
        for event in self._open:
            event.set()


async def receive_or_end(receive: Receive, end: asyncio.Event) -> HTTPReceiveMessage:
    """The next message of the client, or its going away once `end` is set."""
    heard, ended = asyncio.ensure_future(receive()), asyncio.ensure_future(end.wait())
    try:
        await asyncio.wait({heard, ended}, return_when=asyncio.FIRST_COMPLETED)
        if heard.done():
            return heard.result()  # type: ignore[return-value]
        return {"type": "http.disconnect"}  # type: ignore[return-value]
    finally:
        for task in (heard, ended):
            task.cancel()
