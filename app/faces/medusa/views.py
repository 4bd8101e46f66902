"""Executions as this face shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.faces.medusa.fields import Fields
from app.faces.medusa.outlines import name_of, outline, seconds
from app.faces.medusa.states import WAITING, WAITING_TO_UNDO, state_of
from app.faces.medusa.steps import epoch_ms, failed_at, steps
from instances.listing import creation_time
from instances.parents import ParentStep
from instances.projections.execution import Execution, PermanentFailure
from instances.projections.execution_steps import Compensation, ExecutionStep, Forward, Situation
from instances.projections.instance_view import raw_value
from instances.runtimes.protocol import StepKind
from instances.search.executions import Shown
from instances.search.store import Row
from tenants.clock import iso
from tenants.spellings import WORKFLOW_EXECUTION, spell, ulid_text
from versions.document import Document, Trigger

_FAILED = frozenset({Forward.FAILED, Forward.TIMED_OUT})
_COMPLETE = Forward.COMPLETE
EXECUTION_TIMEOUT = "EXECUTION_TIMEOUT"
"""What the core calls the failure of an instance that was not through in time."""


def execution_id(row: Row) -> str:
    return spell(WORKFLOW_EXECUTION, row.facts.key)


def view(shown: Shown, fields: Fields, parent: ParentStep | None) -> dict[str, Any]:
    """An execution with its steps, as far as it is wanted. `parent`: the step it is a child of."""
    whole = _plain(shown.row, fields)
    if fields.has("execution"):
        flow = _flow(shown, of_child(parent))
        whole["execution"] = flow if fields.has_all("execution") else _opened(flow)
    if fields.has("context"):
        whole["context"] = context(shown.execution)
    return fields.pick(whole)


def plain_view(row: Row, fields: Fields) -> dict[str, Any]:
    """One of which nothing is wanted that is in its journal."""
    return fields.pick(_plain(row, fields))


def needs_journal(fields: Fields) -> bool:
    """Whether any of that is wanted."""
    return any(fields.has(name) for name in ("execution", "context"))


def _plain(row: Row, fields: Fields) -> dict[str, Any]:
    facts = row.facts
    told: dict[str, Any] = {
        "id": execution_id(row),
        "workflow_id": facts.handle,
        "transaction_id": facts.transaction_id,
        "execution": None,
        "context": None,
        "state": state_of(row.facet),
        "created_at": iso(creation_time(facts.key)),
        "updated_at": iso(facts.modified_at),
        "deleted_at": None if row.deleted_at is None else iso(row.deleted_at),
    }
    if fields.has("run_id"):
        told["run_id"] = ulid_text(facts.key)
    if fields.has("retention_time"):
        told["retention_time"] = None if row.retention_ms is None else seconds(row.retention_ms)
    return told


# --- the flow ----------------------------------------------------------------------------------------------------


def _opened(flow: dict[str, Any]) -> Any:
    """The same without ready JSON in it, so that parts can be picked."""
    return msgspec.json.decode(msgspec.json.encode(flow))


def of_child(parent: ParentStep | None) -> dict[str, str]:
    """What Medusa says of the execution of a child: the key of the step that waits for it."""
    if parent is None:
        return {}
    step = parent.key
    half = "compensate" if step.kind is StepKind.ROLLBACK else "invoke"
    key = f"{parent.workflow}:{parent.transaction_id}:{step.name}:{half}"
    return {"parentStepIdempotencyKey": f"{key}:{step.count}" if parent.loops else key}


def _flow(shown: Shown, metadata: dict[str, str]) -> dict[str, Any]:
    execution, facts = shown.execution, shown.row.facts
    ended = epoch_ms(execution.ended_at)
    return {
        "modelId": facts.handle,
        "transactionId": facts.transaction_id,
        "runId": ulid_text(facts.key),
        "state": state_of(shown.row.facet),
        "options": _options(execution.document),
        "metadata": metadata,
        "startedAt": epoch_ms(execution.started_at),
        "cancelledAt": ended if execution.situation is Situation.TERMINATED else None,
        **execution.once(_course),
        "_v": 0,
    }


def _course(execution: Execution) -> dict[str, Any]:
    """What of the flow changes with the journal alone: its steps, as ready JSON, and what is said of them together."""
    all, over = execution.steps, execution.situation.over
    states = {step.state for step in all}
    compensations = {step.compensation for step in all}
    retried = all if Forward.RETRYING in states else ()
    known = outline(all, execution.document, execution.facts.version_key)
    return {
        "hasAsyncSteps": known.has_async,
        "hasFailedSteps": over and not states.isdisjoint(_FAILED) and any(_ignored(step, execution) for step in all),
        "hasSkippedSteps": over and Forward.SKIPPED in states,
        "hasSkippedOnFailureSteps": over and Forward.SKIPPED_FAILURE in states,
        "hasWaitingSteps": not (states.isdisjoint(WAITING) and compensations.isdisjoint(WAITING_TO_UNDO)),
        "hasRevertedSteps": Compensation.COMPLETE in compensations,
        "timedOutAt": _timed_out_at(execution),
        "temporaryFailedAt": epoch_ms(
            max((at for step in retried if (at := failed_at(step, execution.history)) is not None), default=None)
        ),
        "definition": known.tree,
        "steps": _json(steps(all, execution.history, known)),
    }


def _json(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _ignored(step: ExecutionStep, execution: Execution) -> bool:
    """Whether the step failed, and the execution went on."""
    return step.state in _FAILED and (
        step.node.on_error != "stop" if step.node else execution.situation is Situation.COMPLETE
    )


def _timed_out_at(execution: Execution) -> int | None:
    """When the execution was not through in time."""
    rollback, end = execution.history.rollback, execution.history.end
    if rollback is not None and rollback.cause.name == EXECUTION_TIMEOUT:
        return epoch_ms(rollback.started_at)
    error = execution.error
    return epoch_ms(end.at) if end is not None and error is not None and error.name == EXECUTION_TIMEOUT else None


def _options(document: Document | None) -> dict[str, Any]:
    told: dict[str, Any] = {"store": True}
    if document is None:
        return told
    if document.retention is not None:
        told["retentionTime"] = seconds(document.retention)
    if document.limits.timeout is not None:
        told["timeout"] = seconds(document.limits.timeout)
    if document.idempotent:
        told["idempotent"] = True
    schedule = next((trigger for trigger in document.triggers if trigger.type == "schedule"), None)
    if schedule is not None:
        told["schedule"] = _schedule(schedule)
    return told


def _schedule(trigger: Trigger) -> dict[str, Any]:
    told: dict[str, Any] = {"interval": trigger.interval} if trigger.cron is None else {"cron": trigger.cron}
    told["concurrency"] = trigger.concurrency
    if trigger.max_runs is not None:
        told["numberOfExecutions"] = trigger.max_runs
    return told


# --- the context -------------------------------------------------------------------------------------------------


def context(execution: Execution) -> dict[str, Any]:
    """What went in, what steps came to by their names, and what failed."""
    invoked, undone, failed = execution.once(_results)
    data = {"payload": raw_value(execution.facts.input), "invoke": invoked, "compensate": undone}
    return {"data": data, "compensate": undone, "errors": failed}


def _results(execution: Execution) -> tuple[msgspec.Raw, msgspec.Raw, list[dict[str, Any]]]:
    """What steps came to, and what their undoing did, as ready JSON; and what failed."""
    undone = {
        name_of(step): {"output": raw_value(step.compensate.output)}
        for step in execution.steps
        if step.compensate.attempts and step.compensation is Compensation.COMPLETE
    }
    return _json(_invoked(execution.steps)), _json(undone), errors(execution.failures)


def _invoked(all: Sequence[ExecutionStep]) -> dict[str, Any]:
    return {
        step.path[-1]: {"output": _result(step)}
        for step in all
        if step.state is _COMPLETE and (step.node is None or step.node.save_output)
    }


def _result(step: ExecutionStep) -> dict[str, Any]:
    told = output(step)
    return {"output": told, "compensateInput": raw_value(step.compensate_input) if step.compensate_input else told}


def output(step: ExecutionStep) -> msgspec.Raw:
    """What a step came to."""
    return raw_value(step.invoke.output)


def errors(failures: Sequence[PermanentFailure]) -> list[dict[str, Any]]:
    """Failures no attempt was left for, the oldest first."""
    return [
        {
            "action": "" if failure.step is None else name_of(failure.step),
            "handlerType": "compensate" if failure.compensating else "invoke",
            "error": {"name": _error_name(failure), "message": failure.error.message, "stack": ""},
        }
        for failure in failures
    ]


def _error_name(failure: PermanentFailure) -> str:
    if failure.step is None:
        return "TransactionTimeoutError" if failure.error.name == EXECUTION_TIMEOUT else failure.error.name
    if not failure.compensating and failure.step.state is Forward.TIMED_OUT:
        return "TransactionStepTimeoutError"
    return failure.error.name


def first_failure(execution: Execution) -> PermanentFailure | None:
    """What the execution failed of first."""
    return next(iter(execution.failures), None)
