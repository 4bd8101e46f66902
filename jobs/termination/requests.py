"""Asking for instances to be ended or deleted in the background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

import asyncpg

from jobs.termination import store
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids

JobKind = Literal["terminate_all", "terminate_batch", "delete_batch", "delete_workflow"]


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
