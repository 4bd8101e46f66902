"""What the entries of a journal mean to whoever listens: events, each with the execution as it was when it happened.

Pure: a journal gives the same events whenever it is read. An entry changes the history; what became different (states
of steps, blockers, milestones) is what is told. A step that runs once per item changes its state only when everything
one commit brought has been read: between two items it is neither begun nor completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from instances.lifecycle import Kind, Status
from instances.projections.activity import Activity
from instances.projections.entries import Entry, read_sync_point
from instances.projections.execution import BlockedBy, Blocker, Execution, MilestoneState, SyncPointState, execution
from instances.projections.execution_steps import ExecutionStep, Forward
from instances.projections.history import History, advance
from instances.runtimes.protocol import StepKind
from instances.search.executions import Shown
from instances.search.query import Facet
from instances.search.recorded import Recorded
from jobs.webhooks.catalogue import BLOCKER_DETECTED, BLOCKER_RESOLVED, MILESTONE, PROGRESS, SYNC_POINTS, TASKS

Subject = ExecutionStep | Blocker | MilestoneState | SyncPointState | None
"""What an event is about besides the execution."""


@dataclass(frozen=True, slots=True)
class Change:
    """One event. `mark` tells those of one entry and type apart."""

    event: str
    seq: int
    at: datetime
    shown: Shown
    subject: Subject = None
    mark: str = ""


_EXECUTION = {
    Kind.STARTED: "started",
    Kind.COMPLETED: "completed",
    Kind.ERRORED: "failed",
    Kind.TERMINATED: "cancelled",
    Kind.PAUSED: "paused",
    Kind.RESUMED: "resumed",
    Kind.ROLLBACK_STARTED: "compensating",
    Kind.REOPENED: "retried",
}
_STATUS = {
    Kind.QUEUED: Status.QUEUED,
    Kind.STARTED: Status.RUNNING,
    Kind.PAUSE_REQUESTED: Status.WAITING_FOR_PAUSE,
    Kind.PAUSED: Status.PAUSED,
    Kind.RESTARTED: Status.QUEUED,
    Kind.REOPENED: Status.RUNNING,
    Kind.ROLLBACK_STARTED: Status.ROLLING_BACK,
    Kind.COMPLETED: Status.COMPLETE,
    Kind.ERRORED: Status.ERRORED,
    Kind.TERMINATED: Status.TERMINATED,
}
_TASK = {
    Forward.WAITING: "waiting",
    Forward.RETRYING: "retrying",
    Forward.COMPLETE: "completed",
    Forward.FAILED: "failed",
    Forward.TIMED_OUT: "failed",
    Forward.SKIPPED: "skipped",
    Forward.SKIPPED_FAILURE: "cancelled",
    Forward.CANCELLED: "cancelled",
}
_BEGUN = frozenset({Forward.RUNNING, Forward.WAITING, Forward.RETRYING})
_AT_FIRST = frozenset({Forward.PENDING})
_DEEP = (*TASKS, PROGRESS, BLOCKER_DETECTED, BLOCKER_RESOLVED, MILESTONE)
"""Events for which every step has to be looked at."""
_QUIET = frozenset(
    {
        Kind.QUEUED,
        Kind.EVENT_RECEIVED,
        Kind.COMPENSATE_INPUT,
        Kind.STEP_RESULT,
        Kind.TIMER_STARTED,
        Kind.TIMER_FIRED,
    }
)
"""Kinds that change no step, no blocker and no milestone."""
_BlockerKey = tuple[BlockedBy, int | None, datetime]


@dataclass(slots=True)
class _Looks:
    """How an execution looked when it was last told of."""

    states: dict[str, Forward]
    blockers: dict[_BlockerKey, Blocker]
    milestones: set[int]
    counts: tuple[int, int]


class Changes:
    """Reads one journal. `wanted`: which events anybody listens to; what only others need is not worked out."""

    def __init__(self, recorded: Recorded, wanted: Callable[[str], bool]) -> None:
        self._recorded = recorded
        self._wanted = wanted
        self._history = History()
        self._activity = Activity()
        self._status = Status.QUEUED
        self._looks: _Looks | None = None
        self._deep = any(map(wanted, _DEEP))

    def of(self, told: Callable[[int], bool], last: int) -> Iterator[Change]:
        """Events of the entries up to `last` whose seq is `told`."""
        entries = [entry for entry in self._recorded.entries if entry.seq <= last]
        for place, entry in enumerate(entries):
            tell = told(entry.seq)
            if tell and self._deep and self._looks is None:
                self._looks = self._look(self._shown().execution)
            waits = self._heed(entry)
            if not tell:
                self._looks = None
                continue
            yield from self._of_execution(entry, waits)
            yield from self._of_sync_point(entry)
            ends = place + 1 == len(entries) or not told(entries[place + 1].seq)
            if self._deep and (ends or entry.kind not in _QUIET):
                yield from self._of_parts(entry, ends)

    # --- the instance --------------------------------------------------------------------------------------------

    def _heed(self, entry: Entry) -> bool | None:
        advance(self._history, entry)
        waits = self._activity.heed(entry)
        if entry.kind == Kind.RESUMED:
            self._status = Status.QUEUED if self._history.started_at is None else Status.RUNNING
        else:
            self._status = _STATUS.get(Kind(entry.kind), self._status)
        if waits is not None and self._status in (Status.RUNNING, Status.WAITING, Status.QUEUED):
            self._status = Status.WAITING if waits else Status.RUNNING
        return waits

    def _shown(self) -> Shown:
        """The instance as it was after the last entry read."""
        row, history, end = self._recorded.row, self._history, self._history.end
        over = end if self._status.finished else None
        # The row knows a little earlier when the run began; but it may be the run after a restart.
        began = min(filter(None, (row.facts.started_at, history.started_at)), default=None)
        facts = replace(
            row.facts,
            status=self._status,
            started_at=None if history.started_at is None else began,
            ended_at=over.at if over else None,
            modified_at=history.last_at or row.facts.created_at,
            error=over.payload if over and over.kind is Kind.ERRORED else None,
            output=over.payload if over and over.kind is Kind.COMPLETED else None,
        )
        facet = _facet(self._status, history)
        told = execution(facts, facet, history, self._recorded.document)
        return Shown(replace(row, facts=facts, facet=facet), told)

    def _of_execution(self, entry: Entry, waits: bool | None) -> Iterator[Change]:
        what = _EXECUTION.get(Kind(entry.kind))
        if what is None and waits is False:
            what = "resumed"
        for name in (what, "waiting" if waits else None):
            if name is not None and self._wanted(f"workflow.execution.{name}"):
                yield self._change(f"workflow.execution.{name}", entry)

    def _of_sync_point(self, entry: Entry) -> Iterator[Change]:
        if entry.kind != Kind.SYNC_POINT:
            return
        event = f"synchronization.point.{read_sync_point(entry.payload).state}"
        if event in SYNC_POINTS and self._wanted(event):
            shown = self._shown()
            for point in shown.execution.sync_points:
                if point.id == entry.name:
                    yield Change(event, entry.seq, entry.at, shown, point, point.id)

    def _change(self, event: str, entry: Entry) -> Change:
        return Change(event, entry.seq, entry.at, self._shown())

    # --- steps and what follows from them ------------------------------------------------------------------------

    def _look(self, told: Execution) -> _Looks:
        return _Looks(
            {step.id: step.state for step in told.steps},
            {_key(one): one for one in told.blockers if one.resolved_at is None},
            {one.position for one in told.milestones if one.achieved_at is not None},
            (told.progress.completed, told.progress.total),
        )

    def _of_parts(self, entry: Entry, ends: bool) -> Iterator[Change]:
        shown, before = self._shown(), self._looks
        assert before is not None
        self._looks = now = self._look(shown.execution)
        # Results taken over from another instance are nothing that happens here.
        silent = entry.attempt == 0
        for step in shown.execution.steps:
            if not step.counts:
                continue
            was = before.states.get(step.id, Forward.PENDING)
            if (
                step.node is not None
                and step.node.for_each is not None
                and not ends
                and not shown.execution.situation.over
            ):
                now.states[step.id] = was
            elif step.state is not was and not silent:
                yield from self._of_step(entry, shown, step, was)
        yield from self._of_blockers(entry, shown, before.blockers, now.blockers)
        for milestone in shown.execution.milestones:
            if milestone.position in now.milestones - before.milestones and self._wanted(MILESTONE):
                yield Change(MILESTONE, entry.seq, entry.at, shown, milestone, str(milestone.position))
        if now.counts != before.counts and self._wanted(PROGRESS):
            yield Change(PROGRESS, entry.seq, entry.at, shown)

    def _of_step(self, entry: Entry, shown: Shown, step: ExecutionStep, was: Forward) -> Iterator[Change]:
        names: list[str] = []
        if was not in _BEGUN and step.invoke.started_at is not None and step.state is not Forward.PENDING:
            names.append("started")
        if step.state in _TASK:
            names.append(_TASK[step.state])
        for name in names:
            if self._wanted(event := f"task.execution.{name}"):
                yield Change(event, entry.seq, entry.at, shown, step, step.id)

    def _of_blockers(
        self, entry: Entry, shown: Shown, before: dict[_BlockerKey, Blocker], now: dict[_BlockerKey, Blocker]
    ) -> Iterator[Change]:
        gone = {_key(one): one for one in shown.execution.blockers if one.resolved_at is not None}
        for key in now.keys() - before.keys():
            if self._wanted(BLOCKER_DETECTED):
                yield Change(BLOCKER_DETECTED, entry.seq, entry.at, shown, now[key], _mark(key))
        for key in before.keys() - now.keys():
            resolved = gone.get(key) or replace(before[key], resolved_at=entry.at)
            if self._wanted(BLOCKER_RESOLVED):
                yield Change(BLOCKER_RESOLVED, entry.seq, entry.at, shown, resolved, _mark(key))


def _key(blocker: Blocker) -> _BlockerKey:
    return blocker.kind, blocker.position, blocker.created_at


def _mark(key: _BlockerKey) -> str:
    kind, position, at = key
    return f"{kind.value}/{position}/{at.timestamp()}"


def _facet(status: Status, history: History) -> Facet:
    reverted = history.rollback is not None and history.rollback.outcome == "complete"
    match status:
        case Status.ROLLING_BACK:
            undoes = any(step.family is StepKind.ROLLBACK for step in history.steps.values())
            return Facet.COMPENSATING if undoes else Facet.DRAINING
        case Status.ERRORED:
            return Facet.ERRORED_REVERTED if reverted else Facet.ERRORED
        case Status.TERMINATED:
            return Facet.TERMINATED_REVERTED if reverted else Facet.TERMINATED
        case _:
            return _FACETS[status]


_FACETS = {
    Status.QUEUED: Facet.ADMITTED,
    Status.RUNNING: Facet.RUNNING,
    Status.WAITING: Facet.WAITING,
    Status.PAUSED: Facet.PAUSED,
    Status.WAITING_FOR_PAUSE: Facet.WAITING_FOR_PAUSE,
    Status.COMPLETE: Facet.COMPLETE,
}
