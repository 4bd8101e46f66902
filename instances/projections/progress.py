"""How far an instance is, in steps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from instances.lifecycle import Status
from instances.projections.history import History
from instances.projections.steps import State, StepRun
from instances.runtimes.protocol import StepKind


@dataclass(frozen=True, slots=True)
class Progress:
    """`completed` is the sum of `successful`, `failed` and `skipped`, which counts abandoned steps, too. `estimated`:
    `total` may still grow.
    """

    total: int
    completed: int
    successful: int
    failed: int
    running: int
    skipped: int
    percentage: int
    estimated: bool = False


def progress(history: History, status: Status, nodes: Collection[str] | None = None) -> Progress:
    """Progress of an instance in `status`.

    `nodes` names the nodes of a document that count. Without it (scripts) the total is an estimate: the steps seen so
    far, and one more until the end; the percentage is then the highest so far and below 100 until the instance is
    complete.
    """
    steps = [step for step in history.steps.values() if step.family is not StepKind.ROLLBACK]
    if nodes is not None:
        return _of_document(steps, status, nodes)
    states = [step.state for step in steps]
    total = len(steps) + (0 if status.finished else 1)
    percentage = 100 if status is Status.COMPLETE else _highest(steps)
    return _counted(states, status, total, percentage, estimated=not status.finished)


def _of_document(steps: list[StepRun], status: Status, nodes: Collection[str]) -> Progress:
    by_node: dict[str, list[State]] = {}
    for step in steps:
        if step.name in nodes:
            by_node.setdefault(step.name, []).append(step.state)
    states = [_node_state(states) for states in by_node.values()]
    completed = sum(state in _ENDED for state in states)
    percentage = 100 if status is Status.COMPLETE else _rounded(completed, len(nodes))
    return _counted(states, status, len(nodes), percentage, estimated=False)


_ENDED = frozenset({State.COMPLETE, State.FAILED, State.TIMED_OUT, State.SKIPPED, State.CANCELLED})


def _node_state(states: list[State]) -> State:
    """The state of a node whose steps (several for a loop) are in `states`."""
    for state in (State.RUNNING, State.RETRYING, State.WAITING, State.FAILED, State.TIMED_OUT, State.COMPLETE):
        if state in states:
            return state
    return State.SKIPPED


def _counted(states: list[State], status: Status, total: int, percentage: int, *, estimated: bool) -> Progress:
    successful = states.count(State.COMPLETE)
    failed = states.count(State.FAILED) + states.count(State.TIMED_OUT)
    skipped = states.count(State.SKIPPED) + states.count(State.CANCELLED)
    completed = successful + failed + skipped
    running = 0 if status.finished else len(states) - completed
    return Progress(total, completed, successful, failed, running, skipped, percentage, estimated)


def _highest(steps: list[StepRun]) -> int:
    """The highest percentage there was at any moment, one more step being expected at each."""
    moments = [(step.start_seq, 0) for step in steps]
    moments += [(step.end_seq, 1) for step in steps if step.end_seq is not None]
    seen = done = best = 0
    for _, ended in sorted(moments):
        seen, done = (seen, done + 1) if ended else (seen + 1, done)
        best = max(best, _rounded(done, seen + 1))
    return min(best, 99)


def _rounded(part: int, whole: int) -> int:
    """Percent, halves rounded up; 0 of 0 is 0."""
    return (200 * part + whole) // (2 * whole) if whole else 0
