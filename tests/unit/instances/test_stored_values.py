"""Values that JSON lacks, as callers see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from instances.projections.values import UNREADABLE, StoredStream, plain, stored_stream, stream_size


@pytest.mark.parametrize("text", ["1", '{"$t":"u"}', '"x"', "[]", "null", '{"a": 1}'])
def test_plain_text_is_passed_through(text: str):
    assert plain(text) is text


@pytest.mark.parametrize(
    ("tagged", "value"),
    [
        ('{"$t":"u"}', None),
        ('{"$t":"n","v":"NaN"}', None),
        ('{"$t":"n","v":"-Infinity"}', None),
        ('{"$t":"n","v":"-0"}', 0),
        ('{"$t":"i","v":"12345678901234567890"}', "12345678901234567890"),
        ('{"$t":"d","v":1786001400000}', "2026-08-06T07:30:00.000Z"),
        ('{"$t":"d","v":-62135596800001}', None),
        ('{"$t":"d","v":8640000000000000}', None),
        ('{"$t":"d","v":null}', None),
        ('{"$t":"m","v":[["a",{"$t":"u"}],["b",2]]}', {"a": None, "b": 2}),
        ('{"$t":"m","v":[[1,"x"],["b",2]]}', [[1, "x"], ["b", 2]]),
        ('{"$t":"s","v":[1,{"$t":"i","v":"2"}]}', [1, "2"]),
        ('{"$t":"b","v":"AAEC","k":"Int16Array"}', "[Int16Array(3 bytes)]"),
        ('{"$t":"b","v":"AAEC"}', "[Uint8Array(3 bytes)]"),
        ('{"$t":"x","v":"/a+/g"}', "/a+/g"),
        ('{"$t":"e","v":{"name":"TypeError","message":"no","stack":"..."}}', {"name": "TypeError", "message": "no"}),
        ('{"$t":"o","v":{"$t":"u","d":{"$t":"d","v":0}}}', {"$t": "u", "d": "1970-01-01T00:00:00.000Z"}),
        ('{"a":[{"$t":"b","v":""},1]}', {"a": ["[Uint8Array(0 bytes)]", 1]}),
        (r'{"$t":"s","v":["\ud800"]}', ["\ufffd"]),
    ],
)
def test_tagged_values(tagged: str, value: Any):
    assert json.loads(plain(" " + tagged)) == value


@pytest.mark.parametrize(
    "text",
    [
        ' {"$t":"?"}',
        ' {"$t":"b","v":"A"}',
        ' {"$t":"m","v":[1]}',
        ' {"$t":"d","v":"x"}',
        ' {"$t":[]}',
        ' {"$t":"e","v":1}',
        " {",
        " " + "[" * 5000 + "]" * 5000,
    ],
)
def test_nonsense_from_a_sandbox_does_not_break_a_view(text: str):
    assert plain(text) == UNREADABLE


def test_streams():
    stream = StoredStream("a", 1, 2, 3, 4, "é\0b")
    assert stored_stream(stream.stored()) == stream
    assert stream_size(stream.stored()) == 4
    for text in (None, "1", stream.stored()[1:], ' {"$t":"r","v":"A"}', ' {"$t":"r","v":1}', ' {"$t":"r"'):
        assert stored_stream(text) is None
        assert stream_size(text) == 0
    assert plain(stream.stored()) == '"é\\u0000b"'
