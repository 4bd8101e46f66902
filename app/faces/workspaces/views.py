"""Executions, workflows, notifications and tasks as this face shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.faces import statuses
from instances.executions.service import CANCELLED
from instances.figures.service import Statistics
from instances.inboxes.schemas import Notification, Task
from instances.lifecycle import Status, TriggerSource
from instances.projections.entries import ErrorInfo, read_error
from instances.projections.execution import Execution, execution
from instances.projections.execution_steps import ExecutionStep, Forward
from instances.projections.history import History
from instances.projections.instance_view import raw_value
from instances.projections.progress import Progress
from instances.search.executions import Shown
from instances.search.query import Facet
from instances.search.store import Row
from tenants.auth import Caller
from tenants.clock import iso
from tenants.spellings import EXECUTION, WORKFLOW, spell
from versions.definitions.schemas import Definition

DIALECT = "004"
STEP_CANCELLED = "Execution cancelled"
TIMED_OUT = "Action execution timeout"
_TIMEOUTS = frozenset({"WorkflowTimeoutError", "STEP_TIMEOUT"})
"""Names of the errors of steps that took too long."""

STATUSES: dict[str, frozenset[Facet]] = {
    "PENDING": statuses.PENDING,
    "RUNNING": statuses.UNDER_WAY,
    "COMPLETED": statuses.COMPLETED,
    "FAILED": statuses.FAILED,
    "CANCELLED": statuses.CANCELLED,
}
"""What each status of this face stands for."""
_STATUS_OF = {facet: status for status, facets in STATUSES.items() for facet in facets}
RANKS = {facet: rank for rank, facets in enumerate(STATUSES.values()) for facet in facets}
"""Where each facet stands in a list by status."""

_STEP_STATUS = {
    Forward.PENDING: "pending",
    Forward.RUNNING: "running",
    Forward.WAITING: "running",
    Forward.RETRYING: "running",
    Forward.COMPLETE: "success",
    Forward.FAILED: "failed",
    Forward.TIMED_OUT: "failed",
    Forward.SKIPPED: "skipped",
    Forward.SKIPPED_FAILURE: "skipped",
    Forward.CANCELLED: "skipped",
}
_TRIGGERS = {
    TriggerSource.CRON: "scheduled",
    TriggerSource.EVENT: "event",
    TriggerSource.BINDING: "event",
    TriggerSource.WEBHOOK: "webhook",
}


def status_of(facet: Facet) -> str:
    """This face's word."""
    return _STATUS_OF[facet]


# --- executions --------------------------------------------------------------------------------------------------


def detail(shown: Shown, workspace_id: UUID) -> dict[str, Any]:
    """An execution with its steps."""
    told = _facts(shown.row, shown.execution, workspace_id)
    return {**told, "steps": [step(one) for one in steps_of(shown.execution)]}


def listed(row: Row, workspace_id: UUID) -> dict[str, Any]:
    """An execution of a list: without steps, with its workflow's name."""
    told = _facts(row, execution(row.facts, row.facet, History(), None), workspace_id)
    return {**told, "workflow": {"id": told["workflowId"], "name": row.display_name}}


def of_workflow(found: Definition, caller: Caller) -> dict[str, Any]:
    """The workflow in the detail of an execution: what it is called now, and what starts it."""
    workflow = found.workflow
    return {
        "id": spell(WORKFLOW, workflow.workflow_key),
        "name": workflow.display_name,
        "description": workflow.description or None,
        "trigger": found.shown(DIALECT, caller)["trigger"],
        "status": "ARCHIVED" if found.retired else workflow.status.upper(),
    }


def _facts(row: Row, told: Execution, workspace_id: UUID) -> dict[str, Any]:
    facts = row.facts
    view = {
        "id": execution_id(row),
        "workflowId": spell(WORKFLOW, facts.workflow_key),
        "workspaceId": str(workspace_id),
        "status": status_of(row.facet),
        "triggeredBy": facts.triggered_by,
        "triggerType": _TRIGGERS.get(TriggerSource(facts.trigger_source), "manual"),
        "triggerData": {} if facts.input is None else raw_value(facts.input),
        "error": error_of(told),
        "startedAt": _time(told.started_at),
        "completedAt": _time(told.ended_at),
        "durationMs": told.duration_ms(),
        "isSimulation": row.dry_run,
    }
    return view | standing(row)


def execution_id(row: Row) -> str:
    """The id this face shows."""
    return spell(EXECUTION, row.facts.key)


def standing(row: Row) -> dict[str, Any]:
    """Its status; `paused` is there while it is."""
    status = {"status": status_of(row.facet)}
    return {**status, "paused": True} if row.facet is Facet.PAUSED else status


def error_of(told: Execution) -> str | None:
    """Why an execution failed or was cancelled; None of any other."""
    facts = told.facts
    if facts.status is Status.TERMINATED:
        return (read_error(facts.error).message if facts.error else "") or CANCELLED
    return None if told.error is None else failure(told.error)


def steps_of(told: Execution) -> list[ExecutionStep]:
    """Steps that are over in the order in which they ended, then those under way; of a finished execution last those
    it never came to.
    """
    return [*told.finished, *(one for one in told.unfinished if one.counts), *never_begun(told)]


