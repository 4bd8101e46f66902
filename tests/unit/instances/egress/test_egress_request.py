"""One call, whole, against a local server reached through a hole in the policy."""

import gzip
import zlib

import pytest

from instances.egress import (
    EgressClient,
    EgressFailed,
    EgressPolicy,
    EgressRefused,
    EgressTimeout,
    EgressTooLarge,
)


async def test_a_call_is_sent_and_answered_whole(server, client):
    server.answer("/things?x=1", b'{"ok":true}', "201 Created", ["Content-Type: application/json", "X-A: 1", "X-A: 2"])
    response = await client.request(
        "post",
        server.url("/things?x=1#fragment", "a.test"),
        headers=[("X-Mine", "é"), ("User-Agent", "me")],
        body=b"hi",
    )
    assert (response.status, response.reason, response.body) == (201, "Created", b'{"ok":true}')
    assert [value for name, value in response.headers if name == "x-a"] == ["1", "2"]
    [asked] = server.requests
    assert (asked.method, asked.path, asked.body) == ("POST", "/things?x=1", b"hi")
    assert dict(asked.headers) == {
        "Host": f"a.test:{server.port}",
        "X-Mine": "é",
        "User-Agent": "me",
        "Accept": "*/*",
        "Accept-Encoding": "gzip, deflate",
        "Content-Length": "2",
    }


async def test_connections_are_reused_and_cookies_are_not_kept(server, client):
    server.answer("/", b"x", headers=["Set-Cookie: a=b; Path=/"])
    for _ in range(3):
        response = await client.request("GET", server.url("/"))
    assert response.header("set-cookie") == "a=b; Path=/"
    assert server.connections == 1
    assert all("Cookie" not in dict(request.headers) for request in server.requests)


async def test_headers_that_are_not_the_callers_are_dropped(server, client):
    server.answer("/", b"")
    mine = ["Host", "Connection", "Transfer-Encoding", "Content-Length", "Accept-Encoding", "Upgrade", "TE", "Expect",
            "Proxy-Authorization", "X-Forwarded-For"]  # fmt: skip
    await client.request("GET", server.url("/"), headers=[(name, "evil") for name in mine])
    assert "evil" not in [value for _, value in server.requests[0].headers]


@pytest.mark.parametrize(
    "header",
    [("X\r\nY", "1"), ("X:", "1"), ("", "1"), ("X Y", "1"), ("X", "a\r\nHost: b"), ("X", "a\nb"), ("X", "a\0"),
     ("X", "日本"), ("X", "\x7f")],
)  # fmt: skip
async def test_headers_cannot_break_out(server, client, header):
    with pytest.raises(EgressRefused):
        await client.request("GET", server.url("/"), headers=[header])
    assert server.requests == []


async def test_too_many_or_too_large_headers(server, client):
    with pytest.raises(EgressRefused):
        await client.request("GET", server.url("/"), headers=[(f"x-{i}", "1") for i in range(101)])
    with pytest.raises(EgressRefused):
        await client.request("GET", server.url("/"), headers=[("x", "1" * 40_000)])


@pytest.mark.parametrize("method", ["", "CONNECT", "trace", "GE T", "GET\r\n", "X" * 33])
async def test_methods(server, client, method):
    with pytest.raises(EgressRefused):
        await client.request(method, server.url("/"))


@pytest.mark.parametrize("path", ["/a b", "/a\tb", "/%0d%0aHost:%20evil"])
async def test_the_path_cannot_break_out(server, client, path):
    server.answer("/a%20b", b"")
    server.answer("/%0d%0aHost:%20evil", b"")
    try:
        await client.request("GET", server.url(path), timeout=5)
    except EgressRefused:
        return
    assert len(server.requests) == 1
    assert dict(server.requests[0].headers)["Host"] == f"127.0.0.1:{server.port}"


async def test_request_size(server, client):
    server.answer("/", b"")
    await client.request("PUT", server.url("/"), body=b"x" * 10, max_request=10)
    with pytest.raises(EgressRefused, match="at most 10 bytes"):
        await client.request("PUT", server.url("/"), body=b"x" * 11, max_request=10)


async def test_response_size(server, client):
    server.answer("/", b"x" * 100)
    assert len((await client.request("GET", server.url("/"), max_response=100)).body) == 100
    with pytest.raises(EgressTooLarge, match="more than 99 bytes"):
        await client.request("GET", server.url("/"), max_response=99)


