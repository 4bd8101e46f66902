"""Bodies, pages and the envelope."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from app.errors import InvalidRequest, PayloadTooLarge
from tenants.bodies import decode_body, utc
from tenants.paging import Page, page_of
from tenants.results import ok
from tenants.schemas import TokenBody

RESULT_INFO = {"page": 2, "per_page": 20, "count": 0, "total_count": 3, "total_pages": 1}


@pytest.mark.parametrize(
    ("body", "message", "pointer"),
    [
        (b"", "name: is required", "/name"),
        (b"{", "the body is not valid JSON", None),
        (b'{"name": "a", "policies": []} x', "the body is not valid JSON", None),
        (b'{"name": "\xff"}', "the body is not valid JSON", None),
        (b'{"name": "\\ud800"}', "the body is not valid JSON", None),
        (b"[]", "the body: expected `object`, got `array`", None),
        (b'{"name": 1}', "name: expected `str`, got `int`", "/name"),
        (b'{"name": "a", "policies": [{}]}', r"policies\[0\]\.effect: is required", "/policies/0/effect"),
        (b'{"name": "a", "policies": [], "expires_on": "soon"}', "expires_on: invalid RFC3339", "/expires_on"),
        (b'{"name": "a", "policies": ' + b"[" * 100_000, "nested too deeply|expected `object`", None),
        (b'{"condition": ' + b"[" * 100_000, "the body is nested too deeply", None),
    ],
    ids=lambda value: "deep" if isinstance(value, bytes) and len(value) > 999 else None,
)
def test_a_bad_body_is_refused_by_field(body, message, pointer):
    with pytest.raises(InvalidRequest, match=message) as caught:
        decode_body(body, TokenBody)
    if pointer:
        assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": {"b": [1e400]}}', "/a"),
        (b'{"a": [1, 1e400]}', "/a/1"),
        (b'{"a": 1e400}', "/a"),
    ],
)
def test_a_pointer_ends_where_the_way_is_not_named(body, pointer):
    class Body(msgspec.Struct):
        a: Any

    with pytest.raises(InvalidRequest, match="out of range") as caught:
        decode_body(body, Body)
    assert caught.value.pointer == pointer


def test_a_long_body_is_refused_before_it_is_read():
    with pytest.raises(PayloadTooLarge, match="larger than 4 bytes"):
        decode_body(b"{}   ", dict, limit=4)


def test_times_without_an_offset_are_utc():
    assert utc(None, "t") is None
    assert str(utc(datetime(2026, 1, 1), "t")) == "2026-01-01 00:00:00+00:00"
    east = timezone(timedelta(hours=2))
    assert str(utc(datetime(2026, 1, 1, tzinfo=east), "t")) == "2025-12-31 22:00:00+00:00"
    with pytest.raises(InvalidRequest, match="t: this time is out of range"):
        utc(datetime(1, 1, 1, tzinfo=east), "t")


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, Page(1, 10)),
        ({"page": "3", "per_page": "100"}, Page(3, 100)),
        ({"page": "2.0"}, Page(2, 10)),
        ({"page": "9999999999"}, Page(9_999_999_999, 10)),
    ],
)
def test_pages(query, page):
    assert page_of(query, default=10, maximum=100) == page


@pytest.mark.parametrize(
    "query", [{"page": text} for text in ("0", "-1", "x", "", "1.5", "1e3", "٣", "99999999999", " 1")]
)
def test_a_page_that_is_none_is_refused(query):
    with pytest.raises(InvalidRequest, match="page must be a whole number of at least 1"):
        page_of(query, default=10, maximum=100)


@pytest.mark.parametrize("text", ["4", "51", "0"])
def test_a_page_size_out_of_bounds_is_refused_not_clamped(text):
    with pytest.raises(InvalidRequest, match="per_page must be a whole number from 5 to 50"):
        page_of({"per_page": text}, default=20, minimum=5, maximum=50)


def test_a_page_past_the_end_says_so():
    assert Page(2, 20).info(0, 3) == RESULT_INFO
    assert Page(2, 20).offset == 20


def test_the_envelope_leaves_result_info_out_unless_given():
    assert msgspec.json.encode(ok(msgspec.Raw(b'{"a": 1}'))) == (
        b'{"success":true,"errors":[],"messages":[],"result":{"a": 1}}'
    )
    listed = msgspec.to_builtins(ok([], info=RESULT_INFO, messages=[{"code": 1, "message": "m"}]))
    assert (listed["result_info"], listed["messages"]) == (RESULT_INFO, [{"code": 1, "message": "m"}])
