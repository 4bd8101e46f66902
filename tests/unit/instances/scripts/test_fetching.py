"""What `fetch` of scripts asks of the worker: answers, bodies piece by piece, limits, and an end with the run."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import pytest

from instances.egress import EgressClient, EgressPolicy
from instances.runtimes.scripts.digests import QUICK, digest_handlers
from instances.runtimes.scripts.fetching import CHUNK, Fetching
from instances.runtimes.scripts.operations import CallFailed, RunFacts
from tests.support.http_server import UNFINISHED, HttpServer, Request


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def fetching() -> AsyncIterator[Fetching]:
    client = EgressClient(EgressPolicy(["127.0.0.0/8"]))
    yield Fetching(client)
    await client.close()


@pytest.fixture
def facts() -> RunFacts:
    return RunFacts("account", "key", "instance", "workflow", "workspace")


def call(url: str, method: str = "GET", **fields: Any) -> dict[str, Any]:
    return {"method": method, "url": url, "headers": [], **fields}


async def begun(fetching: Fetching, facts: RunFacts, url: str) -> int:
    """The number of the body of a fetch."""
    return (await fetching.fetch(facts, call(url)))["v"]["body"]


async def read(fetching: Fetching, facts: RunFacts, body: int, kind: str = "bytes", whole: bool = False) -> Any:
    return (await fetching.read(facts, {"body": body, "as": kind, "whole": whole}))["v"]


async def test_an_answer_and_its_body(fetching: Fetching, server: HttpServer, facts: RunFacts) -> None:
    server.answer("/a", b"body", status="201 Made", headers=["X-A: 1", "Set-Cookie: a=1", "Set-Cookie: b=2"])
    sent = base64.b64encode(b"sent").decode()
    answer = (await fetching.fetch(facts, call(server.url("/a"), "POST", body=sent, headers=[("X-B", "2")])))["v"]
    assert (answer["status"], answer["statusText"], answer["redirected"]) == (201, "Made", False)
    assert [pair for pair in answer["headers"] if pair[0] != "content-length"] == [
        ("x-a", "1"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
    ]
    assert await read(fetching, facts, answer["body"], "text", whole=True) == {"text": "body", "done": True}
    [request] = server.requests
    assert request.body == b"sent" and ("X-B", "2") in request.headers
    with pytest.raises(CallFailed):
        await read(fetching, facts, answer["body"])


async def test_a_text_is_sent_as_utf_8(fetching: Fetching, server: HttpServer, facts: RunFacts) -> None:
    server.answer("/", b"")
    await fetching.fetch(facts, call(server.url("/"), "POST", text="é"))
    assert server.requests[0].body == "é".encode()


async def test_an_answer_without_a_body_frees_its_connection(
    fetching: Fetching, server: HttpServer, facts: RunFacts
) -> None:
    server.answer("/", b"", status="204 No Content")
    for _ in range(60):
        assert await begun(fetching, facts, server.url("/")) is None


async def test_text_is_cut_between_characters(fetching: Fetching, server: HttpServer, facts: RunFacts) -> None:
    text = "\ufeff" + "€" * (CHUNK // 3 + 10)
    server.answer("/", text.encode())
    body = await begun(fetching, facts, server.url("/"))
    seen: list[str] = []
    while True:
        piece = await read(fetching, facts, body, "text", whole=True)
        seen.append(piece["text"])
        if piece["done"]:
            break
    assert len(seen) == 2 and "".join(seen) == text[1:]


async def test_a_piece_is_handed_over_as_soon_as_it_is_there(
    fetching: Fetching, server: HttpServer, facts: RunFacts
) -> None:
    more = asyncio.Event()

    async def slowly(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
        await more.wait()
        writer.write(b"two")

    server.answers["/"] = slowly
    body = await begun(fetching, facts, server.url("/"))
    assert await read(fetching, facts, body) == {"b64": base64.b64encode(b"one").decode(), "done": False}
    more.set()
    pieces = [await read(fetching, facts, body)]
    while not pieces[-1]["done"]:
        pieces.append(await read(fetching, facts, body))
    assert b"".join(base64.b64decode(piece["b64"]) for piece in pieces) == b"two"


async def test_what_is_not_read_is_not_taken_from_the_network(
    fetching: Fetching, server: HttpServer, facts: RunFacts
) -> None:
    size = 64 << 20
    written = 0

    async def much(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while written < size:
            writer.write(bytes(CHUNK))
            written += CHUNK
            await writer.drain()

    server.answers["/"] = much
    body = await begun(fetching, facts, server.url("/"))
    before = -1
    while written != before:  # until the server can send no more
        before = written
        await asyncio.sleep(0.05)
    assert written < size
    await fetching.close(facts, {"body": body})
    async with asyncio.timeout(5):
        while server.open:
            await asyncio.sleep(0.001)


async def test_a_broken_body_says_so_after_what_came(fetching: Fetching, server: HttpServer, facts: RunFacts) -> None:
    async def breaks(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
        await writer.drain()
        writer.close()

    server.answers["/"] = breaks
    body = await begun(fetching, facts, server.url("/"))
    assert base64.b64decode((await read(fetching, facts, body, whole=True))["b64"]) == b"one"
    with pytest.raises(CallFailed, match="could not be read to its end"):
        await read(fetching, facts, body)


async def test_a_run_that_leaves_memory_closes_what_it_had_open(
    fetching: Fetching, server: HttpServer, facts: RunFacts
) -> None:
    async def endless(_: Request, writer: asyncio.StreamWriter) -> object:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
        return UNFINISHED

    server.answers["/"] = endless
    await begun(fetching, facts, server.url("/"))
    [close] = facts.closing
    close()
    async with asyncio.timeout(5):
        while server.open:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        call("http://10.0.0.1/"),
        call("http://127.0.0.1:1/"),
        call("nonsense"),
        call("http://127.0.0.1/", "CONNECT"),
        call("http://127.0.0.1/", body="no base64!"),
        call("http://127.0.0.1/", redirect="maybe"),
        call("http://127.0.0.1/") | {"headers": [["a", "b\nc"]]},
        call("http://127.0.0.1/") | {"headers": "x"},
    ],
)
async def test_what_cannot_be_fetched_is_a_type_error_and_holds_nothing(
    fetching: Fetching, facts: RunFacts, arguments: dict[str, Any]
) -> None:
    for _ in range(60):  # more than may be open at once
        with pytest.raises(CallFailed) as failed:
            await fetching.fetch(facts, arguments)
        assert failed.value.error["name"] == "TypeError"


async def test_no_more_fetches_than_the_run_may_make(fetching: Fetching, server: HttpServer) -> None:
    server.answer("/", b"")
    facts = RunFacts("account", "key", "instance", "workflow", "workspace", request_limit=2)
    for _ in range(2):
        await begun(fetching, facts, server.url("/"))
    with pytest.raises(CallFailed) as failed:
        await begun(fetching, facts, server.url("/"))
    assert failed.value.error == {"name": "Error", "message": "Too many subrequests."}


@pytest.mark.parametrize("size", [0, QUICK + 1])
async def test_digests(facts: RunFacts, size: int) -> None:
    data, key = bytes(size), b"key"
    text = {"data": base64.b64encode(data).decode(), "key": base64.b64encode(key).decode()}
    handlers = digest_handlers()
    made = await handlers["digest"](facts, {"alg": "SHA-384", **text})
    assert base64.b64decode(made["v"]) == hashlib.sha384(data).digest()
    made = await handlers["hmac"](facts, {"alg": "SHA-1", **text})
    assert base64.b64decode(made["v"]) == hmac.digest(key, data, "sha1")


@pytest.mark.parametrize("arguments", [{}, {"alg": "SHA-3", "data": ""}, {"alg": "SHA-1", "data": "?"}])
async def test_what_cannot_be_digested_is_a_type_error(facts: RunFacts, arguments: dict[str, Any]) -> None:
    with pytest.raises(CallFailed):
        await digest_handlers()["digest"](facts, arguments)
