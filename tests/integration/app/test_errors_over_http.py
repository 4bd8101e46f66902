"""Whatever goes wrong with a request, the answer is one envelope (app.envelope, app.main)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from app.composition import Platform
from tenants import limits
from tests.support import openapi
from tests.support.api import Tenant, new_tenant


def failure(response: httpx.Response) -> tuple[int, int]:
    """Status and first code of a failing envelope, whose form is checked."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert body.keys() == {"success", "errors", "messages", "result"}
    assert body["success"] is False
    assert body["result"] is None
    assert all(isinstance(message, str) for message in body["messages"])
    assert all(isinstance(error["code"], int) and error["message"] for error in body["errors"])
    return response.status_code, body["errors"][0]["code"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nope",
        "/client/v4",
        "/client/v4/",
        "/client/v4/nope",
        "/client/v5/accounts",
        "/client/v4/admin/x",
        "/userx",
    ],
)
async def test_unknown_paths(http: httpx.AsyncClient, tenant: Tenant, path: str) -> None:
    assert failure(await http.get(path)) == (404, 7003)
    assert failure(await http.get(path, headers=tenant.headers)) == (404, 7003)


@pytest.mark.parametrize(
    "rest", ["/nope", "/workflows/w/nope", "/workflows/w/versions/v/nope", "/tokens/t/nope", "/workflows%2Fw"]
)
async def test_unknown_paths_of_an_account(http: httpx.AsyncClient, tenant: Tenant, rest: str) -> None:
    assert failure(await http.get(tenant.path + rest, headers=tenant.headers)) == (404, 7003)


async def test_wrong_method(http: httpx.AsyncClient, tenant: Tenant) -> None:
    answer = await http.request("PATCH", f"{tenant.path}/workflows/w/instances", headers=tenant.headers)
    assert failure(answer) == (405, 7001)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "CONNECT"])
async def test_strange_methods(http: httpx.AsyncClient, tenant: Tenant, method: str) -> None:
    answer = await http.request(method, f"{tenant.path}/workflows", headers=tenant.headers)
    assert failure(answer)[0] == 405


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sk_wrong"},
        {"authorization": "Token sk_wrong"},
        {"authorization": "Basic !!!"},
        {"x-auth-email": "a@b.example", "x-auth-key": "sk_wrong"},
        {"authorization": "Bearer " + "x" * 5000},
    ],
)
async def test_no_accepted_credential(http: httpx.AsyncClient, tenant: Tenant, headers: dict[str, str]) -> None:
    assert failure(await http.get(f"{tenant.path}/workflows", headers=headers)) == (401, 10000)


async def test_key_and_email(http: httpx.AsyncClient, tenant: Tenant) -> None:
    headers = {"x-auth-email": "a@b.example", "x-auth-key": tenant.token}
    assert (await http.get(f"{tenant.path}/workflows", headers=headers)).status_code == 200


async def test_missing_scope(http: httpx.AsyncClient, platform: Platform, tenant: Tenant) -> None:
    weak = await new_tenant(platform, ["account:read"], of=tenant.id)
    assert failure(await http.get(f"{tenant.path}/workflows", headers=weak.headers)) == (403, 10000)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_another_account_looks_like_none(
    http: httpx.AsyncClient, platform: Platform, tenant: Tenant, method: str
) -> None:
    other = await new_tenant(platform)
    for account_id in (other.hex, "f" * 32, tenant.hex.upper(), "x", tenant.hex + "0"):
        answer = await http.request(
            method, f"/client/v4/accounts/{account_id}/workflows/w", headers=tenant.headers, json={}
        )
        assert failure(answer) == (404, 7003)


@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"a": 1,}', b"\xff\xfe", b'{"params": "\xff"}', b"[]", b"1"])
async def test_malformed_json(http: httpx.AsyncClient, tenant: Tenant, body: bytes) -> None:
    answer = await http.post(f"{tenant.path}/workflows/w/instances", content=body, headers=tenant.headers)
    assert failure(answer) == (400, 10002)


