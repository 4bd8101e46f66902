"""A worker process: the engine's worker, the arq worker that wakes it, and the loops; from start to drained.

The caller composes the services (`WorkerServices`), awaits :func:`run` and closes its own afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog

from app.settings import Settings
from jobs.arq_worker import WakeWorker
from jobs.channels import PokeListener, Pokes
from jobs.feed_publisher import FeedPublisher
from jobs.figures.backlog import ReportBacklog
from jobs.figures.roll_up import FoldCounters, MeasureNodes
from jobs.functions import Claimer, JobFunctions
from jobs.loops.look import LookForWork
from jobs.loops.loop import Loop
from jobs.loops.rotation import RenewSecrets, Sealed
from jobs.loops.store import Duty
from jobs.metrics import WORKER_HEARTBEAT, WORKER_READY
from jobs.retention.retiring import ExpireRows, Forgetful, RetireInstances
from jobs.retention.workflows import PruneWorkflows
from jobs.schedules.firing import Announcer, FireSchedules
from jobs.termination.terminator import Terminator
from jobs.webhooks.duties import WebhookDuties
from tenants.clock import Clock
from tenants.database import Database
from tenants.limits import Limits
from versions.deployments.pruning import PruneScripts

log = structlog.get_logger(__name__)

SOON = 1.0
"""Interval of the look for what somebody waits for, seconds."""
SELDOM = 30.0
"""Interval of housekeeping, and of loops that are woken when they have something to do, seconds."""
REST = 500.0
"""What looks at all there is rests for this many times as long as it took: 0.2 % of a core. Counting 100,000 unfinished
instances takes about 50 ms, so their figures are half a minute old.
"""


class EngineWorker(Claimer, Protocol):
    """The engine's worker (`instances.engine.worker.EngineWorker`)."""

    async def start(self) -> None: ...

    async def drain(self, grace: float) -> None:
        """Claim nothing more, let running turns end within `grace` seconds, park and release the rest."""
        ...

    async def stop(self) -> None: ...


class Tenants(Forgetful, Protocol):
    """`tenants.service.TenantService`."""

    async def limits(self, account_id: UUID) -> Limits:
        """What the account may use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """What a worker process works with. All of it is open; :func:`run` starts and stops `engine` only."""

    db: Database
    clock: Clock
    settings: Settings
    tenants: Tenants
    engine: EngineWorker
    client: Announcer
    """The engine's client, started: it rings for what schedules create."""
    scripts: Sealed | None = None
    """Whose secrets are renewed while `MILLRACE_SECRET_PREVIOUS` is set."""
    feed: FeedPublisher | None = None
    """What the engine's worker was given as `on_flushed`; closed at the end."""
    webhooks: WebhookDuties | None = None
    """Telling endpoints what happens; the engine's worker tells it of flushes."""


