"""Limits on request bodies (app.middleware.bodies)."""

import json
import time
from typing import Any

import pytest

from app.errors import InvalidRequest, PayloadTooLarge
from app.middleware.bodies import guard, limit_of
from tenants import limits
from tenants.bodies import check_depth

W = "/client/v4/accounts/a/workflows/w"
S = "/client/v4/accounts/a/workers/scripts/s"


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", f"{W}/instances", limits.BODY_SINGLE_BYTES),
        ("POST", f"{W}/instances/-/events/go", limits.BODY_SINGLE_BYTES),
        ("POST", f"{W}/instances/batch", limits.BODY_BATCH_BYTES),
        ("POST", f"{W}/instances/batch/delete", limits.BODY_BYTES),
        ("PATCH", f"{W}/instances/-/status", limits.BODY_BYTES),
        ("PUT", W, limits.BODY_BYTES),
        ("PUT", S, limits.BODY_UPLOAD_BYTES),
        ("POST", f"{S}/versions", limits.BODY_UPLOAD_BYTES),
        ("PUT", f"{S}/schedules", limits.BODY_BYTES),
    ],
)
def test_each_route_has_its_limit(method: str, path: str, limit: int) -> None:
    assert limit_of(method, path) == limit


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth // 2) + b"[" * (depth - depth // 2) + b"]" * (depth - depth // 2) + b"}" * (depth // 2)


@pytest.mark.parametrize("depth", [1, 63, 64])
def test_json_as_deep_as_allowed(depth: int) -> None:
    check_depth(nested(depth))


@pytest.mark.parametrize("depth", [65, 1000, 100_000])
def test_json_too_deep(depth: int) -> None:
    with pytest.raises(InvalidRequest, match="64 levels"):
        check_depth(nested(depth))


def test_brackets_in_strings_do_not_count() -> None:
    check_depth(json.dumps({"a": "[" * 1000, 'b"\\': '{["\\"' * 100, "c": [1] * 100}).encode())


def test_width_is_not_depth() -> None:
    check_depth(json.dumps([{"a": [{}] * 100}] * 1000).encode())


def test_depth_after_shallow_parts_is_seen() -> None:
    with pytest.raises(InvalidRequest):
        check_depth(b"[" + b"[]," * 1000 + nested(64) + b"]")


def test_hostile_text_takes_linear_time() -> None:
    started = time.process_time()
    for body in (b'"' + b'\\"' * 500_000 + b"[" * 65, b"[[]]" * 20 + b'"' + b'\\"' * 1_000_000, b"[]" * 500_000):
        check_depth(body)
    assert time.process_time() - started < 2


def source(*chunks: bytes):
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]

    async def receive():
        return messages.pop(0)

    return receive


async def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(PayloadTooLarge):
        guard(source(), limit=10, declared=b"11", json=True)


async def test_an_undeclared_length_is_counted_while_reading() -> None:
    receive = guard(source(b"12345", b"67890", b"1"), limit=10, declared=None, json=True)
    await receive()
    await receive()
    with pytest.raises(PayloadTooLarge):
        await receive()


async def test_exactly_the_limit_is_accepted() -> None:
    receive = guard(source(b"1" * 10), limit=10, declared=b"10", json=True)
    assert (await receive())["body"] == b"1" * 10


async def test_depth_counts_over_all_chunks() -> None:
    deep = nested(65)
    receive = guard(source(deep[:30], deep[30:]), limit=1000, declared=None, json=True)
    await receive()
    with pytest.raises(InvalidRequest):
        await receive()


async def test_only_json_is_looked_into() -> None:
    receive = guard(source(nested(65)), limit=1000, declared=None, json=False)
    await receive()


async def test_a_disconnect_after_the_body_passes_through() -> None:
    messages: list[Any] = [{"type": "http.request", "body": b"1", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    receive = guard(receive, limit=1, declared=None, json=True)
    await receive()
    assert (await receive()) == {"type": "http.disconnect"}


async def test_a_client_that_goes_amid_its_body_is_at_fault() -> None:
    messages: list[Any] = [{"type": "http.request", "body": b"1", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    receive = guard(receive, limit=10, declared=None, json=True)
    await receive()
    with pytest.raises(InvalidRequest, match="ended before it was complete"):
        await receive()
