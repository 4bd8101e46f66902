"""An instance as the Cloudflare face shows it: one object with its steps.

Shapes and names are those of the published Workflows API (`GET .../instances/{instance_id}`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from instances.lifecycle import Kind, Status, TriggerSource
from instances.projections.entries import ErrorInfo, read_error, read_rollback
from instances.projections.history import History
from instances.projections.steps import Attempt, Outcome, StepRun, shown_as
from instances.projections.values import is_tagged, plain, shorten, stream_preview
from instances.runtimes.protocol import StepKind
from tenants.clock import iso

REDACTED = "[REDACTED]"
NULL = msgspec.Raw(b"null")
_DEFAULTS = {"retries": {"limit": 0, "delay": 0, "backoff": "constant"}, "timeout": 0}
_NO_CONFIG = msgspec.Raw(msgspec.json.encode(_DEFAULTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFacts:
    """What the instance's own rows say. Payloads are JSON text as stored. `handle` names the workflow."""

    key: UUID
    instance_id: str
    workflow_key: UUID
    handle: str
    version_key: UUID
    no: int
    run: int
    status: Status
    created_at: datetime
    modified_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    transaction_id: str = ""
    trigger_source: int = TriggerSource.UNKNOWN
    trigger_detail: str | None = None
    triggered_by: str | None = None
    parent_key: UUID | None = None
    input: str | None = None
    output: str | None = None
    error: str | None = None
    rollback: str | None = None


class AttemptView(msgspec.Struct):
    start: str
    end: str | None
    success: bool | None
    error: ErrorInfo | None


class StepView(msgspec.Struct):
    """A `step`, or a `rollback`: the same fields."""

    type: str
    name: str
    start: str
    end: str | None
    success: bool | None
    attempts: list[AttemptView]
    config: msgspec.Raw
    output: str | None


class SleepView(msgspec.Struct):
    type: str
    name: str
    start: str
    end: str
    finished: bool
    error: ErrorInfo | None


class WaitView(msgspec.Struct):
    type: str
    name: str
    start: str
    end: str
    finished: bool
    error: ErrorInfo | None
    output: str | msgspec.UnsetType
    event_type: str | msgspec.UnsetType


class Source(msgspec.Struct):
    source: str


class TerminationView(msgspec.Struct):
    type: str
    trigger: Source


class RollbackView(msgspec.Struct):
    outcome: str
    error: ErrorInfo | None


class InstanceView(msgspec.Struct, kw_only=True):
    """`result` of the route. `schedule` is left out for instances no cron expression made."""

    status: str
    success: bool | None
    error: ErrorInfo | None
    output: msgspec.Raw
    params: msgspec.Raw
    queued: str
    start: str | None
    end: str | None
    trigger: Source
    version_id: UUID = msgspec.field(name="versionId")
    step_count: int
    steps: list[Any]
    rollback: RollbackView | None
    schedule: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def instance_view(
    facts: InstanceFacts, history: History, *, newest_first: bool = False, simple: bool = False
) -> InstanceView:
    """The whole view; `simple` leaves the steps out but counts them."""
    shown = [step for step in history.steps.values() if step.outcome is not Outcome.SKIPPED]
    steps: list[Any] = [] if simple else step_views(history)
    if newest_first:
        steps.reverse()
    return InstanceView(
        status=facts.status.wire,
        success=facts.status is Status.COMPLETE if facts.status.finished else None,
        error=read_error(facts.error) if facts.error is not None and facts.status is Status.ERRORED else None,
        output=raw_value(facts.output if facts.status is Status.COMPLETE else None),
        params=raw_value(facts.input),
        queued=iso(history.queued_at or facts.created_at),
        start=_maybe_iso(facts.started_at or history.started_at),
        end=_maybe_iso(facts.ended_at if facts.status.finished else None),
        trigger=Source(TriggerSource(facts.trigger_source).wire),
        version_id=facts.version_key,
        step_count=sum(shown_as(step) != "rollback" for step in shown),
        steps=steps,
        rollback=_rollback(facts, history),
        schedule=_schedule(facts),
    )


