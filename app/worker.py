"""A worker process, composed: the platform's services, the runtimes, and the engine's worker that drives them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import structlog

from app.composition import SANDBOXES, Platform
from app.faces.orchestration.webhook_payloads import WebhookPayloads
from app.settings import Settings
from instances.engine.worker import EngineWorker, WorkerOptions
from instances.runtimes.document import ActionStore, DocumentRuntime
from instances.runtimes.protocol import RUNTIME_JAVASCRIPT, RUNTIME_PYTHON, Runtime, StoredVersion
from instances.runtimes.scripts.bindings import Bindings
from instances.runtimes.scripts.digests import digest_handlers
from instances.runtimes.scripts.fetching import Fetching
from instances.runtimes.scripts.isolate import Isolate
from instances.runtimes.scripts.loading import CPU_MS, LoadedScript
from instances.runtimes.scripts.program import Surroundings
from instances.runtimes.scripts.runtime import Load, ScriptRuntime
from instances.runtimes.scripts.streams import IncomingStreams
from instances.runtimes.scripts.waiting import timer_handlers
from instances.sandbox.errors import SandboxUnavailable
from instances.sandbox.host import SandboxHost
from instances.sandbox.pool import PoolLimits, SandboxPool
from instances.search.recorded import Recorder
from jobs.feed_publisher import FeedPublisher
from jobs.webhooks.duties import WebhookDuties
from jobs.worker import WorkerServices, run

log = structlog.get_logger(__name__)

SCRIPTS = {"javascript": RUNTIME_JAVASCRIPT, "python": RUNTIME_PYTHON}
"""Runtimes of scripts, by language."""


async def run_worker(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Work until SIGTERM or SIGINT, drain, and return. `on_ready` is called when workflows are being run."""
    async with Platform(settings).opened() as platform, worker_services(platform) as services:
        await platform.tenants.check_secret()
        await run(services, on_ready=on_ready)


@asynccontextmanager
async def worker_services(platform: Platform) -> AsyncIterator[WorkerServices]:
    """What a worker of `platform` works with; `jobs.worker` starts and stops it."""
    settings = platform.settings
    async with _runtimes(platform) as runtimes, AsyncExitStack() as stack:
        feed = FeedPublisher.at(settings.redis_url) if settings.redis_url else None
        webhooks = _webhooks(platform)

        def flushed(grown: Sequence[tuple[UUID, UUID]]) -> None:
            if feed is not None:
                feed.publish(grown)
            webhooks.heed(grown)

        engine = EngineWorker(
            platform.db,
            platform.clock,
            platform.engine,
            {runtime.number: runtime for runtime in runtimes},
            _loader(platform),
            WorkerOptions(slots=settings.worker_slots, lease_seconds=settings.lease_seconds),
            flushed,
            platform.tenants.accounts.limits_of,
        )
        for language in SCRIPTS:
            offering = asyncio.create_task(_offer_scripts(platform, stack, engine, language, settings.sandboxes))
            stack.push_async_callback(_cancelled, offering)
        yield WorkerServices(
            db=platform.db,
            clock=platform.clock,
            settings=settings,
            engine=engine,
            client=platform.engine,
            tenants=platform.tenants,
            scripts=platform.versions.scripts,
            feed=feed,
            webhooks=webhooks,
        )


def _webhooks(platform: Platform) -> WebhookDuties:
    return WebhookDuties(
        platform.db,
        platform.clock,
        Recorder(platform.db, platform.instances.reader),
        platform.versions.definitions,
        WebhookPayloads(),
        platform.webhooks,
    )


@asynccontextmanager
async def _runtimes(platform: Platform) -> AsyncIterator[list[Runtime]]:
    """Every runtime of this process."""
    documents = DocumentRuntime(ActionStore(platform.db), platform.egress)
    try:
        yield [documents]
    finally:
        await documents.close()


async def _offer_scripts(
    platform: Platform, stack: AsyncExitStack, engine: EngineWorker, language: str, sandboxes: int
) -> None:
    """Add a language's runtime once its sandboxes stand: documents need not wait for that, nor fail with it."""
    host = SandboxHost(language, SANDBOXES[language]())
    stack.push_async_callback(host.close)
    pool: SandboxPool[Isolate] = SandboxPool(host, platform.clock, PoolLimits.of(sandboxes))
    stack.push_async_callback(pool.close)
    try:
        await pool.warm()
    except SandboxUnavailable as error:
        log.warning("scripts_do_not_run", language=language, reason=error.reason)
        return
    around = Surroundings(
        pool=pool,
        handlers={
            **timer_handlers(),
            **digest_handlers(),
            **Bindings(platform.instances).handlers(),
            **Fetching(platform.egress).handlers(),
            **IncomingStreams(platform.instances.streams).handlers(),
        },
        now=platform.clock.now,
    )
    engine.offer(ScriptRuntime(SCRIPTS[language], _script_loader(platform), around))


def _script_loader(platform: Platform) -> Load:
    async def load(account_id: UUID, script_id: UUID) -> LoadedScript:
        found = await platform.versions.scripts.runnable(account_id, script_id)
        limits = await platform.tenants.limits(account_id)
        return LoadedScript.of(
            found.script,
            variables=found.variables,
            flags=found.flags,
            workflows=found.workflows,
            exports=found.classes,
            cpu_ms=min(filter(None, (found.cpu_ms or CPU_MS, limits.step_cpu_ms))),
            subrequests=found.subrequests,
        )

    return load


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _loader(platform: Platform) -> Callable[[UUID, UUID], Awaitable[StoredVersion]]:
    """How the engine gets a version: as `versions` stores it, in the engine's own words."""
    fields = [field.name for field in dataclasses.fields(StoredVersion)]

    async def load(account_id: UUID, version_key: UUID) -> StoredVersion:
        row = await platform.versions.load(account_id, version_key)
        return StoredVersion(**{name: getattr(row, name) for name in fields})

    return load
