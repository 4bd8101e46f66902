"""One step in full: what `GET .../instances/{instance_id}/step` shows. Its output is whole, never cut."""

from __future__ import annotations

import msgspec

from instances.lifecycle import Status
from instances.projections.entries import ErrorInfo
from instances.projections.history import History
from instances.projections.instance_view import REDACTED, raw_value
from instances.projections.steps import Outcome, State, StepRun, shown_as
from instances.projections.values import StoredStream, stored_stream

STEP_TYPES = ("step", "waitForEvent")

_STATUS = {
    State.RUNNING: Status.RUNNING,
    State.RETRYING: Status.RUNNING,
    State.WAITING: Status.WAITING,
    State.COMPLETE: Status.COMPLETE,
    State.FAILED: Status.ERRORED,
    State.TIMED_OUT: Status.ERRORED,
    State.CANCELLED: Status.ERRORED,
}


class StepDetail(msgspec.Struct, kw_only=True):
    """`status` is one of the nine instance statuses. `running` with an error means that a retry is due."""

    status: str
    error: ErrorInfo | None
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    event_type: str | msgspec.UnsetType = msgspec.UNSET


def find_step(history: History, counted: str, kind: str) -> StepRun | None:
    """The step listed as `counted` (`name-count`) under type `kind`, a member of `STEP_TYPES`."""
    for step in history.steps.values():
        if step.outcome is not Outcome.SKIPPED and shown_as(step) == kind and step.counted == counted:
            return step
    return None


def step_detail(step: StepRun, instance: Status, attempt: int | None = None) -> StepDetail | StoredStream | None:
    """The step, or one attempt of it; the stream when it returned one; None when there is no such attempt.

    A step that was still open when the instance ended was cut off: its status is `terminated`.
    """
    if attempt is not None:
        attempts = [one for one in step.attempts if one.number == attempt and one.outcome is not Outcome.INTERRUPTED]
        if (step.attempts and not attempts) or (not step.attempts and attempt != 1):
            return None
        if attempts and attempts[-1] is not step.attempts[-1]:
            return StepDetail(status=Status.ERRORED.wire, error=attempts[-1].error)
        if attempts and attempts[-1].outcome is Outcome.FAILED:
            return StepDetail(status=Status.ERRORED.wire, error=attempts[-1].error)
    return _whole(step, instance)


def _whole(step: StepRun, instance: Status) -> StepDetail | StoredStream:
    status = Status.TERMINATED if step.open and instance.finished else _STATUS[step.state]
    error = step.error
    if step.state is State.RETRYING:
        error = step.counted_attempts[-1].error
    detail = StepDetail(status=status.wire, error=error)
    if shown_as(step) == "waitForEvent" and step.event_type is not None:
        detail.event_type = step.event_type
    if status is Status.COMPLETE:
        if step.sensitive:
            detail.output = msgspec.Raw(f'"{REDACTED}"'.encode())
        elif (stream := stored_stream(step.output)) is not None:
            return stream
        else:
            detail.output = raw_value(step.output)
    return detail
