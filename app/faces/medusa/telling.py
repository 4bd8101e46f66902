"""The journal of an instance as the events subscribers of this API are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.faces.medusa.outlines import name_of, step_outline
from app.faces.medusa.steps import step_object
from app.faces.medusa.views import EXECUTION_TIMEOUT, output
from instances.lifecycle import Kind
from instances.projections.entries import Entry, read_error, read_failure
from instances.projections.execution_steps import Compensation, ExecutionStep, Forward, Situation
from instances.projections.execution_tree import document_steps, script_steps
from instances.projections.fold import advance
from instances.projections.history import History
from instances.projections.instance_view import raw_value
from instances.projections.steps import StepRun
from instances.runtimes.protocol import StepKey, StepKind
from instances.step_entries import made_of
from versions.document import Document

FINISH = "onFinish"
ENDS = frozenset({Kind.COMPLETED, Kind.ERRORED, Kind.TERMINATED})
_OVER = {
    Kind.COMPLETED: Situation.COMPLETE,
    Kind.ERRORED: Situation.ERRORED,
    Kind.TERMINATED: Situation.TERMINATED,
}
_UNDOING = range(Kind.ROLLBACK_STEP_STARTED, Kind.ROLLBACK_STEP_WAITING + 1)


@dataclass(frozen=True, slots=True)
class Event:
    """`fields` go into its data; `step` is the step it is about."""

    type: str
    step: ExecutionStep | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class Teller:
    """Reads the journal of one instance from its beginning: what an entry tells depends on those before it."""

    def __init__(self, version_key: UUID, document: Document | None) -> None:
        self._version_key = version_key
        self._document = document
        self.history = History()
        self._known: list[ExecutionStep] | None = None

    def heed(self, entry: Entry) -> None:
        """Know of an entry nobody is to be told of."""
        advance(self.history, entry)
        self._known = None

    def tell(self, entry: Entry) -> list[Event]:
        """What an entry tells, in order."""
        before = self._run_of(entry)
        outside = before is not None and (before.outside or before.family is not StepKind.DO) and before.open
        self.heed(entry)
        tell = _TELL.get(entry.kind)
        return [] if tell is None else list(tell(_Told(self, entry, outside)))

    def data(self, event: Event, workflow_id: str, transaction_id: str) -> dict[str, Any]:
        """The data of an event; what it has no value for is left out."""
        told: dict[str, Any] = {
            "event_type": event.type,
            "workflow_id": workflow_id,
            "transaction_id": transaction_id,
        }
        if event.step is not None:
            known = step_outline(event.step, self._steps(), self._version_key)
            told["step"] = step_object(event.step, self.history, known)
        return told | event.fields

    def step_of(self, entry: Entry) -> ExecutionStep | None:
        """The step an entry is about, as it is behind the entry."""
        return next((step for step in self._steps() if _is_of(step, entry)), None)

    def _steps(self) -> list[ExecutionStep]:
        """All steps, as they are behind the last entry."""
        if self._known is None:
            situation = _situation(self.history)
            if self._document is not None:
                self._known = document_steps(self._document, self.history, situation)
            else:
                self._known = script_steps(self.history, situation)
        return self._known

    def _run_of(self, entry: Entry) -> StepRun | None:
        kinds = (StepKind.ROLLBACK,) if entry.kind in _UNDOING else (StepKind.DO, StepKind.SLEEP, StepKind.WAIT)
        keys = (StepKey(kind, entry.name or "", entry.count or 1) for kind in kinds)
        return next((run for key in keys if (run := self.history.steps.get(key)) is not None and run.open), None)


def _is_of(step: ExecutionStep, entry: Entry) -> bool:
    if step.node is not None:
        return step.node.id == entry.name
    return step.key is not None and (step.key.name, step.key.count) == (entry.name, entry.count or 1)


def _situation(history: History) -> Situation:
    if history.end is not None:
        return _OVER[history.end.kind]
    if history.rollback is None:
        return Situation.FORWARD
    undoing = any(run.family is StepKind.ROLLBACK for run in history.steps.values())
    return Situation.COMPENSATING if undoing else Situation.DRAINING


@dataclass(frozen=True, slots=True)
class _Told:
    """An entry that is being told. `outside`: it ends a wait for somebody, or for a time."""

    teller: Teller
    entry: Entry
    outside: bool

    @property
    def step(self) -> ExecutionStep | None:
        return self.teller.step_of(self.entry)

    def resumed(self) -> Iterator[Event]:
        if self.outside:
            yield Event("onResume")


def _begun(told: _Told) -> Iterator[Event]:
    step = told.step
    if step is not None and (step.node is None or (told.entry.count or 1) == 1):  # the first of several runs of a node
        yield Event("onStepBegin", step)


def _wait_begun(told: _Told) -> Iterator[Event]:
    step = told.step
    yield Event("onStepBegin", step)
    yield Event("onStepAwaiting", step)


def _awaiting(told: _Told) -> Iterator[Event]:
    yield Event("onStepAwaiting", told.step)


def _completed(told: _Told) -> Iterator[Event]:
    payload = told.entry.payload
    if told.entry.kind == Kind.SLEEP_COMPLETED and payload is not None and made_of(payload) is None:
        yield from _failed(told)  # or given up
        return
    step = told.step
    if step is None or step.state is not Forward.COMPLETE:
        return  # one of several runs of a node
    yield from told.resumed()
    yield Event("onStepSuccess", step, {} if step.invoke.output is None else {"response": output(step)})


def _failed(told: _Told) -> Iterator[Event]:
    failure = read_failure(told.entry.payload)
    if failure.cancelled and not failure.timed_out:
        return
    step = told.step
    yield from told.resumed()
    over = told.entry.kind != Kind.ATTEMPT_FAILED
    if over and failure.timed_out:
        yield Event("onTimeout", step)
    name = "TransactionStepTimeoutError" if over and failure.timed_out else failure.name
    yield Event("onStepFailure", step, {"errors": [_error(step, "invoke", name, failure.message)]})


def _skipped(told: _Told) -> Iterator[Event]:
    yield Event("onStepSkipped", told.step)


def _undone(told: _Told) -> Iterator[Event]:
    step = told.step
    if step is None or step.compensation is not Compensation.COMPLETE:
        return
    found = step.compensate.output
    yield Event("onCompensateStepSuccess", step, {} if found is None else {"response": raw_value(found)})


def _not_undone(told: _Told) -> Iterator[Event]:
    failure, step = read_failure(told.entry.payload), told.step
    errors = [_error(step, "compensate", failure.name, failure.message)]
    yield Event("onCompensateStepFailure", step, {"errors": errors})


def _rollback(told: _Told) -> Iterator[Event]:
    if read_error(told.entry.payload).name == EXECUTION_TIMEOUT:
        yield Event("onTimeout")
    yield Event("onCompensateBegin")


def _ended(told: _Told) -> Iterator[Event]:
    entry = told.entry
    if entry.kind == Kind.COMPLETED:
        yield Event(FINISH, None, {"result": raw_value(entry.payload)})
        return
    late = entry.kind == Kind.ERRORED and read_error(entry.payload).name == EXECUTION_TIMEOUT
    if late and told.teller.history.rollback is None:
        yield Event("onTimeout")
    yield Event(FINISH)


def _plain(type: str) -> Callable[[_Told], Iterator[Event]]:
    def tell(_told: _Told) -> Iterator[Event]:
        yield Event(type)

    return tell


def _error(step: ExecutionStep | None, half: str, name: str, message: str) -> dict[str, Any]:
    action = "" if step is None else name_of(step)
    return {"action": action, "handlerType": half, "error": {"name": name, "message": message, "stack": ""}}


_TELL: Mapping[int, Callable[[_Told], Iterator[Event]]] = {
    Kind.STARTED: _plain("onBegin"),
    Kind.RESUMED: _plain("onResume"),
    Kind.REOPENED: _plain("onResume"),
    Kind.STEP_STARTED: _begun,
    Kind.SLEEP_STARTED: _begun,
    Kind.WAIT_STARTED: _wait_begun,
    Kind.STEP_WAITING: _awaiting,
    Kind.ROLLBACK_STEP_WAITING: _awaiting,
    Kind.STEP_COMPLETED: _completed,
    Kind.SLEEP_COMPLETED: _completed,
    Kind.WAIT_COMPLETED: _completed,
    Kind.ATTEMPT_FAILED: _failed,
    Kind.STEP_FAILED: _failed,
    Kind.WAIT_TIMED_OUT: _failed,
    Kind.STEP_SKIPPED: _skipped,
    Kind.ROLLBACK_STARTED: _rollback,
    Kind.ROLLBACK_STEP_COMPLETED: _undone,
    Kind.ROLLBACK_STEP_FAILED: _not_undone,
    Kind.ROLLBACK_ATTEMPT_FAILED: _not_undone,
    Kind.COMPLETED: _ended,
    Kind.ERRORED: _ended,
    Kind.TERMINATED: _ended,
}
