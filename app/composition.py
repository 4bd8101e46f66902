"""Where the parts become one platform. The API, the worker and the commands all build it here, from the settings."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

from redis.asyncio import Redis

from app import __version__
from app.settings import Settings, SettingsError
from instances.egress import EgressClient, EgressPolicy
from instances.engine.client import EngineClient
from instances.inboxes.service import InboxService
from instances.live_feed import LiveFeed
from instances.runtimes.document.handlers import known_handlers
from instances.runtimes.javascript.runtime import sandbox_options as javascript_sandboxes
from instances.runtimes.python.runtime import sandbox_options as python_sandboxes
from instances.runtimes.scripts.checker import SandboxChecker
from instances.sandbox.host import SandboxHost
from instances.sandbox.options import SandboxOptions
from instances.service import InstanceService
from jobs.doorbell import ArqDoorbell
from jobs.redis_clients import AWAY, quick
from jobs.termination.requests import TerminationJobs
from jobs.webhooks.sending import Poster
from jobs.webhooks.service import WebhookService
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.service import TenantService
from versions.deployments.service import DeploymentService
from versions.service import VersionService

SANDBOXES: dict[str, Callable[[], SandboxOptions]] = {"javascript": javascript_sandboxes, "python": python_sandboxes}
"""How the sandboxes of each language of scripts are made."""


class Platform:
    """Every service of one process, wired once.

    Made closed; :meth:`opened` connects and builds, and takes everything down again in the reverse order. `state` is
    what `/readyz` goes by; whoever runs the process calls :meth:`drain` before it stops taking requests.
    """

    db: Database
    redis: Redis
    clock: Clock
    ids: Ids
    egress: EgressClient
    tenants: TenantService
    versions: VersionService
    deployments: DeploymentService
    engine: EngineClient
    instances: InstanceService
    jobs: TerminationJobs
    webhooks: WebhookService

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state: Literal["starting", "ready", "draining"] = "starting"
        self.on_drain: list[Callable[[], None]] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Platform]:
        """The platform, connected. Raises :class:`SettingsError` when a setting is missing, before connecting."""
        settings = self.settings
        settings.require_secret()
        if not settings.database_url or not settings.redis_url:
            raise SettingsError("MILLRACE_DATABASE_URL and MILLRACE_REDIS_URL must be set (or run `millrace dev`).")
        async with AsyncExitStack() as stack:
            self.db = Database(settings.database_url, size=settings.db_pool_size)
            stack.push_async_callback(self.db.close)
            await self.db.connect()
            self.clock = Clock(await self.db.now())
            self.ids = Ids(self.clock)
            await self._build(stack)
            self.state = "ready"
            try:
                yield self
            finally:
                self.drain()

    def drain(self) -> None:
        """From now on `/readyz` says no and live streams end, while requests are still answered."""
        self.state = "draining"
        for end in self.on_drain:
            end()

    async def _build(self, stack: AsyncExitStack) -> None:
        settings, db, clock, ids = self.settings, self.db, self.clock, self.ids
        self.redis = quick(settings.redis_url)
        stack.push_async_callback(_close, self.redis)
        doorbell = ArqDoorbell.at(settings.redis_url, clock, ids)
        stack.push_async_callback(doorbell.close)
        self.jobs = TerminationJobs(db, clock, ids, doorbell)
        self.tenants = TenantService(db, clock, ids, settings, self.redis)
        stack.push_async_callback(self.tenants.close)
        # One for all who call out in this process, so that limits on calls hold for all of them together.
        self.egress = EgressClient(EgressPolicy.from_settings(settings))
        stack.push_async_callback(self.egress.close)
        poster = Poster(self.egress, __version__)
        self.webhooks = WebhookService(
            db, clock, ids, self.tenants, poster, doorbell, secret_on_update=settings.webhook_secret_on_update
        )
        self.versions = VersionService(
            db,
            clock,
            ids,
            self.tenants,
            handlers=known_handlers,
            check_url=self.egress.policy.problem,
            vet_url=self.egress.vet,
            checker=SandboxChecker(self._sandboxes(stack)),
        )
        self.inboxes = InboxService(db, clock, self.tenants)
        self.deployments = DeploymentService(db, clock, ids, self.tenants, self.versions.scripts)
        self.engine = EngineClient(db, clock, doorbell)
        await self.engine.start()
        stack.push_async_callback(self.engine.stop)
        feed = LiveFeed.at(settings.redis_url)
        stack.push_async_callback(feed.stop)
        self.instances = InstanceService(db, clock, ids, self.tenants, self.versions, self.engine, self.jobs, feed)
        stack.push_async_callback(self.instances.follow.stop)

    def _sandboxes(self, stack: AsyncExitStack) -> dict[str, SandboxHost]:
        """Where uploads are looked at, by language. Nothing is started before the first."""
        hosts = {language: SandboxHost(language, options()) for language, options in SANDBOXES.items()}
        for host in hosts.values():
            stack.push_async_callback(host.close)
        return hosts


async def _close(redis: Redis) -> None:
    """Close a client whose server may be gone."""
    with contextlib.suppress(*AWAY):
        await redis.aclose()
