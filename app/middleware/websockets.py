"""What is noted of WebSockets: how many are open, what goes through them, and a line in the access log when one ends.

It listens at the ASGI interface, outside of the application: whoever serves a socket need not think of it.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from litestar.types import Receive, Send

from app.middleware import paths
from app.observability.metrics import SOCKETS_CLOSED, SOCKETS_MESSAGES, SOCKETS_OPEN

logger = structlog.get_logger("millrace.access")

_LOST = 1006
"""Close code of a connection that broke off, in logs and metrics."""
_REFUSED = 403
"""In place of a close code: the socket was never accepted."""
_CODES = frozenset({_REFUSED, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1009, 1011, 1012})
_GRAPHQL_CODES = frozenset({4400, 4401, 4403, 4406, 4408, 4409, 4429})


class Observed:
    """One WebSocket. The application reads from :meth:`receive` and writes to :meth:`send`; :meth:`over` ends it."""

    def __init__(self, scope: Any, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._path: str = scope["path"]
        self._receive, self._send = receive, send
        self._began = time.perf_counter()
        self._accepted = False
        self._closed: int | None = None
        self._left: int | None = None
        self._received = self._sent = 0

    async def receive(self) -> Any:
        message: Any = await self._receive()
        if message["type"] == "websocket.receive":
            self._received += 1
            SOCKETS_MESSAGES["in"].inc()
        elif message["type"] == "websocket.disconnect":
            self._left = message.get("code") or _LOST
        return message

    async def send(self, message: Any) -> None:
        await self._send(message)
        kind = message["type"]
        if kind == "websocket.send":
            self._sent += 1
            SOCKETS_MESSAGES["out"].inc()
        elif kind == "websocket.accept":
            self._accepted = True
            SOCKETS_OPEN.inc()
        elif kind == "websocket.close":
            self._closed = message.get("code") or 1000

    def over(self) -> None:
        """Metrics and one line in the access log; the query stays out of both, it may hold a ticket."""
        code = _REFUSED
        if self._accepted:
            SOCKETS_OPEN.dec()
            code = self._closed or self._left or _LOST
        SOCKETS_CLOSED.labels(str(code) if code in _CODES | _GRAPHQL_CODES else "other").inc()
        caller, client = self._scope.get("caller"), self._scope.get("client")
        logger.info(
            "websocket",
            path=paths.shown(self._path),
            code=code,
            ms=round((time.perf_counter() - self._began) * 1000, 2),
            received=self._received,
            sent=self._sent,
            client=client[0] if client else "",
            account=caller.account_id.hex if caller is not None else None,
        )
