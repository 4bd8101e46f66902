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


class ArqDoorbell(Courier):
    """Rings by enqueuing arq jobs; rings that come while one is on its way go together in the next."""

    def __init__(self, redis: Redis, clock: Clock, ids: Ids) -> None:
        super().__init__(redis, "doorbell")
        self._clock = clock
        self._ids = ids
        self._rings: dict[str, dict[Ref, None]] = {}

    @classmethod
    def at(cls, redis_url: str, clock: Clock, ids: Ids) -> ArqDoorbell:
        return cls(quick(redis_url), clock, ids)

    async def ring(self, job: str, refs: Sequence[Ref] = ()) -> None:
        """Announce `job`; returns at once and never raises. `refs`: the instances it is about."""
        gathered = self._rings.setdefault(job, {})
        for ref in refs:
            if len(gathered) >= MAX_REFS:
                break
            gathered[ref] = None
        self._kick()

    def _load(self, pipe: Any) -> bool:
        rings, self._rings = self._rings, {}
        now = int(self._clock.now().timestamp() * 1000)
        for job, refs in rings.items():
            packed = [(account.bytes, key.bytes, owner) for account, key, owner in refs]
            enqueue(pipe, job, packed, job_id=self._ids.uuid7().hex, at_ms=now)
        return bool(rings)


class NoDoorbell:
    """Rings nothing: the loops alone find the work. For processes without Redis, and for tests."""

    async def ring(self, job: str, refs: Sequence[Ref] = ()) -> None:
        pass
