"""The one wrapper around the application: everything that is the same for every HTTP request, in one pass.

One object per request instead of a stack of middlewares: at thousands of requests per second each further layer costs
more than what it does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from litestar.types import ASGIApp, Receive, Scope, Send

from app.errors import NoRoute
from app.faces.face import Answer
from app.middleware import bodies, paths
from app.middleware.clients import Proxies
from app.middleware.compression import Compressor, encoding_for
from app.middleware.streams import KIND, Streams, receive_or_end
from app.middleware.websockets import Observed
from app.observability.metrics import HTTP, HTTP_IN_FLIGHT
from tenants.audit import Origin, origin

logger = structlog.get_logger("millrace.access")

_SANE_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_NOT_JSON = (b"multipart/", b"application/yaml", b"application/x-yaml", b"text/yaml")
_CLIENT_LEFT = 499
"""Status of a request nobody waited for, in logs and metrics."""
COUNTED_AS = "counted_as"
"""Where in the scope a route says what metrics call its answer, when the status would tell them something wrong."""
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Gateway:
    """ASGI middleware outside of everything else, CORS included.

    `refuse` answers a request that failed before routing, in the shape of the face the path belongs to; `request_id`
    makes the id of a request that brings none; `allowed` names the methods of a canonical path, or raises
    :class:`app.errors.NoRoute`; `headers` are those the face adds to every answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        proxies: Proxies,
        request_id: Callable[[], str],
        refuse: Callable[[Exception, Scope], Answer],
        allowed: Callable[[str], str],
        headers: Callable[[Scope], dict[str, str]] = lambda _scope: {},
    ) -> None:
        self._app = app
        self._proxies = proxies
        self._request_id = request_id
        self._refuse = refuse
        self._allowed = allowed
        self._headers = headers
        self.streams = Streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self, scope).run(receive, send)
        elif scope["type"] == "websocket":
            await self._converse(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _converse(self, scope: Any, receive: Receive, send: Send) -> None:
        """Let the application serve a WebSocket, and note what becomes of it."""
        observed = Observed(scope, receive, send)
        id = self._request_id()
        structlog.contextvars.bind_contextvars(request_id=id)
        try:
            if await self._admit(scope, observed.send):
                origin.set(Origin(scope["client"][0] if scope.get("client") else None, id))
                await self._app(scope, observed.receive, observed.send)
        finally:
            observed.over()

    async def _admit(self, scope: Any, send: Send) -> bool:
        """Make a WebSocket's path canonical, and its client the one behind the proxies; refuse paths of nothing."""
        try:
            paths.canonicalise(scope)
            self._allowed(scope["path"])
        except NoRoute:
            await send({"type": "websocket.close", "code": 1000, "reason": ""})  # before it is accepted: 403
            return False
        if scope.get("client"):
            peer = scope["client"][0]
            given = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            address = self._proxies.client_of(peer, b",".join(given) if given else None)
            if address != peer:
                scope["client"] = (address, 0)
        return True


class RequestIds:
    """Ids for requests that bring none: a random beginning per process, then a counter. 32 hex digits.

    Made for every request, so cheap; they tell requests apart and need not be hard to guess.
    """

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._start = entropy(8).hex()
        self._numbers = itertools.count(1)

    def __call__(self) -> str:
        return f"{self._start}{next(self._numbers):016x}"


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_body_bytes",
        "_body_less",
        "_complete",
        "_end",
        "_gateway",
        "_headers",
        "_method",
        "_path",
        "_receive",
        "_request_id",
        "_scope",
        "_send",
        "_started",
        "_status",
    )

    def __init__(self, gateway: Gateway, scope: Any) -> None:
        self._gateway = gateway
        self._scope: Any = scope
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of repeated headers the first counts
        self._method: str = scope["method"]
        self._path: str = scope["path"]
        self._status = 0
        self._body_bytes = 0
        self._body_less = self._method == "HEAD"
        self._complete = False
        self._end: asyncio.Event | None = None
        self._started = time.perf_counter()
        given = self._headers.get(b"x-request-id")
        sane = given is not None and _SANE_REQUEST_ID.fullmatch(given) is not None
        self._request_id = given if sane and given else gateway._request_id().encode()

    async def run(self, receive: Receive, send: Send) -> None:
        scope = self._scope
        peer = scope["client"][0] if scope.get("client") else ""
        address = self._gateway._proxies.client_of(peer, self._forwarded())
        if address != peer:
            scope["client"] = (address, 0)
        request_id = self._request_id.decode()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        origin.set(Origin(address or None, request_id))
        self._receive, self._send = receive, send
        coding = None if self._body_less else encoding_for(self._headers.get(b"accept-encoding", b""))
        outward: Any = Compressor(self._forward, coding).send if coding else self._forward
        HTTP_IN_FLIGHT.inc()
        try:
            await self._serve(outward)
        finally:
            HTTP_IN_FLIGHT.dec()
            if self._end is not None:
                self._gateway.streams.over(self._end)
            self._account(address)

    def _forwarded(self) -> bytes | None:
        """`X-Forwarded-For`, all of it: some proxies add a line of their own below the client's."""
        if b"x-forwarded-for" not in self._headers:
            return None
        return b",".join(value for name, value in self._scope["headers"] if name == b"x-forwarded-for")

    async def _serve(self, outward: Any) -> None:
        try:
            self._path = paths.raw_path_of(self._scope)
            paths.canonicalise(self._scope)
            if self._method == "OPTIONS" and b"access-control-request-method" not in self._headers:
                await self._answer(
                    204, b"", [(b"allow", self._gateway._allowed(self._scope["path"]).encode())], outward
                )
                return
            receive = self._prepared()
            await self._gateway._app(self._scope, receive, outward)
            if self._end is not None and not self._complete:
                await outward({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:
            if self._status:  # the answer has begun: the server can only cut the connection
                raise
            await self._fail(self._gateway._refuse(error, self._scope), outward)

    def _prepared(self) -> Receive:
        """What the application reads from, behind the body's limits; HEAD becomes GET, whose body is kept back."""
        if self._body_less:
            # A copy: the server goes by its own scope when it counts what is sent of the body.
            self._scope = {**self._scope, "method": "GET"}
        if self._method not in _METHODS_WITH_BODY:
            return self._hear
        kind = self._headers.get(b"content-type", b"").lower()
        return bodies.guard(
            self._hear,
            limit=bodies.limit_of(self._method, self._scope["path"]),
            declared=self._headers.get(b"content-length"),
            json=not kind.startswith(_NOT_JSON),
        )

    async def _hear(self) -> Any:
        return await (self._receive() if self._end is None else receive_or_end(self._receive, self._end))

    async def _forward(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if any(name == b"content-type" and kind.startswith(KIND) for name, kind in message["headers"]):
                self._begin_stream()
            further = self._gateway._headers(self._scope)
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self._request_id),
                *((name.encode(), value.encode()) for name, value in further.items()),
            ]
        elif message["type"] == "http.response.body":
            if self._body_less:
                message = {**message, "body": b""}
            self._body_bytes += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        await self._send(message)

    def _begin_stream(self) -> None:
        self._end = self._gateway.streams.begin()
        if self._body_less:
            self._end.set()

    async def _fail(self, answer: Answer, outward: Any) -> None:
        length = str(len(answer.body)).encode()
        headers = [(b"content-type", answer.media_type.encode()), (b"content-length", length)]
        headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await self._answer(answer.status, answer.body, headers, outward)

    @staticmethod
    async def _answer(status: int, body: bytes, headers: list[tuple[bytes, bytes]], outward: Any) -> None:
        await outward({"type": "http.response.start", "status": status, "headers": headers})
        await outward({"type": "http.response.body", "body": body, "more_body": False})

    def _account(self, address: str) -> None:
        """Metrics and one access log line; the query stays out of both, it may hold tickets and cursors."""
        seconds = time.perf_counter() - self._started
        method = self._method if self._method in _KNOWN_METHODS else "other"
        route = self._scope.get("path_template") or "unmatched"
        status = self._status or _CLIENT_LEFT
        HTTP.count(method, route, self._scope.get(COUNTED_AS) or str(status), seconds)
        caller = self._scope.get("caller")
        logger.info(
            "request",
            method=self._method,
            path=paths.shown(self._path),
            status=status,
            ms=round(seconds * 1000, 2),
            bytes=self._body_bytes,
            client=address,
            account=caller.account_id.hex if caller is not None else None,
        )