def step_views(history: History) -> list[Any]:
    """Entries of `steps`, oldest first: everything that started, then the termination, if there was one."""
    views = [_view(history, step) for step in history.steps.values() if step.outcome is not Outcome.SKIPPED]
    if history.end is not None and history.end.kind is Kind.TERMINATED:
        views.append(TerminationView("termination", Source(history.end.source)))
    return views


def planned_or_real_end(history: History, step: StepRun) -> datetime:
    """The end of a sleep or wait: the real one once it finished, else the planned one (its start without one)."""
    real = None if step.outcome is Outcome.CANCELLED else step.ended_at
    return real or history.planned_end(step) or step.started_at


def raw_value(text: str | None) -> msgspec.Raw:
    """A stored value as JSON to splice into an answer."""
    if text is None:
        return NULL
    return msgspec.Raw((plain(text) if is_tagged(text) else text).encode())


def output_text(step: StepRun) -> str | None:
    """A step's output as lists show it: JSON text (of a stream its text), cut short; null when it returned nothing."""
    if step.output is None:
        return None
    if step.sensitive:
        return REDACTED
    stream = stream_preview(step.output)
    if stream is not None:
        return stream
    text = plain(step.output)
    return None if text == "null" else shorten(text)


def _view(history: History, step: StepRun) -> Any:
    kind = shown_as(step)
    if kind in ("step", "rollback"):
        cut_off_at = history.end.at if step.open and history.end is not None else None
        success = None if step.open and cut_off_at is None else step.outcome is Outcome.COMPLETED
        return StepView(
            kind,
            step.counted,
            iso(step.started_at),
            _maybe_iso(step.ended_at or cut_off_at),
            success,
            [_attempt(attempt, cut_off_at) for attempt in step.counted_attempts],
            _config(step),
            output_text(step) if success else None,
        )
    finished = not step.open and step.outcome is not Outcome.CANCELLED
    end = iso(planned_or_real_end(history, step))
    if kind == "sleep":
        return SleepView(kind, step.counted, iso(step.started_at), end, finished, step.error)
    output = output_text(step) if step.outcome is Outcome.COMPLETED else None
    return WaitView(
        kind,
        step.counted,
        iso(step.started_at),
        end,
        finished,
        step.error,
        msgspec.UNSET if output is None else output,
        step.event_type or msgspec.UNSET,
    )


def _attempt(attempt: Attempt, cut_off_at: datetime | None) -> AttemptView:
    """An attempt; `cut_off_at`: when the end of the instance cut the step off."""
    ended_at = attempt.ended_at or cut_off_at
    success = None if ended_at is None else attempt.outcome is Outcome.COMPLETED
    return AttemptView(iso(attempt.started_at), _maybe_iso(ended_at), success, attempt.error)


def _config(step: StepRun) -> msgspec.Raw:
    """The step's configuration; clients count on `retries` and `timeout` being there, documents need neither."""
    if step.config is None:
        return _NO_CONFIG
    if '"retries"' in step.config and '"timeout"' in step.config:
        return msgspec.Raw(step.config.encode())
    return msgspec.Raw(msgspec.json.encode(_DEFAULTS | msgspec.json.decode(step.config)))


def _rollback(facts: InstanceFacts, history: History) -> RollbackView | None:
    """How the rollback went; None while it lasts, and when there was nothing to undo."""
    known = history.rollback
    if known is not None and known.outcome is not None:
        ran = any(step.family is StepKind.ROLLBACK for step in history.steps.values())
        return RollbackView(known.outcome, known.error) if ran or known.outcome != "complete" else None
    if facts.rollback is not None and facts.status.finished:
        told = read_rollback(facts.rollback)
        return RollbackView(told.outcome, told.error)
    return None


def _schedule(facts: InstanceFacts) -> msgspec.Raw | msgspec.UnsetType:
    """What fired the instance, when it was a cron expression: the contract has no place for intervals."""
    if facts.trigger_detail is None or facts.trigger_source != TriggerSource.CRON:
        return msgspec.UNSET
    if "cron" not in msgspec.json.decode(facts.trigger_detail):
        return msgspec.UNSET
    return msgspec.Raw(facts.trigger_detail.encode())


def _maybe_iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
