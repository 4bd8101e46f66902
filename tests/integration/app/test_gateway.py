"""What is the same for every request: id, log line, compression, CORS, HEAD and OPTIONS, paths (app.middleware)."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
from typing import Any

import brotli
import httpx
import pytest
import structlog

from app.composition import Platform
from app.main import create_app
from app.observability.metrics import HTTP
from app.settings import SettingsError
from tests.support.api import Tenant, client_of

CRON = "*/30 * * * *-1786001400000"


async def test_every_answer_has_a_request_id(http: httpx.AsyncClient, tenant: Tenant) -> None:
    seen = set()
    for path in ("/healthz", "/nope", "/accounts/%zz", "/user", f"{tenant.path}/workflows"):
        answer = await http.get(path, headers=tenant.headers)
        assert answer.headers["x-request-id"]
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 5


@pytest.mark.parametrize("given", ["abc", "a" * 128, "!~"])
async def test_a_sane_request_id_is_taken_over(http: httpx.AsyncClient, given: str) -> None:
    for path in ("/healthz", "/nope"):
        assert (await http.get(path, headers={"x-request-id": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a\tb", "é"])
async def test_any_other_request_id_is_replaced(http: httpx.AsyncClient, given: str) -> None:
    answer = await http.get("/healthz", headers=[(b"x-request-id", given.encode("latin-1"))])
    assert answer.headers["x-request-id"] not in ("", given)


async def test_one_log_line_without_secrets(http: httpx.AsyncClient, tenant: Tenant) -> None:
    with structlog.testing.capture_logs() as lines:
        await http.post(
            f"{tenant.path}/workflows/w/instances?cursor=hidden",
            headers=tenant.headers,
            json={"params": {"card": "4111"}},
        )
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line.pop("ms") >= 0
    assert line.pop("bytes") > 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "POST",
        "path": f"{tenant.path}/workflows/w/instances",
        "status": 404,
        "client": "192.0.2.7",
        "account": tenant.hex,
    }
    assert not any(secret in str(lines) for secret in (tenant.token, "4111", "hidden"))


async def test_the_request_id_of_the_answer_is_that_of_log_and_audit(
    http: httpx.AsyncClient, platform: Platform, tenant: Tenant
) -> None:
    logged = structlog.testing.LogCapture()
    processors = structlog.get_config()["processors"]
    kept = list(processors)
    processors[:] = [structlog.contextvars.merge_contextvars, logged]
    try:
        for given in ({}, {"x-request-id": "mine"}):
            logged.entries.clear()
            body = {"name": "t", "policies": [policy(tenant)]}
            answer = await http.post(f"{tenant.path}/tokens", headers=tenant.headers | given, json=body)
            assert answer.status_code == 200
            request_id = answer.headers["x-request-id"]
            assert [line["request_id"] for line in logged.entries if line["event"] == "request"] == [request_id]
            last = "select request_id from audit_line where account_id = $1 order by id desc limit 1"
            assert await platform.db.engine.fetchval(last, tenant.id) == request_id
        assert answer.headers["x-request-id"] == "mine"
        assert answer.json()["result"]["value"] not in str(logged.entries)
    finally:
        processors[:] = kept


def policy(tenant: Tenant) -> dict[str, Any]:
    """That a token may read workflows."""
    groups = [{"id": "6d696c6c000000000000000000000002"}]
    resources = {f"com.cloudflare.api.account.{tenant.hex}": "*"}
    return {"effect": "allow", "permission_groups": groups, "resources": resources}


async def test_a_client_that_leaves_before_the_answer_is_499(
    http: httpx.AsyncClient, platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(platform.tenants, "authenticate", cancelled)
    counted: list[str] = []
    monkeypatch.setattr(HTTP, "count", lambda _method, _route, status, _seconds: counted.append(status))
    with structlog.testing.capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await http.get(f"{tenant.path}/workflows", headers=tenant.headers)
    assert (counted, [line["status"] for line in lines]) == (["499"], [499])


async def test_the_client_behind_a_trusted_proxy(platform: Platform) -> None:
    one = [("x-forwarded-for", "6.6.6.6, 203.0.113.9")]
    added = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")]
    for trusted, expected in (((), "192.0.2.7"), (("192.0.2.0/24",), "203.0.113.9")):
        async with client_of(
            dataclasses.replace(platform.settings, trusted_proxies=trusted), platform, checked=False
        ) as http:
            for headers in (one, added):
                with structlog.testing.capture_logs() as lines:
                    await http.get("/healthz", headers=headers)
                assert lines[-1]["client"] == expected


def test_a_bad_proxy_list_is_named(platform: Platform) -> None:
    with pytest.raises(SettingsError, match="MILLRACE_TRUSTED_PROXIES"):
        create_app(dataclasses.replace(platform.settings, trusted_proxies=("proxy.example",)))


@pytest.mark.parametrize(
    ("accept", "coding", "decode"),
    [("br", "br", brotli.decompress), ("gzip", "gzip", gzip.decompress), ("identity", None, bytes)],
)
async def test_large_answers_are_compressed(
    http: httpx.AsyncClient, accept: str, coding: str | None, decode: Any
) -> None:
    async with http.stream("GET", "/openapi.json", headers={"accept-encoding": accept}) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["content-length"] == str(len(raw))
    assert decode(raw).startswith(b'{"openapi"')


async def test_small_answers_are_not_compressed(http: httpx.AsyncClient) -> None:
    answer = await http.get("/healthz", headers={"accept-encoding": "br, gzip"})
    assert "content-encoding" not in answer.headers


async def test_head_is_get_without_a_body(http: httpx.AsyncClient, tenant: Tenant) -> None:
    for path in ("/healthz", "/openapi.yaml", f"{tenant.path}/workflows", "/nope"):
        head = await http.head(path, headers={**tenant.headers, "accept-encoding": "identity"})
        get = await http.get(path, headers={**tenant.headers, "accept-encoding": "identity"})
        assert head.content == b""
        assert (head.status_code, head.headers["content-length"]) == (get.status_code, get.headers["content-length"])


@pytest.mark.parametrize(
    ("rest", "methods"),
    [
        (f"/workflows/w/instances/{CRON.replace('/', '%2F').replace(' ', '%20')}/status", "OPTIONS, PATCH"),
        ("/workflows/w/instances/i", "DELETE, GET, HEAD, OPTIONS"),
        ("/workflows/w/instances/", "GET, HEAD, OPTIONS, POST"),
        ("/tokens/t", "DELETE, GET, HEAD, OPTIONS, PUT"),
    ],
)
async def test_options_names_methods_without_credentials(
    http: httpx.AsyncClient, tenant: Tenant, rest: str, methods: str
) -> None:
    answer = await http.options(tenant.path + rest)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == methods
    assert answer.headers["x-request-id"]


async def test_options_of_nothing(http: httpx.AsyncClient) -> None:
    assert (await http.options("/nope")).status_code == 404


async def test_cors_is_off_by_default(http: httpx.AsyncClient) -> None:
    answer = await http.get("/healthz", headers={"origin": "https://app.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_cors_for_the_origins_that_are_set(platform: Platform, tenant: Tenant) -> None:
    allowed = dataclasses.replace(platform.settings, cors_origins=("https://app.example",))
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    async with client_of(allowed, platform, checked=False) as http:
        for origin, expected in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
            headers = {"origin": origin}
            answer = await http.get("/healthz", headers=headers)
            assert answer.headers.get("access-control-allow-origin") == expected
            failed = await http.get(f"{tenant.path}/workflows", headers=headers)
            assert failed.status_code == 401
            assert failed.headers.get("access-control-allow-origin") == expected
            asked = await http.options(f"{tenant.path}/workflows/w/instances", headers=headers | preflight)
            assert asked.headers.get("access-control-allow-origin") == expected


@pytest.mark.parametrize(
    ("named", "sent"),
    [
        ("https://App.Example/", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:8080", "http://app.example:8080"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
async def test_origins_are_compared_as_browsers_spell_them(platform: Platform, named: str, sent: str) -> None:
    allowed = dataclasses.replace(platform.settings, cors_origins=(named,))
    async with client_of(allowed, platform, checked=False) as http:
        for origin, expected in ((sent, sent), (sent + ".evil.example", None), ("x" + sent, None)):
            answer = await http.get("/healthz", headers={"origin": origin})
            assert answer.headers.get("access-control-allow-origin") == expected


@pytest.mark.parametrize(
    "named",
    [
        *(
            "app.example",
            "null",
            "https://",
            "https://*.example",
            "https://*",
            "https://app.example/x",
            "//app.example",
        ),
        *("https://ada@app.example", "https://app.example?x", "https://app.example:*", "https://bücher.example"),
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(platform: Platform, named: str) -> None:
    with pytest.raises(SettingsError, match=r"MILLRACE_CORS_ORIGINS: .* is no origin"):
        create_app(
            dataclasses.replace(platform.settings, cors_origins=("https://app.example", named)), platform=platform
        )


@pytest.mark.parametrize(("origins", "credentials"), [(("https://app.example",), "true"), (("*",), None)])
async def test_cors_lets_clients_of_medusa_in(
    platform: Platform, origins: tuple[str, ...], credentials: str | None
) -> None:
    """All headers its SDK sends, and the session's cookie, but never for everybody."""
    allowed = dataclasses.replace(platform.settings, cors_origins=origins)
    sent = "authorization,content-type,x-medusa-locale,x-publishable-api-key,x-account-id,x-requested-with,prefer"
    headers = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": sent,
    }
    async with client_of(allowed, platform, checked=False) as http:
        asked = await http.options("/admin/workflows-executions/w/run", headers=headers)
        assert asked.status_code == 204
        assert set(sent.split(",")) <= set(asked.headers["access-control-allow-headers"].replace(" ", "").split(","))
        assert asked.headers.get("access-control-allow-credentials") == credentials
        refused = await http.get("/admin/workflows-executions", headers={"origin": "https://app.example"})
        assert refused.status_code == 401
        assert refused.headers.get("access-control-allow-credentials") == credentials
        assert "x-transaction-id" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize("prefix", ["/client/v4", ""])
