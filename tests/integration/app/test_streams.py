"""Live streams over real HTTP: at once, uncompressed, and ended when the process is (app.middleware.streams)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from app.embedded.valkey import EmbeddedValkey
from tenants.auth import operator
from tests.support.api import Tenant, new_tenant
from tests.support.databases import Databases
from tests.support.live import Live, live_for_tests

WAITS = {"spec": "workflow/1", "name": "w", "nodes": [{"id": "w", "type": "wait_for_event", "config": {"event": "go"}}]}
LOGS = "/workflows/w/instances/i/logs"
STREAM = {"accept": "text/event-stream", "accept-encoding": "br, gzip"}


@pytest.fixture
async def own_server(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Live]:
    """A Millrace of this test alone, because the test drains it."""
    async with live_for_tests(databases, valkey) as running:
        yield running


@asynccontextmanager
async def waiting_instance(server: Live) -> AsyncIterator[tuple[Tenant, httpx.AsyncClient]]:
    """An account with an instance that waits, and a client of it; all of it within 20 seconds."""
    tenant = await new_tenant(server.platform)
    base = server.base_url + tenant.path
    async with asyncio.timeout(20), httpx.AsyncClient(base_url=base, headers=tenant.headers, trust_env=False) as api:
        await _wait(api)
        yield tenant, api


async def _wait(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/w", json={"definition": WAITS})
    await api.post("/workflows/w/instances", json={"instance_id": "i"})
    while (await api.get("/workflows/w/instances/i")).json()["result"]["status"] != "waiting":
        await asyncio.sleep(0.02)


async def test_lines_come_at_once_and_the_stream_ends_with_the_instance(server: Live) -> None:
    async with waiting_instance(server) as (_, api), api.stream("GET", LOGS, headers=STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in answer.headers
        assert "content-length" not in answer.headers
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 3000"
        while not (await anext(lines)).startswith("id: "):
            pass
        await api.post("/workflows/w/instances/i/events/go", json={})
        rest = [line async for line in lines]
    assert "event: end" in rest


async def test_streams_end_when_the_process_drains(own_server: Live) -> None:
    async with waiting_instance(own_server) as (_, api), api.stream("GET", LOGS, headers=STREAM) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 3000"
        own_server.platform.drain()
        assert "event: end" not in [line async for line in lines]
    async with httpx.AsyncClient(trust_env=False) as probe:
        assert (await probe.get(f"{own_server.base_url}/readyz")).status_code == 503


async def test_head_of_a_stream_ends_at_once(server: Live) -> None:
    async with waiting_instance(server) as (_, api):
        answer = await api.head(LOGS, headers=STREAM)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_head_leaves_the_connection_open(server: Live) -> None:
    """The server counts the bytes of a body against its declared length, except to HEAD."""
    async with waiting_instance(server) as (tenant, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.base_url.rpartition(":")[2]))
        for method, path in (("HEAD", ""), ("HEAD", "/i"), ("HEAD", "/nope"), ("GET", "/i")):
            head = f"{method} {tenant.path}/workflows/w/instances{path} HTTP/1.1\r\nHost: m\r\n"
            writer.write(f"{head}Authorization: Bearer {tenant.token}\r\n\r\n".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert answer.startswith("http/1.1 404" if path == "/nope" else "http/1.1 200")
            length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        assert len(await reader.readexactly(length)) == length > 0
        writer.close()


async def test_a_client_that_leaves_frees_its_stream(server: Live) -> None:
    async with waiting_instance(server) as (tenant, api):
        await server.platform.tenants.accounts.set_limits(operator(tenant.id), changes={"streams": 1})
        await asyncio.sleep(1.1)  # limits are remembered for a second
        async with api.stream("GET", LOGS, headers=STREAM) as answer:
            assert answer.status_code == 200
            lines = answer.aiter_lines()  # kept: dropping it would close the stream
            assert await anext(lines) == "retry: 3000"
            refused = await api.get(LOGS, headers=STREAM)
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (429, 10466)
        while await _status(api) != 200:
            await asyncio.sleep(0.05)


async def _status(api: httpx.AsyncClient) -> int:
    async with api.stream("GET", LOGS, headers=STREAM) as answer:
        return answer.status_code
