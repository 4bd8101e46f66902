"""An instance as every translated face shows it: its facts, its steps, progress, blockers, milestones, context.

Pure: made from the row and the journal's history (`projections.history`), and from the document for instances that run
one. Faces rename what they find here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from instances.lifecycle import Kind, Status
from instances.listing import creation_time
from instances.projections.entries import ErrorInfo, read_error
from instances.projections.execution_steps import Compensation, ExecutionStep, Forward, Situation, WaitsFor
from instances.projections.execution_tree import document_steps, script_steps
from instances.projections.history import History
from instances.projections.instance_view import InstanceFacts
from instances.projections.progress import Progress, progress
from instances.search.query import Facet
from versions.document import Document

T = TypeVar("T")

LONG_BACKOFF = timedelta(seconds=30)
"""A step that waits longer for its next attempt blocks the instance."""


@dataclass(frozen=True, slots=True)
class MilestoneState:
    """`position` counts from 1."""

    position: int
    name: str
    description: str
    achieved_at: datetime | None


@dataclass(frozen=True, slots=True)
class SyncPointState:
    """`state`: pending, reached (one of its nodes has ended), completed or failed."""

    id: str
    name: str
    state: str
    reached_at: datetime | None
    ended_at: datetime | None


class BlockedBy(StrEnum):
    EVENT = "event"
    EXTERNAL = "external"
    BACKOFF = "backoff"
    FAILURE = "failure"
    PAUSE = "pause"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Blocker:
    """What keeps an instance from going on, or did. `position` is that of the step, None when there is none."""

    kind: BlockedBy
    position: int | None
    description: str
    created_at: datetime
    resolved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PermanentFailure:
    """A failure no attempt is left for; `step` is None for one of the instance itself (its deadline, a terminate)."""

    step: ExecutionStep | None
    compensating: bool
    error: ErrorInfo
    code: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The whole. `document` is None for scripts, whose list of steps grows as they run."""

    facts: InstanceFacts
    facet: Facet
    situation: Situation
    history: History
    document: Document | None
    steps: list[ExecutionStep]
    _made: dict[Callable[[Execution], Any], Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, make: Callable[[Execution], T]) -> T:
        """What `make` makes of the journal, the document and facts that never change; made once for all executions of
        which these are the same (`instances.search.remembered`), and shared by them: nobody may change it.
        """
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    @property
    def created_at(self) -> datetime:
        """When it was asked for, to the millisecond."""
        return creation_time(self.facts.key)

    @property
    def started_at(self) -> datetime | None:
        """When it began, or was let in; None while a limit holds it back, and of one that ended without either."""
        if self.facts.started_at is not None:
            return self.facts.started_at
        return None if self.facet is Facet.HELD_BACK or self.situation.over else self.created_at

    @property
    def ended_at(self) -> datetime | None:
        return self.facts.ended_at if self.situation.over else None

    def duration_ms(self, now: datetime | None = None) -> int | None:
        """Milliseconds from start to end, never negative; until `now`, if given, while it lasts. None: no start."""
        end = self.ended_at or now
        if self.started_at is None or end is None:
            return None
        return max(0, round((end - self.started_at).total_seconds() * 1000))

    @property
    def error(self) -> ErrorInfo | None:
        """Of one that ended by a failure."""
        if self.facts.status is not Status.ERRORED or self.facts.error is None:
            return None
        return read_error(self.facts.error)

    @property
    def culprit(self) -> ExecutionStep | None:
        """The step whose failure ended it: the first that failed so; None when none did."""
        error = self.error
        if error is None:
            return None
        failed = [step for step in self.steps if step.invoke.error == error and step.invoke.end_seq is not None]
        return min(failed, key=_end_seq, default=None)

    @property
    def finished(self) -> list[ExecutionStep]:
        """Steps that began and ended, or were skipped, in the order in which they did; triggers left out."""
        return sorted(filter(_finished, self.steps), key=_end_seq)

    @property
    def unfinished(self) -> list[ExecutionStep]:
        """Steps that have begun and go on, in the order of their begin."""
        begun = (step for step in self.steps if step.invoke.started_at is not None and step.invoke.end_seq is None)
        return sorted(begun, key=lambda step: (step.invoke.started_at, step.position))

    @property
    def written(self) -> list[ExecutionStep]:
        """Completed steps, in the order of completion: each wrote to the context."""
        completed = Forward.COMPLETE
        return [step for step in self.finished if step.state is completed]

    @property
    def context_version(self) -> int:
        """1, and one more for each completed step."""
        return 1 + sum(step.state is Forward.COMPLETE and _finished(step) for step in self.steps)

    @property
    def waits_for(self) -> WaitsFor | None:
        """What the instance waits for, while it waits."""
        if self.facts.status is not Status.WAITING:
            return None
        order = (WaitsFor.EVENT, WaitsFor.EXTERNAL, WaitsFor.CHILD, WaitsFor.TIMER)
        kinds = {step.waits_for for step in self.steps}
        return next((kind for kind in order if kind in kinds), WaitsFor.TIMER)

    @property
    def ever_compensated(self) -> bool:
        """Whether any compensation was really begun."""
        return any(step.compensate.attempts for step in self.steps)

    def step(self, name: str) -> ExecutionStep | None:
        """The step of this id, name in the tree, or path (`a.b.c`, with or without `_root.` before it)."""
        path = name.removeprefix("_root.")
        for spelled in (lambda step: step.id, lambda step: step.path[-1], lambda step: ".".join(step.path)):
            found = next((step for step in self.steps if spelled(step) == path), None)
            if found is not None:
                return found
        return None

    @property
    def progress(self) -> Progress:
        """How far it is; worked out at every call."""
        if self.document is None:
            return progress(self.history, self.facts.status)
        return _progress(self.steps, self.facts.status)

    # --- derived lists -------------------------------------------------------------------------------------------

    @property
    def failures(self) -> list[PermanentFailure]:
        """Permanent failures, the oldest first; that of the instance itself last, when no step brought it."""
        found = [
            (phase.end_seq or 0, PermanentFailure(step, back, phase.error, phase.error_code, phase.ended_at))
            for step in self.steps
            if step.invoke.error is not None or step.compensate.error is not None
            for back, phase in ((False, step.invoke), (True, step.compensate))
            if phase.error is not None and phase.ended_at is not None and _failed(step, back)
        ]
        told = [failure for _, failure in sorted(found, key=lambda pair: pair[0])]
        own = self._own_failure()
        return told if own is None else [*told, own]

    def _own_failure(self) -> PermanentFailure | None:
        end = self.history.end
        if end is not None and end.kind is Kind.TERMINATED:
            return PermanentFailure(None, False, ErrorInfo("WorkflowTerminated", "Instance terminated"), None, end.at)
        if end is None or self.error is None or self.culprit is not None:
            return None
        return PermanentFailure(None, False, self.error, None, end.at)

    @property
    def milestones(self) -> list[MilestoneState]:
        """Of a script: that it began, and that it completed."""
        if self.document is None:
            ended = self.facts.ended_at if self.facts.status is Status.COMPLETE else None
            return [
                MilestoneState(1, "Initialization", "", self.facts.started_at),
                MilestoneState(2, "Completion", "", ended),
            ]
        achieved = {mark.name: mark.at for mark in reversed(self.history.milestones)}
        return [
            MilestoneState(place, one.name, one.description, achieved.get(one.id))
            for place, one in enumerate(self.document.milestones, 1)
        ]

    @property
    def sync_points(self) -> list[SyncPointState]:
        if self.document is None:
            return []
        marks = {(mark.name, mark.state): mark.at for mark in self.history.sync_points}
        found: list[SyncPointState] = []
        for point in self.document.sync_points:
            reached = marks.get((point.id, "reached"))
            state = next((one for one in ("failed", "completed") if (point.id, one) in marks), None)
            told = state or ("pending" if reached is None else "reached")
            found.append(SyncPointState(point.id, point.name, told, reached, marks.get((point.id, state or ""))))
        return found

    @property
    def blockers(self) -> list[Blocker]:
        """Open ones first, then resolved ones; the oldest first among each."""
        found = [*filter(None, map(blocker_of, self.steps)), *self._of_pauses()]
        if self.facet is Facet.HELD_BACK:
            place = next((step.position for step in self.steps if step.state is Forward.PENDING), None)
            text = "Waits for a free slot: the concurrency limit is reached"
            found.append(Blocker(BlockedBy.LIMIT, place, text, self.created_at))
        return sorted(found, key=lambda one: (one.resolved_at is not None, one.created_at))

    def _of_pauses(self) -> list[Blocker]:
        ended = self.history.end.at if self.history.end is not None else None
        place = next((step.position for step in self.steps if step.state is Forward.PENDING), None)
        return [
            Blocker(BlockedBy.PAUSE, place, "Paused", pause.began_at, pause.ended_at or ended)
            for pause in self.history.pauses
        ]