async def test_json_too_deep(http: httpx.AsyncClient, tenant: Tenant) -> None:
    body = b'{"params":' + b"[" * 70 + b"]" * 70 + b"}"
    answer = await http.post(f"{tenant.path}/workflows/w/instances", content=body, headers=tenant.headers)
    assert failure(answer) == (400, 10002)
    assert "64" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("method", "rest", "limit"),
    [
        ("POST", "/workflows/w/instances", limits.BODY_SINGLE_BYTES),
        ("POST", "/workflows/w/instances/i/events/e", limits.BODY_SINGLE_BYTES),
        ("POST", "/workflows/w/instances/batch", limits.BODY_BATCH_BYTES),
        ("PATCH", "/workflows/w/instances/i/status", limits.BODY_BYTES),
        ("PUT", "/workflows/w", limits.BODY_BYTES),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
async def test_bodies_over_the_limit(
    http: httpx.AsyncClient, tenant: Tenant, method: str, rest: str, limit: int, declared: bool
) -> None:
    body = b'"' + b"x" * (limit - 1) + b'"'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    content: Any = body if declared else chunks()
    answer = await http.request(method, tenant.path + rest, content=content, headers=tenant.headers)
    assert failure(answer) == (413, 10458)


async def test_credentials_are_checked_before_the_body_is_read(http: httpx.AsyncClient, tenant: Tenant) -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{}"

    for headers, status in (({}, 401), (tenant.headers, 404)):
        path = f"/client/v4/accounts/{'0' * 32}/workflows/w/instances"
        assert (await http.post(path, content=chunks(), headers=headers)).status_code == status
    assert read == 0


async def test_a_bug_is_hidden_and_logged(
    http: httpx.AsyncClient, platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("the inside")

    monkeypatch.setattr(platform.tenants.accounts, "get", broken)
    with structlog.testing.capture_logs() as lines:
        answer = await http.get(tenant.path, headers={**tenant.headers, "x-request-id": "find-me"})
    assert failure(answer) == (500, 10001)
    assert "inside" not in answer.text
    assert answer.headers["x-request-id"] == "find-me"
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_a_value_the_database_cannot_take_is_a_bug(
    http: httpx.AsyncClient, platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        await platform.db.engine.fetchval("select $1::int", 2**40)

    monkeypatch.setattr(platform.tenants.accounts, "get", broken)
    assert failure(await http.get(tenant.path, headers=tenant.headers)) == (500, 10001)


async def test_a_lost_database_is_503(
    http: httpx.AsyncClient, platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise ConnectionRefusedError("10.0.0.5")

    monkeypatch.setattr(platform.tenants.accounts, "get", away)
    answer = await http.get(tenant.path, headers=tenant.headers)
    assert failure(answer) == (503, 10459)
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert "10.0.0.5" not in answer.text


@pytest.mark.parametrize(("headers", "retry"), [({}, "false"), ({"idempotency-key": "k"}, "true")])
async def test_a_write_is_repeated_only_when_that_is_safe(
    http: httpx.AsyncClient,
    platform: Platform,
    tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    retry: str,
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("10.0.0.5")

    monkeypatch.setattr(platform.instances, "create", away)
    answer = await http.post(f"{tenant.path}/workflows/w/instances", headers=tenant.headers | headers)
    assert failure(answer) == (503, 10459)
    assert answer.headers["x-should-retry"] == retry


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=x", "page=", "page=null", "per_page=101", "per_page=0", "page=1e9", "page=%00"]
)
async def test_pages_out_of_range(http: httpx.AsyncClient, tenant: Tenant, query: str) -> None:
    assert failure(await http.get(f"{tenant.path}/workflows?{query}", headers=tenant.headers)) == (400, 10002)


async def test_a_page_past_the_end_is_empty(http: httpx.AsyncClient, tenant: Tenant) -> None:
    answer = await http.get(f"{tenant.path}/workflows?page=5000", headers=tenant.headers)
    openapi.check(answer)
    assert answer.json()["result"] == []
