"""The same client on uvloop, which processes run on where there is one: its transports are its own."""

import asyncio
import gzip

import pytest

from instances.egress import EgressClient, EgressPolicy, EgressTimeout
from tests.support.http_server import HttpServer

uvloop = pytest.importorskip("uvloop")
SIZE = 64 << 20


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def lives(server, client):
    sent = 0

    async def pour(_request, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE >> 20):
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent += 1 << 20

    server.answer("/", gzip.compress(b"hello"), headers=["Content-Encoding: gzip"])
    server.answers["/much"] = pour
    for _ in range(3):
        answers = await asyncio.gather(*(client.request("POST", server.url("/"), body=b"x") for _ in range(50)))
        assert {answer.body for answer in answers} == {b"hello"}
    assert server.connections == 50

    async with await client.fetch("GET", server.url("/much"), max_response=SIZE) as response:
        await until(lambda: response._connection._paused)
        assert sent < SIZE // 2
        assert len(await response.read()) == SIZE

    with pytest.raises(EgressTimeout):
        await client.request("GET", server.url("/never"), timeout=0.05)
    calling = asyncio.create_task(client.fetch("GET", server.url("/never")))
    await until(lambda: server.requests[-1].path == "/never" and not calling.done())
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    server.hang_up()
    await until(lambda: server.open == len(client._pool) == 0)
    assert (await client.request("GET", server.url("/"))).body == b"hello"
    assert len(client._turns) == 0


def test_a_life_on_uvloop():
    async def main():
        server, client = HttpServer(), EgressClient(EgressPolicy(["127.0.0.1"]))
        await server.start()
        try:
            await lives(server, client)
        finally:
            await client.close()
            await server.stop()
        assert len(client._pool) == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
