"""An HTTP/1.1 client that costs next to nothing, so that what is measured is the server.

One connection carries one request at a time and stays open. It understands what our own server sends and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec


class ServerSaid(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        super().__init__(f"{status}: {body[:300].decode(errors='replace')}")


class Connection(asyncio.Protocol):
    """A connection to the server; `answer` is the future of the request in flight."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""
        self._body_at = -1
        self._end = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._received, self._body_at = b"", -1
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        if self._transport.is_closing():
            self._answer.set_exception(ConnectionError("the connection is closed"))
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._body_at < 0:
            head_end = self._received.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = self._received[:head_end].lower()
            at = head.index(b"content-length:") + len(b"content-length:")
            end = head.find(b"\r\n", at)
            self._body_at = head_end + 4
            self._end = self._body_at + int(head[at : end if end >= 0 else None])
        if len(self._received) >= self._end and self._answer is not None and not self._answer.done():
            self._answer.set_result((int(self._received[9:12]), self._received[self._body_at : self._end]))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Api:
    """The account's part of the API. Requests borrow a connection; as many are opened as are in use at once."""

    def __init__(self, host: str, port: int, account_id: str, token: str) -> None:
        self._host, self._port = host, port
        self._root = f"/client/v4/accounts/{account_id}"
        self._headers = (
            f"host: {host}:{port}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n".encode()
        )
        self._idle: list[Connection] = []

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask and return `result`. Raises :class:`ServerSaid` for an error, `OSError` when the server is away."""
        payload = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        return msgspec.json.decode(await self._send(method, self._root + path, payload))["result"]

    async def get(self, path: str) -> bytes:
        """The body of the answer of any face. Raises as :meth:`call`."""
        return await self._send("GET", path, b"")

    async def _send(self, method: str, path: str, payload: bytes) -> bytes:
        request = b"%s %s HTTP/1.1\r\n%scontent-length: %d\r\n\r\n%s" % (
            method.encode(),
            path.encode(),
            self._headers,
            len(payload),
            payload,
        )
        async with self._borrowed() as connection:
            status, answer = await connection.send(request)
        if status >= 400:
            raise ServerSaid(status, answer)
        return answer

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Connection]:
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, self._host, self._port)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections; further calls open new ones."""
        while self._idle:
            self._idle.pop().close()
