"""Definitions and executions. Their sources are the views of the face, which have the same names, and what they show.

What every view has comes from there; what is looked up only when asked for has a resolver here.
"""

from __future__ import annotations

from typing import Any

import strawberry

from app.faces.orchestration import views, workflow_routes
from app.faces.orchestration.graphql.context import Asked, Context, page
from app.faces.orchestration.graphql.scalars import JSON, DateTime, ExecutionStatus, LogLevel
from instances.errors import InstanceNotFound
from instances.lifecycle import Status
from instances.projections.execution_steps import ExecutionStep
from instances.projections.instance_view import raw_value
from instances.search.executions import Shown
from instances.search.query import InFacets, Search, every
from versions.definitions.schemas import Definition

LOG_CHUNK = 500
"""Log lines read at once."""


class Told(dict[str, Any]):
    """A view, and what it shows: a `Definition`, a :class:`Shown`, or a step of one."""

    def __init__(self, view: dict[str, Any], of: Any = None) -> None:
        super().__init__(view)
        self.of = of


async def told_definition(context: Context, found: Definition) -> Told:
    """The source of a `WorkflowDefinition`, or of a version of it."""
    return Told(await workflow_routes.view(context.platform.instances, context.caller, found), found)


def told_task(shown: Shown, step: ExecutionStep) -> Told:
    """The source of a `TaskExecution`."""
    return Told(views.task(shown, step) | _besides(shown, step), shown)


class ToldExecution(Told):
    """The source of a `WorkflowExecution`. Tasks and context, which may be large, are made when they are asked for."""

    def __init__(self, shown: Shown) -> None:
        told = shown.execution
        super().__init__(views.execution_head(shown, views.status_of(told.facet), told.ended_at), shown)

    def get(self, name: str, default: Any = None) -> Any:
        match name:
            case "taskExecutions":
                return [told_task(self.of, step) for step in views.tasks_of(self.of.execution)]
            case "context":
                return views.context(self.of)
            case _:
                return super().get(name, default)


def _besides(shown: Shown, step: ExecutionStep) -> dict[str, Any]:
    output = step.invoke.output
    return {"workflowExecutionId": views.execution_id(shown), "output": None if output is None else raw_value(output)}


async def told_progress(context: Context, shown: Shown) -> dict[str, Any]:
    """The source of a `ProgressReport`."""
    means = await context.means.load(shown.row.facts.workflow_key)
    report = views.progress(shown, means, context.platform.clock.now())
    for blocker in report["blockers"]:
        blocker["taskExecutionId"] = blocker["taskExecutionId"] or report["id"]  # what holds up no single task
    return report


async def told_executions(context: Context, search: Search) -> list[ToldExecution]:
    """The sources of a page of executions, tasks included: read at once."""
    found = await context.platform.instances.reader.page(context.caller, search)
    return [ToldExecution(one) for one in found.shown]


def in_status(status: ExecutionStatus | None) -> InFacets | None:
    """The condition that an execution has `status`."""
    return None if status is None else InFacets(views.STATUSES[status.value])


@strawberry.type
class CustomResource:
    name: str
    value: str


@strawberry.type
class ResourceRequirements:
    cpu: float | None
    memory: int | None
    storage: int | None
    custom: list[CustomResource] | None


@strawberry.type
class RetryPolicy:
    max_retries: int
    backoff_multiplier: float | None
    max_backoff: int | None


@strawberry.type
class SynchronizationPoint:
    id: strawberry.ID
    name: str
    description: str | None
    required_tasks: list[strawberry.ID]
    timeout: int | None


@strawberry.type
class TaskDefinition:
    id: strawberry.ID
    name: str
    description: str | None
    dependencies: list[strawberry.ID]
    resource_requirements: ResourceRequirements | None
    timeout: int | None = strawberry.field(description="Per attempt, milliseconds.")
    retry_policy: RetryPolicy | None
    type: str | None = strawberry.field(description="Extension: what the task runs; null for an untyped task.")
    config: JSON | None = strawberry.field(description="Extension: secrets redacted.")


@strawberry.type
class WorkflowDefinitionVersion:
    version: str
    tasks: list[TaskDefinition]
    synchronization_points: list[SynchronizationPoint]

    @strawberry.field
    def created_at(root: Any) -> DateTime:
        return root["updatedAt"]


@strawberry.type
class ResourceUsage:
    cpu: float | None
    memory: int | None
    storage: int | None
    custom: list[CustomResourceUsage] | None


@strawberry.type
class CustomResourceUsage:
    name: str
    value: str


@strawberry.type
class TaskExecution:
    id: strawberry.ID
    task_definition_id: strawberry.ID
    status: ExecutionStatus
    start_time: DateTime | None
    end_time: DateTime | None
    attempts: int = strawberry.field(description="Attempts begun so far, automatic and manual.")
    error: str | None
    resources: ResourceUsage | None
    output: JSON | None = strawberry.field(description="Extension.")
    workflow_execution_id: strawberry.ID = strawberry.field(description="Extension.")