def execution(facts: InstanceFacts, facet: Facet, history: History, document: Document | None) -> Execution:
    """The execution of an instance; `history` must have been read in the detail `instances.store.WHOLE`, or in `STEPS`
    when nobody asks for milestones and synchronisation points.
    """
    situation = situation_of(facet, history)
    steps = script_steps(history, situation) if document is None else document_steps(document, history, situation)
    return Execution(
        facts=facts,
        facet=facet,
        situation=situation,
        history=history,
        document=document,
        steps=steps,
    )


def situation_of(facet: Facet, history: History) -> Situation:
    """What the instance's own state means for its steps."""
    match facet:
        case Facet.COMPLETE:
            return Situation.COMPLETE
        case Facet.ERRORED | Facet.ERRORED_REVERTED:
            return Situation.ERRORED
        case Facet.TERMINATED | Facet.TERMINATED_REVERTED:
            return Situation.TERMINATED
        case Facet.COMPENSATING:
            return Situation.COMPENSATING
        case _:
            return Situation.FORWARD if history.rollback is None else Situation.DRAINING


def blocker_of(step: ExecutionStep) -> Blocker | None:
    """What a step does, or did, to keep the instance from going on."""
    began, ended = step.invoke.started_at, step.invoke.ended_at
    if began is None:
        return None
    if step.state in (Forward.FAILED, Forward.TIMED_OUT) and ended is not None:
        message = step.invoke.error.message if step.invoke.error else "failed"
        return Blocker(BlockedBy.FAILURE, step.position, f"{step.name} failed: {message}", ended)
    if step.type in ("wait_for_event", "waitForEvent"):
        return Blocker(BlockedBy.EVENT, step.position, f"{step.name} waits for an event", began, ended)
    if step.waits_for is WaitsFor.EXTERNAL or (step.node is not None and step.node.async_):
        text = f"{step.name} waits for completion from outside"
        return Blocker(BlockedBy.EXTERNAL, step.position, text, began, ended)
    if step.state is Forward.RETRYING and _backs_off_long(step):
        since = step.invoke.last_attempt_at or began
        return Blocker(BlockedBy.BACKOFF, step.position, f"{step.name} waits for its next attempt", since)
    return None


