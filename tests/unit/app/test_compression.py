"""Compression of answers (app.middleware.compression)."""

import gzip

import brotli
import pytest

from app.middleware.compression import Compressor, encoding_for

BIG = b'{"a": "' + b"abc" * 1000 + b'"}'
JSON = [(b"content-type", b"application/json"), (b"content-length", b"3009")]


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"", None),
        (b"gzip", "gzip"),
        (b"gzip, deflate, br", "br"),
        (b"GZIP;q=0.5", "gzip"),
        (b"br;q=0, gzip", "gzip"),
        (b"br;q=0.0,gzip;q=0.000", None),
        (b"br;q=0.001", "br"),
        (b"identity", None),
        (b"\xff\xfe", None),
    ],
)
def test_the_coding_the_client_takes(accept: bytes, coding: str | None) -> None:
    assert encoding_for(accept) == coding


async def answer(coding: str, headers: list[tuple[bytes, bytes]], *bodies: bytes):
    sent = []

    async def send(message):
        sent.append(message)

    compressor = Compressor(send, coding)
    await compressor.send({"type": "http.response.start", "status": 200, "headers": headers})
    for number, body in enumerate(bodies):
        await compressor.send({"type": "http.response.body", "body": body, "more_body": number < len(bodies) - 1})
    return dict(sent[0]["headers"]), [message["body"] for message in sent[1:]]


@pytest.mark.parametrize(("coding", "decode"), [("br", brotli.decompress), ("gzip", gzip.decompress)])
@pytest.mark.parametrize("times", [1, 100])
async def test_complete_answers_are_compressed(coding: str, decode, times: int) -> None:
    headers, (body,) = await answer(coding, JSON, BIG * times)
    assert headers[b"content-encoding"] == coding.encode()
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"vary"] == b"accept-encoding"
    assert decode(body) == BIG * times


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"application/octet-stream")],
        [*JSON, (b"content-encoding", b"identity")],
        [],
    ],
)
async def test_what_gains_nothing_is_left_alone(headers) -> None:
    assert await answer("br", headers, BIG) == (dict(headers), [BIG])


async def test_small_answers_are_left_alone() -> None:
    assert await answer("br", JSON, b"x" * 1024) == (dict(JSON), [b"x" * 1024])


async def test_streams_are_left_alone() -> None:
    assert await answer("br", JSON, BIG, BIG, b"") == (dict(JSON), [BIG, BIG, b""])