@strawberry.type
class WorkflowContext:
    id: strawberry.ID
    data: str = strawberry.field(description="JSON text.")
    version: int
    created_at: DateTime
    updated_at: DateTime


@strawberry.type
class LogEntry:
    level: LogLevel
    message: str
    timestamp: DateTime
    task_definition_id: strawberry.ID | None
    data: JSON | None


@strawberry.type
class Blocker:
    id: strawberry.ID
    task_execution_id: strawberry.ID
    description: str
    created_at: DateTime
    resolved_at: DateTime | None


@strawberry.type
class Milestone:
    id: strawberry.ID
    name: str
    description: str | None
    achieved: bool
    achieved_at: DateTime | None


@strawberry.type
class ProgressReport:
    id: strawberry.ID
    workflow_execution_id: strawberry.ID
    completed_tasks: int
    total_tasks: int
    estimated_completion: DateTime | None
    blockers: list[Blocker]
    milestones: list[Milestone]


@strawberry.type
class WorkflowExecution:
    id: strawberry.ID
    workflow_definition_id: strawberry.ID
    status: ExecutionStatus
    start_time: DateTime | None
    end_time: DateTime | None
    task_executions: list[TaskExecution]
    context: WorkflowContext

    @strawberry.field(description="Extension: null once the definition is deleted.")
    async def workflow_definition(root: Any, info: Asked) -> WorkflowDefinition | None:
        found = await info.context.definitions.load(str(root.of.row.workflow_no))
        return None if found is None else await told_definition(info.context, found)  # type: ignore[return-value]

    @strawberry.field(description="Extension: version this execution runs.")
    async def workflow_version(root: Any, info: Asked) -> str:
        found = await info.context.versions.load(root.of.row.facts.version_key)
        if found is None:
            raise InstanceNotFound()  # the version goes with its last execution: this one has gone meanwhile
        return found.semver

    @strawberry.field(description="Extension: message of the failure that decided the outcome.")
    def error(root: Any) -> str | None:
        error = root.of.execution.error
        return None if error is None else error.message

    @strawberry.field(description="Extension: workflow output as JSON.")
    def output(root: Any) -> JSON | None:
        facts = root.of.row.facts
        return raw_value(facts.output if facts.status is Status.COMPLETE else None)  # type: ignore[return-value]

    @strawberry.field(description="Extension.")
    async def progress(root: Any, info: Asked) -> ProgressReport:
        return await told_progress(info.context, root.of)  # type: ignore[return-value]

    @strawberry.field(description="Extension.")
    async def logs(
        root: Any,
        info: Asked,
        level: LogLevel | None = LogLevel.INFO,
        task_execution_id: strawberry.ID | None = strawberry.UNSET,
        limit: int | None = 100,
        offset: int | None = 0,
    ) -> list[LogEntry]:
        rows, start = page(limit, offset, 100)
        lines = await _log(
            info.context, root.of, (level or LogLevel.INFO).value.lower(), task_execution_id, rows + start
        )
        return lines[start:]  # type: ignore[return-value]


async def _log(context: Context, shown: Shown, level: str, task: str | None, need: int) -> list[dict[str, Any]]:
    """The first `need` lines, of one task where that is given."""
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None and len(found) < need:
        read = await context.platform.instances.logs.page(
            context.caller.account_id, shown.row.facts.key, after=after, level=level, per_page=LOG_CHUNK
        )
        if read is None:
            break
        lines = (views.log_line(shown, line) for line in read.lines)
        found += [_entry(line) for line in lines if not task or line["taskExecutionId"] == task]
        after = read.cursor
    return found[:need]


def _entry(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "level": line["level"].upper()}


@strawberry.type
class WorkflowDefinition:
    id: strawberry.ID
    name: str
    description: str | None
    version: str = strawberry.field(description="Semantic version, 1.0.0 at creation, patch + 1 per changed update.")
    created_at: DateTime
    updated_at: DateTime
    tasks: list[TaskDefinition]
    synchronization_points: list[SynchronizationPoint]

    @strawberry.field(description="Extension: all versions, newest first.")
    async def versions(
        root: Any, info: Asked, limit: int | None = 10, offset: int | None = 0
    ) -> list[WorkflowDefinitionVersion]:
        rows, start = page(limit, offset)
        context, no = info.context, str(root.of.workflow.no)
        found = await context.platform.versions.definitions.versions(
            context.caller, no, limit=rows, offset=start, decimal=True
        )
        return [await told_definition(context, one) for one in found]  # type: ignore[misc]

    @strawberry.field(description="Extension.")
    async def executions(
        root: Any,
        info: Asked,
        status: ExecutionStatus | None = strawberry.UNSET,
        limit: int | None = 10,
        offset: int | None = 0,
    ) -> list[WorkflowExecution]:
        rows, start = page(limit, offset)
        search = Search(
            where=every(in_status(status or None)),
            workflows=[root.of.workflow.workflow_key],
            limit=rows,
            offset=start,
            counted=False,
        )
        return await told_executions(info.context, search)  # type: ignore[return-value]
