"""Steps as this face shows them: objects by their paths in a tree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from app.faces.medusa.outlines import ROOT, Outline, StepOutline
from app.faces.medusa.states import StepState, compensate_of, invoke_of
from instances.projections.execution_steps import Compensation, ExecutionStep, Forward
from instances.projections.history import History
from instances.projections.steps import Outcome


class StepObject(msgspec.Struct, rename="camel", gc=False):
    """One step. Attempts and failures are those of its current half, going forward or being undone."""

    id: str
    uuid: str
    depth: int
    definition: msgspec.Raw
    save_response: bool
    invoke: StepState
    compensate: StepState
    attempts: int
    failures: int
    last_attempt: int | None
    started_at: int | None
    step_failed: bool
    has_scheduled_retry: bool
    retry_rescheduled_at: None
    temporary_failed_at: int | None
    timed_out_at: int | None
    next: msgspec.Raw
    version: int = msgspec.field(name="_v", default=0)


def epoch_ms(moment: datetime | None) -> int | None:
    """Epoch milliseconds."""
    return None if moment is None else round(moment.timestamp() * 1000)


def steps(all: Sequence[ExecutionStep], history: History, outline: Outline) -> dict[str, StepObject | msgspec.Raw]:
    """Every step by its path, and the root."""
    found: dict[str, StepObject | msgspec.Raw] = {ROOT: outline.root}
    for step, known in zip(all, outline.steps, strict=True):
        found[known.id] = step_object(step, history, known)
    return found


# Looked up here once: the members of an enum are found slowly.
_DORMANT, _TIMED_OUT, _RETRYING = Compensation.DORMANT, Forward.TIMED_OUT, Forward.RETRYING


def step_object(step: ExecutionStep, history: History, known: StepOutline) -> StepObject:
    """One step."""
    back = step.compensation is not _DORMANT
    phase = step.compensate if back else step.invoke
    started = epoch_ms(step.invoke.started_at)
    first = phase.last_attempt_at is step.invoke.started_at  # as of most, which were tried once
    return StepObject(
        known.id,
        known.uuid,
        known.depth,
        known.definition,
        known.save_output,
        invoke_of(step),
        compensate_of(step),
        phase.attempts,
        phase.failures,
        started if first else epoch_ms(phase.last_attempt_at),
        started,
        back,
        phase.next_attempt_at is not None,
        None,
        epoch_ms(failed_at(step, history)),
        epoch_ms(step.invoke.ended_at) if step.state is _TIMED_OUT else None,
        known.next,
    )


def failed_at(step: ExecutionStep, history: History) -> datetime | None:
    """When the last attempt of a step failed that has another one."""
    if step.state is not _RETRYING or step.key is None:
        return None
    runs = [run for run in history.steps.values() if run.family is step.key.kind and run.name == step.key.name]
    failed = [
        attempt.ended_at
        for run in runs
        for attempt in run.counted_attempts
        if attempt.outcome is Outcome.FAILED and attempt.ended_at is not None
    ]
    return max(failed, default=None)
