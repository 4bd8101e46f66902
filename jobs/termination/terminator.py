"""Doing termination jobs, chunk by chunk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from instances.engine import faults
from jobs.metrics import INSTANCES_TERMINATED
from jobs.termination import store
from tenants.clock import Clock
from tenants.database import Database

log = structlog.get_logger(__name__)

CHUNK = 500
"""Instances of one chunk."""
DELETED_ENTRIES = 20_000
"""Journal entries one chunk of a deletion removes, about."""
JOBS_AT_ONCE = 20
"""Open jobs that take turns in one round."""
LATE_CREATES = timedelta(seconds=35)
"""A create that began before its workflow was deleted is committed or timed out after this long."""


class Terminator:
    """Does the open jobs, a chunk of each in turn. Safe on any number of workers at once."""

    def __init__(self, db: Database, clock: Clock, tell: Callable[[int, list[tuple[UUID, UUID]]], Any]) -> None:
        self._db = db
        self._clock = clock
        self._tell = tell
        """`tell(worker, [(account, key), …])`: these runs are over, stop them. A hint: they are fenced already."""

    async def tick(self) -> bool:
        """A chunk of each open job; whether any of them got further."""
        jobs = await store.open_jobs(self._db, JOBS_AT_ONCE)
        progress = [await self._work(job) for job in jobs]
        return any(progress)

    async def _work(self, job: store.OpenJob) -> bool:
        """One chunk. A job that fails is logged and left for later, so that the others go on."""
        now = self._clock.now()
        try:
            chunk = await store.work_chunk(self._db, job, CHUNK, now, DELETED_ENTRIES)
            if chunk.looked_at == 0 and chunk.taken and job.kind == "delete_workflow":
                return await store.finish_deleted(self._db, job, now, now - LATE_CREATES)
        except asyncpg.PostgresError as error:
            log.warning("termination_chunk_failed", account=job.account_id.hex, job=str(job.id), error=repr(error))
            return False
        if chunk.looked_at:
            faults.point("termination-chunk")
        INSTANCES_TERMINATED.labels(job.kind).inc(chunk.ended)
        self._notify(job.account_id, chunk.held)
        return chunk.looked_at > 0 and not chunk.finished and (chunk.ended > 0 or job.kind != "delete_workflow")

    def _notify(self, account_id: UUID, held: list[tuple[UUID, int]]) -> None:
        by_worker: defaultdict[int, list[tuple[UUID, UUID]]] = defaultdict(list)
        for key, owner in held:
            by_worker[owner].append((account_id, key))
        for owner, runs in by_worker.items():
            self._tell(owner, runs)
