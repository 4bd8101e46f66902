"""A worker process, composed: the platform's services, the runtimes, and the engine's worker that drives them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from app.composition import Platform
from app.settings import Settings
from instances.engine.worker import EngineWorker, WorkerOptions
from instances.runtimes.document import ActionStore, DocumentRuntime
from instances.runtimes.protocol import Runtime, StoredVersion
from jobs.feed_publisher import FeedPublisher
from jobs.worker import WorkerServices, run


async def run_worker(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Work until SIGTERM or SIGINT, drain, and return. `on_ready` is called when workflows are being run."""
    async with Platform(settings).opened() as platform, worker_services(platform) as services:
        await platform.tenants.check_secret()
        await run(services, on_ready=on_ready)


@asynccontextmanager
async def worker_services(platform: Platform) -> AsyncIterator[WorkerServices]:
    """What a worker of `platform` works with; `jobs.worker` starts and stops it."""
    settings = platform.settings
    async with _runtimes(platform) as runtimes:
        feed = FeedPublisher.at(settings.redis_url) if settings.redis_url else None
        engine = EngineWorker(
            platform.db,
            platform.clock,
            platform.engine,
            {runtime.number: runtime for runtime in runtimes},
            _loader(platform),
            WorkerOptions(slots=settings.worker_slots, lease_seconds=settings.lease_seconds),
            feed.publish if feed is not None else None,
            platform.tenants.accounts.limits_of,
        )
        yield WorkerServices(
            db=platform.db,
            clock=platform.clock,
            settings=settings,
            engine=engine,
            client=platform.engine,
            tenants=platform.tenants,
            scripts=platform.versions.scripts,
            feed=feed,
        )


@asynccontextmanager
async def _runtimes(platform: Platform) -> AsyncIterator[list[Runtime]]:
    """Every runtime of this process."""
    documents = DocumentRuntime(ActionStore(platform.db), platform.egress)
    try:
        yield [documents]
    finally:
        await documents.close()


def _loader(platform: Platform) -> Callable[[UUID, UUID], Awaitable[StoredVersion]]:
    """How the engine gets a version: as `versions` stores it, in the engine's own words."""
    fields = [field.name for field in dataclasses.fields(StoredVersion)]

    async def load(account_id: UUID, version_key: UUID) -> StoredVersion:
        row = await platform.versions.load(account_id, version_key)
        return StoredVersion(**{name: getattr(row, name) for name in fields})

    return load
