"""Webhooks: from what happens to endpoints that are told of it, and deliveries that only have to be sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from bench import definitions
from bench.platform import Platform

HANDLE, STEPS = "bench-told-by-webhook", 10
ENDPOINTS = 8
"""As many as fill what one account may have under way in a worker."""
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
PATIENCE = 600

_AGAIN = """
with again as (
  update webhook_delivery set status = 0, claimed = false, tries = 0, next_at = now()
  where account_id = $1::uuid and webhook_no = any ($2::bigint[]) returning 1
), due as (update webhook set due_at = now() where account_id = $1::uuid and no = any ($2::bigint[]))
select count(*) from again
"""


async def measure(platform: Platform, count: int) -> dict[str, float]:
    """`count` chains of ten steps, whose ends all endpoints are told of; then the same deliveries are sent again."""
    await platform.deploy(HANDLE, definitions.CHAIN)
    await platform.load("batch", HANDLE, 100, in_flight=1)
    await platform.settle(HANDLE)
    async with _receiver() as (url, heard), _endpoints(platform, url) as hooks:
        expected = count * STEPS * len(hooks)
        before, began = platform.processes.cpu()["worker"], time.perf_counter()
        await platform.load("batch", HANDLE, count, in_flight=4)
        await heard.wait(expected)
        told = expected / (heard.last - began)
        cpu = platform.processes.cpu()["worker"] - before
        await _written(platform)
        sent, sent_cpu = await _again(platform, heard, hooks)
        alone, _ = await _again(platform, heard, hooks[:1])
    return {
        "told_per_second": told,
        "told_cpu_ms": 1000 * cpu / expected,
        "sent_per_second": sent,
        "sent_cpu_ms": 1000 * sent_cpu / expected,
        "sent_to_one_per_second": alone,
    }


async def _again(platform: Platform, heard: Heard, hooks: list[int]) -> tuple[float, float]:
    """Deliveries per second, from the first to the last, and the worker's CPU seconds, when all are due at once."""
    heard.clear()
    before = platform.processes.cpu()["worker"]
    count = int(await platform.admin.fetchval(_AGAIN, platform.account_id, hooks) or 0)
    await heard.wait(count)
    cpu = platform.processes.cpu()["worker"] - before
    await _written(platform)
    return count / (heard.last - heard.first), cpu


async def _written(platform: Platform) -> None:
    """Wait until what came of every delivery is written down."""
    async with asyncio.timeout(PATIENCE):
        while await platform.admin.fetchval("select exists (select from webhook_delivery where status <> 1)"):
            await asyncio.sleep(0.02)


class Heard:
    """How many deliveries came, and when the first and the last of them did."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.count, self.first, self.last = 0, 0.0, 0.0

    def note(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.count += 1

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.count < count:
                await asyncio.sleep(0.02)
        if self.count > count:
            raise RuntimeError(f"{self.count} deliveries instead of {count}")


class _Endpoint(asyncio.Protocol):
    """Takes every delivery at once."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._transport: Any = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) if end else 0
        if end and len(body) >= length:
            self._received = body[length:]
            self._heard.note()
            self._transport.write(ANSWER)


@asynccontextmanager
async def _receiver() -> AsyncIterator[tuple[str, Heard]]:
    heard = Heard()
    server = await asyncio.get_running_loop().create_server(lambda: _Endpoint(heard), "127.0.0.1", 0, backlog=1000)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", heard
    finally:
        server.close()


@asynccontextmanager
async def _endpoints(platform: Platform, url: str) -> AsyncIterator[list[int]]:
    """Numbers of endpoints that are told of every step that is complete."""
    hook = {"url": url, "events": ["task.execution.completed"]}
    root, headers = (
        f"http://{platform.host}:{platform.port}/api/webhooks",
        {"authorization": f"Bearer {platform.token}"},
    )
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        made = [(await client.post(root, json=hook)).raise_for_status().json()["id"] for _ in range(ENDPOINTS)]
        yield [int(id) for id in made]
        for id in made:
            await client.delete(f"{root}/{id}")
