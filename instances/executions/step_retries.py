"""Retrying one step in place: whether that may be, and how it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instances.engine.requests import StepAnswer
from instances.errors import CannotRetryStep, RolledBack, StepNotFound
from instances.executions.store import Execution
from instances.facts import retries
from instances.lifecycle import Kind, Status
from instances.projections.entries import Entry
from instances.projections.fold import fold
from instances.projections.history import History
from instances.projections.steps import Outcome, State, StepRun
from instances.runtimes.protocol import StepKey, StepKind

_MOVED_ON = (Kind.ATTEMPT_STARTED, Kind.STEP_RETRIED, Kind.STEP_COMPLETED, Kind.STEP_FAILED)
"""Entries about a step after which it does not stand any more where it stood."""


@dataclass(frozen=True, slots=True)
class Reopening:
    """The instance goes on with this attempt of the step, whose failure was written at `failed_seq`; `aside`: it did
    not end of that. A wait has no attempts, and begins again.
    """

    key: StepKey
    attempt: int | None
    failed_seq: int
    aside: bool


def plan_retry(entries: Sequence[Entry], execution: Execution, key: StepKey) -> StepAnswer | Reopening:
    """How the step is to be retried. Raises :class:`StepNotFound`, :class:`CannotRetryStep`, :class:`RolledBack`."""
    history = fold(entries)
    document = execution.document
    node = None if document is None else next((node for node in document.nodes if node.id == key.name), None)
    step = history.steps.get(key)
    if step is None:
        if node is None or key.count != 1:
            raise StepNotFound()
        raise CannotRetryStep("only failed steps can be retried; this one is pending")
    failed = step.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and not step.given_up
    if not failed and not (step.state is State.RETRYING and not execution.status.finished):
        raise CannotRetryStep(f"only failed steps can be retried; this one is {step.state.value}")
    passed_over = node is not None and node.on_error != "stop"
    if passed_over and key.kind is StepKind.WAIT:
        raise CannotRetryStep("the execution went on without the event: retry the execution from the step")
    if execution.status.finished:
        return _reopening(history, execution, step, passed_over=passed_over)
    if failed and execution.status is Status.ROLLING_BACK:
        raise RolledBack("the execution is being rolled back")
    if failed and not passed_over:
        raise CannotRetryStep("the execution has not ended of the failure yet")
    return _asking(entries, execution, step)


def _asking(entries: Sequence[Entry], execution: Execution, step: StepRun) -> StepAnswer:
    """A fact for the run that goes on, valid as long as nothing more happens to the step."""
    about = (entry.seq for entry in entries if (entry.name, entry.count) == (step.name, step.count))
    kinds = [int(kind) for kind in _MOVED_ON]
    facts = [(retries(step.key), None)]
    return StepAnswer(run=execution.run, since=max(about), kinds=kinds, name=step.name, count=step.count, facts=facts)


def _reopening(history: History, execution: Execution, step: StepRun, *, passed_over: bool) -> Reopening:
    if execution.status is not Status.ERRORED:
        raise CannotRetryStep(f"steps of an execution that is {execution.status.wire} cannot be retried")
    if any(one.family is StepKind.ROLLBACK for one in history.steps.values()):
        raise RolledBack("the execution was rolled back: retry all of it")
    if execution.parent_key is not None:
        raise CannotRetryStep("the execution is a child, whose parent went on: retry the parent")
    failed_seq = step.end_seq or 0
    if execution.document is None and any(one.start_seq > failed_seq for one in history.steps.values()):
        raise CannotRetryStep("the script went on after the failure: retry the execution from the step")
    attempt = max((a.number for a in step.attempts), default=0) + 1
    return Reopening(step.key, None if step.family is StepKind.WAIT else attempt, failed_seq, passed_over)
