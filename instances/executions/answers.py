"""Completing or failing a step from outside: which step is meant, and whether it waits for that."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from enum import Enum

from instances.engine.requests import StepAnswer
from instances.errors import StepAnsweredBefore, StepNotFound, StepNotWaiting, WrongPhase
from instances.facts import completes, fails, fails_wait, gives_input, is_failure
from instances.lifecycle import Kind
from instances.payloads import loads
from instances.projections.entries import Entry
from instances.projections.history import History
from instances.projections.steps import StepRun
from instances.runtimes.protocol import StepKey, StepKind

_ABOUT = {
    StepKind.DO: (Kind.ATTEMPT_STARTED, Kind.ATTEMPT_FAILED, Kind.STEP_COMPLETED, Kind.STEP_FAILED),
    StepKind.WAIT: (Kind.WAIT_COMPLETED, Kind.WAIT_TIMED_OUT),
    StepKind.ROLLBACK: (
        Kind.ROLLBACK_ATTEMPT_STARTED,
        Kind.ROLLBACK_ATTEMPT_FAILED,
        Kind.ROLLBACK_STEP_COMPLETED,
        Kind.ROLLBACK_STEP_FAILED,
    ),
}
"""Entries with which a step does not wait any more."""


class Phase(Enum):
    """Which half of a step is meant."""

    INVOKE = "invoke"
    COMPENSATE = "compensate"


def waiting_step(history: History, nodes: Collection[str], name: str, count: int, phase: Phase) -> StepRun:
    """The step of that name, which waits for an answer of that phase.

    `nodes`: names of steps that may not have begun. Raises :class:`StepNotFound`, :class:`WrongPhase` and
    :class:`StepNotWaiting`, whose message has the step's state.
    """
    undo = history.steps.get(StepKey(StepKind.ROLLBACK, name, count))
    forward = history.steps.get(StepKey(StepKind.DO, name, count)) or history.steps.get(
        StepKey(StepKind.WAIT, name, count)
    )
    if undo is None and forward is None:
        sleep = history.steps.get(StepKey(StepKind.SLEEP, name, count))
        if sleep is None and (name not in nodes or count != 1):
            raise StepNotFound()
        state = "pending" if sleep is None else "asleep" if sleep.open else sleep.state.value
        raise StepNotWaiting(f'the step "{name}" does not wait to be completed: it is {state}')
    if (undo is not None) != (phase is Phase.COMPENSATE):
        raise WrongPhase(f'the step "{name}" is not in the phase "{phase.value}"')
    step = undo or forward
    assert step is not None
    if history.end is not None or not _waits(step):
        raise StepNotWaiting(f'the step "{name}" does not wait to be completed: it is {step.state.value}')
    return step


def first_waiting(entries: Iterable[Entry], history: History, run: int, name: str, phase: Phase) -> int:
    """The count of the run of a step that its name means: the first that waits and has no answer, else that waits."""
    back = phase is Phase.COMPENSATE
    steps = [step for step in history.steps.values() if step.name == name and _waits(step)]
    waiting = sorted((s for s in steps if (s.family is StepKind.ROLLBACK) == back), key=lambda step: step.count)
    answered = {entry.payload for entry in entries if entry.kind == Kind.EVENT_RECEIVED}
    unanswered = (step for step in waiting if _answer(step, run, []).dedupe not in answered)
    return next((step.count for step in (*unanswered, *waiting)), 1)


def _waits(step: StepRun) -> bool:
    return step.outside or (step.open and step.family is StepKind.WAIT)


def success(step: StepRun, run: int, response: str | None, compensate_input: str | None) -> StepAnswer:
    """Complete the step with `response`; `compensate_input` goes to its compensation in place of that. JSON text."""
    if step.family is StepKind.WAIT:
        assert step.event_type is not None
        return _answer(step, run, [(step.event_type, response)])
    undo = step.family is StepKind.ROLLBACK
    type = completes(step.name, step.count, compensation=undo)
    facts = [(type, response)]
    if compensate_input is not None and not undo:
        facts.insert(0, (gives_input(type), compensate_input))
    return _answer(step, run, facts)


def failure(step: StepRun, run: int, response: str | None, compensate_input: str | None) -> StepAnswer:
    """Fail an attempt of the step. `response` (JSON text): an object with `message` is the error, anything else is its
    message.
    """
    told = _told(response)
    if compensate_input is not None:
        told["compensate_input"] = loads(compensate_input)
    payload = json.dumps(told, separators=(",", ":"))
    undo = step.family is StepKind.ROLLBACK
    type = fails_wait(step.key) if step.family is StepKind.WAIT else fails(step.name, step.count, compensation=undo)
    return _answer(step, run, [(type, payload)])


def check_unanswered(entries: Iterable[Entry], answer: StepAnswer) -> None:
    """Raise :class:`StepAnsweredBefore` when the journal has an answer to the wait that `answer` is for."""
    for entry in entries:
        if entry.kind == Kind.EVENT_RECEIVED and entry.payload == answer.dedupe:
            message = f'the step "{answer.name}" does not wait to be completed: it has its answer'
            raise StepAnsweredBefore(message, failed=is_failure(entry.name or ""))


def _told(response: str | None) -> dict[str, object]:
    value = loads(response)
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        return {key: value[key] for key in ("name", "message", "code", "permanent") if key in value}
    if value is None:
        return {"message": "Step failed"}
    return {"message": value if isinstance(value, str) else response}


def _answer(step: StepRun, run: int, facts: list[tuple[str, str | None]]) -> StepAnswer:
    kinds = [int(kind) for kind in _ABOUT[step.family]]
    since = step.due_seq or step.start_seq
    return StepAnswer(run=run, since=since, kinds=kinds, name=step.name, count=step.count, facts=facts)
