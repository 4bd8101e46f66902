"""Live streams of the Medusa API: how soon a client hears, and what idle streams cost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from bench import definitions
from bench.load import percentile
from bench.platform import Platform

TOLD, IDLE = "bench-told", "bench-untold"
LIMITS_SECONDS = 2
"""Until every process goes by limits that were changed."""
REST_SECONDS = 2
"""Until streams that were opened cost nothing but their being open."""
IDLE_SECONDS = 20
AT_ONCE = 20
"""Streams opened at once."""
_FINISHED = re.compile(rb"^event: onFinish\n(?:id: .*\n)?data: (.*)\n", re.M)
_TRANSACTION = re.compile(rb'"transaction_id":"([^"]+)"')


async def measure(platform: Platform, told: int, idle: int) -> dict[str, float]:
    """`told` instances end one by one while a client hears of them; then `idle` streams hear nothing."""
    for handle in (TOLD, IDLE):
        await platform.deploy(handle, definitions.WAITER)
    await platform.admin.execute("update account set limits = '{\"streams\": 10000}'")
    await asyncio.sleep(LIMITS_SECONDS)
    late = await _lateness(platform, told)
    async with _streams(platform, idle):
        await asyncio.sleep(REST_SECONDS)
        before = platform.processes.cpu()["api"]
        await asyncio.sleep(IDLE_SECONDS)
        seconds = platform.processes.cpu()["api"] - before
        megabytes = platform.processes.rss("api") / 1e6
    return {
        "p50": percentile(late, 0.5),
        "p95": percentile(late, 0.95),
        "api_mb": megabytes,
        "percent": 100 * seconds / IDLE_SECONDS,
    }


async def _lateness(platform: Platform, count: int) -> list[float]:
    """Milliseconds from when the end of each instance was written to when its event arrived."""
    root = f"/workflows/{TOLD}/instances"
    ids = [(await platform.api.call("POST", root, {"params": {"n": 1}}))["id"] for _ in range(count)]
    await platform.settle(TOLD)
    arrived: dict[str, float] = {}
    reader, writer = await _open(platform, TOLD)
    hearing = asyncio.create_task(_hear(reader, arrived))
    try:
        async with asyncio.timeout(120):
            for id in ids:
                await platform.api.call("POST", f"{root}/{id}/events/go", {"n": 1})
                while id not in arrived and not hearing.done():
                    await asyncio.sleep(0.002)
    finally:
        hearing.cancel()
        writer.close()
    rows = await platform.admin.fetch(
        "select key, max(at) as at from journal where key = any ($1::uuid[]) group by 1", [UUID(id) for id in ids]
    )
    return [(arrived[str(row["key"])] - row["at"].timestamp()) * 1000 for row in rows]


async def _hear(reader: asyncio.StreamReader, arrived: dict[str, float]) -> None:
    """Note when each transaction's end arrives."""
    heard = b""
    while piece := await reader.read(65536):
        now = time.time()
        heard += piece
        last = 0
        for event in _FINISHED.finditer(heard):
            last = event.end()
            if found := _TRANSACTION.search(event[1]):
                arrived.setdefault(found[1].decode(), now)
        heard = heard[last:]


@asynccontextmanager
async def _streams(platform: Platform, count: int) -> AsyncIterator[None]:
    """So many streams of a workflow in which nothing happens."""
    writers: list[asyncio.StreamWriter] = []
    try:
        for first in range(0, count, AT_ONCE):
            opened = await asyncio.gather(*(_open(platform, IDLE) for _ in range(min(AT_ONCE, count - first))))
            writers += [writer for _, writer in opened]
        yield
    finally:
        for writer in writers:
            writer.close()


async def _open(platform: Platform, handle: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream of a workflow, from now on."""
    reader, writer = await asyncio.open_connection(platform.host, platform.port)
    writer.write(
        f"GET /admin/workflows-executions/{handle}/subscribe HTTP/1.1\r\nhost: {platform.host}\r\n"
        f"authorization: Bearer {platform.token}\r\naccept: text/event-stream\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError(f"no stream: {head.decode(errors='replace')[:500]}")
    await reader.readuntil(b"retry: 3000\n")
    return reader, writer
