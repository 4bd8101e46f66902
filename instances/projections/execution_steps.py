"""The steps of an instance as every translated face shows them: one per node of a document, or per step of a script.

Faces rename; they decide nothing. A step has a place (position, path in the tree of steps:
`projections.execution_tree`), a forward state, and a compensation state of its own (`projections.step_course`).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from instances.projections.entries import ErrorInfo
from instances.runtimes.protocol import Raw, StepKey
from versions.document import Node


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