def never_begun(told: Execution) -> list[ExecutionStep]:
    """Steps that a finished execution did not come to, in the order of the definition."""
    if not told.situation.over:
        return []
    return [one for one in told.steps if one.counts and one.invoke.started_at is None and one.invoke.end_seq is None]


def step(one: ExecutionStep) -> dict[str, Any]:
    """A step."""
    return {
        "actionId": one.id,
        "actionType": one.type,
        "status": _STEP_STATUS[one.state],
        "output": None if one.invoke.output is None else raw_value(one.invoke.output),
        "error": _error_of_step(one),
        "startedAt": _time(one.invoke.started_at),
        "completedAt": _time(one.invoke.ended_at),
        "durationMs": one.duration_ms,
        "attempts": one.invoke.attempts,
    }


def step_under_way(one: ExecutionStep, *, attempts: int, error: str | None) -> dict[str, Any]:
    """A step at a moment before its end."""
    told = step(one)
    ahead = {"status": "running", "output": None, "error": error, "completedAt": None, "durationMs": None}
    return {**told, **ahead, "attempts": attempts}


def _error_of_step(one: ExecutionStep) -> str | None:
    if one.state is Forward.CANCELLED:
        return STEP_CANCELLED
    return None if one.invoke.error is None else failure(one.invoke.error)


def failure(error: ErrorInfo) -> str:
    """What is said of a failed attempt, and of an execution that failed by it."""
    return TIMED_OUT if error.name in _TIMEOUTS else error.message


def progress(numbers: Progress) -> dict[str, Any]:
    """How far an execution is. Of scripts the total may still grow, which is then said."""
    told: dict[str, Any] = {
        "totalSteps": numbers.total,
        "completedSteps": numbers.completed,
        "successfulSteps": numbers.successful,
        "failedSteps": numbers.failed,
        "runningSteps": numbers.running,
        "skippedSteps": numbers.skipped,
        "percentage": numbers.percentage,
    }
    return {**told, "totalIsEstimate": True} if numbers.estimated else told


def summary(numbers: Progress) -> dict[str, Any]:
    """What came of the steps."""
    return {
        "totalSteps": numbers.total,
        "successfulSteps": numbers.successful,
        "failedSteps": numbers.failed,
        "skippedSteps": numbers.skipped,
    }


def timing(told: Execution, now: datetime) -> dict[str, Any]:
    """Start, end, and milliseconds between them, or until now."""
    return {
        "startedAt": _time(told.started_at),
        "completedAt": _time(told.ended_at),
        "durationMs": told.duration_ms(now),
        "isRunning": not told.situation.over,
    }


def statistics(found: Statistics) -> dict[str, Any]:
    """Numbers of a workflow; the rate is in percent of the finished executions, durations are milliseconds."""
    by_status = {status: found.of(*facets) for status, facets in STATUSES.items()}
    ended = by_status["COMPLETED"] + by_status["FAILED"] + by_status["CANCELLED"]
    hundredths = (2 * 10_000 * by_status["COMPLETED"] + ended) // (2 * ended) if ended else 0
    return {
        "total": found.total,
        "byStatus": by_status,
        "successRate": hundredths / 100,
        "averageDurationMs": round(found.mean_ms),
    }


# --- workflows ---------------------------------------------------------------------------------------------------


def workflow(found: Definition, caller: Caller) -> dict[str, Any]:
    """A workflow with its actions. How often it ran is there when it was asked for."""
    row, body = found.workflow, found.shown(DIALECT, caller)
    told = {
        "id": spell(WORKFLOW, row.workflow_key),
        "workspaceId": None if row.workspace_id is None else str(row.workspace_id),
        "name": row.display_name,
        "description": body["description"],
        "status": row.status.upper(),
        "trigger": body["trigger"],
        "actions": body["actions"],
        "variables": body["variables"],
        "metadata": msgspec.json.decode(row.metadata),
        "tags": msgspec.json.decode(row.tags),
        "version": found.no,
        "createdAt": iso(row.created_at),
        "updatedAt": iso(row.modified_at),
    }
    if found.executions is None:
        return told
    return {**told, "executionCount": found.executions, "lastExecutionAt": _time(found.last_execution_at)}


# --- notifications and tasks -------------------------------------------------------------------------------------


def notification(found: Notification) -> dict[str, Any]:
    """A notification an action sent."""
    return {
        "id": str(found.id),
        "executionId": spell(EXECUTION, found.instance_key),
        "actionId": found.node,
        "recipient": found.recipient,
        "message": found.message,
        "read": found.read_at is not None,
        "readAt": _time(found.read_at),
        "createdAt": iso(found.created_at),
    }


def task(found: Task) -> dict[str, Any]:
    """A task an action made."""
    return {
        "id": str(found.id),
        "executionId": spell(EXECUTION, found.instance_key),
        "actionId": found.node,
        "title": found.title,
        "description": found.description,
        "priority": found.priority,
        "assignedTo": found.assigned_to,
        "status": found.status,
        "createdAt": iso(found.created_at),
        "completedAt": _time(found.done_at),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
