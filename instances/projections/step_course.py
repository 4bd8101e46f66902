"""How far a step of an execution is, forward and back, from its runs in the journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from instances.payloads import decode_stored
from instances.projections.execution_steps import (
    UNDOABLE,
    Compensation,
    ExecutionStep,
    Forward,
    Phase,
    Situation,
    WaitsFor,
)
from instances.projections.history import History
from instances.projections.instance_view import REDACTED
from instances.projections.steps import Outcome, State, StepRun
from instances.runtimes.protocol import Raw, StepKind
from versions.document import Node


def fill_step(
    step: ExecutionStep, runs: Sequence[StepRun], undone: Sequence[StepRun], history: History, situation: Situation
) -> None:
    """Tell a step that knows only its place how far it is, from its runs and from its compensations."""
    _go_forward(step, _in_order(runs), history, situation)
    if step.node is None:
        undone = undone if runs[0].family is StepKind.DO else ()
        step.no_compensation = not undone
    if history.rollback is not None:
        _go_back(step, _in_order(undone), history, situation)


def _in_order(runs: Sequence[StepRun]) -> Sequence[StepRun]:
    return runs if len(runs) < 2 else sorted(runs, key=lambda run: run.count)


# --- forward -----------------------------------------------------------------------------------------------------

# Looked up here once: the members of an enum are found slowly.
_PENDING, _COMPLETE, _COMPLETED = Forward.PENDING, Forward.COMPLETE, Outcome.COMPLETED
_SLEEP, _WAIT = StepKind.SLEEP, StepKind.WAIT
_STEPS = (StepKind.DO, StepKind.ROLLBACK)
_FORWARD = {State.SKIPPED: Forward.SKIPPED} | {
    state: Forward(state.value) for state in State if state is not State.SKIPPED
}
_WORST_FIRST = (
    Forward.RUNNING,
    Forward.RETRYING,
    Forward.WAITING,
    Forward.FAILED,
    Forward.TIMED_OUT,
    Forward.CANCELLED,
    Forward.COMPLETE,
)


def _go_forward(step: ExecutionStep, runs: Sequence[StepRun], history: History, situation: Situation) -> None:
    if not runs:
        step.state = _NEVER_BEGUN.get(situation, _PENDING)
        return
    first = runs[0]
    step.key, step.reason, step.compensate_input = first.key, first.reason, first.compensate_input
    goes_on = step.node is not None and step.node.for_each is not None and _goes_on(step.node, runs, situation)
    if len(runs) == 1 and not goes_on and _is_plain(first):
        step.state, step.invoke = _COMPLETE, _plain(first, _output(step, runs))
        return
    step.state = _state(first, situation) if len(runs) == 1 else _worst(runs, situation)
    if step.state in (Forward.SKIPPED, Forward.SKIPPED_FAILURE):
        step.invoke = Phase(end_seq=first.end_seq, ended_at=first.ended_at)
        return
    output = _output(step, runs) if step.state in (Forward.COMPLETE, Forward.FAILED) else None
    step.invoke = _phase(runs, history, output, cut_off=situation.over)
    if goes_on and step.state.ended:
        step.state = Forward.RUNNING
        step.invoke = msgspec.structs.replace(step.invoke, end_seq=None, ended_at=None, output=None)
    elif not step.state.ended:
        _tell_wait(step, next(run for run in runs if run.open), history)


def _goes_on(node: Node, runs: Sequence[StepRun], situation: Situation) -> bool:
    """Whether a node that runs once per item will begin further runs."""
    items = runs[0].items
    if items is None or len(runs) >= items or situation is not Situation.FORWARD:
        return False
    return node.on_error == "continue" or not any(run.error is not None and run.outcome is not None for run in runs)


def _worst(runs: Sequence[StepRun], situation: Situation) -> Forward:
    states = [_state(run, situation) for run in runs]
    return next((state for state in _WORST_FIRST if state in states), states[0])


_NEVER_BEGUN = {
    Situation.COMPLETE: Forward.SKIPPED,
    Situation.ERRORED: Forward.SKIPPED_FAILURE,
    Situation.TERMINATED: Forward.CANCELLED,
}


def _state(run: StepRun, situation: Situation) -> Forward:
    if run.open and situation.over:
        return Forward.CANCELLED
    if run.outcome is Outcome.SKIPPED and run.reason == "failure":
        return Forward.SKIPPED_FAILURE
    return _FORWARD[run.state]


def _phase(runs: Sequence[StepRun], history: History, output: Raw | None, *, cut_off: bool) -> Phase:
    """What the runs of a node come to together: one, or several of one with items."""
    if len(runs) == 1 and _is_plain(runs[0]):
        return _plain(runs[0], output)
    tries = [attempt for run in runs for attempt in run.counted_attempts]
    timers = [run for run in runs if run.family in (StepKind.SLEEP, StepKind.WAIT)]
    begins = [*(attempt.started_at for attempt in tries), *(run.started_at for run in timers)]
    retrying = [run for run in runs if run.state is State.RETRYING and not cut_off]
    due = [_retry_at(run) for run in retrying]
    failed = next((run for run in runs if run.error is not None), None)
    error = failed.error if failed else retrying[0].counted_attempts[-1].error if retrying else None
    end_seq = ended_at = None
    if all(run.end_seq is not None for run in runs):
        last = max(runs, key=lambda run: run.end_seq or 0)
        end_seq, ended_at = last.end_seq, last.ended_at
    elif cut_off and history.end is not None:
        end_seq, ended_at = history.end.seq, history.end.at
    return Phase(
        attempts=len(tries) + sum(run.begun for run in timers),
        failures=sum(attempt.outcome is Outcome.FAILED for attempt in tries),
        started_at=min(run.started_at for run in runs),
        last_attempt_at=max(begins, default=None),
        next_attempt_at=min((moment for moment in due if moment is not None), default=None),
        ended_at=ended_at,
        end_seq=end_seq,
        error=error,
        error_code=failed.error_code if failed else None,
        output=output,
    )


def _is_plain(run: StepRun) -> bool:
    """Whether it is what most are, of which a page has thousands: a step that ran and completed."""
    return run.outcome is _COMPLETED and run.family in _STEPS


def _plain(run: StepRun, output: Raw | None) -> Phase:
    """What such a one comes to, when it is the only run of its node."""
    tries = run.counted_attempts
    return Phase(
        attempts=len(tries),
        failures=sum(attempt.outcome is Outcome.FAILED for attempt in tries) if len(tries) > 1 else 0,
        started_at=run.started_at,
        last_attempt_at=tries[-1].started_at if tries else None,
        ended_at=run.ended_at,
        end_seq=run.end_seq,
        output=output,
    )


def _retry_at(run: StepRun) -> datetime | None:
    delay, last = run.retry_delay_ms, run.counted_attempts[-1]
    if delay is None or last.ended_at is None:
        return None
    return last.ended_at + timedelta(milliseconds=delay)


def _tell_wait(step: ExecutionStep, run: StepRun, history: History) -> None:
    if run.state is State.RETRYING:
        step.waits_for, step.due_at = WaitsFor.TIMER, step.invoke.next_attempt_at
    elif run.family is StepKind.SLEEP:
        step.waits_for = WaitsFor.TIMER
    elif run.family is StepKind.WAIT:
        step.waits_for, step.event_type = WaitsFor.EVENT, run.event_type
    elif run.outside:
        step.waits_for = WaitsFor.CHILD if step.type == "workflow" else WaitsFor.EXTERNAL
        step.event_type = run.event_type
    if step.due_at is None and run.state is State.WAITING:
        step.due_at = history.planned_end(run)


# --- outputs -----------------------------------------------------------------------------------------------------


class _Received(msgspec.Struct):
    payload: msgspec.Raw = msgspec.Raw(b"null")


_received = msgspec.json.Decoder(_Received)


def _output(step: ExecutionStep, runs: Sequence[StepRun]) -> Raw | None:
    if step.node is None:
        return _shown(runs[0])
    if not step.node.save_output:
        return None
    if step.node.for_each is None or runs[0].items == 0:
        return _result(runs[0])
    texts = {run.count: _result(run) for run in runs}
    return f"[{','.join(texts.get(count) or 'null' for count in range(1, max(texts) + 1))}]"


def _result(run: StepRun) -> Raw | None:
    """What a node came to: a sleep tells how long it was to be, or until a moment was, a wait the payload of its event,
    unless it says otherwise.
    """
    if run.shaped:
        return run.output
    if run.family is _SLEEP and run.outcome is _COMPLETED and run.ended_at is not None:
        slept = max(0, round((run.ended_at - run.started_at).total_seconds() * 1000))
        if run.due_ms is not None and not run.absolute:
            slept = int(run.due_ms) - int(run.started_at.timestamp() * 1000)
        return f'{{"waited":true,"durationMs":{slept}}}'
    if run.family is _WAIT and run.output is not None:
        return bytes(decode_stored(_received, run.output).payload).decode()
    return _shown(run)


def _shown(run: StepRun) -> Raw | None:
    return f'"{REDACTED}"' if run.sensitive and run.output is not None else run.output


# --- back --------------------------------------------------------------------------------------------------------

_BACK = {
    State.RUNNING: Compensation.RUNNING,
    State.WAITING: Compensation.WAITING,
    State.RETRYING: Compensation.RETRYING,
    State.COMPLETE: Compensation.COMPLETE,
    State.FAILED: Compensation.FAILED,
    State.TIMED_OUT: Compensation.FAILED,
    State.CANCELLED: Compensation.FAILED,
    State.SKIPPED: Compensation.COMPLETE,
}
_BACK_WORST_FIRST = (
    Compensation.RUNNING,
    Compensation.RETRYING,
    Compensation.WAITING,
    Compensation.FAILED,
    Compensation.COMPLETE,
)


def _go_back(step: ExecutionStep, runs: Sequence[StepRun], history: History, situation: Situation) -> None:
    """How far a rollback, once there is one, has come with a step."""
    if step.state not in UNDOABLE and not runs:
        return
    if runs:
        step.compensate = _phase(runs, history, _shown(runs[0]), cut_off=situation.over)
        states = [Compensation.FAILED if run.open and situation.over else _BACK[run.state] for run in runs]
        step.compensation = next(state for state in _BACK_WORST_FIRST if state in states)
    elif not step.no_compensation or situation is Situation.DRAINING:
        step.compensation = Compensation.PENDING
    else:
        step.compensation = Compensation.COMPLETE
