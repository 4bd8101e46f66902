"""One open step: what it is doing, and what from outside would end it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from instances.facts import completes, fails, retries
from instances.runtimes.protocol import Do, Raw, StepKind


class StepState(Enum):
    STARTING = "starting"
    """The start waits for its commit."""
    RUNNING = "running"
    """An attempt is in flight."""
    RETRYING = "retrying"
    """The wait before a retry."""
    OUTSIDE = "outside"
    """Completion comes from outside."""
    CHILD = "child"
    """A child instance is being created, or runs."""
    DELAYING = "delaying"
    """The session is asked how long to wait before the retry."""
    ENDED = "ended"


@dataclass(slots=True)
class Step:
    """A step from its start to its end, over all its attempts."""

    do: Do
    started_at: datetime
    attempts: int = 1
    """Begun, the present one included."""
    failures: int = 0
    """Attempts that count as failed."""
    deaths: int = 0
    """Sandboxes that died on it since its last failure."""
    reopened: bool = False
    """Begun in an earlier life of the run."""
    state: StepState = StepState.STARTING
    task: asyncio.Future[Any] | None = None
    """What it is doing: the attempt in flight, for instance."""
    child: str = ""
    """Type of the fact that tells the end of its child."""
    compensate_input: Raw | None = None
    aside: bool = False
    """It had failed, the run went on, and it is tried again: nobody is told what becomes of it."""
    streamed: int | None = None
    """Bytes of a stream the attempt in flight has stored; None: there is none."""

    @property
    def compensates(self) -> bool:
        return self.do.key.kind is StepKind.ROLLBACK

    @property
    def starts_durably(self) -> bool:
        """Whether an attempt runs only once its start is committed, so that a crash cannot make it run uncounted.

        Others may run again anyway; but when one holder is gone, what the next one begins counts.
        """
        do = self.do
        if do.child is not None:
            return True
        return not (do.immediate or do.repeatable) and (do.guarded or do.retry.limit == 0 or self.reopened)

    @property
    def awaits(self) -> tuple[str, ...]:
        """Types of the outside facts that would end it, or its attempt, now."""
        if self.state is StepState.CHILD:
            return (self.child,)
        if self.state is StepState.RETRYING and not self.compensates:
            return (retries(self.do.key),)
        return self.outside_types if self.state is StepState.OUTSIDE else ()

    @property
    def outside_types(self) -> tuple[str, ...]:
        """Types of the facts that complete it from outside, and that fail it: by its name, then by its name and count,
        which are for this one of several runs and go first.
        """
        name, count, back = self.do.key.name, self.do.key.count, self.compensates
        by_name = completes(name, compensation=back), fails(name, compensation=back)
        if count == 1:
            return by_name
        return *by_name, completes(name, count, compensation=back), fails(name, count, compensation=back)