class WorkerProcess:
    """The parts of one worker and their order. `start`, then `drain` or not, then `stop`."""

    def __init__(self, services: WorkerServices) -> None:
        self._services = services
        db, clock, url = services.db, services.clock, services.settings.redis_url
        self._pokes = Pokes.at(url) if url else None
        terminator = Terminator(db, clock, self._tell)
        self._termination = Loop("termination", terminator.tick, interval=SELDOM)
        fire = FireSchedules(db, clock, services.client, services.tenants.limits)
        due: dict[Duty, Loop] = {
            "termination": self._termination,
            "schedules": Loop("schedules", fire.tick, interval=SELDOM),
            "retention": Loop("retention", RetireInstances(db, clock).tick, interval=SELDOM),
        }
        if services.webhooks is not None:
            events, deliveries = services.webhooks.events, services.webhooks.deliveries
            due["webhook_events"] = Loop("webhook_events", events.tick, interval=SELDOM)
            due["webhook_deliveries"] = Loop("webhook_deliveries", deliveries.tick, interval=SELDOM)
            services.webhooks.wakes(due["webhook_events"].wake, due["webhook_deliveries"].wake)
        self._loops = [
            *due.values(),
            Loop("look", LookForWork(db, clock, due).tick, interval=SOON),
            Loop("expiry", ExpireRows(db, clock, services.tenants).tick, interval=SELDOM),
            Loop("workflows", PruneWorkflows(db, clock).tick, interval=SELDOM),
            Loop("scripts", PruneScripts(db, clock).tick, interval=SELDOM),
            Loop("counters", FoldCounters(db).tick, interval=SELDOM, rest=REST),
            Loop("node_statistics", MeasureNodes(db).tick, interval=5 * SOON),
            Loop("backlog", ReportBacklog(db, clock).tick, interval=10 * SOON, rest=REST),
            Loop("heartbeat", self._beat, interval=SOON),
        ]
        if services.scripts is not None and services.settings.secret_previous:
            self._loops.append(Loop("secrets", RenewSecrets(services.scripts).tick, interval=SELDOM))
        if services.webhooks is not None:
            self._loops.append(Loop("webhooks_kept", services.webhooks.retire.tick, interval=SELDOM))
            if services.settings.secret_previous:
                self._loops.append(Loop("webhook_secrets", services.webhooks.renew.tick, interval=SELDOM))
        self._arq: WakeWorker | None = None
        self._listener: PokeListener | None = None

    async def start(self) -> None:
        """Begin to work. Redis may be away: the loops of the engine find everything without it."""
        services = self._services
        await services.engine.start()
        if url := services.settings.redis_url:
            functions = JobFunctions(services.engine, self._tell, self._termination.wake, self._deliver)
            self._arq = WakeWorker(url, functions.by_name())
            self._listener = PokeListener.at(url, services.engine.worker_id, services.engine.poke)
            await self._listener.start()
            await self._arq.start()
        for loop in self._loops:
            await loop.start()
        WORKER_READY.set(1)
        log.info("worker_ready", worker=services.engine.worker_id, redis=bool(url))

    async def drain(self) -> None:
        """Take nothing new; give running turns their grace; release the rest for other workers."""
        WORKER_READY.set(0)
        log.info("worker_draining", seconds=self._services.settings.drain_seconds)
        await self._stop_loops()
        seconds, webhooks = self._services.settings.drain_seconds, self._services.webhooks
        await asyncio.gather(
            self._services.engine.drain(seconds), *([] if webhooks is None else [webhooks.drain(seconds)])
        )

    async def stop(self) -> None:
        """Stop everything now. What is still held goes to other workers when the lease is over."""
        WORKER_READY.set(0)
        await self._stop_loops()
        if self._services.webhooks is not None:
            await self._services.webhooks.stop()
        await self._services.engine.stop()
        for part in (self._listener, self._arq):
            if part is not None:
                await part.stop()
        for courier in (self._pokes, self._services.feed):
            if courier is not None:
                await courier.close()
        log.info("worker_stopped")

    async def _stop_loops(self) -> None:
        if self._arq is not None:
            await self._arq.retire()
        await asyncio.gather(*(loop.stop() for loop in self._loops))

    def _tell(self, owner: int, runs: list) -> None:
        """Poke runs a worker holds; it may be this one."""
        if owner == self._services.engine.worker_id:
            for account_id, key in runs:
                self._services.engine.poke(account_id, key)
        elif self._pokes is not None:
            self._pokes.poke(owner, runs)

    def _deliver(self) -> None:
        """There are deliveries, or endpoints that listen anew."""
        if self._services.webhooks is not None:
            self._services.webhooks.wake()

    async def _beat(self) -> bool:
        WORKER_HEARTBEAT.set(self._services.clock.now().timestamp())
        return False


async def run(
    services: WorkerServices, *, stop: asyncio.Event | None = None, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Work until SIGTERM or SIGINT (or, given `stop`, until it is set), drain, and return.

    `on_ready` is called once, when runs are being claimed. A second signal ends the drain: what is still running is
    dropped and taken over by other workers.
    """
    if stop is not None:
        await _run(services, stop, asyncio.Event(), on_ready)
        return
    asked, forced = asyncio.Event(), asyncio.Event()
    with _signals(asked, forced):
        await _run(services, asked, forced, on_ready)


async def _run(
    services: WorkerServices, asked: asyncio.Event, forced: asyncio.Event, on_ready: Callable[[], None]
) -> None:
    process = WorkerProcess(services)
    try:
        await process.start()
        on_ready()
        await asked.wait()
        draining = asyncio.create_task(process.drain())
        hurry = asyncio.create_task(forced.wait())
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurry):
            if not task.done():
                task.cancel()
        outcome = (await asyncio.gather(draining, hurry, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            log.error("drain_failed", error=repr(outcome), exc_info=outcome)
    finally:
        await process.stop()


@contextlib.contextmanager
def _signals(asked: asyncio.Event, forced: asyncio.Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `asked`, the next one `forced`."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (forced if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
