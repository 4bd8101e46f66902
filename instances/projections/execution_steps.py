"""The steps of an instance as every translated face shows them: one per node of a document, or per step of a script.

Faces rename; they decide nothing. A step has a place (position, path in the tree of steps), a forward state, and a
compensation state of its own. Documents list all their nodes from the beginning, scripts the steps seen so far, in the
order of their first start.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from instances.payloads import decode_stored
from instances.projections.entries import ErrorInfo
from instances.projections.history import History
from instances.projections.instance_view import REDACTED
from instances.projections.steps import Outcome, State, StepRun, shown_as
from instances.runtimes.protocol import Raw, StepKey, StepKind
from versions.document import Document, Node
from versions.document.remembered import PerDocument


class Forward(StrEnum):
    """How far a step is, going forward."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    COMPLETE = "complete"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    """Its condition said no."""
    SKIPPED_FAILURE = "skipped_failure"
    """Left out because something before it failed."""
    CANCELLED = "cancelled"
    """Given up, or never begun, because the instance was ended from outside; or given up because it failed."""

    @property
    def ended(self) -> bool:
        return self not in _OPEN


_OPEN = frozenset({Forward.PENDING, Forward.RUNNING, Forward.WAITING, Forward.RETRYING})
UNDOABLE = frozenset({Forward.COMPLETE, Forward.FAILED, Forward.TIMED_OUT})
"""What a rollback undoes."""


class Compensation(StrEnum):
    """How far the undoing of a step is."""

    DORMANT = "dormant"
    """Nothing is to be undone (yet)."""
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    COMPLETE = "complete"
    FAILED = "failed"


class WaitsFor(StrEnum):
    TIMER = "timer"
    EVENT = "event"
    EXTERNAL = "external"
    """Completion from outside."""
    CHILD = "child"


class Situation(StrEnum):
    """What the instance's own state means for its steps."""

    FORWARD = "forward"
    DRAINING = "draining"
    COMPENSATING = "compensating"
    COMPLETE = "complete"
    ERRORED = "errored"
    TERMINATED = "terminated"

    @property
    def over(self) -> bool:
        return self in (Situation.COMPLETE, Situation.ERRORED, Situation.TERMINATED)


class Phase(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Attempts of one direction. `attempts` counts all begun, those a drain cut off left out."""

    attempts: int = 0
    failures: int = 0
    started_at: datetime | None = None
    last_attempt_at: datetime | None = None
    next_attempt_at: datetime | None = None
    """When a retry is due."""
    ended_at: datetime | None = None
    end_seq: int | None = None
    """Entry of the journal that ended it: the order of finishing."""
    error: ErrorInfo | None = None
    error_code: str | None = None
    output: Raw | None = None


UNBEGUN = Phase()
"""Of what has not begun."""


class ExecutionStep(msgspec.Struct, kw_only=True, gc=False):
    """One step. `key` names it in the journal: of a node the first of its runs, None when it has not begun."""

    id: str
    """A node's id; of a script `name-count`."""
    name: str
    """The label."""
    position: int
    path: tuple[str, ...]
    """Names from the root of the tree down to this step."""
    children: tuple[int, ...] = ()
    """Positions, in order."""
    type: str
    """Node type; of a script step, sleep or waitForEvent."""
    node: Node | None = None
    counts: bool = True
    """Whether it is part of progress: triggers are not."""
    key: StepKey | None = None
    state: Forward = Forward.PENDING
    compensation: Compensation = Compensation.DORMANT
    no_compensation: bool = False
    """It is undone without anything to do."""
    waits_for: WaitsFor | None = None
    event_type: str | None = None
    due_at: datetime | None = None
    """Planned end of what it waits for."""
    invoke: Phase = UNBEGUN
    compensate: Phase = UNBEGUN
    compensate_input: Raw | None = None
    reason: str | None = None
    """Why it was skipped."""

    @property
    def depth(self) -> int:
        return len(self.path)

    @property
    def duration_ms(self) -> int | None:
        """From the first attempt to the end of the last, waiting included; None until it ended, and if it never ran."""
        started, ended = self.invoke.started_at, self.invoke.ended_at
        return None if started is None or ended is None else max(0, round((ended - started).total_seconds() * 1000))


def document_steps(document: Document, history: History, situation: Situation) -> list[ExecutionStep]:
    """A step for every node, in document order."""
    runs: dict[str, list[StepRun]] = {}
    undone: dict[str, list[StepRun]] = {}
    for run in history.steps.values():
        (undone if run.family is StepKind.ROLLBACK else runs).setdefault(run.name, []).append(run)
    steps = [replace(step) for step in _unbegun(document)]
    for step in steps:
        fill_step(step, runs.get(step.id, ()), undone.get(step.id, ()), history, situation)
    return steps


@PerDocument
def _unbegun(document: Document) -> list[ExecutionStep]:
    """The steps before anything happened: what is the same in all instances."""
    by_id = {node.id: node for node in document.nodes}
    children: dict[str | None, list[int]] = {}
    for place, node in enumerate(document.nodes):
        children.setdefault(node.parent, []).append(place)
    return [
        ExecutionStep(
            id=node.id,
            name=node.name,
            position=place,
            path=_path(node, by_id),
            children=tuple(children.get(node.id, ())),
            type=node.type,
            node=node,
            counts=node.type != "trigger",
            no_compensation=node.compensate is None,
        )
        for place, node in enumerate(document.nodes)
    ]


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


def script_steps(history: History, situation: Situation) -> list[ExecutionStep]:
    """A step for everything a script has begun. All hang from the root."""
    steps: list[ExecutionStep] = []
    naming = Naming()
    for run in sorted(history.steps.values(), key=lambda run: run.start_seq):
        if run.family is StepKind.ROLLBACK:
            continue
        step = naming.step(run, len(steps))
        undone = history.steps.get(StepKey(StepKind.ROLLBACK, run.name, run.count))
        fill_step(step, [run], [undone] if undone else [], history, situation)
        steps.append(step)
    return steps


class Naming:
    """Gives the steps of a script, in their order, ids and names in the tree of which there is one each."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._names: set[str] = set()

    def step(self, run: StepRun, position: int) -> ExecutionStep:
        """The step of a run; it knows only its place."""
        id, names = _unused(f"{run.name}-{{}}", run.count, self._ids), self._names
        plain = run.name.replace(".", "_").replace(":", "_")
        name = plain if run.count == 1 and plain not in names else _unused(f"{plain}-{{}}", max(run.count, 2), names)
        names.add(name)
        return ExecutionStep(id=id, name=run.name, position=position, path=(name,), type=shown_as(run))


def _unused(form: str, number: int, used: set[str]) -> str:
    while form.format(number) in used:
        number += 1
    used.add(form.format(number))
    return form.format(number)


def _path(node: Node, by_id: dict[str, Node]) -> tuple[str, ...]:
    if node.parent is None:
        return (node.id,)
    names = [node.id]
    while node.parent is not None:
        node = by_id[node.parent]
        names.append(node.id)
    return tuple(reversed(names))


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