@pytest.mark.parametrize(
    "spelling", ["*/30%20*%20*%20*%20*-1786001400000", "%2A%2F30%20%2A%20%2A%20%2A%20%2A-1786001400000"]
)
@pytest.mark.parametrize(
    ("method", "suffix", "seen"),
    [
        ("GET", "", "view"),
        ("DELETE", "", "delete"),
        ("GET", "/step?name=a-1&type=step", "step"),
        ("POST", "/events/go", "send_event"),
        ("GET", "/logs", "find"),
    ],
)
async def test_ids_of_scheduled_instances_reach_the_service(
    http: httpx.AsyncClient,
    platform: Platform,
    tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    prefix: str,
    spelling: str,
    method: str,
    suffix: str,
    seen: str,
) -> None:
    asked: list[tuple[Any, ...]] = []

    class Reached(Exception):
        pass

    async def spy(_caller: Any, *arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise Reached

    monkeypatch.setattr(platform.instances, seen, spy)
    path = f"{prefix}/accounts/{tenant.hex}/workflows/orders/instances/{spelling}{suffix}"
    answer = await http.request(method, path, headers=tenant.headers)
    assert answer.status_code == 500
    assert asked[0][:2] == ("orders", CRON)


@pytest.mark.parametrize(
    "rest",
    [
        "/workflows/a%00b",
        "/workflows/a%0ab/versions",
        "/workflows/%ff",
        "/workflows/%zz",
        "/workflows/w%2Fx/instances",
        "/workflows/w/instances/i%00/status",
        "/workflows/w/instances/%ff%fe",
        "/workflows/w/instances/i/events/a%2Fb",
        "/workers/scripts/a%2Fb",
    ],
)
async def test_paths_that_can_name_nothing(http: httpx.AsyncClient, tenant: Tenant, rest: str) -> None:
    for method in ("GET", "POST", "PATCH", "DELETE", "PUT"):
        answer = await http.request(method, tenant.path + rest, headers=tenant.headers)
        assert answer.status_code == 404
        assert answer.json()["errors"][0]["code"] == 7003
