"""From deliveries to endpoints: who is due gets its request, as many at once as it has lanes.

Each request is a task of its own: the loop hands out and never waits for an answer, so a slow endpoint keeps nobody
waiting but itself. A delivery is its sender's for a minute; whoever dies leaves it to others after that.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog

from instances.engine import faults
from jobs.metrics import WEBHOOK_ATTEMPTS
from jobs.tasks import end
from jobs.webhooks import schedule
from jobs.webhooks.dispatch import KEPT
from jobs.webhooks.schemas import Attempt, DeliveryStatus
from jobs.webhooks.sealing import Sealing
from jobs.webhooks.sending import Answer, Poster
from jobs.webhooks.store import sending
from jobs.webhooks.store.sending import Claimed, Outcome
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import CannotDecrypt

DELIVERED_KEPT = timedelta(days=3)
CAPACITY = 256
"""Requests one worker has under way."""
PER_ACCOUNT = 64
"""Of these, requests of one account from which on it gets no more."""
LEASE = timedelta(seconds=60)
"""How long a delivery is its sender's."""
SECONDS = 15.0
"""What an endpoint has to answer in, all included."""

log = structlog.get_logger(__name__)


class SendDeliveries:
    """Sends what is due. `wake` is called whenever there is room again."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        poster: Poster,
        sealing: Sealing,
        *,
        chance: Callable[[], float] = random.random,
        timer: Callable[[], float] = time.perf_counter,
        seconds: float = SECONDS,
    ) -> None:
        self._db = db
        self._clock = clock
        self._poster = poster
        self._sealing = sealing
        self._chance = chance
        self._timer = timer
        self._seconds = seconds
        self._under_way: set[asyncio.Task[None]] = set()
        self._by_account: Counter[UUID] = Counter()
        self.wake: Callable[[], None] = lambda: None

    async def tick(self) -> bool:
        """Begin what is due; whether more may be."""
        room = CAPACITY - len(self._under_way)
        if room <= 0:
            return False
        endpoints = max(1, room // schedule.LANES)
        now = self._clock.now()
        full = [account for account, number in self._by_account.items() if number >= PER_ACCOUNT]
        claimed = await sending.claim(self._db, now, now + LEASE, endpoints, full)
        if claimed:
            faults.point("webhook-claimed")
        for one in claimed:
            task = asyncio.create_task(self._deliver(one))
            self._under_way.add(task)
            self._by_account[one.account_id] += 1
            task.add_done_callback(lambda task, one=one: self._over(task, one))
        return bool(claimed) and len(self._under_way) < CAPACITY

    async def drained(self) -> None:
        """Wait for everything under way."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    async def stop(self) -> None:
        """Cut off what is under way; it is sent again by whoever comes next."""
        await end(*self._under_way)

    def _over(self, task: asyncio.Task[None], one: Claimed) -> None:
        self._under_way.discard(task)
        self._by_account[one.account_id] -= 1
        if not self._by_account[one.account_id]:
            del self._by_account[one.account_id]
        if not task.cancelled():
            if error := task.exception():
                log.warning("webhook_delivery_failed", account=one.account_id.hex, error=repr(error), exc_info=error)
            self.wake()

    async def _deliver(self, one: Claimed) -> None:
        """One attempt, and what comes of it."""
        at, began = self._clock.now(), self._timer()
        answer = await self._attempt(one)
        faults.point("webhook-sent")
        milliseconds = round((self._timer() - began) * 1000)
        attempt = Attempt(at, milliseconds, answer.status, answer.error, answer.beginning)
        outcome = self._outcome(one, answer, attempt)
        WEBHOOK_ATTEMPTS.labels(outcome.status.name.lower()).inc()
        reason = await sending.finish(self._db, one, outcome, self._clock.now())
        if reason is not None:
            log.warning("webhook_disabled", account=one.account_id.hex, webhook=one.webhook_no, reason=reason)

    async def _attempt(self, one: Claimed) -> Answer:
        try:
            secrets = [self._sealing.open(one.account_id, one.id, one.secret)]
            if one.former_secret is not None:
                secrets.append(self._sealing.open(one.account_id, one.id, one.former_secret))
        except CannotDecrypt as error:
            return Answer(error=f"the endpoint's secret cannot be read: {error.message}")
        what, body, now = (one.url, one.event, one.event_id), one.body.encode(), self._clock.now()
        lane = one.account_id, one.webhook_no
        return await self._poster.send(*what, body, secrets, now, seconds=self._seconds, lane=lane)

    def _outcome(self, one: Claimed, answer: Answer, attempt: Attempt) -> Outcome:
        now = self._clock.now()
        if answer.success:
            return Outcome(
                status=DeliveryStatus.DELIVERED, attempt=attempt, next_at=None, expires_at=now + DELIVERED_KEPT
            )
        gone = answer.status == schedule.GONE
        wait = schedule.retry_after(answer.retry_after, now)
        again = None if gone else schedule.next_attempt(one.tries + 1, now, self._chance(), wait)
        return Outcome(
            status=DeliveryStatus.DEAD if again is None else DeliveryStatus.PENDING,
            attempt=attempt,
            next_at=again,
            expires_at=now + KEPT,
            slow=answer.status in schedule.SLOWED_BY,
            gone=gone,
        )
