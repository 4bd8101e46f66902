"""Definitions, executions and tasks as this face shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from app.faces import statuses
from instances.projections.execution import Blocker, Execution, MilestoneState, estimated_completion
from instances.projections.execution_steps import ExecutionStep, Forward
from instances.projections.instance_view import raw_value
from instances.projections.log_lines import LogLine
from instances.search.executions import Shown
from instances.search.query import Facet
from tenants.auth import Caller
from tenants.clock import iso
from tenants.spellings import step_no
from versions.definitions.schemas import Definition, KnownStep

DIALECT = "002"

STATUSES: dict[str, frozenset[Facet]] = {
    "PENDING": statuses.PENDING,
    "RUNNING": statuses.UNDER_WAY - statuses.AT_REST,
    "WAITING": statuses.AT_REST,
    "COMPLETED": statuses.COMPLETED,
    "FAILED": statuses.FAILED,
    "CANCELLED": statuses.CANCELLED,
}
"""What each status of an execution stands for."""
_STATUS_OF = {facet: status for status, facets in STATUSES.items() for facet in facets}

TASK_STATUSES: dict[str, frozenset[Forward]] = {
    "PENDING": frozenset({Forward.PENDING}),
    "RUNNING": frozenset({Forward.RUNNING}),
    "WAITING": frozenset({Forward.WAITING, Forward.RETRYING}),
    "COMPLETED": frozenset({Forward.COMPLETE, Forward.SKIPPED}),
    "FAILED": frozenset({Forward.FAILED, Forward.TIMED_OUT}),
    "CANCELLED": frozenset({Forward.SKIPPED_FAILURE, Forward.CANCELLED}),
}
"""What each status of a task stands for."""
_CANCELLED, _FAILED = Forward.CANCELLED, frozenset({Forward.FAILED, Forward.TIMED_OUT, Forward.RETRYING})
_TASK_STATUS_OF = {state: status for status, states in TASK_STATUSES.items() for state in states}

NO_OUTPUT = msgspec.Raw(b'"success"')
"""What a task without output writes to the context."""
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def status_of(facet: Facet) -> str:
    """The status of this face."""
    return _STATUS_OF[facet]


# --- definitions -------------------------------------------------------------------------------------------------


def definition(found: Definition, caller: Caller, steps: Sequence[KnownStep] = ()) -> dict[str, Any]:
    """A workflow, with `version` as `1.0.<n>`. `steps`: those a script is known to have."""
    body = found.shown(DIALECT, caller, steps)
    return {
        "id": str(found.workflow.no),
        "name": body["name"],
        "description": body["description"],
        "version": found.semver,
        "createdAt": iso(found.workflow.created_at),
        "updatedAt": iso(found.version_created_at),
        "tasks": body["tasks"],
        "synchronizationPoints": body["synchronizationPoints"],
    }


# --- executions --------------------------------------------------------------------------------------------------


def execution(shown: Shown) -> dict[str, Any]:
    """An execution with all its tasks."""
    told = shown.execution
    return {
        **execution_head(shown, status_of(told.facet), told.ended_at),
        "taskExecutions": told.once(_tasks),
        "context": context(shown),
    }


def _tasks(told: Execution) -> msgspec.Raw:
    """All its tasks, as ready JSON."""
    return msgspec.Raw(msgspec.json.encode([_task(told, step) for step in tasks_of(told)]))


def created(shown: Shown) -> dict[str, Any]:
    """An execution as it stood when it was created, however far it has come since."""
    status = "PENDING" if shown.execution.facet is Facet.HELD_BACK else "RUNNING"
    head = execution_head(shown, status, None)
    if status == "RUNNING" and head["startTime"] is None:
        head["startTime"] = iso(shown.execution.created_at)
    return {**head, "taskExecutions": [], "context": _context(shown, {}, None)}


def execution_id(shown: Shown) -> str:
    """The id of an execution."""
    return str(shown.row.facts.no)


def execution_head(shown: Shown, status: str, ended_at: datetime | None) -> dict[str, Any]:
    """An execution without its tasks and its context."""
    return {
        "id": execution_id(shown),
        "workflowDefinitionId": str(shown.row.workflow_no),
        "status": status,
        "startTime": _time(shown.execution.started_at),
        "endTime": _time(ended_at),
    }


def context(shown: Shown) -> dict[str, Any]:
    """What an execution was given, and what its tasks have written so far."""
    outputs, updated = shown.execution.once(_written)
    return _context(shown, outputs, updated)


def _written(told: Execution) -> tuple[dict[str, msgspec.Raw], datetime | None]:
    """What tasks wrote, and when the last did."""
    written = told.written
    outputs = {f"{step.id}-result": _result(step) for step in written}
    return outputs, written[-1].invoke.ended_at if written else None


def _context(shown: Shown, outputs: Mapping[str, msgspec.Raw], updated: datetime | None) -> dict[str, Any]:
    """What the execution was given, and what its tasks wrote: `data` is JSON text, `version` counts the writes."""
    created_at = shown.execution.created_at
    return {
        "id": execution_id(shown),
        "data": msgspec.json.encode({**_initial(shown.execution.facts.input), **outputs}).decode(),
        "version": 1 + len(outputs),
        "createdAt": iso(created_at),
        "updatedAt": iso(updated or created_at),
    }


def _initial(text: str | None) -> dict[str, msgspec.Raw]:
    """The input's members; an input of another API that has none is one member, `input`."""
    if text is None or text == "null":
        return {}
    try:
        return _members.decode(text)
    except msgspec.DecodeError:
        return {"input": msgspec.Raw(text.encode())}


