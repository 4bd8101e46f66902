"""Payloads at the door: what is JSON, how large it is, and that what was sent is what is stored."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.errors import PayloadTooLarge as TooLarge
from instances.payloads import check_size, compact_size, decode, decode_stored, json_value, loads


class Body(msgspec.Struct):
    name: str = ""
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Numbered(msgspec.Struct):
    n: int | float = 0
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


BODY = msgspec.json.Decoder(Body)


def params_of(body: str) -> str:
    decoded = decode(body.encode(), BODY)
    return decoded.params(decoded.value.params)


# --- size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        (" [ 1 ,\n\t2 ]\r\n", 5),
        ('{"a b": " c "}', 13),
        ('"\\u0061"', 3),
        ('"\\u00e9"', 4),
        ('"é"', 4),
        ('"\\u20ac"', 5),
        ('"\\ud83d\\ude00"', 6),
        ('"😀"', 6),
        ('"\\/"', 3),
        ('"\\n\\"\\\\"', 8),
        ('"\\u000a"', 4),
        ('"\\u0022"', 4),
        ('"\\u005c"', 4),
        ('"\\u005cu0061"', 9),
        ('"\\\\u0061"', 9),
        ('"\\u0000"', 8),
        ('"\\u007f"', 3),
        ('"\\ud800"', 8),
        ('"\\udc00\\ud800"', 14),
        ('"\\ud800\\ud83d\\ude00"', 12),
        ('["\\ud83d","\\ude00"]', 19),
        ("1.50e+3", 7),
        ("1e999", 5),
        ("9" * 5000, 5000),
        ('{"a":1,"a":1}', 13),
    ],
)
def test_a_payload_is_measured_in_its_shortest_form(text: str, size: int) -> None:
    assert compact_size(text) == size


texts = st.text(st.characters(exclude_categories=())) | st.text('\\"/u0d8\n\x00é€😀\ud83d\ude00')
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_however_it_is_written_its_size_is_that_of_its_shortest_form(value: Any, indent: int | None, ascii_only: bool):
    value = json.loads(json.dumps(value))  # joins surrogates that happen to make a pair
    shortest = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    written = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    written = written.encode("utf-8", "backslashreplace").decode()
    assert compact_size(written) == len(shortest)


@pytest.mark.parametrize("unit", ["\\u0061", "\\u0000", "\\ud83d\\ude00", "\\ud800", "\\\\", "\\/", "\\n", "\\u20AC"])
def test_a_body_of_escapes_is_measured_fast(unit: str) -> None:
    text = '"' + unit * (3_000_000 // len(unit)) + '"'
    began = time.process_time()
    compact_size(text)
    assert time.process_time() - began < 0.4  # one escape at a time takes ten times as long as this does


def test_the_limit_is_exact() -> None:
    check_size('"' + "é" * 49 + '"', 100, "params")
    check_size('"' + "\\u00e9" * 49 + '"', 100, "params")
    check_size("[" + " " * 1000 + '"' + "a" * 96 + '"]', 100, "params")
    for text in ('"' + "é" * 49 + 'a"', '"' + "\\u00e9" * 49 + 'a"', '["' + "a" * 97 + '"]'):
        with pytest.raises(TooLarge, match="params is larger than the 100 bytes"):
            check_size(text, 100, "params")


# --- text stays as it was sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1.50",
        "-0",
        "1e999",
        "9" * 5000,
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\uD800\\u0041"',
        '"\\\\ud800"',
        '"\\\\\\ud800"',
        '"\\ud83d\\ude00"',
        '{"\\ud800": "\\u0000"}',
        '{"b": 1, "a" : [ ]}',
    ],
)
def test_a_payload_is_kept_to_the_letter(text: str) -> None:
    assert json_value(f" {text}\n".encode()) == text
    assert params_of(f'{{"params": {text}}}') == text
    assert params_of(json.dumps({"params": text})) == text  # as the SDKs send it


@pytest.mark.parametrize(
    "text", ['"\\ud800\\ud8"', '"\\uq800"', '"\x00\x00"', "\x00\x00", '"\\x"', "1 2", "[1,]", "NaN"]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        json_value(text.encode())
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        params_of(f'{{"params": {text}}}')
    assert params_of(json.dumps({"params": text})) == json.dumps(text, ensure_ascii=False)


def test_json_in_a_text_nests_no_deeper_than_json_itself() -> None:
    assert params_of(json.dumps({"params": "[" * 64 + "]" * 64})) == "[" * 64 + "]" * 64
    for depth in (65, 5000):
        with pytest.raises(InvalidRequest, match="must not nest deeper than 64"):
            params_of(json.dumps({"params": "[" * depth + "]" * depth}))
    brackets = json.dumps(["[" * 100] * 10)
    assert params_of(json.dumps({"params": brackets})) == brackets


def test_a_name_with_a_lone_surrogate_is_told_from_one_that_was_sent() -> None:
    decoded = decode(b'{"name": "a\\ud800"}', BODY)
    assert not decoded.as_sent(decoded.value.name)
    decoded = decode(b'{"name": "a", "params": "\\ud800"}', BODY)
    assert decoded.as_sent(decoded.value.name)


def test_neither_a_mark_nor_its_escape_can_be_forged() -> None:
    for mark in ("\x7f", "\\u007f", "\\u007F"):
        inner = f'{{"a": "{mark}d83d"}}'
        body = json.dumps({"name": "\ud800", "params": inner.replace(mark, "@")}).replace("@", mark)
        assert params_of(body) == inner.replace(mark, "\x7f")


@pytest.mark.parametrize("text", ['"\\ud800"', '"\x7f\\ud800"', '"\\ud83d\\ude00"'])
def test_a_body_of_surrogates_is_read_fast(text: str) -> None:
    payload = json.dumps([text[1:-1]] * 200_000).replace("\\\\", "\\")
    body = f'{{"name": "\\ud800", "params": {payload}}}'
    began = time.process_time()
    assert params_of(body) == payload
    assert time.process_time() - began < 0.8


def test_a_number_out_of_range_is_refused_where_a_number_is_read() -> None:
    for body in (b'{"n": 1e999}', b'{"n": 1e999, "params": "\\ud800"}', b'{"n": "\\ud800"}'):
        with pytest.raises(InvalidRequest):
            decode(body, msgspec.json.Decoder(Numbered))


# --- values ----------------------------------------------------------------------------------------------------


def test_numbers_beyond_all_bounds_are_read_as_infinite() -> None:
    assert loads('{"n": 1e999}') == {"n": math.inf}
    assert loads("9" * 5000) == math.inf
    assert loads("-" + "9" * 5000) == -math.inf
    assert loads("9" * 400) == int("9" * 400)
    assert loads('["\\ud800", ' + "9" * 5000 + "]") == ["\ud800", math.inf]
    assert loads(None) is None


def test_lone_surrogates_in_stored_json_do_not_keep_it_from_being_read() -> None:
    decoder = msgspec.json.Decoder(Body)
    assert decode_stored(decoder, '{"name": "a\\ud800\\ude00\\udc00\\\\ud800"}').name == "a\U00010200�\\ud800"
