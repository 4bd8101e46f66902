"""What a worker does about webhooks, in one place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from uuid import UUID

from instances.search.recorded import Recorder
from jobs.loops.rotation import RenewSecrets
from jobs.webhooks.dispatch import DispatchEvents
from jobs.webhooks.envelope import Payloads
from jobs.webhooks.retiring import RetireDeliveries
from jobs.webhooks.sender import SendDeliveries
from jobs.webhooks.service import WebhookService
from tenants.clock import Clock
from tenants.database import Database
from versions.definitions.service import DefinitionService

SETTLE = 0.05
"""Seconds after a flush until its events are looked for: many flushes share one look."""


class WebhookDuties:
    """The loops' ticks: `events`, `deliveries`, `retire` and `renew`. `heed` makes what a flush brought go out soon."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        recorder: Recorder,
        definitions: DefinitionService,
        payloads: Payloads,
        service: WebhookService,
    ) -> None:
        self.events = DispatchEvents(db, clock, recorder, definitions, payloads, self._dispatched)
        self.deliveries = SendDeliveries(db, clock, service.poster, service.sealing)
        self.retire = RetireDeliveries(db, clock)
        self.renew = RenewSecrets(service)
        self._wake_events: Callable[[], None] = lambda: None
        self._wake_deliveries: Callable[[], None] = lambda: None
        self._soon: asyncio.TimerHandle | None = None

    def wakes(self, events: Callable[[], None], deliveries: Callable[[], None]) -> None:
        """How the loops are woken."""
        self._wake_events, self._wake_deliveries = events, deliveries
        self.deliveries.wake = deliveries

    def wake(self) -> None:
        """Look for both now."""
        self._wake_events()
        self._wake_deliveries()

    def heed(self, grown: Iterable[tuple[UUID, UUID]]) -> None:
        """Instances (account, key) have grown. Costs nothing for accounts in which nobody listens."""
        if self._soon is None and any(self.events.listens(account_id) for account_id, _ in grown):
            self._soon = asyncio.get_running_loop().call_later(SETTLE, self._look)

    async def drain(self, seconds: float) -> None:
        """Let requests under way end within that time; begin no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.deliveries.drained()

    async def stop(self) -> None:
        """Cut off what is under way."""
        if self._soon is not None:
            self._soon.cancel()
        await self.deliveries.stop()

    def _look(self) -> None:
        self._soon = None
        self._wake_events()

    def _dispatched(self) -> None:
        self._wake_deliveries()
