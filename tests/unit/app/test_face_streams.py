"""Live streams: pace, heartbeat, credential, end (app.faces.streams)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from litestar import Request

from app.errors import NotAuthenticated
from app.faces.streams import COMMENT, MAX_ID, RETRY, frame, last_event_id, paced


class Events:
    """A source of events: those given, then nothing for ever (`stays`) or the end."""

    def __init__(self, *given: bytes, stays: bool = False) -> None:
        self.given, self.stays, self.closed = given, stays, False

    async def __call__(self) -> AsyncGenerator[bytes]:
        try:
            for one in self.given:
                yield one
            if self.stays:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def allowed() -> None:
    pass


async def revoked() -> None:
    raise NotAuthenticated()


async def test_events_come_in_order_and_the_stream_ends_with_them() -> None:
    events = Events(b"1", b"2")
    assert [piece async for piece in paced(events(), allowed, lambda: COMMENT)] == [RETRY, b"1", b"2"]
    assert events.closed


async def test_a_heartbeat_when_nothing_happens() -> None:
    events = Events(b"1", stays=True)
    stream = paced(events(), allowed, lambda: b"beat", beat=0.001)
    seen = [await anext(stream) for _ in range(5)]
    assert (seen[0], seen[-1]) == (RETRY, b"beat")
    assert b"1" in seen
    await stream.aclose()
    assert events.closed


async def test_the_last_word_when_the_credential_is_no_longer_good() -> None:
    events = Events(stays=True)
    stream = paced(events(), revoked, lambda: COMMENT, lambda error: f"bye {error.status}".encode(), beat=0)
    assert [piece async for piece in stream] == [RETRY, b"bye 401"]
    assert events.closed


async def test_it_ends_when_its_time_is_over() -> None:
    events = Events(stays=True)
    assert [piece async for piece in paced(events(), allowed, lambda: COMMENT, lifetime=0)] == [RETRY]
    first, *rest = [piece async for piece in paced(Events(stays=True)(), allowed, bytes, beat=9, lifetime=0.001)]
    assert (first, set(rest) <= {b""}) == (RETRY, True)


@pytest.mark.parametrize("stays", [True, False])
async def test_it_ends_when_the_credential_is_revoked(stays: bool) -> None:
    events = Events(*[b"x"] * 3, stays=stays)
    assert [piece async for piece in paced(events(), revoked, lambda: COMMENT, beat=0)] == [RETRY]
    assert events.closed


async def test_what_breaks_an_event_source_breaks_the_stream() -> None:
    async def broken() -> AsyncGenerator[bytes]:
        yield b"1"
        raise ZeroDivisionError

    stream = paced(broken(), allowed, lambda: COMMENT)
    assert [await anext(stream), await anext(stream)] == [RETRY, b"1"]
    with pytest.raises(ZeroDivisionError):
        await anext(stream)


def request(headers: dict[str, str], query: str = "") -> Request[Any, Any, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "headers": pairs, "query_string": query.encode(), "path": "/"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", None),
        ({"last-event-id": "7"}, "", 7),
        ({}, "lastEventId=8", 8),
        ({"last-event-id": "7"}, "lastEventId=8", 7),
        ({"last-event-id": "x"}, "", None),
        ({"last-event-id": "-1"}, "", None),
        ({"last-event-id": "9" * 19}, "", MAX_ID),
        ({"last-event-id": "9" * 20}, "", None),
    ],
)
def test_where_to_go_on(headers: dict[str, str], query: str, expected: int | None) -> None:
    assert last_event_id(request(headers, query)) == expected


def test_frames() -> None:
    assert frame("step", b"{}") == b"event: step\ndata: {}\n\n"
    assert frame("step", b"{}", 5) == b"event: step\nid: 5\ndata: {}\n\n"


def test_neither_the_pace_nor_a_heartbeat_looks_like_an_event() -> None:
    """The SDK of Medusa takes whatever ends with an empty line for one, whose data its users parse."""
    assert b"\n\n" not in RETRY + COMMENT + COMMENT
