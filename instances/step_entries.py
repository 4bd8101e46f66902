"""Which step a journal entry is about: families of steps, by the kind of the entry."""

from __future__ import annotations

from collections.abc import Mapping

from instances.lifecycle import Kind
from instances.runtimes.protocol import StepKind

COMPENSATION: Mapping[Kind, Kind] = {
    Kind.STEP_STARTED: Kind.ROLLBACK_STEP_STARTED,
    Kind.ATTEMPT_STARTED: Kind.ROLLBACK_ATTEMPT_STARTED,
    Kind.ATTEMPT_FAILED: Kind.ROLLBACK_ATTEMPT_FAILED,
    Kind.ATTEMPT_INTERRUPTED: Kind.ROLLBACK_ATTEMPT_INTERRUPTED,
    Kind.STEP_COMPLETED: Kind.ROLLBACK_STEP_COMPLETED,
    Kind.STEP_FAILED: Kind.ROLLBACK_STEP_FAILED,
    Kind.STEP_WAITING: Kind.ROLLBACK_STEP_WAITING,
}
"""The kind a compensation writes where a forward step writes another."""

STARTS: Mapping[int, StepKind] = {
    Kind.STEP_STARTED: StepKind.DO,
    Kind.ROLLBACK_STEP_STARTED: StepKind.ROLLBACK,
    Kind.SLEEP_STARTED: StepKind.SLEEP,
    Kind.WAIT_STARTED: StepKind.WAIT,
}
"""Entries a step begins with."""

LATER: Mapping[int, StepKind] = {
    **{kind: StepKind.DO for kind in COMPENSATION if kind not in STARTS},
    **{kind: StepKind.ROLLBACK for kind in COMPENSATION.values() if kind not in STARTS},
    Kind.COMPENSATE_INPUT: StepKind.DO,
    Kind.STEP_RESULT: StepKind.DO,
    Kind.STEP_RETRIED: StepKind.DO,
    Kind.STEP_PIECE: StepKind.DO,
    Kind.SLEEP_COMPLETED: StepKind.SLEEP,
    Kind.WAIT_COMPLETED: StepKind.WAIT,
    Kind.WAIT_TIMED_OUT: StepKind.WAIT,
}
"""Entries about a step that began before."""

_MADE = "\n"


def made_into(output: str) -> str:
    """The payload with which a sleep or a wait ends whose node's `outputs` made `output` (JSON text).

    The same after a line feed, with which neither a failure nor an event begins: one character tells.
    """
    return _MADE + output


def made_of(payload: str | None) -> str | None:
    """What `outputs` made of a sleep or a wait that ended with this payload; None where there are none."""
    return payload[1:] if payload is not None and payload.startswith(_MADE) else None
