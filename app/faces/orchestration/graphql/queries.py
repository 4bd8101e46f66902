"""What can be asked for. Of an id that does not exist the answer is null."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from app.faces.orchestration import executions, tasks, views
from app.faces.orchestration.graphql import webhooks
from app.faces.orchestration.graphql.context import Asked, Context, page
from app.faces.orchestration.graphql.scalars import DateTime, ExecutionStatus
from app.faces.orchestration.graphql.types import (
    ProgressReport,
    TaskExecution,
    ToldExecution,
    WorkflowDefinition,
    WorkflowExecution,
    in_status,
    told_definition,
    told_executions,
    told_progress,
    told_task,
)
from instances.errors import InstanceNotFound, StepNotFound
from instances.listing import COUNTED_ROWS
from instances.search.query import Field, Search, between, every


@strawberry.type
class Viewer:
    id: strawberry.ID
    username: str
    role: str
    account_id: strawberry.ID


async def _search(
    context: Context,
    status: ExecutionStatus | None,
    workflow: str | None,
    after: Any,
    before: Any,
    **rest: Any,
) -> Search | None:
    """The search for executions; None when nothing can be found. An unset filter is no filter."""
    context.caller.require("executions:read")
    workflows = None
    if workflow:
        found = await context.definitions.load(workflow)
        if found is None:
            return None
        workflows = [found.workflow.workflow_key]
    since, until = (moment if isinstance(moment, datetime) else None for moment in (after, before))
    where = every(in_status(status or None), between(Field.STARTED_AT, since, until))
    return Search(where=where, workflows=workflows, **rest)


@strawberry.type
class Query:
    @strawberry.field
    def me(self, info: Asked) -> Viewer:
        caller = info.context.caller
        told = {
            "id": str(caller.credential_id),
            "username": caller.name,
            "role": caller.role,
            "accountId": caller.account_id.hex,
        }
        return told  # type: ignore[return-value]

    @strawberry.field
    async def workflow_definition(self, info: Asked, id: strawberry.ID) -> WorkflowDefinition | None:
        found = await info.context.definitions.load(id)
        return None if found is None else await told_definition(info.context, found)  # type: ignore[return-value]

    @strawberry.field
    async def workflow_definitions(
        self, info: Asked, search: str | None = strawberry.UNSET, limit: int | None = 10, offset: int | None = 0
    ) -> list[WorkflowDefinition]:
        rows, start = page(limit, offset)
        context = info.context
        found, _ = await context.platform.versions.definitions.page(
            context.caller, limit=rows, offset=start, search=search or None
        )
        return [await told_definition(context, one) for one in found]  # type: ignore[misc]

    @strawberry.field
    async def workflow_definition_count(self, info: Asked, search: str | None = strawberry.UNSET) -> int:
        definitions = info.context.platform.versions.definitions
        _, total = await definitions.page(info.context.caller, limit=1, offset=0, search=search or None)
        return min(total, COUNTED_ROWS)

    @strawberry.field
    async def workflow_execution(self, info: Asked, id: strawberry.ID) -> WorkflowExecution | None:
        try:
            shown = await executions.find(info.context.platform.instances, info.context.caller, id)
        except InstanceNotFound:
            return None
        return ToldExecution(shown)  # type: ignore[return-value]

    @strawberry.field
    async def workflow_executions(
        self,
        info: Asked,
        status: ExecutionStatus | None = strawberry.UNSET,
        workflow_definition_id: strawberry.ID | None = strawberry.UNSET,
        started_after: DateTime | None = strawberry.UNSET,
        started_before: DateTime | None = strawberry.UNSET,
        limit: int | None = 10,
        offset: int | None = 0,
    ) -> list[WorkflowExecution]:
        rows, start = page(limit, offset)
        which = status, workflow_definition_id, started_after, started_before
        search = await _search(info.context, *which, limit=rows, offset=start, counted=False)
        return [] if search is None else await told_executions(info.context, search)  # type: ignore[return-value]

    @strawberry.field
    async def workflow_execution_count(
        self,
        info: Asked,
        status: ExecutionStatus | None = strawberry.UNSET,
        workflow_definition_id: strawberry.ID | None = strawberry.UNSET,
        started_after: DateTime | None = strawberry.UNSET,
        started_before: DateTime | None = strawberry.UNSET,
    ) -> int:
        which = status, workflow_definition_id, started_after, started_before
        search = await _search(info.context, *which, limit=0, payloads=False)
        if search is None:
            return 0
        return (await info.context.platform.instances.searcher.search(info.context.caller, search)).total or 0

    @strawberry.field
    async def task_execution(self, info: Asked, id: strawberry.ID) -> TaskExecution | None:
        try:
            found = await tasks.find(info.context.platform.instances, info.context.caller, id)
        except StepNotFound:
            return None
        return told_task(*found)  # type: ignore[return-value]

    @strawberry.field
    async def task_executions(
        self,
        info: Asked,
        workflow_execution_id: strawberry.ID,
        status: ExecutionStatus | None = strawberry.UNSET,
        limit: int | None = 10,
        offset: int | None = 0,
    ) -> list[TaskExecution]:
        rows, start = page(limit, offset)
        try:
            shown = await executions.find(info.context.platform.instances, info.context.caller, workflow_execution_id)
        except InstanceNotFound:
            return []
        states = views.TASK_STATUSES[status.value] if status else None
        steps = [one for one in views.tasks_of(shown.execution) if states is None or one.state in states]
        return [told_task(shown, one) for one in steps[start : start + rows]]  # type: ignore[misc]

    @strawberry.field
    async def progress_report(self, info: Asked, workflow_execution_id: strawberry.ID) -> ProgressReport | None:
        instances = info.context.platform.instances
        try:
            shown = await executions.find(instances, info.context.caller, workflow_execution_id)
        except InstanceNotFound:
            return None
        return await told_progress(info.context, shown)  # type: ignore[return-value]

    @strawberry.field
    async def webhook_registration(self, info: Asked, id: strawberry.ID) -> webhooks.WebhookRegistration | None:
        return await webhooks.webhook_registration(info.context, id)

    @strawberry.field
    async def webhook_registrations(self, info: Asked) -> list[webhooks.WebhookRegistration]:
        return await webhooks.webhook_registrations(info.context)
