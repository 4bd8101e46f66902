"""Ending or deleting many instances in the background: who asks (`TerminationJobs`) and who does it (`Terminator`).

A job is a row. Its work is done in chunks by any worker, each chunk and its progress in one statement, so a crash
between any two instructions loses nothing and repeats nothing. What counts as "all" is cut at the job's start: what is
created later is left alone (a run that is claimed meanwhile is ended with the rest, its worker fenced off).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol
from uuid import UUID

import asyncpg
import structlog

from instances.engine import faults
from jobs import store
from jobs.metrics import INSTANCES_TERMINATED
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids

log = structlog.get_logger(__name__)

JobKind = Literal["terminate_all", "terminate_batch", "delete_batch", "delete_workflow"]

CHUNK = 500
"""Instances of one chunk."""
DELETED_ENTRIES = 20_000
"""Journal entries one chunk of a deletion removes, about."""
JOBS_AT_ONCE = 20
"""Open jobs that take turns in one round."""
LATE_CREATES = timedelta(seconds=35)
"""A create that began before its workflow was deleted is committed or timed out after this long."""


class Bell(Protocol):
    """What rings the workers."""

    async def ring(self, job: str, refs: Sequence[tuple[UUID, UUID, int | None]] = ()) -> None: ...


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A job that will be done. `already_running`: it is an earlier one of the same kind for the same workflow, and does
    now what both ask for.
    """

    id: UUID
    already_running: bool


class TerminationJobs:
    """Starts termination jobs for an account and tells whether one is running."""

    def __init__(self, db: Database, clock: Clock, ids: Ids, doorbell: Bell) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._doorbell = doorbell

    async def start(
        self,
        account_id: UUID,
        workflow_key: UUID,
        kind: JobKind,
        *,
        keys: Iterable[UUID] | None = None,
        statuses: Iterable[int] | None = None,
        connection: asyncpg.Connection | None = None,
    ) -> StartedJob:
        """Have instances of a workflow ended (`terminate_*`) or deleted (`delete_*`) in the background.

        `terminate_all`: all unfinished ones created until now, of `statuses` (`lifecycle.Status`; None: any).
        `terminate_batch`, `delete_batch`: those of `keys`. `delete_workflow`: all there are, then the workflow's
        versions and schedules; mark the workflow deleted first. With `connection` (scoped to the account) the job is
        part of that connection's transaction.
        """
        wanted = None if statuses is None else sorted({int(status) for status in statuses})
        targets = None if keys is None else sorted(set(keys))
        if connection is not None:
            started = await self._start(connection, account_id, workflow_key, kind, wanted, targets)
        else:
            async with self._db.scope(account_id) as scoped:
                started = await self._start(scoped, account_id, workflow_key, kind, wanted, targets)
        await self._doorbell.ring("delete_batch" if kind.startswith("delete") else kind)
        return started

    async def _start(
        self,
        connection: asyncpg.Connection,
        account_id: UUID,
        workflow_key: UUID,
        kind: JobKind,
        statuses: list[int] | None,
        keys: list[UUID] | None,
    ) -> StartedJob:
        job_id = self._ids.uuid7()
        id = await store.start_job(
            connection, account_id, job_id, workflow_key, kind, statuses, keys, self._clock.now()
        )
        return StartedJob(id, already_running=id != job_id)

    async def running(self, account_id: UUID, workflow_key: UUID) -> bool:
        """Whether a job is under way that ends all instances of the workflow."""
        async with self._db.scope(account_id) as connection:
            return await store.is_terminating(connection, account_id, workflow_key)


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
