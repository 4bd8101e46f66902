"""What one instance did, as the fold tells it (`projections.fold`): its steps, pauses, marks, rollback and end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from instances.lifecycle import Kind
from instances.projections.entries import ErrorInfo, read_source
from instances.projections.steps import Outcome, StepRun
from instances.runtimes.protocol import Raw, StepKey

_ZERO = timedelta()


@dataclass(slots=True)
class Pause:
    seq: int
    began_at: datetime
    ended_at: datetime | None = None


@dataclass(slots=True)
class Rollback:
    """A rollback; `outcome` is None while it lasts."""

    seq: int
    started_at: datetime
    cause: ErrorInfo
    outcome: str | None = None
    error: ErrorInfo | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How the instance ended: COMPLETED, ERRORED or TERMINATED."""

    seq: int
    kind: Kind
    at: datetime
    payload: Raw | None

    @property
    def source(self) -> str:
        """Who terminated it."""
        return read_source(self.payload).source


@dataclass(frozen=True, slots=True)
class Mark:
    """A milestone reached, or a synchronisation point that changed state."""

    seq: int
    name: str
    at: datetime
    state: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line logged by the instance's code; `step` is a counted name. A restart decides about it by `root`, a seq."""

    seq: int
    root: int
    at: datetime
    level: str
    message: str
    step: str | None
    data: Raw | None


@dataclass(slots=True)
class History:
    """What one instance did, restarts applied. Steps are in start order."""

    steps: dict[StepKey, StepRun] = field(default_factory=dict)
    pauses: list[Pause] = field(default_factory=list)
    milestones: list[Mark] = field(default_factory=list)
    sync_points: list[Mark] = field(default_factory=list)
    events: list[Mark] = field(default_factory=list)
    """Events stored for the instance; the name is the type."""
    lines: list[Line] = field(default_factory=list)
    rollback: Rollback | None = None
    end: End | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    started_seq: int = 0
    restarts: int = 0
    last_seq: int = 0
    last_at: datetime | None = None

    @property
    def paused(self) -> bool:
        return bool(self.pauses) and self.pauses[-1].ended_at is None

    def planned_end(self, step: StepRun) -> datetime | None:
        """When an open timer is due: pauses since its start have moved it, unless it names a point in time."""
        if step.due_ms is None:
            return None
        due = datetime.fromtimestamp(step.due_ms / 1000, UTC)
        if not step.absolute:
            due += sum((p.ended_at - p.began_at for p in self.pauses if p.ended_at and p.seq > step.due_seq), _ZERO)
        return due

    def forget(self, from_seq: int, at: datetime) -> None:
        """Drop what a restart at `at` made void. Pauses that are over stay: they have moved the timers that stay."""
        self.steps = {key: step for key, step in self.steps.items() if step.start_seq < from_seq}
        for step in self.steps.values():
            if not step.outside:
                step.end_attempt(Outcome.INTERRUPTED, at)
        self.pauses = [pause for pause in self.pauses if pause.ended_at is not None]
        self.milestones = [mark for mark in self.milestones if mark.seq < from_seq]
        self.sync_points = [mark for mark in self.sync_points if mark.seq < from_seq]
        self.events = [mark for mark in self.events if mark.seq < from_seq]
        self.lines = [line for line in self.lines if line.root < from_seq]
        self.rollback = self.end = None
        if self.started_seq >= from_seq:
            self.started_at = None
