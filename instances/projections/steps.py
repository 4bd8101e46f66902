"""What the folds know of one step: its attempts, its outcome, and what it waits for."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from instances.projections.entries import ErrorInfo
from instances.runtimes.protocol import Raw, StepKey, StepKind


class Outcome(StrEnum):
    """How a step ended, or how one attempt of it did."""

    COMPLETED = "complete"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    """Abandoned, because nobody needs it any more."""
    INTERRUPTED = "interrupted"
    """Attempts only: cut off by a drain, does not count."""


_INTERRUPTED = Outcome.INTERRUPTED  # looked up here once: the members of an enum are found slowly


class State(StrEnum):
    """Where a step stands; the values of an ended step are those of :class:`Outcome`."""

    RUNNING = "running"
    WAITING = "waiting"
    """For a timer, an event, or a completion from outside."""
    RETRYING = "retrying"
    """An attempt failed, the next one is due later."""
    COMPLETE = "complete"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


_GOES_ON = (State.RUNNING, State.WAITING, State.RETRYING)
_ENDED_AS = {Outcome(state.value): state for state in State if state not in _GOES_ON}


class Attempt(msgspec.Struct, gc=False):
    """One attempt of a step; open while `outcome` is None."""

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    error: ErrorInfo | None = None
    retry_delay_ms: float | None = None

    def end(self, outcome: Outcome, at: datetime, error: ErrorInfo | None = None) -> None:
        self.outcome, self.ended_at, self.error = outcome, at, error


class StepRun(msgspec.Struct, gc=False):
    """One step, sleep, wait or compensation, from its start to now."""

    family: StepKind
    name: str
    count: int
    start_seq: int
    started_at: datetime
    end_seq: int | None = None
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    node_type: str | None = None
    """Node type of a document's step."""
    config: Raw | None = None
    items: int | None = None
    """Of a `for_each`: how many items it has. Of none, this stands for all of it."""
    sensitive: bool = False
    attempts: list[Attempt] = []
    output: Raw | None = None
    """A step's output; for a wait what it received, `{payload, timestamp, type}`, unless it is `shaped`."""
    shaped: bool = False
    """Of a sleep or a wait: its output is what the node's `outputs` made."""
    compensate_input: Raw | None = None
    """What it left for its own compensation, other than its output."""
    error: ErrorInfo | None = None
    error_code: str | None = None
    given_up: bool = False
    """The run abandoned it, if only because its time was up."""
    reason: str | None = None
    """Why it was skipped."""
    event_type: str | None = None
    due_ms: float | None = None
    """Planned end in epoch milliseconds, without the pauses that came after it was planned."""
    due_seq: int = 0
    """Entry that planned it."""
    absolute: bool = False
    """The planned end is a point in time: pauses do not move it."""
    begun: int = 1
    """How often a wait began: once more each time it is retried."""
    outside: bool = False
    """The attempt is over; the completion comes from outside."""

    @property
    def key(self) -> StepKey:
        return StepKey(self.family, self.name, self.count)

    @property
    def counted(self) -> str:
        """`name-count`, as step lists show it."""
        return f"{self.name}-{self.count}"

    @property
    def open(self) -> bool:
        return self.outcome is None

    @property
    def state(self) -> State:
        if self.outcome is not None:
            return _ENDED_AS[self.outcome]
        if self.outside or self.family in (StepKind.SLEEP, StepKind.WAIT):
            return State.WAITING
        counted = self.counted_attempts
        last = counted[-1] if counted else None
        return State.RETRYING if last is not None and last.outcome is Outcome.FAILED else State.RUNNING

    @property
    def counted_attempts(self) -> list[Attempt]:
        """Attempts without those a drain cut off; only to be read."""
        attempts = self.attempts
        if len(attempts) == 1 and attempts[0].outcome is not _INTERRUPTED:
            return attempts
        return [attempt for attempt in attempts if attempt.outcome is not _INTERRUPTED]

    @property
    def retry_delay_ms(self) -> float | None:
        """Milliseconds between the last failed attempt and the next one, while that one is awaited."""
        return self.attempts[-1].retry_delay_ms if self.state is State.RETRYING else None

    def begin_attempt(self, number: int, at: datetime) -> None:
        if self.attempts and self.attempts[-1].outcome is None:
            self.attempts[-1].end(Outcome.INTERRUPTED, at)
        self.attempts.append(Attempt(number, at))
        self.outside = False

    def end_attempt(self, outcome: Outcome, at: datetime, error: ErrorInfo | None = None) -> None:
        """Close the open attempt, if there is one (a failure between attempts belongs to the step alone)."""
        if self.attempts and self.attempts[-1].outcome is None:
            self.attempts[-1].end(outcome, at, error)
        self.outside = False

    def end(self, outcome: Outcome, seq: int, at: datetime, error: ErrorInfo | None = None) -> None:
        self.outcome, self.end_seq, self.ended_at, self.error = outcome, seq, at, error
        self.outside = False


def counted_key(counted: str) -> StepKey:
    """The step a counted name (`name-2`) stands for."""
    name, _, count = counted.rpartition("-")
    if not name or not count.isascii() or not count.isdigit():
        return StepKey(StepKind.DO, counted)
    return StepKey(StepKind.DO, name, int(count))


NODES_SHOWN_AS = {"wait": "sleep", "wait_for_event": "waitForEvent", "external": "waitForEvent"}
"""Node types of documents whose steps are listed as something else than `step`."""

_SHOWN_AS = {
    StepKind.DO: "step",
    StepKind.SLEEP: "sleep",
    StepKind.WAIT: "waitForEvent",
    StepKind.ROLLBACK: "rollback",
}


def shown_as(step: StepRun) -> str:
    """The `type` under which step lists show it: step, rollback, sleep or waitForEvent."""
    if step.family is StepKind.DO and step.node_type is not None:
        return NODES_SHOWN_AS.get(step.node_type, "step")
    return _SHOWN_AS[step.family]
