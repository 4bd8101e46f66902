"""A local HTTP server for tests of what calls out. It answers as it is told and ends when it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. Header names are as they were sent."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    """Number of the connection it came on, counted from 1."""


Answer = bytes | Callable[[Request, asyncio.StreamWriter], Awaitable[object]]
"""What is sent, or who sends it; who answers `UNFINISHED` has more to say and never will."""
UNFINISHED = object()


def message(body: bytes = b"", status: str = "200 OK", headers: Sequence[str] = ()) -> bytes:
    """An answer on the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


class HttpServer:
    """Answers by path; what has no answer is never answered. Stopping it cuts off whatever is still going on."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self.connections = 0
        """Connections that were ever made."""
        self.port = 0
        self._handlers: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    def answer(self, path: str, body: bytes = b"", status: str = "200 OK", headers: Sequence[str] = ()) -> None:
        self.answers[path] = message(body, status, headers)

    def answer_to(self, request: Request) -> Answer | None:
        return self.answers.get(request.path)

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    @property
    def open(self) -> int:
        """Connections that have not been closed."""
        return len(self._handlers)

    async def start(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._serve, host, self.port, ssl=tls, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        # Since Python 3.12 `wait_closed` waits for every connection, one that is never answered included.
        self._server.close()
        for handler in list(self._handlers):
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    def hang_up(self) -> None:
        """Close every connection from this side."""
        for writer in self._handlers.values():
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers[task] = writer
        self.connections += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._exchanges(reader, writer, self.connections)
        finally:
            del self._handlers[task]
            writer.transport.abort()

    async def _exchanges(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = [(name, value) for name, _, value in (text.partition(": ") for text in lines if text)]
            length = int(next((value for name, value in headers if name.lower() == "content-length"), "0"))
            method, path, _ = line.split(" ")
            request = Request(method, path, headers, await reader.readexactly(length), number)
            self.requests.append(request)
            answer = self.answer_to(request)
            if isinstance(answer, bytes):
                writer.write(answer)
            elif answer is None or await answer(request, writer) is UNFINISHED:
                await reader.read(1)  # until the caller gives up
                return
            await writer.drain()
