"""Compressed bodies come out whole however they are cut, and never past the limit."""

import gzip
import random
import zlib

import pytest

from instances.egress import EgressFailed, EgressTooLarge
from instances.egress.decoding import PIECE, Decoder, content_codings, decodable


def raw_deflate(data):
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


CHANCE = random.Random(1)
TEXT = b"".join(CHANCE.randbytes(40) * 3 for _ in range(2_000))
ENCODED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT[:1000]) + gzip.compress(b"") + gzip.compress(TEXT[1000:]),
    "deflate": zlib.compress(TEXT),
    "deflate, raw": raw_deflate(TEXT),
    "gzip, gzip": gzip.compress(gzip.compress(TEXT)),
    "deflate, gzip, deflate": zlib.compress(gzip.compress(raw_deflate(TEXT))),
    "gzip, then padding": gzip.compress(TEXT) + b"\0" * 300,
}


def decoder(name, limit=10 << 20):
    codings = [part.strip() for part in name.split(",") if part.strip() in ("gzip", "x-gzip", "deflate")]
    return Decoder(codings, limit)


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("size", [1, 2, 7, 1_000, 1 << 20])
def test_however_a_body_is_cut(name, size):
    encoded, decode = ENCODED[name], decoder(name)
    pieces = [p for at in range(0, len(encoded), size) for p in decode.feed(encoded[at : at + size])]
    decode.end()
    assert b"".join(pieces) == TEXT
    assert max(map(len, pieces)) <= PIECE
    assert all(pieces)


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("missing", [1, 5, 500])
def test_what_is_cut_short_is_noticed(name, missing):
    encoded, decode = ENCODED[name], decoder(name)
    list(decode.feed(encoded.rstrip(b"\0")[:-missing]))
    with pytest.raises(EgressFailed, match="incomplete"):
        decode.end()


def test_an_empty_body_is_complete():
    decode = decoder("gzip")
    list(decode.feed(b""))
    decode.end()


def test_half_a_header_is_not():
    decode = decoder("gzip")
    list(decode.feed(b"\x1f"))
    with pytest.raises(EgressFailed, match="incomplete"):
        decode.end()


@pytest.mark.parametrize("data", [b"not gzip", b"\x1f\x8bnot really"])
def test_damage_is_noticed(data):
    with pytest.raises(EgressFailed, match="damaged"):
        list(decoder("gzip").feed(data))


def test_a_bomb_ends_at_the_limit():
    decode, made = decoder("gzip", limit=1_000_000), 0
    with pytest.raises(EgressTooLarge, match="more than 1000000 bytes"):
        for piece in decode.feed(gzip.compress(b"\0" * 100_000_000)):
            made += len(piece)
    assert 1_000_000 - PIECE <= made <= 1_000_000


def test_exactly_the_limit_is_allowed():
    decode = decoder("gzip", limit=len(TEXT))
    assert b"".join(decode.feed(ENCODED["gzip"])) == TEXT


def test_a_bomb_inside_a_bomb_that_comes_to_nothing():
    """A million empty blocks decompress to nothing, and are themselves compressed a thousandfold."""
    nothing = b"\x00\x00\x00\xff\xff" * 2_000_000
    with pytest.raises(EgressTooLarge):
        list(decoder("deflate, gzip", limit=1_000_000).feed(gzip.compress(nothing)))


def test_pieces_are_made_when_they_are_asked_for():
    pieces = decoder("gzip", limit=1 << 40).feed(gzip.compress(b"\0" * 50_000_000))
    assert len(next(pieces)) == PIECE


@pytest.mark.parametrize("more", [-1, 0, 1, 2, 100, 257, 258, 259])
def test_output_may_be_left_when_the_input_is_used_up(more):
    text = bytes(2 * PIECE + more)
    decode = decoder("deflate")
    assert b"".join(decode.feed(raw_deflate(text))) == text
    decode.end()


def test_too_many_members():
    with pytest.raises(EgressFailed, match="too many parts"):
        list(decoder("gzip").feed(gzip.compress(b"") * 17))
    list(decoder("gzip").feed(gzip.compress(b"") * 16))


def test_what_was_done_to_a_body():
    headers = [("content-encoding", "GZIP , identity"), ("x", "br"), ("content-encoding", "deflate,")]
    assert content_codings(headers) == ["gzip", "deflate"]
    assert decodable(["gzip", "deflate", "x-gzip"])
    assert decodable([])
    assert not decodable(["gzip", "br"])
    assert not decodable(["gzip"] * 4)
