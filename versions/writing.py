"""What every deployment writes, whichever face it came through: the version, the current one, the schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from tenants.auth import Caller
from tenants.ids import Ids
from tenants.limits import Limits
from versions import schedules as timing
from versions.errors import CronNotAllowed, ScriptElsewhere, TooManySchedules, TooManyWorkflows
from versions.schemas import ACTIVE, ScheduleRow, WorkflowRow
from versions.settings import Settings
from versions.sources import Source
from versions.store import schedules as schedule_store
from versions.store import versions as version_store
from versions.store import workflows as workflow_store

Connection = asyncpg.Connection


class VersionWriter:
    """Writes versions inside a caller's transaction."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    async def insert_workflow(
        self,
        connection: Connection,
        caller: Caller,
        handle: str,
        workspace_id: UUID | None,
        limits: Limits,
        now: datetime,
    ) -> WorkflowRow | None:
        """A new workflow without a version; None when its handle is taken. Raises :class:`TooManyWorkflows`."""
        account_id = caller.account_id
        if limits.workflows is not None:
            await workflow_store.lock_account(connection, account_id)
            if await workflow_store.count_workflows(connection, account_id) >= limits.workflows:
                raise TooManyWorkflows(f"the account has {limits.workflows} workflows, which is all it may have")
        return await workflow_store.insert_workflow(
            connection, account_id, self._ids.uuid7(), handle, workspace_id, now
        )

    async def deploy(
        self,
        connection: Connection,
        caller: Caller,
        workflow: WorkflowRow,
        source: Source,
        settings: Settings,
        limits: Limits,
        now: datetime,
    ) -> WorkflowRow | None:
        """Make `source` the current version of the locked `workflow`; None when it is that already.

        Raises :class:`ScriptElsewhere`, :class:`CronNotAllowed`, :class:`TooManySchedules`.
        """
        if source.workspace_id not in (None, workflow.workspace_id):
            where = f"script {source.script_name!r} and workflow {workflow.handle!r} are in two workspaces"
            raise ScriptElsewhere(f"{where}: a workflow runs scripts of its own")
        given = _text(settings.given)
        identity = source.runtime, source.class_name, source.source_hash, source.script_id, given, source.dialect
        if await version_store.is_same(connection, caller.account_id, workflow.current_version, *identity):
            return None
        workflow = await self._new_version(connection, caller, workflow, source, settings, given, now)
        await self._reschedule(connection, workflow, settings.schedules, limits, now)
        return workflow

    async def _new_version(
        self,
        connection: Connection,
        caller: Caller,
        workflow: WorkflowRow,
        source: Source,
        settings: Settings,
        given: str,
        now: datetime,
    ) -> WorkflowRow:
        account_id, version_key = workflow.account_id, self._ids.uuid7()
        await version_store.insert_version(
            connection,
            account_id,
            version_key,
            workflow.workflow_key,
            source.language,
            source.runtime,
            source.class_name,
            source.script_id,
            source.source,
            source.source_hash,
            source.graph,
            given,
            source.dialect,
            source.original,
            settings.step_limit,
            settings.success_retention_ms,
            settings.error_retention_ms,
            caller.actor,
            now,
        )
        values = (
            source.display_name,
            source.description,
            source.script_name,
            source.class_name,
            settings.concurrency,
            now,
            source.events,
        )
        return await workflow_store.set_current_version(
            connection, account_id, workflow.workflow_key, version_key, values
        )

    async def _reschedule(
        self, connection: Connection, workflow: WorkflowRow, wanted: list[ScheduleRow], limits: Limits, now: datetime
    ) -> None:
        account_id, key = workflow.account_id, workflow.workflow_key
        if wanted and limits.schedules is not None:
            if limits.schedules == 0:
                raise CronNotAllowed()
            await workflow_store.lock_account(connection, account_id)
            if await schedule_store.count_other_schedules(connection, account_id, key) + len(wanted) > limits.schedules:
                raise TooManySchedules(f"the account may have {limits.schedules} schedules in all")
        gone, new = timing.changes(await schedule_store.schedules(connection, account_id, key), wanted)
        if gone:
            await schedule_store.delete_schedules(connection, account_id, [row.id for row in gone])
        if new:
            resting: dict[str, Any] = {} if workflow.status == ACTIVE else {"next_at": None}
            rows = [msgspec.structs.replace(row, id=self._ids.uuid7(), **resting) for row in new]
            await schedule_store.insert_schedules(connection, account_id, key, rows, now)


async def wake_schedules(connection: Connection, workflow: WorkflowRow, now: datetime) -> None:
    """Let the schedules of a workflow that was not active fire again, from now on: nothing is caught up."""
    rows = await schedule_store.schedules(connection, workflow.account_id, workflow.workflow_key)
    waking = [msgspec.structs.replace(row, next_at=timing.next_occurrence(row, now)) for row in rows]
    await schedule_store.set_next(connection, workflow.account_id, waking)


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
