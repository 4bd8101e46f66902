"""Calls of scripts to the outside (`fetch`), through the one way out that all of Millrace has.

The answer's body stays here and is handed over piece by piece as the code reads it: what it does not read is not taken
from the network either, beyond a buffer that lets short bodies end, and their connections go on to others, unread.
Nothing survives the run's stay in memory.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from instances.egress import EgressClient, EgressError, OpenResponse
from instances.runtimes.scripts.failures import SUBREQUESTS
from instances.runtimes.scripts.operations import CallFailed, Handler, RunFacts

AT_ONCE = 50
"""Fetches of one run whose answers have not ended; the rest wait."""
CHUNK = 256 * 1024
"""Bytes of a body handed over at once, and read ahead."""
MAX_SECONDS = 300.0
"""For all of a fetch, its body included."""
MAX_REQUEST = 16 << 20
MAX_RESPONSE = 100 << 20
_T = TypeVar("_T")
BODILESS = frozenset({101, 204, 205, 304})


class _Fetch(msgspec.Struct):
    method: str
    url: str
    headers: list[tuple[str, str]]
    redirect: Literal["follow", "manual", "error"] = "follow"
    body: str | None = None
    """In base64."""
    text: str | None = None
    """The body, if it is a text."""

    def content(self) -> bytes:
        if self.text is not None:
            return self.text.encode("utf-8", "replace")
        return b"" if self.body is None else _bytes(self.body)


class _Read(msgspec.Struct):
    body: int
    as_: Literal["bytes", "text"] = msgspec.field(name="as")
    whole: bool = False
    """All of it is wanted: rather few large pieces than the first one soon."""


class _Close(msgspec.Struct):
    body: int


class Fetching:
    """Answers calls of the kinds `fetch`, `read` and `close`."""

    def __init__(self, egress: EgressClient) -> None:
        self._egress = egress

    def handlers(self) -> Mapping[str, Handler]:
        return {"fetch": self.fetch, "read": self.read, "close": self.close}

    async def fetch(self, facts: RunFacts, arguments: Any) -> dict[str, Any]:
        """`{status, statusText, headers, url, redirected, body}`; `body` is a number to read by, or None. Raises
        :class:`CallFailed`."""
        call = _converted(arguments, _Fetch)
        open_ = _opened(facts)
        _count(facts)
        await open_.slots.acquire()
        try:
            response = await self._egress.fetch(
                call.method,
                call.url,
                headers=call.headers,
                body=call.content(),
                timeout=MAX_SECONDS,
                max_request=MAX_REQUEST,
                max_response=MAX_RESPONSE,
                redirect=call.redirect,
                lane=facts.account_id,
            )
        except EgressError as error:
            open_.slots.release()
            raise CallFailed("TypeError", f"fetch failed: {error}") from None
        except BaseException:
            open_.slots.release()
            raise
        number = None
        if call.method == "HEAD" or response.status in BODILESS:
            response.close()
            open_.slots.release()
        else:
            number = open_.add(response)
        return {
            "v": {
                "status": response.status,
                "statusText": response.reason,
                "headers": response.headers,
                "url": response.url,
                "redirected": response.redirected,
                "body": number,
            }
        }

    async def read(self, facts: RunFacts, arguments: Any) -> dict[str, Any]:
        """The next piece of a body, `{b64}` or `{text}`, and whether it is `done`. Raises :class:`CallFailed`."""
        call = _converted(arguments, _Read)
        open_ = _opened(facts)
        body = open_.bodies.get(call.body)
        if body is None:
            raise CallFailed("TypeError", "the body was read or closed")
        try:
            piece, done = await body.read(call.whole)
        except EgressError as error:
            open_.forget(call.body)
            raise CallFailed("TypeError", f"the body could not be read to its end: {error}") from None
        if done:
            open_.forget(call.body)
        if call.as_ == "text":
            return {"v": {"text": body.decoder.decode(piece, done), "done": done}}
        return {"v": {"b64": base64.b64encode(piece).decode(), "done": done}}

    async def close(self, facts: RunFacts, arguments: Any) -> dict[str, Any]:
        """Let go of a body."""
        _opened(facts).forget(_converted(arguments, _Close).body)
        return {}


class _Open:
    """What one run has open."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.bodies: dict[int, _Body] = {}
        self._numbers = 0

    def add(self, response: OpenResponse) -> int:
        self._numbers += 1
        self.bodies[self._numbers] = _Body(response, self.slots.release)
        return self._numbers

    def forget(self, number: int) -> None:
        body = self.bodies.pop(number, None)
        if body is not None:
            body.close()

    def close(self) -> None:
        for number in list(self.bodies):
            self.forget(number)


class _Body:
    """A body being read. A task of its own takes it from the network, :data:`CHUNK` bytes ahead at most."""

    def __init__(self, response: OpenResponse, on_end: Callable[[], None]) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._response = response
        self._on_end = on_end
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._failure: EgressError | None = None
        self._changed = asyncio.Condition()
        self._task = asyncio.get_running_loop().create_task(self._fill())
        self._task.add_done_callback(self._end)

    async def read(self, whole: bool) -> tuple[bytes, bool]:
        """A piece, and whether it is the last. Raises :class:`EgressError`."""
        async with self._changed:
            wanted = CHUNK if whole else 1
            await self._changed.wait_for(lambda: self._size >= wanted or self._ended)
            if self._failure is not None and not self._pieces:
                raise self._failure
            if self._size <= CHUNK:
                piece = b"".join(self._pieces)
                self._pieces.clear()
            else:  # pieces have at most 64 KiB
                piece = b""
                while len(piece) + len(self._pieces[0]) <= CHUNK:
                    piece += self._pieces.popleft()
            self._size -= len(piece)
            self._changed.notify_all()
            return piece, self._ended and self._failure is None and not self._pieces

    async def _fill(self) -> None:
        try:
            async for piece in self._response:
                async with self._changed:
                    self._pieces.append(piece)
                    self._size += len(piece)
                    self._changed.notify_all()
                    await self._changed.wait_for(lambda: self._size < CHUNK)
        except EgressError as error:
            self._failure = error
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _end(self, _: asyncio.Task[None]) -> None:
        self._response.close()
        self._on_end()

    def close(self) -> None:
        self._task.cancel()


def _count(facts: RunFacts) -> None:
    """One more fetch of the run. Raises :class:`CallFailed` when it may make no more."""
    if facts.request_limit is None:
        return
    if facts.requests >= facts.request_limit:
        raise CallFailed(SUBREQUESTS.name, SUBREQUESTS.message)
    facts.requests += 1
    facts.requested(facts.requests)


def _opened(facts: RunFacts) -> _Open:
    found = facts.kept.get("fetching")
    if found is None:
        found = facts.kept["fetching"] = _Open()
        facts.closing.append(found.close)
    return found


def _converted(arguments: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(arguments, kind)
    except msgspec.ValidationError as error:
        raise CallFailed("TypeError", f"fetch cannot do that: {error}") from None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise CallFailed("TypeError", "the request's body is no base64") from None