def _backs_off_long(step: ExecutionStep) -> bool:
    began, due = step.invoke.last_attempt_at, step.invoke.next_attempt_at
    return began is not None and due is not None and due - began > LONG_BACKOFF


_SKIPPED = (Forward.SKIPPED, Forward.SKIPPED_FAILURE, Forward.CANCELLED)


def _progress(steps: list[ExecutionStep], status: Status) -> Progress:
    """Of a document: every node but triggers counts."""
    states = [step.state for step in steps if step.counts]
    successful = states.count(Forward.COMPLETE)
    if successful == len(states):  # as of most
        percentage = 100 if states or status is Status.COMPLETE else 0
        return Progress(successful, successful, successful, 0, 0, 0, percentage)
    failed = states.count(Forward.FAILED) + states.count(Forward.TIMED_OUT)
    skipped = sum(state in _SKIPPED for state in states)
    completed, total = successful + failed + skipped, len(states)
    running = sum(state in (Forward.RUNNING, Forward.WAITING, Forward.RETRYING) for state in states)
    percentage = (200 * completed + total) // (2 * total) if total else 0
    percentage = 100 if status is Status.COMPLETE else percentage
    return Progress(total, completed, successful, failed, running, skipped, percentage)


def _failed(step: ExecutionStep, back: bool) -> bool:
    if back:
        return step.compensation is Compensation.FAILED
    return step.state in (Forward.FAILED, Forward.TIMED_OUT)


def _finished(step: ExecutionStep) -> bool:
    return step.counts and step.invoke.end_seq is not None


def _end_seq(step: ExecutionStep) -> int:
    return step.invoke.end_seq or 0


# --- estimates ---------------------------------------------------------------------------------------------------


def estimated_completion(told: Execution, means_ms: Mapping[str, float], now: datetime) -> datetime | None:
    """When a document's instance will be through: the longest way left, each node weighted with its mean duration.

    `means_ms` by node id; a node without one counts as the mean of those known. None when nothing is known, when the
    instance is paused, finished or rolling back, and when it waits, without a limit, for somebody outside.
    """
    document = told.document
    if document is None or not means_ms or told.situation is not Situation.FORWARD:
        return None
    if told.facts.status in (Status.PAUSED, Status.WAITING_FOR_PAUSE):
        return None
    usual = sum(means_ms.values()) / len(means_ms)
    by_id = {step.id: step for step in told.steps}
    required = {point.id: point.required for point in document.sync_points}
    left: dict[str, float] = {}
    for id in document.order:
        step = by_id.get(id)
        before = step.node.depends_on if step is not None and step.node is not None else required.get(id, ())
        own = 0.0 if step is None else _remaining(step, means_ms.get(id, usual), now)
        if own is None:
            return None
        left[id] = own + max((left[one] for one in before), default=0.0)
    return now + timedelta(milliseconds=max(left.values(), default=0.0))


def _remaining(step: ExecutionStep, mean: float, now: datetime) -> float | None:
    """Milliseconds a node will still take; None when nobody can say."""
    if step.state.ended or not step.counts:
        return 0.0
    if step.waits_for in (WaitsFor.EVENT, WaitsFor.EXTERNAL) and step.due_at is None:
        return None
    if step.due_at is not None:
        known = max(0.0, (step.due_at - now).total_seconds() * 1000)
        return known + mean if step.state is Forward.RETRYING else known
    if step.invoke.started_at is None:
        return mean
    return max(mean - (now - step.invoke.started_at).total_seconds() * 1000, 0.0)
