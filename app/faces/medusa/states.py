"""What the core's statuses are called here: states of executions, states and statuses of steps."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from instances.projections.execution_steps import Compensation, ExecutionStep, Forward
from instances.search.query import Facet

FACETS: Mapping[str, frozenset[Facet]] = {
    "not_started": frozenset({Facet.HELD_BACK, Facet.ADMITTED}),
    "invoking": frozenset({Facet.RUNNING, Facet.WAITING, Facet.PAUSED, Facet.WAITING_FOR_PAUSE}),
    "waiting_to_compensate": frozenset({Facet.DRAINING}),
    "compensating": frozenset({Facet.COMPENSATING}),
    "done": frozenset({Facet.COMPLETE}),
    "reverted": frozenset({Facet.ERRORED_REVERTED, Facet.TERMINATED_REVERTED}),
    "failed": frozenset({Facet.ERRORED, Facet.TERMINATED}),
}
"""What each state stands for. A workflow whose step failed ends `reverted`, also with nothing to undo; `failed` means
that undoing failed, or was not wanted.
"""
STATES = tuple(FACETS)
_STATE_OF = {facet: state for state, facets in FACETS.items() for facet in facets}

WAITING_RESPONSE = "waiting_response"


class StepState(msgspec.Struct, frozen=True):
    """Of one half of a step, as it is shown."""

    state: str
    status: str


_INVOKE: Mapping[Forward, StepState] = {
    Forward.PENDING: StepState("not_started", "idle"),
    Forward.RUNNING: StepState("invoking", WAITING_RESPONSE),
    Forward.WAITING: StepState("invoking", WAITING_RESPONSE),
    Forward.RETRYING: StepState("invoking", "temp_failure"),
    Forward.COMPLETE: StepState("done", "ok"),
    Forward.FAILED: StepState("failed", "permanent_failure"),
    Forward.TIMED_OUT: StepState("timeout", "permanent_failure"),
    Forward.SKIPPED: StepState("skipped", "ok"),
    Forward.SKIPPED_FAILURE: StepState("skipped_failure", "idle"),
    Forward.CANCELLED: StepState("failed", "permanent_failure"),
}
_COMPENSATE: Mapping[Compensation, StepState] = {
    Compensation.DORMANT: StepState("dormant", "idle"),
    Compensation.PENDING: StepState("not_started", "idle"),
    Compensation.RUNNING: StepState("compensating", WAITING_RESPONSE),
    Compensation.WAITING: StepState("compensating", WAITING_RESPONSE),
    Compensation.RETRYING: StepState("compensating", "temp_failure"),
    Compensation.COMPLETE: StepState("reverted", "ok"),
    Compensation.FAILED: StepState("failed", "permanent_failure"),
}
WAITING = frozenset(state for state, told in _INVOKE.items() if told.status == WAITING_RESPONSE)
"""Steps that wait for a response: those under way."""
WAITING_TO_UNDO = frozenset(state for state, told in _COMPENSATE.items() if told.status == WAITING_RESPONSE)
"""Those whose undoing is."""
_NOTHING_TO_UNDO = StepState("reverted", "idle")
_UNDONE = Compensation.COMPLETE


def state_of(facet: Facet) -> str:
    """The state of an execution."""
    return _STATE_OF[facet]


def invoke_of(step: ExecutionStep) -> StepState:
    """How far a step is, going forward."""
    return _INVOKE[step.state]


def compensate_of(step: ExecutionStep) -> StepState:
    """How far the undoing of a step is."""
    if step.compensation is _UNDONE and step.no_compensation:
        return _NOTHING_TO_UNDO
    return _COMPENSATE[step.compensation]