async def test_an_endless_answer_is_cut_off(server, client):
    chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    server.answers["/"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk
    with pytest.raises(EgressTimeout, match=r"0\.2 s"):
        await client.request("GET", server.url("/"), timeout=0.2)


def raw_deflate(data):
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"hello", mtime=0)),
        ("x-gzip", gzip.compress(b"hel", mtime=0) + gzip.compress(b"lo", mtime=0)),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", raw_deflate(b"hello")),
        ("deflate, gzip", gzip.compress(zlib.compress(b"hello"), mtime=0)),
        ("identity", b"hello"),
        ("", b"hello"),
    ],
)
async def test_compressed_answers(server, client, coding, body):
    server.answer("/", body, headers=[f"Content-Encoding: {coding}"])
    response = await client.request("GET", server.url("/"), max_response=1000)
    assert response.body == b"hello"
    if coding not in ("identity", ""):
        assert response.header("content-encoding") is None


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_decompression_bomb_is_cut_off(server, client, coding):
    bomb = gzip.compress(b"\0" * 50_000_000) if coding == "gzip" else zlib.compress(b"\0" * 50_000_000)
    server.answer("/", bomb, headers=[f"Content-Encoding: {coding}"])
    with pytest.raises(EgressTooLarge):
        await client.request("GET", server.url("/"), max_response=1 << 20)


async def test_a_bomb_of_many_members_is_refused(server, client):
    server.answer("/", gzip.compress(b"") * 1000, headers=["Content-Encoding: gzip"])
    with pytest.raises(EgressFailed, match="too many parts"):
        await client.request("GET", server.url("/"))


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"x"),
        ("gzip, gzip, gzip, gzip", b"x"),
        ("gzip", b"not gzip"),
        ("gzip", gzip.compress(b"hello", mtime=0)[:-9]),
        ("deflate", b"\xff\xff"),
    ],
)
async def test_damaged_answers(server, client, coding, body):
    server.answer("/", body, headers=[f"Content-Encoding: {coding}"])
    with pytest.raises(EgressFailed):
        await client.request("GET", server.url("/"))


async def test_what_is_not_http(server, client):
    server.answers["/"] = b"220 smtp ready\r\n\r\n"
    with pytest.raises(EgressFailed, match="did not answer with HTTP"):
        await client.request("GET", server.url("/"))


async def test_a_broken_connection(server, client):
    async def cut(_request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        writer.close()

    server.answers["/"] = cut
    with pytest.raises(EgressFailed, match="broke"):
        await client.request("GET", server.url("/"))


async def test_nobody_listens(server, client):
    await server.stop()
    with pytest.raises(EgressFailed, match="could not connect"):
        await client.request("GET", server.url("/"))


async def test_timeout_bounds_the_whole_call(server, client):
    with pytest.raises(EgressTimeout):
        await client.request("GET", server.url("/never"), timeout=0.1)


async def test_redirects_are_handed_out_by_default(server, client):
    server.answer("/", b"", "302 Found", ["Location: http://10.0.0.1/"])
    response = await client.request("GET", server.url("/"))
    assert (response.status, response.header("location"), response.redirected) == (302, "http://10.0.0.1/", False)
    with pytest.raises(EgressFailed, match="redirects"):
        await client.request("GET", server.url("/"), redirect="error")


async def test_redirects_are_followed_and_checked_again(server, client):
    server.answer("/1", b"", "302 Found", [f"Location: http://b.test:{server.port}/2"])
    server.answer("/2", b"", "307 Temporary Redirect", ["Location: /3?q"])
    server.answer("/3?q", b"end")
    response = await client.request(
        "POST",
        server.url("/1", "a.test"),
        headers=[("Authorization", "secret"), ("Content-Type", "text/plain"), ("X-Kept", "1")],
        body=b"data",
        redirect="follow",
    )
    assert (response.body, response.redirected) == (b"end", True)
    assert response.url == f"http://b.test:{server.port}/3?q"
    assert [request.method for request in server.requests] == ["POST", "GET", "GET"]
    first, second, _ = (dict(request.headers) for request in server.requests)
    assert first["Authorization"] == "secret"
    assert "Authorization" not in second
    assert "Content-Type" not in second
    assert second["X-Kept"] == "1"
    assert server.requests[1].body == b""


@pytest.mark.parametrize(
    "location",
    ["http://10.0.0.1/", "http://secret.test/", "https://[::1]:1/", "file:///etc/passwd", "http://u:p@127.0.0.1/",
     "http://169.254.169.254/latest", "https://2130706433.example:22/"],
)  # fmt: skip
async def test_a_redirect_does_not_get_around_the_policy(server, location):
    async def resolver(_host, _port):
        return ["10.9.9.9"]

    client = EgressClient(EgressPolicy(["127.0.0.1"]), resolver=resolver)
    server.answer("/", b"", "302 Found", [f"Location: {location}"])
    with pytest.raises(EgressRefused):
        await client.request("GET", server.url("/"), redirect="follow")
    await client.close()


async def test_redirect_loops_end(server, client):
    server.answer("/", b"", "302 Found", ["Location: /"])
    with pytest.raises(EgressFailed, match="too often"):
        await client.request("GET", server.url("/"), redirect="follow")
    assert len(server.requests) == 6
