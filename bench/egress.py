"""Calls out: the client workflows call with against a local server that answers at once.

`python -m bench.egress COUNT` measures, in a process of its own on the loop workers use; `python -m bench.egress serve`
is the server, in another one. `http_share` is the part of the CPU that HTTP takes by itself: the same calls by the same
parser on bare connections, with no addresses to check, turns to share, times to keep or bodies to bound.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import uvloop

from instances.egress import EgressClient, EgressPolicy

IN_FLIGHT = 50
BODY = b'{"n":1}'
HEADERS = [("Content-Type", "application/json"), ("Idempotency-Key", "workflow:instance:node:invoke")]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: bench\r\ncontent-length: 2\r\n\r\n{}"


class Server(asyncio.Protocol):
    """Answers every request whose body has come."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(BODY):
            self._received = b""
            self._transport.write(ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def measure(count: int) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.egress", "serve", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        bare = await _bare(port, count)
        calls = await _calls(port, count)
    finally:
        process.terminate()
        await process.wait()
    return {**calls, "http_share": bare["cpu_us"] / calls["cpu_us"]}


async def _calls(port: int, count: int) -> dict[str, float]:
    client, url = EgressClient(EgressPolicy(["127.0.0.1"])), f"http://127.0.0.1:{port}/orders?of=1"

    async def one(_number: int) -> None:
        answer = await client.request("POST", url, headers=HEADERS, body=BODY, lane="account")
        if (answer.status, answer.body) != (200, b"{}"):
            raise RuntimeError(f"a wrong answer: {answer}")

    figures = await _paced(one, count)
    await client.close()
    return figures


class Bare(asyncio.Protocol):
    """A connection that parses answers, and nothing more."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._more = asyncio.Event()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._more.set()

    async def call(self, headers: list[tuple[str, str]]) -> None:
        request = h11.Request(method="POST", target="/orders?of=1", headers=headers)
        for event in (request, h11.Data(data=BODY), h11.EndOfMessage()):
            if sent := self._http.send(event):
                self.transport.write(sent)
        while type(event := self._http.next_event()) is not h11.EndOfMessage:
            if event is h11.NEED_DATA:
                self._more.clear()
                await self._more.wait()
        self._http.start_next_cycle()


async def _bare(port: int, count: int) -> dict[str, float]:
    connect = asyncio.get_running_loop().create_connection
    connections = [(await connect(Bare, "127.0.0.1", port))[1] for _ in range(IN_FLIGHT)]
    usual = [("User-Agent", "bench"), ("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate")]
    headers = [("Host", f"127.0.0.1:{port}"), *HEADERS, *usual, ("Content-Length", str(len(BODY)))]
    figures = await _paced(lambda number: connections[number].call(headers), count)
    for connection in connections:
        connection.transport.abort()
    return figures


async def _paced(one: Callable[[int], Awaitable[None]], count: int) -> dict[str, float]:
    """`count` calls, as many in flight as there are users; some more before, to warm up."""

    async def crowd(count: int) -> None:
        numbers = itertools.count()

        async def user(number: int) -> None:
            while next(numbers) < count:
                await one(number)

        await asyncio.gather(*(user(number) for number in range(IN_FLIGHT)))

    await crowd(max(IN_FLIGHT, count // 10))
    began, cpu = time.perf_counter(), time.process_time()
    await crowd(count)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"calls_per_second": count / seconds, "cpu_us": 1e6 * cpu / count}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve())
    else:
        print(json.dumps(uvloop.run(measure(int(sys.argv[1])))))
