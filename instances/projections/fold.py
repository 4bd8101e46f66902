"""The fold: journal entries in, the instance's history out.

Entries come in `seq` order. A restart makes entries of earlier runs void: RESTARTED carries `from_seq`, and whatever
belongs to a step that started at or after it, or happened at or after it outside any step, is forgotten. Steps that
started earlier keep their results, even those they got later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from instances.lifecycle import Kind
from instances.projections.entries import (
    Entry,
    ErrorInfo,
    FailurePayload,
    json_text,
    read_error,
    read_failure,
    read_log,
    read_reason,
    read_restart,
    read_rollback,
    read_start,
    read_sync_point,
    read_timer,
    read_waiting,
)
from instances.projections.history import End, History, Line, Mark, Pause, Rollback
from instances.projections.steps import Attempt, Outcome, StepRun, counted_key
from instances.runtimes.protocol import StepKey, StepKind
from instances.step_entries import made_of

# Looked up here once: the members of an enum are found slowly, and a page has thousands of entries.
_COMPLETED = Outcome.COMPLETED

FIRST_AFTER_QUEUED = 2
"""`from_seq` of a full restart: everything but QUEUED is void."""


def fold(entries: Iterable[Entry]) -> History:
    """The history the entries tell. Unknown kinds are passed over: a newer release may have written them."""
    history, entry = History(), None
    for entry in entries:
        handler = _HANDLERS.get(entry.kind)
        if handler is not None:
            handler(history, entry)
    if entry is not None:
        history.last_seq, history.last_at = entry.seq, entry.at
    return history


def advance(history: History, entry: Entry) -> None:
    """Let the history heed one more entry, the next of its instance."""
    handler = _HANDLERS.get(entry.kind)
    if handler is not None:
        handler(history, entry)
    history.last_seq, history.last_at = entry.seq, entry.at


def _key(family: StepKind, entry: Entry) -> StepKey:
    return StepKey(family, entry.name or "", entry.count or 1)


# --- the instance ----------------------------------------------------------------------------------------------


def _queued(history: History, entry: Entry) -> None:
    history.queued_at = entry.at


def _started(history: History, entry: Entry) -> None:
    if history.started_at is None:
        history.started_at, history.started_seq = entry.at, entry.seq


def _paused(history: History, entry: Entry) -> None:
    if not history.paused:
        history.pauses.append(Pause(entry.seq, entry.at))


def _resumed(history: History, entry: Entry) -> None:
    if history.paused:
        history.pauses[-1].ended_at = entry.at


def _restarted(history: History, entry: Entry) -> None:
    from_seq = read_restart(entry.payload).from_seq
    history.forget(from_seq, entry.at)
    history.restarts += 1
    if from_seq <= FIRST_AFTER_QUEUED:
        history.queued_at = entry.at


def _reopened(history: History, entry: Entry) -> None:
    """The failure of a step is void, and what followed from it: what was given up for it has not begun."""
    from_seq = read_restart(entry.payload).from_seq
    void = (Outcome.CANCELLED, Outcome.SKIPPED)
    history.steps = {
        key: step for key, step in history.steps.items() if step.outcome not in void or (step.end_seq or 0) < from_seq
    }
    for step in history.steps.values():
        if not step.outside:
            step.end_attempt(Outcome.INTERRUPTED, entry.at)
    history.milestones = [mark for mark in history.milestones if mark.seq < from_seq]
    history.sync_points = [mark for mark in history.sync_points if mark.seq < from_seq]
    history.rollback = None
    if entry.attempt is None:
        _wait_retried(history, entry)
    else:
        _step_retried(history, entry)


def _wait_retried(history: History, entry: Entry) -> None:
    history.end = None
    step = history.steps.get(_key(StepKind.WAIT, entry))
    if step is not None:
        step.outcome = step.end_seq = step.ended_at = step.error = step.error_code = step.output = step.due_ms = None
        step.begun += 1


def _step_retried(history: History, entry: Entry) -> None:
    history.end = None
    step = history.steps.get(_key(StepKind.DO, entry))
    if step is not None:
        step.outcome = step.end_seq = step.ended_at = step.error = step.error_code = step.output = None
        step.begin_attempt(entry.attempt or 1, entry.at)


def _rollback_started(history: History, entry: Entry) -> None:
    history.rollback = Rollback(entry.seq, entry.at, read_error(entry.payload))


def _rollback_ended(history: History, entry: Entry) -> None:
    if history.rollback is None:
        history.rollback = Rollback(entry.seq, entry.at, ErrorInfo())
    told = read_rollback(entry.payload)
    history.rollback.outcome, history.rollback.error, history.rollback.ended_at = told.outcome, told.error, entry.at


def _ended(history: History, entry: Entry) -> None:
    history.end = End(entry.seq, Kind(entry.kind), entry.at, entry.payload)


def _event_received(history: History, entry: Entry) -> None:
    history.events.append(Mark(entry.seq, entry.name or "", entry.at))


def _milestone(history: History, entry: Entry) -> None:
    history.milestones.append(Mark(entry.seq, entry.name or "", entry.at))


def _sync_point(history: History, entry: Entry) -> None:
    history.sync_points.append(Mark(entry.seq, entry.name or "", entry.at, read_sync_point(entry.payload).state))


def _log(history: History, entry: Entry) -> None:
    told = read_log(entry.payload)
    step = history.steps.get(counted_key(entry.name)) if entry.name else None
    history.lines.append(
        Line(
            entry.seq,
            step.start_seq if step else entry.seq,
            entry.at,
            told.level,
            told.message,
            entry.name,
            json_text(told.data),
        )
    )


# --- steps and compensations -----------------------------------------------------------------------------------


def _step_started(family: StepKind) -> Callable[[History, Entry], None]:
    def handle(history: History, entry: Entry) -> None:
        key, told = _key(family, entry), read_start(entry.payload)
        step = StepRun(
            family,
            key.name,
            key.count,
            entry.seq,
            entry.at,
            node_type=told.type,
            config=json_text(told.config),
            items=told.items,
            sensitive=told.sensitive,
        )
        if entry.attempt != 0:  # else its result was taken over from another instance
            step.attempts.append(Attempt(entry.attempt or 1, entry.at))
        if key in history.steps:
            del history.steps[key]  # it moves to the end
        history.steps[key] = step

    return handle


def _on_step(family: StepKind, apply: Callable[[StepRun, Entry], None]) -> Callable[[History, Entry], None]:
    """A handler for entries about a step that started before."""

    def handle(history: History, entry: Entry) -> None:
        step = history.steps.get(StepKey(family, entry.name or "", entry.count or 1))
        if step is not None:
            apply(step, entry)

    return handle


def _attempt_started(step: StepRun, entry: Entry) -> None:
    step.begin_attempt(entry.attempt or len(step.counted_attempts) + 1, entry.at)


def _attempt_failed(step: StepRun, entry: Entry) -> None:
    told = read_failure(entry.payload)
    step.end_attempt(Outcome.FAILED, entry.at, _error(told))
    if step.attempts:
        step.attempts[-1].retry_delay_ms = told.delay


def _attempt_interrupted(step: StepRun, entry: Entry) -> None:
    step.end_attempt(Outcome.INTERRUPTED, entry.at)


def _step_completed(step: StepRun, entry: Entry) -> None:
    step.end_attempt(_COMPLETED, entry.at)
    step.end(_COMPLETED, entry.seq, entry.at)
    step.output = entry.payload


def _step_failed(step: StepRun, entry: Entry) -> None:
    told = read_failure(entry.payload)
    error = _error(told)
    step.end_attempt(Outcome.FAILED, entry.at, error)
    step.end(_outcome(told), entry.seq, entry.at, error)
    step.error_code, step.given_up = told.code, told.cancelled
    step.output = json_text(told.output)
    step.compensate_input = json_text(told.compensate_input) or step.compensate_input


def _compensate_input(step: StepRun, entry: Entry) -> None:
    step.compensate_input = entry.payload


def _step_waiting(step: StepRun, entry: Entry) -> None:
    told = read_waiting(entry.payload)
    step.outside, step.due_ms, step.due_seq = True, told.until, entry.seq
    step.event_type = told.type or f"step:{step.name}"


def _step_skipped(history: History, entry: Entry) -> None:
    key = _key(StepKind.DO, entry)
    step = StepRun(StepKind.DO, key.name, key.count, entry.seq, entry.at, reason=read_reason(entry.payload).reason)
    step.end(Outcome.SKIPPED, entry.seq, entry.at)
    history.steps[key] = step


def _error(told: FailurePayload) -> ErrorInfo:
    return ErrorInfo(told.name, told.message)


def _outcome(told: FailurePayload) -> Outcome:
    if told.timed_out:
        return Outcome.TIMED_OUT
    return Outcome.CANCELLED if told.cancelled else Outcome.FAILED


# --- sleeps and waits ------------------------------------------------------------------------------------------


def _timer_started(family: StepKind) -> Callable[[History, Entry], None]:
    def handle(history: History, entry: Entry) -> None:
        key, told = _key(family, entry), read_timer(entry.payload)
        earlier = history.steps.get(key)  # a wait that is retried
        history.steps[key] = StepRun(
            family,
            key.name,
            key.count,
            entry.seq,
            entry.at if earlier is None else earlier.started_at,
            begun=1 if earlier is None else earlier.begun,
            due_ms=told.due,
            due_seq=entry.seq,
            absolute=told.absolute,
            event_type=told.type,
            items=told.items,
        )

    return handle


def _sleep_completed(step: StepRun, entry: Entry) -> None:
    """Slept through; or abandoned, or failed: then the entry carries an error."""
    if entry.payload is None or made_of(entry.payload) is not None:
        _timer_completed(step, entry)
    else:
        _timer_broken(step, entry)


def _timer_completed(step: StepRun, entry: Entry) -> None:
    step.end(Outcome.COMPLETED, entry.seq, entry.at)
    made = made_of(entry.payload)
    step.output, step.shaped = entry.payload if made is None else made, made is not None


def _timer_broken(step: StepRun, entry: Entry) -> None:
    told = read_failure(entry.payload)
    step.end(_outcome(told), entry.seq, entry.at, _error(told))
    step.error_code, step.given_up = told.code, told.cancelled


_HANDLERS: dict[int, Callable[[History, Entry], None]] = {
    Kind.QUEUED: _queued,
    Kind.STARTED: _started,
    Kind.STEP_STARTED: _step_started(StepKind.DO),
    Kind.ATTEMPT_STARTED: _on_step(StepKind.DO, _attempt_started),
    Kind.ATTEMPT_FAILED: _on_step(StepKind.DO, _attempt_failed),
    Kind.ATTEMPT_INTERRUPTED: _on_step(StepKind.DO, _attempt_interrupted),
    Kind.STEP_COMPLETED: _on_step(StepKind.DO, _step_completed),
    Kind.STEP_FAILED: _on_step(StepKind.DO, _step_failed),
    Kind.COMPENSATE_INPUT: _on_step(StepKind.DO, _compensate_input),
    Kind.STEP_SKIPPED: _step_skipped,
    Kind.STEP_WAITING: _on_step(StepKind.DO, _step_waiting),
    Kind.SLEEP_STARTED: _timer_started(StepKind.SLEEP),
    Kind.SLEEP_COMPLETED: _on_step(StepKind.SLEEP, _sleep_completed),
    Kind.WAIT_STARTED: _timer_started(StepKind.WAIT),
    Kind.WAIT_COMPLETED: _on_step(StepKind.WAIT, _timer_completed),
    Kind.WAIT_TIMED_OUT: _on_step(StepKind.WAIT, _timer_broken),
    Kind.EVENT_RECEIVED: _event_received,
    Kind.PAUSED: _paused,
    Kind.RESUMED: _resumed,
    Kind.RESTARTED: _restarted,
    Kind.REOPENED: _reopened,
    Kind.STEP_RETRIED: _step_retried,
    Kind.ROLLBACK_STARTED: _rollback_started,
    Kind.ROLLBACK_STEP_STARTED: _step_started(StepKind.ROLLBACK),
    Kind.ROLLBACK_ATTEMPT_STARTED: _on_step(StepKind.ROLLBACK, _attempt_started),
    Kind.ROLLBACK_ATTEMPT_FAILED: _on_step(StepKind.ROLLBACK, _attempt_failed),
    Kind.ROLLBACK_ATTEMPT_INTERRUPTED: _on_step(StepKind.ROLLBACK, _attempt_interrupted),
    Kind.ROLLBACK_STEP_COMPLETED: _on_step(StepKind.ROLLBACK, _step_completed),
    Kind.ROLLBACK_STEP_FAILED: _on_step(StepKind.ROLLBACK, _step_failed),
    Kind.ROLLBACK_STEP_WAITING: _on_step(StepKind.ROLLBACK, _step_waiting),
    Kind.ROLLBACK_ENDED: _rollback_ended,
    Kind.COMPLETED: _ended,
    Kind.ERRORED: _ended,
    Kind.TERMINATED: _ended,
    Kind.LOG: _log,
    Kind.MILESTONE: _milestone,
    Kind.SYNC_POINT: _sync_point,
}
