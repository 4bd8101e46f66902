"""What the live streams of all faces have in common: pace, heartbeat, an end, and where to go on after a reconnect.

A stream begins with how soon to come back (`retry`), sends a heartbeat whenever nothing happened for `BEAT` seconds,
looks that often whether its credential is still good, and ends after `LIFETIME`: the client connects again and goes on
behind the last event it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from litestar import Request

from app.errors import MillraceError
from instances.errors import TooManyStreams
from instances.event_stream import EventStream
from instances.live_feed import LiveFeed
from tenants.auth import Caller
from tenants.service import TenantService

RETRY = b"retry: 3000\n"
"""A line of the first event: some readers take a block without data for an event, which their users cannot parse."""
COMMENT = b": ping\n"
"""The heartbeat no client sees, for the same reason without the empty line that ends an event."""
BEAT = 15.0
"""Seconds without an event after which a heartbeat is sent."""
LIFETIME = 3600.0
"""Seconds a stream lasts at most."""
MAX_ID = 2**63 - 1


def frame(event: str, data: bytes, id: int | None = None) -> bytes:
    """One event. `data` is JSON on one line."""
    head = f"event: {event}\n" if id is None else f"event: {event}\nid: {id}\n"
    return b"%sdata: %s\n\n" % (head.encode(), data)


def last_event_id(request: Request[Any, Any, Any]) -> int | None:
    """The number of the last event the client saw: from the header, or from the query, which a browser's first connect
    can set. None when there is none, or it is no number of ours: the stream then begins as a new one.
    """
    text = request.headers.get("last-event-id") or request.query_params.get("lastEventId") or ""
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    return min(int(text), MAX_ID)


async def open_stream(
    events: Callable[[], AsyncGenerator[bytes]],
    *,
    caller: Caller,
    tenants: TenantService,
    feed: LiveFeed,
    still_allowed: Callable[[], Awaitable[object]],
    heartbeat: Callable[[], bytes] = lambda: COMMENT,
    refused: Callable[[MillraceError], bytes] | None = None,
) -> EventStream:
    """A response that sends what `events()` gives. Raises :class:`TooManyStreams` for the credential.

    `refused` is what is said last when the credential is no longer good.
    """
    limit = (await tenants.limits(caller.account_id)).streams
    credential = caller.token_id or caller.user_id or caller.account_id
    feed.require_slot(credential, limit)

    async def frames() -> AsyncIterator[bytes]:
        try:
            with feed.slot(credential, limit):
                async with contextlib.aclosing(paced(events(), still_allowed, heartbeat, refused)) as pace:
                    async for piece in pace:
                        yield piece
        except TooManyStreams:
            return  # another took the last slot since it was looked at: this one ends, and its client will hear 429

    return EventStream(frames())


async def paced(
    events: AsyncGenerator[bytes],
    still_allowed: Callable[[], Awaitable[object]],
    heartbeat: Callable[[], bytes],
    refused: Callable[[MillraceError], bytes] | None = None,
    *,
    beat: float = BEAT,
    lifetime: float = LIFETIME,
) -> AsyncGenerator[bytes]:
    """`events` with `RETRY` before and heartbeats between, until they end, the time is over, or `still_allowed` raises
    a :class:`MillraceError`, of which `refused` may have the last word.
    """
    clock = asyncio.get_running_loop().time
    end, look = clock() + lifetime, clock() + beat
    coming: asyncio.Future[bytes] | None = None
    try:
        yield RETRY
        while (left := end - clock()) > 0:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({coming}, timeout=min(beat, left))
            if clock() >= look:
                await still_allowed()
                look = clock() + beat
            if not done:
                yield heartbeat()
                continue
            piece, coming = coming.result(), None
            yield piece
    except StopAsyncIteration:
        return
    except MillraceError as error:
        if refused is not None:
            yield refused(error)
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
        await events.aclose()