def _result(step: ExecutionStep) -> msgspec.Raw:
    return NO_OUTPUT if step.invoke.output is None else raw_value(step.invoke.output)


# --- tasks -------------------------------------------------------------------------------------------------------


def tasks_of(told: Execution) -> list[ExecutionStep]:
    """The steps that are tasks, in the order of the definition."""
    return [step for step in told.steps if step.counts]


def task(shown: Shown, step: ExecutionStep) -> dict[str, Any]:
    """One task of an execution."""
    return _task(shown.execution, step)


def _task(told: Execution, step: ExecutionStep) -> dict[str, Any]:
    state, invoke = step.state, step.invoke
    ended = invoke.ended_at if state.ended else None
    if state is _CANCELLED and ended is None:
        ended = told.ended_at  # it never began: it was cancelled with the execution
    return {
        "id": str(step_no(told.facts.no, step.position)),
        "taskDefinitionId": step.id,
        "status": _TASK_STATUS_OF[state],
        "startTime": _time(invoke.started_at),
        "endTime": _time(ended),
        "attempts": invoke.attempts,
        "error": invoke.error.message if invoke.error is not None and state in _FAILED else None,
        "resources": None,
    }


def retried(before: Mapping[str, Any]) -> dict[str, Any]:
    """A task as it stands when its retry has been ordered: the attempt is counted though no worker has it yet."""
    return {**before, "status": "RUNNING", "endTime": None, "attempts": before["attempts"] + 1, "error": None}


def task_id(shown: Shown, position: int) -> str:
    """The id of the task at `position` (from 0)."""
    return str(step_no(shown.row.facts.no, position))


# --- progress ----------------------------------------------------------------------------------------------------


def progress(shown: Shown, means_ms: Mapping[str, float], now: datetime) -> dict[str, Any]:
    """How far an execution is, what holds it up, and when it will be through (`means_ms`: by task)."""
    told = shown.execution
    estimate, numbers = estimated_completion(told, means_ms, now), told.progress
    done = sum(step.state in TASK_STATUSES["COMPLETED"] for step in tasks_of(told))
    report = {
        "id": execution_id(shown),
        "workflowExecutionId": execution_id(shown),
        "completedTasks": done,
        "totalTasks": numbers.total,
        "estimatedCompletion": _time(estimate),
        "blockers": [shown_blocker(shown, blocker) for blocker in told.blockers],
        "milestones": [shown_milestone(milestone) for milestone in told.milestones],
    }
    return {**report, "totalIsEstimate": True} if numbers.estimated else report


def shown_blocker(shown: Shown, blocker: Blocker) -> dict[str, Any]:
    """What holds an execution up, or did."""
    owner = None if blocker.position is None else task_id(shown, blocker.position)
    milliseconds = int(blocker.created_at.timestamp() * 1000)
    return {
        "id": f"{owner or execution_id(shown)}-{blocker.kind.value}-{milliseconds}",
        "taskExecutionId": owner,
        "description": blocker.description,
        "createdAt": iso(blocker.created_at),
        "resolvedAt": _time(blocker.resolved_at),
    }


def shown_milestone(milestone: MilestoneState) -> dict[str, Any]:
    """A milestone, achieved or not."""
    return {
        "id": str(milestone.position),
        "name": milestone.name,
        "description": milestone.description or None,
        "achieved": milestone.achieved_at is not None,
        "achievedAt": _time(milestone.achieved_at),
    }


# --- logs --------------------------------------------------------------------------------------------------------


def log_line(shown: Shown, line: LogLine) -> dict[str, Any]:
    """One line of an execution's log."""
    step = next((step for step in shown.execution.steps if line.step in _logged_as(step)), None)
    told: dict[str, Any] = {
        "id": str(line.id),
        "timestamp": line.timestamp,
        "level": line.level,
        "message": line.message,
        "taskExecutionId": None if step is None else task_id(shown, step.position),
        "taskDefinitionId": None if step is None else step.id,
        "attempt": line.attempt,
    }
    if not isinstance(line.data, msgspec.UnsetType):
        told["data"] = line.data
    return told


def _logged_as(step: ExecutionStep) -> tuple[str, ...]:
    """What the log calls a step: its id, or its name and count."""
    return (step.id,) if step.key is None else (step.id, step.key.counted)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
