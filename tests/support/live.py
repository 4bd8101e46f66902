"""A running Millrace in the test's process: a real HTTP server and real workers on a real database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from app.composition import Platform
from app.embedded.valkey import EmbeddedValkey
from app.main import create_app
from app.settings import Settings
from app.worker import worker_services
from jobs.worker import WorkerProcess
from tests.support.databases import Databases


@dataclass(frozen=True)
class Live:
    """Where it listens, and its inside."""

    base_url: str
    platform: Platform


@asynccontextmanager
async def live(settings: Settings, *, workers: int = 1) -> AsyncIterator[Live]:
    """Serve on a free port of 127.0.0.1, with `workers` workers, until the context is left."""
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(Platform(settings).opened())
        for _ in range(workers):
            await stack.enter_async_context(working(platform))
        yield Live(await stack.enter_async_context(_served(settings, platform)), platform)


@asynccontextmanager
async def working(platform: Platform) -> AsyncIterator[WorkerProcess]:
    """A worker of the platform."""
    async with worker_services(platform) as services:
        process = WorkerProcess(services)
        await process.start()
        try:
            yield process
        finally:
            await process.stop()


@asynccontextmanager
async def _served(settings: Settings, platform: Platform) -> AsyncIterator[str]:
    config = uvicorn.Config(
        create_app(settings, platform=platform),
        port=0,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Uvicorn that leaves signals to the test runner."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@asynccontextmanager
async def live_for_tests(
    databases: Databases, valkey: EmbeddedValkey, *, workers: int = 1, **settings: Any
) -> AsyncIterator[Live]:
    """A Millrace on a database of its own, for fixtures that share one between tests; with more `settings`."""
    async with settings_for_tests(databases, valkey, **settings) as known, live(known, workers=workers) as running:
        yield running


@asynccontextmanager
async def settings_for_tests(databases: Databases, valkey: EmbeddedValkey, **settings: Any) -> AsyncIterator[Settings]:
    """Settings with a database of their own, for fixtures that tests share; with more `settings`."""
    name = await databases.create()
    yield Settings(
        database_url=databases.dsn(name),
        redis_url=valkey.url(await databases.redis_number()),
        secret="of the live tests, and certainly long enough",
        metrics_bind="",
        **settings,
    )
    await databases.drop(name)
