"""The doorbell: what writers ring after their commit, so that workers need not wait for their next look.

`Doorbell` is the engine's protocol (`instances.engine.client`). A ring carries hints only; whoever misses one finds
the work in PostgreSQL within a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from jobs.arq_worker import enqueue
from jobs.courier import Courier
from jobs.redis_clients import quick
from tenants.clock import Clock
from tenants.ids import Ids

Ref = tuple[UUID, UUID, int | None]
"""Account, instance key, and the worker that holds the run (None: nobody)."""

MAX_REFS = 500
"""References one job carries. Beyond it the rest is left to the holders' next flush and to the loops."""


class ArqDoorbell(Courier[Ref]):
    """Rings by enqueuing arq jobs; rings that come while one is on its way go together in the next."""

    def __init__(self, redis: Redis, clock: Clock, ids: Ids) -> None:
        super().__init__(redis, "doorbell", MAX_REFS)
        self._clock = clock
        self._ids = ids

    @classmethod
    def at(cls, redis_url: str, clock: Clock, ids: Ids) -> ArqDoorbell:
        return cls(quick(redis_url), clock, ids)

    async def ring(self, job: str, refs: Sequence[Ref] = ()) -> None:
        """Announce `job`; returns at once and never raises. `refs`: the instances it is about."""
        self._send(job, refs)

    def _pack(self, pipe: Any, address: str, items: list[Ref]) -> None:
        packed = [(account.bytes, key.bytes, owner) for account, key, owner in items]
        now = int(self._clock.now().timestamp() * 1000)
        enqueue(pipe, address, packed, job_id=self._ids.uuid7().hex, at_ms=now)


class NoDoorbell:
    """Rings nothing: the loops alone find the work. For processes without Redis, and for tests."""

    async def ring(self, job: str, refs: Sequence[Ref] = ()) -> None:
        pass
