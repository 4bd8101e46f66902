"""A call whose answer is read piece by piece: what is sent, what comes back, and how it ends early."""

import asyncio
import gzip
import random

import pytest

from instances.egress import EgressFailed, EgressRefused, EgressTimeout, EgressTooLarge
from instances.egress.connection import HIGH
from tests.support.http_server import UNFINISHED, HttpServer, message

NOISE = random.Random(3).randbytes(3 << 20)


async def until(condition):
    """Wait for something the event loop brings about by itself."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def head(*lines, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Stepwise:
    """Sends an answer part by part, each when it is told to; then nothing more."""

    def __init__(self, *parts):
        self.parts = parts
        self.steps = asyncio.Semaphore(0)

    async def __call__(self, _request, writer):
        for part in self.parts:
            await self.steps.acquire()
            writer.write(part)
            await writer.drain()
        return UNFINISHED


@pytest.fixture
def half(server):
    """A path whose answer begins and never ends."""
    answer = server.answers["/half"] = Stepwise(head("Content-Length: 6"), b"abc")
    for _ in answer.parts:
        answer.steps.release()
    return server.url("/half")


# --- what is sent and what comes back ----------------------------------------------------------------------------


async def test_an_answer_is_there_before_its_body(server, client):
    answer = server.answers["/?q"] = Stepwise(
        head("Content-Length: 6", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", "X-Two: 1", "x-two: \xe9"),
        b"abc",
        b"def",
    )
    answer.steps.release()
    async with await client.fetch("GET", server.url("/?q#part", "a.test")) as response:
        assert (response.status, response.reason) == (200, "OK")
        assert response.headers == [
            ("content-length", "6"), ("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2"),
            ("x-two", "1"), ("x-two", "é"),
        ]  # fmt: skip
        assert (response.url, response.redirected) == (server.url("/?q", "a.test"), False)
        answer.steps.release()
        assert await anext(response) == b"abc"
        answer.steps.release()
        assert await anext(response) == b"def"
        assert [piece async for piece in response] == []


async def test_what_is_sent(server, client):
    server.answer("/")
    body = bytes(range(256))
    headers = [("X-Many", "1"), ("x-many", "2"), ("Cookie", "a=b"), ("Authorization", "Bearer x"), ("X-Empty", "")]
    async with await client.fetch("PROPFIND", server.url("/"), headers=headers, body=body):
        pass
    [asked] = server.requests
    assert (asked.method, asked.body) == ("PROPFIND", body)
    assert [pair for pair in asked.headers if pair in headers] == headers


async def test_the_rest_of_a_body(server, client):
    server.answer("/", NOISE)
    response = await client.fetch("GET", server.url("/"), max_response=len(NOISE))
    first = await anext(response)
    assert 0 < len(first) <= 65_536
    assert first + await response.read() == NOISE
    assert await response.read() == b""


async def test_pieces_of_a_compressed_body(server, client):
    server.answer("/", gzip.compress(b"x" * 300_000), headers=["Content-Encoding: gzip", "X-Kept: 1"])
    async with await client.fetch("GET", server.url("/")) as response:
        assert response.headers == [("x-kept", "1")]
        assert not response.encoded
        assert [len(piece) async for piece in response] == [65_536] * 4 + [37_856]


async def test_an_unknown_encoding_is_left_as_it_is(server, client):
    server.answer("/", b"\x0b\x01", headers=["Content-Encoding: br"])
    async with await client.fetch("GET", server.url("/")) as response:
        assert response.encoded
        assert response.header("content-encoding") == "br"
        assert await response.read() == b"\x0b\x01"


async def test_answers_without_a_body(server, client):
    server.answers["/head"] = head("Content-Length: 100", "Content-Encoding: gzip")
    server.answers["/204"] = head(status="204 No Content")
    server.answers["/304"] = head("Content-Length: 7", status="304 Not Modified")
    for method, path in [("HEAD", "/head"), ("GET", "/204"), ("GET", "/304"), ("HEAD", "/head")]:
        async with await client.fetch(method, server.url(path)) as response:
            assert await response.read() == b""
    assert response.headers == [("content-length", "100"), ("content-encoding", "gzip")]
    assert server.connections == 1


async def test_a_body_that_ends_with_the_connection(server, client):
    async def old(_request, writer):
        writer.write(b"HTTP/1.0 200 Fine\r\n\r\nabc")
        await writer.drain()
        writer.close()

    server.answers["/"] = old
    for _ in range(2):
        response = await client.request("GET", server.url("/"))
        assert (response.reason, response.body) == ("Fine", b"abc")
    assert server.connections == 2


async def test_interim_answers_are_passed_over(server, client):
    interim = head("Link: </x>", status="103 Early Hints")
    server.answers["/few"] = interim * 3 + message(b"x")
    server.answers["/many"] = interim * 16 + message(b"x")
    server.answers["/switch"] = head("Upgrade: websocket", "Connection: upgrade", status="101 Switching Protocols")
    assert (await client.request("GET", server.url("/few"))).body == b"x"
    for path in ("/many", "/switch"):
        with pytest.raises(EgressFailed, match="did not answer with HTTP"):
            await client.fetch("GET", server.url(path))


async def test_an_answer_may_come_before_the_whole_request_is_sent(server, client):
    """The server reads nothing of a body that fits into no buffer on the way."""

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(message(b"no", "413 Too Large"))

    eager = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1000)
    url = f"http://127.0.0.1:{eager.sockets[0].getsockname()[1]}/"
    response = await client.request("POST", url, body=bytes(64 << 20), max_request=64 << 20)
    assert (response.status, response.body) == (413, b"no")
    await until(lambda: len(client._pool) == 0)  # the connection is full of what nobody reads
    eager.close()


# --- bounds ------------------------------------------------------------------------------------------------------


async def test_a_body_has_a_limit_in_either_form(server, client):
    server.answer("/plain", b"x" * 1001)
    server.answer("/bomb", gzip.compress(b"x" * 1001), headers=["Content-Encoding: gzip"])
    server.answer("/noise", gzip.compress(NOISE[:1001]), headers=["Content-Encoding: gzip"])
    for path in ("/plain", "/bomb", "/noise"):
        async with await client.fetch("GET", server.url(path), max_response=1000) as response:
            assert response.status == 200
            with pytest.raises(EgressTooLarge, match="more than 1000 bytes"):
                await response.read()
            with pytest.raises(EgressTooLarge):
                await response.read()
    assert len((await client.request("GET", server.url("/bomb"), max_response=1001)).body) == 1001
    await until(lambda: server.open == 1)


async def test_a_server_sends_no_faster_than_it_is_read(server, client):
    size, sent = 200 << 20, 0

    async def pour(_request, writer):
        nonlocal sent
        writer.write(head(f"Content-Length: {size}"))
        while sent < size:
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent += 1 << 20

    server.answers["/"] = pour
    async with await client.fetch("GET", server.url("/"), max_response=size) as response:
        await anext(response)
        connection = response._connection
        await until(lambda: connection._paused)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert len(connection._received) < HIGH + (1 << 20)
        assert sent < 50 << 20, "only what the sockets hold is on its way"
        read = 0
        async for piece in response:
            read += len(piece)
        assert 0 < size - read <= 65_536, "the first piece was read before"
    assert server.connections == len(client._pool) == 1


async def test_chunks_of_next_to_nothing_are_refused(server, client):
    begin = head("Transfer-Encoding: chunked")
    server.answers["/tiny"] = begin + chunk(b"x") * 100_000 + chunk(b"")
    server.answers["/few"] = begin + chunk(b"x") * 4_000 + chunk(b"")
    server.answers["/small"] = begin + chunk(b"x" * 20) * 10_000 + chunk(b"")
    with pytest.raises(EgressFailed, match="too many small pieces"):
        await client.request("GET", server.url("/tiny"))
    assert len((await client.request("GET", server.url("/few"))).body) == 4_000
    assert len((await client.request("GET", server.url("/small"))).body) == 200_000


async def test_reading_leaves_the_loop_to_others(server, client):
    """A body that is all there, and one that takes no waiting to inflate."""
    server.answer("/", gzip.compress(bytes(50 << 20)), headers=["Content-Encoding: gzip"])
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with await client.fetch("GET", server.url("/"), max_response=50 << 20) as response:
        await anext(response)
        task = asyncio.create_task(other())
        assert len(await response.read()) > 49 << 20
    task.cancel()
    assert turns > 20


async def test_too_much_head(server, client):
    server.answers["/"] = head(*(f"X-{n}: {'x' * 1000}" for n in range(140)))
    with pytest.raises(EgressFailed, match="did not answer with HTTP"):
        await client.fetch("GET", server.url("/"))


async def test_one_account_cannot_take_all_turns(server, client, monkeypatch):
    client._turns._each = 2
    server.answer("/", b"x")
    held = [asyncio.create_task(client.request("GET", server.url("/never"), lane="one")) for _ in range(2)]
    await until(lambda: len(server.requests) == 2)
    with pytest.raises(EgressTimeout):
        await client.request("GET", server.url("/"), timeout=0.05, lane="one")
    assert (await client.request("GET", server.url("/"), lane="two")).body == b"x"
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert (await client.request("GET", server.url("/"), lane="one")).body == b"x"
    assert len(client._turns) == 0


# --- ending early ------------------------------------------------------------------------------------------------


async def test_cancelling_before_the_answer_closes_the_connection(server, client):
    calling = asyncio.create_task(client.fetch("GET", server.url("/never")))
    await until(lambda: server.requests)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await until(lambda: server.open == 0)
    assert (len(client._turns), len(client._pool)) == (0, 0)


async def test_cancelling_within_the_body_closes_the_connection(half, server, client):
    response = await client.fetch("GET", half)
    reading = asyncio.create_task(response.read())
    await until(lambda: response._reading and response._received == 3)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: server.open == 0)
    assert (len(client._turns), len(client._pool)) == (0, 0)
    with pytest.raises(EgressFailed, match="closed before its end"):
        await response.read()


async def test_closing_an_answer_closes_the_connection(half, server, client):
    async with await client.fetch("GET", half) as response:
        assert await anext(response) == b"abc"
    await until(lambda: server.open == 0)
    assert (len(client._turns), len(client._pool)) == (0, 0)
    response.close()
    with pytest.raises(EgressFailed, match="closed before its end"):
        await anext(response)


async def test_closing_an_answer_wakes_who_reads_it(half, client):
    response = await client.fetch("GET", half)
    reading = asyncio.create_task(response.read())
    await until(lambda: response._received == 3)
    response.close(EgressFailed("no longer wanted"))
    with pytest.raises(EgressFailed, match="no longer wanted"):
        await reading


async def test_closing_a_read_answer_changes_nothing(server, client):
    server.answer("/", b"x")
    response = await client.fetch("GET", server.url("/"))
    assert await response.read() == b"x"
    response.close()
    assert await response.read() == b""
    assert response._timer.cancelled()
    await client.request("GET", server.url("/"))
    assert server.connections == 1


async def test_an_answer_nobody_reads_ends_with_its_time(half, server, client):
    response = await client.fetch("GET", half, timeout=0.05)
    await until(lambda: server.open == 0)
    assert (len(client._turns), len(client._pool)) == (0, 0)
    with pytest.raises(EgressTimeout, match=r"within 0\.05 s"):
        await response.read()


async def test_the_time_bounds_reading_the_body(half, server, client):
    response = await client.fetch("GET", half, timeout=0.05)
    with pytest.raises(EgressTimeout):
        await response.read()
    await until(lambda: server.open == 0)
    assert (len(client._turns), len(client._pool)) == (0, 0)


async def test_one_reader_at_a_time(half, client):
    async with await client.fetch("GET", half) as response:
        reading = asyncio.create_task(response.read())
        await until(lambda: response._received == 3)
        with pytest.raises(RuntimeError, match="already"):
            await anext(response)
        assert not reading.done()
        reading.cancel()


async def test_the_end_of_the_client_ends_its_calls(half, client):
    response = await client.fetch("GET", half)
    await client.close()
    with pytest.raises(EgressFailed, match="broke"):
        await response.read()
        await response.read()


# --- redirects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (307, "POST", "POST"), (308, "POST", "POST"),
        (301, "PUT", "PUT"), (302, "DELETE", "DELETE"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"),
        (301, "HEAD", "HEAD"), (308, "PATCH", "PATCH"), (302, "GET", "GET"),
    ],
)  # fmt: skip
async def test_what_a_redirect_makes_of_a_call(server, client, status, method, then):
    server.answer("/", b"moved", f"{status} Moved", ["Location: /new"])
    if method == "HEAD":
        server.answers["/"] = head("Location: /new", status=f"{status} Moved")
    server.answer("/new")
    headers = [("Content-Type", "text/plain"), ("Content-Language", "de"), ("Authorization", "x"), ("X-A", "1")]
    body = b"" if method in ("GET", "HEAD") else b"data"
    async with await client.fetch(method, server.url("/"), headers=headers, body=body) as response:
        assert (response.status, response.redirected, response.url) == (200, True, server.url("/new"))
    asked = server.requests[1]
    kept = then == method
    assert (asked.method, asked.body) == (then, body if kept else b"")
    names = {name for name, _ in asked.headers}
    assert {"Authorization", "X-A"} <= names
    assert ("Content-Type" in names, "Content-Language" in names) == (kept, kept)
    assert server.connections == 1


@pytest.mark.parametrize("status", [300, 304, 305, 399, 200])
async def test_not_every_location_is_a_redirect(server, client, status):
    server.answers["/"] = head("Location: /new", "Content-Length: 0", status=f"{status} X")
    async with await client.fetch("GET", server.url("/")) as response:
        assert (response.status, response.redirected) == (status, False)


async def test_a_redirect_to_nowhere_is_an_answer(server, client):
    server.answer("/", b"x", "302 Found")
    assert (await client.request("GET", server.url("/"), redirect="follow")).status == 302
    assert (await client.request("GET", server.url("/"), redirect="error")).status == 302


async def test_redirects_handed_out_or_refused(server, client):
    server.answer("/", b"x", "302 Found", ["Location: http://10.0.0.1/"])
    async with await client.fetch("GET", server.url("/"), redirect="manual") as response:
        assert (response.status, response.header("location"), response.redirected) == (302, "http://10.0.0.1/", False)
    with pytest.raises(EgressFailed, match="the target redirects"):
        await client.fetch("GET", server.url("/"), redirect="error")
    with pytest.raises(EgressRefused):
        await client.fetch("GET", server.url("/"), redirect="follow")


async def test_five_redirects_and_no_more(server, client):
    for number in range(6):
        server.answer(f"/{number}", b"", "302 Found", [f"Location: {number + 1}"])
    server.answer("/6", b"end")
    async with await client.fetch("GET", server.url("/1")) as response:
        assert await response.read() == b"end"
    with pytest.raises(EgressFailed, match="too often"):
        await client.fetch("GET", server.url("/0"))


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("http://a.test:{port}/new", True), ("//A.TEST:{port}/new", True), ("/new", True),
        ("http://b.test:{port}/new", False), ("http://127.0.0.1:{port}/new", False),
    ],
)  # fmt: skip
async def test_secrets_stay_with_their_origin(server, client, location, kept):
    server.answer("/", b"", "307 Moved", ["Location: " + location.format(port=server.port)])
    server.answer("/new")
    headers = [("authorization", "x"), ("Cookie", "a=b"), ("X-A", "1")]
    async with await client.fetch("GET", server.url("/", "a.test"), headers=headers):
        pass
    names = {name for name, _ in server.requests[1].headers}
    assert "X-A" in names
    assert ("authorization" in names, "Cookie" in names) == (kept, kept)


async def test_another_port_is_another_origin(server, client):
    other = HttpServer()
    await other.start()
    other.answer("/")
    server.answer("/", b"", "307 Moved", [f"Location: {other.url('/', 'a.test')}"])
    await client.request("GET", server.url("/", "a.test"), headers=[("Cookie", "a=b")], redirect="follow")
    assert "Cookie" not in dict(other.requests[0].headers)
    await other.stop()


async def test_secrets_do_not_come_back_with_a_later_redirect(server, client):
    server.answer("/1", b"", "307 Moved", [f"Location: http://b.test:{server.port}/2"])
    server.answer("/2", b"", "307 Moved", [f"Location: http://a.test:{server.port}/3"])
    server.answer("/3")
    await client.request("GET", server.url("/1", "a.test"), headers=[("Cookie", "a=b")], redirect="follow")
    assert [("Cookie" in dict(request.headers)) for request in server.requests] == [True, False, False]


async def test_locations_are_read_as_utf_8(server, client):
    server.answer("/", b"", "302 Found", ["Location: /b\xc3\xbccher?\xc3\xa4#x"])
    server.answer("/b%C3%BCcher?%C3%A4", b"x")
    response = await client.request("GET", server.url("/"), redirect="follow")
    assert (response.body, response.url) == (b"x", server.url("/b%C3%BCcher?%C3%A4"))


@pytest.mark.parametrize("location", ["http://[::1", "http://x:y/", "http://" + "a" * 70_000])
async def test_a_location_that_is_no_url(server, client, location):
    server.answer("/", b"", "302 Found", [f"Location: {location}"])
    with pytest.raises((EgressFailed, EgressRefused), match="URL"):
        await client.fetch("GET", server.url("/"))


@pytest.mark.parametrize("answer", ["endless", "broken", "large"])
async def test_the_body_of_a_redirect_does_not_matter(server, client, monkeypatch, answer):
    monkeypatch.setattr("instances.egress.client.SPILL_SECONDS", 0.02)

    async def redirect(_request, writer):
        length = 1000 if answer != "large" else len(NOISE)
        writer.write(head("Location: /new", f"Content-Length: {length}", status="302 Found"))
        writer.write(NOISE if answer == "large" else b"x")
        await writer.drain()
        if answer == "broken":
            writer.close()
        return UNFINISHED if answer == "endless" else None

    server.answers["/"] = redirect
    server.answer("/new", b"end")
    assert (await client.request("GET", server.url("/"), redirect="follow")).body == b"end"
    assert server.connections == 2
    await until(lambda: server.open == 1)
