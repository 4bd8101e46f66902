"""What a run keeps about its nodes while it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from typing import Any

from instances.runtimes.document.plan import Body, CompensationPlan, NodePlan
from instances.runtimes.document.scope import RunFacts, Scope
from instances.runtimes.protocol import Failure, Raw, StepKey, StepKind


class State(IntEnum):
    """Forward state of a node or sync point."""

    PENDING = 0
    READY = 1
    RUNNING = 2
    COMPLETE = 3
    FAILED = 4
    TIMED_OUT = 5
    SKIPPED = 6
    """Its condition was false."""
    SKIPPED_FAILURE = 7
    """Jumped over because something before it failed."""
    CANCELLED = 8
    """Given up when the run failed, with nothing done that would have to be undone."""


WORDS = {state: state.name.lower() for state in State}
ACHIEVED = frozenset({State.COMPLETE, State.SKIPPED})
"""What sync points and milestones accept."""
WAITS = frozenset({StepKind.SLEEP, StepKind.WAIT})
"""Steps in which nothing runs."""
UNDOABLE = frozenset({State.COMPLETE, State.FAILED, State.TIMED_OUT})


class Mode(Enum):
    FORWARD = "forward"
    DRAINING = "draining"
    """Failed: nothing new starts, what runs may finish."""
    COMPENSATING = "compensating"
    ENDED = "ended"


@dataclass(slots=True)
class Work:
    """One command in flight: a node, one child of a `for_each` (`index` >= 0), or a compensation."""

    facts: RunFacts
    plan: NodePlan
    body: Body
    scope: Scope
    key: StepKey
    index: int = -1
    compensation: CompensationPlan | None = None
    failure: Failure | None = None
    """Known before it starts: the attempt only reports it."""
    result: Raw | None = None
    """Known before it starts, for work that has nothing to do."""
    settled: bool = False
    """`result` holds, even when it is None."""
    has_slot: bool = False
    timer: str | None = None
    """Deadline of a sleep or wait."""
    duration: int = 0
    """Of a sleep, ms."""
    retries: int = 0
    """Further attempts begun, known live only."""
    items: int | None = None
    """How many items the `for_each` has whose child this is."""

    @property
    def loops_over_nothing(self) -> bool:
        """It stands for a whole `for_each` without items."""
        return self.settled and self.plan.for_each is not None and self.index < 0


@dataclass(slots=True)
class Child:
    """How one child of a `for_each` ended."""

    state: State
    output: Raw | None = None
    compensate_input: Raw | None = None


@dataclass(slots=True)
class Loop:
    """A `for_each` under way: one child run per item, `parallel` at once."""

    items: list[Any]
    scope: Scope
    started_at: datetime
    parallel: int
    persists: bool
    """Goes on with the other items when one failed."""
    next: int = 0
    active: int = 0
    attempts: int = 0
    failure: Failure | None = None
    timed_out: bool = False
    children: dict[int, Child] = field(default_factory=dict)

    @property
    def stopping(self) -> bool:
        return self.failure is not None and not self.persists

    def take(self) -> int | None:
        """The next item whose turn it is."""
        if self.stopping or self.active >= self.parallel or self.next >= len(self.items):
            return None
        self.active += 1
        self.next += 1
        return self.next - 1

    def ended(self, index: int, child: Child, failure: Failure | None, attempts: int) -> None:
        self.active -= 1
        self.attempts += attempts
        self.children[index] = child
        if failure is not None and self.failure is None:
            self.failure, self.timed_out = failure, child.state is State.TIMED_OUT

    @property
    def state(self) -> State:
        """How the node as a whole ended, once nothing of it is active."""
        if self.failure is not None:
            return State.TIMED_OUT if self.timed_out else State.FAILED
        return State.COMPLETE if self.next == len(self.items) else State.CANCELLED

    @property
    def output(self) -> Raw:
        """The children's outputs as one array; null for what gave none."""
        texts = (self.children[i].output if i in self.children else None for i in range(len(self.items)))
        return f"[{','.join(text if text is not None else 'null' for text in texts)}]"
