"""Executions as this face shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.faces import statuses
from instances.executions.service import CANCELLED
from instances.figures.service import Timeline
from instances.figures.store import Bucket, Metrics
from instances.lifecycle import Status, TriggerSource
from instances.payloads import loads
from instances.projections.execution import Execution
from instances.projections.execution_steps import ExecutionStep, Forward, Situation
from instances.projections.instance_view import raw_value
from instances.projections.log_lines import LogLine
from instances.runtimes.protocol import Raw
from instances.search.executions import Shown
from instances.search.query import Facet
from instances.search.store import Row
from tenants.clock import iso
from tenants.spellings import EXECUTION, WORKFLOW, spell

LIST_TEXT = 1024
"""Characters of a text in the `inputData` of a list."""

GIVEN_UP = "Given up because the execution failed"
"""What is said of a step that nobody cancelled."""

STATUSES: dict[str, frozenset[Facet]] = {
    "pending": statuses.PENDING,
    "running": statuses.UNDER_WAY,
    "success": statuses.COMPLETED,
    "error": statuses.FAILED,
    "cancelled": statuses.CANCELLED,
}
"""What each status of this face stands for."""
_STATUS_OF = {facet: status for status, facets in STATUSES.items() for facet in facets}

_STEP_STATUS = {
    Forward.PENDING: "pending",
    Forward.RUNNING: "running",
    Forward.WAITING: "running",
    Forward.RETRYING: "running",
    Forward.COMPLETE: "success",
    Forward.FAILED: "error",
    Forward.TIMED_OUT: "error",
    Forward.SKIPPED: "skipped",
    Forward.SKIPPED_FAILURE: "skipped",
    Forward.CANCELLED: "cancelled",
}


def status_of(facet: Facet) -> str:
    """The status of this face."""
    return _STATUS_OF[facet]


# --- executions --------------------------------------------------------------------------------------------------


def summary(shown: Shown) -> dict[str, Any]:
    """One of a list. Long texts in `inputData` are cut."""
    return {**_basics(shown), "inputData": _input(shown.execution, cut=True), **_error_of(shown.execution)}


def needs_steps(row: Row) -> bool:
    """Whether the summary names a step: the one an execution failed at."""
    return row.facet.status is Status.ERRORED


def detail(shown: Shown, logs: Sequence[LogLine], retried_by: Sequence[UUID]) -> dict[str, Any]:
    """The whole execution; `logs` are its last lines, `retried_by` the executions that repeat it."""
    execution, origin = shown.execution, shown.row.origin_key
    complete = execution.facet is Facet.COMPLETE
    return {
        **_basics(shown),
        "inputData": _input(execution, cut=False),
        **_error_of(execution),
        "outputData": raw_value(execution.facts.output) if complete else None,
        "executionSteps": [_step(step, execution) for step in execution.steps],
        "logs": [{"level": line.level, "message": _message(line), "timestamp": line.timestamp} for line in logs],
        "originalExecutionId": None if origin is None else spell(EXECUTION, origin),
        "retriedBy": [spell(EXECUTION, key) for key in retried_by],
    }


def outcome(execution: Execution) -> dict[str, Any]:
    """What a synchronous execute answers once the execution has ended."""
    status = status_of(execution.facet)
    ended = {
        "executionId": spell(EXECUTION, execution.facts.key),
        "status": status,
        "startedAt": _time(execution.started_at),
        "finishedAt": _time(execution.ended_at),
        "duration": execution.duration_ms(),
        "outputData": raw_value(execution.facts.output) if status == "success" else None,
    }
    return {**ended, **_error_of(execution)}


def started(execution: Execution, url: str) -> dict[str, Any]:
    """What an execute answers while the execution lasts; `url` is where it can be watched."""
    return {
        "executionId": spell(EXECUTION, execution.facts.key),
        "status": status_of(execution.facet),
        "startedAt": _time(execution.started_at),
        "url": url,
    }


def starts(execution: Execution, lines: Sequence[LogLine]) -> frozenset[int]:
    """Of lines, the ids of those that say that a step begins."""
    known = frozenset(run.start_seq for run in execution.history.steps.values())
    return known.intersection(line.id for line in lines if line.source == "engine")


def log_line(line: LogLine, step_ids: dict[str, str], given: Raw | None) -> dict[str, Any]:
    """One line of a log; `step_ids` gives steps' ids by the names they have in the log. `given`: to a step that begins
    with this line.
    """
    told: dict[str, Any] = {
        "level": line.level,
        "message": _message(line),
        "timestamp": line.timestamp,
        "stepId": None if line.step is None else step_ids.get(line.step, line.step),
    }
    if given is not None:
        told["data"] = {"input": raw_value(given)}
    elif not isinstance(line.data, msgspec.UnsetType):
        told["data"] = line.data
    return told


_MESSAGES = {
    "Instance started": "Starting workflow execution",
    "Instance complete": "Workflow execution completed successfully",
}
"""Lines of the engine this API has words of its own for."""


def _message(line: LogLine) -> str:
    return _MESSAGES.get(line.message, line.message) if line.source == "engine" else line.message


def step_ids(execution: Execution) -> dict[str, str]:
    """Ids of the steps by their names in the log: those of documents are logged under the plain id, or counted, a node
    that runs once per item under all its counts.
    """
    names = {step.id: step.id for step in execution.steps}
    plain = {step.key.name: step.id for step in execution.steps if step.key is not None and step.node is not None}
    names |= {step.key.counted: step.id for step in execution.steps if step.key is not None}
    return names | {run.counted: plain[run.name] for run in execution.history.steps.values() if run.name in plain}


def _basics(shown: Shown) -> dict[str, Any]:
    execution = shown.execution
    facts = execution.facts
    return {
        "id": spell(EXECUTION, facts.key),
        "workflowId": spell(WORKFLOW, facts.workflow_key),
        "workflowName": shown.row.display_name,
        "status": status_of(execution.facet),
        "startedAt": _time(execution.started_at),
        "finishedAt": _time(execution.ended_at),
        "duration": execution.duration_ms(),
        "triggeredBy": _SOURCES.get(TriggerSource(facts.trigger_source), "api"),
    }


_SOURCES = {
    TriggerSource.API: "api",
    TriggerSource.MANUAL: "manual",
    TriggerSource.BINDING: "parent",
    TriggerSource.EVENT: "event",
    TriggerSource.CRON: "schedule",
    TriggerSource.WEBHOOK: "webhook",
    TriggerSource.RETRY: "retry",
}


def _error_of(execution: Execution) -> dict[str, Any]:
    """The failure that ended an execution."""
    error = execution.error
    if error is None:
        return {}
    culprit = execution.culprit
    code = loads(execution.facts.error).get("code") if execution.facts.error else None
    told = {
        "code": code or error.name,
        "message": error.message,
        "stepId": None if culprit is None else culprit.id,
        "stepName": None if culprit is None else culprit.name,
    }
    return {"error": told}


def _input(execution: Execution, *, cut: bool) -> Any:
    text = execution.facts.input
    if cut and text is not None and len(text) > LIST_TEXT:
        return _cut(loads(text))
    return {} if text is None else raw_value(text)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= LIST_TEXT else value[:LIST_TEXT] + "…"
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    return [_cut(each) for each in value] if isinstance(value, list) else value


def _step(step: ExecutionStep, execution: Execution) -> dict[str, Any]:
    told = {
        "stepId": step.id,
        "stepName": step.name,
        "status": _STEP_STATUS[step.state],
        "startedAt": _time(step.invoke.started_at),
        "finishedAt": _time(step.invoke.ended_at),
        "output": None if step.invoke.output is None else raw_value(step.invoke.output),
        "attempts": step.invoke.attempts,
    }
    if step.invoke.error is not None and step.state in (Forward.FAILED, Forward.TIMED_OUT):
        told["error"] = {"code": step.invoke.error_code or step.invoke.error.name, "message": step.invoke.error.message}
    elif step.state is Forward.CANCELLED:
        alone = execution.situation is not Situation.TERMINATED and execution.failures
        told["error"] = {"code": "CANCELLED", "message": GIVEN_UP if alone else CANCELLED}
    return told


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


# --- metrics -----------------------------------------------------------------------------------------------------


def metrics(timeline: Timeline) -> dict[str, Any]:
    """Figures of a window; rates from 0 to 1, durations in milliseconds."""
    total: Metrics = timeline.total
    return {
        "totalExecutions": total.count,
        "successfulExecutions": total.successful,
        "failedExecutions": total.count - total.successful,
        "successRate": _rate(total.successful, total.count),
        "averageDuration": round(total.mean_ms),
        "p50Duration": round(total.p50_ms),
        "p95Duration": round(total.p95_ms),
        "p99Duration": round(total.p99_ms),
        "timeSeries": [_bucket(bucket) for bucket in timeline.buckets],
    }


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {
        "timestamp": iso(bucket.started_at),
        "count": bucket.count,
        "successRate": _rate(bucket.successful, bucket.count),
        "averageDuration": round(bucket.mean_ms),
    }


def _rate(part: int, whole: int) -> float:
    """Four decimals, half up."""
    return 0.0 if not whole else (2 * 10_000 * part + whole) // (2 * whole) / 10_000
