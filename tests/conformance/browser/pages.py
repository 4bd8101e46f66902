"""A web server of somebody else: it serves one page, and is told what happened there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("page.js")
PAGE = b'<!doctype html><meta charset="utf-8"><title>Elsewhere</title><script type="module" src="/page.js"></script>'


class Pages:
    """`given` is what the page's script asks for first; `told` is what it says in the end.

    `cookies` is what the browser sent along with that: cookies are those of a host, whatever the port.
    """

    def __init__(self) -> None:
        self.origin = ""
        self.given: dict[str, Any] = {}
        self.told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.cookies = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Pages]:
        """Listens on a free port of 127.0.0.1, which makes an origin, until the context is left."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            kind, answer = self._answer(request.split()[1], headers, body)
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + answer
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # browsers open connections that they do not use
        finally:
            writer.close()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[str, bytes]:
        if path == "/page.js":
            return "text/javascript", SCRIPT.read_bytes()
        if path == "/given":
            return "application/json", json.dumps(self.given).encode()
        if path == "/told":
            self.cookies = headers.get("cookie", "")
            self.told.set_result(json.loads(body))
        return "text/html", PAGE
