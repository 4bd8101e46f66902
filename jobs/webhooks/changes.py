"""What the entries of a journal mean to whoever listens: events, each with the execution as it was when it happened.

Pure: a journal gives the same events whenever it is read. An entry changes the history; what became different (states
of steps, blockers, milestones) is what is told. A step that runs once per item changes its state only when everything
one commit brought has been read: between two items it is neither begun nor completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from instances.lifecycle import Kind, Status
from instances.projections.activity import Activity
from instances.projections.entries import Entry, read_sync_point
from instances.projections.execution import (
    BlockedBy,
    Blocker,
    Execution,
    MilestoneState,
    SyncPointState,
    blocker_of,
    situation_of,
)
from instances.projections.execution_steps import ExecutionStep, Forward
from instances.projections.unfolding import Renewed, Unfolding
from instances.search.executions import Shown
from instances.search.query import Facet
from instances.search.store import Row
from jobs.webhooks.catalogue import BLOCKER_DETECTED, BLOCKER_RESOLVED, MILESTONE, PROGRESS, SYNC_POINTS, TASKS
from versions.document import Document

ENTRY_WEIGHT = 1024
"""About how many bytes of memory an entry comes to, beside its payload."""

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
_DEEP = (*TASKS, PROGRESS, BLOCKER_DETECTED, BLOCKER_RESOLVED, MILESTONE)
"""Events for which every step has to be looked at."""
_BlockerKey = tuple[BlockedBy, int | None, datetime]


class Changes:
    """Reads one journal, in one go or piece by piece: it remembers what it has read."""

    def __init__(self, row: Row, document: Document | None) -> None:
        self._row = row
        self._unfolding = Unfolding(document)
        self._activity = Activity()
        self._status = Status.QUEUED
        self._blockers: dict[_BlockerKey, Blocker] = {}
        """Those that are open."""
        self._milestones: set[int] = set()
        """Positions of those that are achieved."""
        self._counts = (0, 0)
        self._unheard = True
        """Whether entries were read of which nobody was told, after which everything may look different."""
        self._shown: Shown | None = None
        self.read = 0
        """Seq of the last entry that was read."""
        self.weight = 0
        """About how many bytes it holds."""

    def of(
        self, row: Row, entries: Sequence[Entry], wanted: Callable[[str], bool], told: Callable[[int], bool], last: int
    ) -> Iterator[Change]:
        """Events of the entries up to `last` that were not read before and whose seq is `told`.

        `row` is the instance as it is now. `wanted`: which events anybody listens to; what only others need is not
        worked out. A change says how it was until the next one is asked for.
        """
        self._row = row
        deep = any(map(wanted, _DEEP))
        entries = [entry for entry in entries if self.read < entry.seq <= last]
        for place, entry in enumerate(entries):
            heard = told(entry.seq)
            if heard and deep and self._unheard:
                self._look()
            waits = self._heed(entry)
            self._unheard = self._unheard or not (heard and deep)
            if not heard:
                continue
            ends = place + 1 == len(entries) or not told(entries[place + 1].seq)
            renewed = self._settle(hold_items=not ends)
            yield from self._of_execution(entry, waits, wanted)
            yield from self._of_sync_point(entry, wanted)
            if deep:
                yield from self._of_parts(entry, renewed, wanted)

    # --- the instance --------------------------------------------------------------------------------------------

    def _heed(self, entry: Entry) -> bool | None:
        self.read, self._shown = entry.seq, None
        self.weight += ENTRY_WEIGHT + len(entry.payload or "")
        self._unfolding.heed(entry)
        waits = self._activity.heed(entry)
        if entry.kind == Kind.RESUMED:
            self._status = Status.QUEUED if self._unfolding.history.started_at is None else Status.RUNNING
        else:
            self._status = _STATUS.get(Kind(entry.kind), self._status)
        if waits is not None and self._status in (Status.RUNNING, Status.WAITING, Status.QUEUED):
            self._status = Status.WAITING if waits else Status.RUNNING
        return waits

    def _facet(self) -> Facet:
        return _facet(self._status, self._unfolding)

    def _settle(self, *, hold_items: bool = False) -> list[Renewed]:
        return self._unfolding.settle(situation_of(self._facet(), self._unfolding.history), hold_items=hold_items)

    def shown(self) -> Shown:
        """The instance as it was when it was settled last."""
        if self._shown is not None:
            return self._shown
        row, history, end = self._row, self._unfolding.history, self._unfolding.history.end
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
        facet = self._facet()
        told = Execution(
            facts=facts,
            facet=facet,
            situation=self._unfolding.situation,
            history=history,
            document=self._unfolding.document,
            steps=list(self._unfolding.steps),
        )
        self._shown = Shown(replace(row, facts=facts, facet=facet), told)
        return self._shown

    def _of_execution(self, entry: Entry, waits: bool | None, wanted: Callable[[str], bool]) -> Iterator[Change]:
        what = _EXECUTION.get(Kind(entry.kind))
        if what is None and waits is False:
            what = "resumed"
        for name in (what, "waiting" if waits else None):
            if name is not None and wanted(event := f"workflow.execution.{name}"):
                yield Change(event, entry.seq, entry.at, self.shown())

    def _of_sync_point(self, entry: Entry, wanted: Callable[[str], bool]) -> Iterator[Change]:
        if entry.kind != Kind.SYNC_POINT:
            return
        event = f"synchronization.point.{read_sync_point(entry.payload).state}"
        if event in SYNC_POINTS and wanted(event):
            shown = self.shown()
            for point in shown.execution.sync_points:
                if point.id == entry.name:
                    yield Change(event, entry.seq, entry.at, shown, point, point.id)

    # --- steps and what follows from them ------------------------------------------------------------------------

    def _look(self) -> None:
        """Note how everything looks now, without telling anybody."""
        self._settle()
        self._shown, self._unheard = None, False
        told = self.shown().execution
        self._blockers = _open(told.blockers)
        self._milestones = {one.position for one in told.milestones if one.achieved_at is not None}
        self._counts = self._unfolding.ended, self._unfolding.total

    def _of_parts(self, entry: Entry, renewed: list[Renewed], wanted: Callable[[str], bool]) -> Iterator[Change]:
        # Results taken over from another instance are nothing that happens here.
        if entry.attempt != 0:
            for one in renewed:
                yield from self._of_step(entry, one, wanted)
        yield from self._of_blockers(entry, renewed, wanted)
        if self._unfolding.renewed_all or entry.kind == Kind.MILESTONE:
            yield from self._of_milestones(entry, wanted)
        was, self._counts = self._counts, (self._unfolding.ended, self._unfolding.total)
        if self._counts != was and wanted(PROGRESS):
            yield Change(PROGRESS, entry.seq, entry.at, self.shown())

    def _of_step(self, entry: Entry, one: Renewed, wanted: Callable[[str], bool]) -> Iterator[Change]:
        step, was = one.now, Forward.PENDING if one.before is None else one.before.state
        if not step.counts or step.state is was:
            return
        names: list[str] = []
        if was not in _BEGUN and step.invoke.started_at is not None and step.state is not Forward.PENDING:
            names.append("started")
        if step.state in _TASK:
            names.append(_TASK[step.state])
        for name in names:
            if wanted(event := f"task.execution.{name}"):
                yield Change(event, entry.seq, entry.at, self.shown(), step, step.id)

    def _of_blockers(self, entry: Entry, renewed: list[Renewed], wanted: Callable[[str], bool]) -> Iterator[Change]:
        if self._unfolding.renewed_all:
            blockers, before = self.shown().execution.blockers, self._blockers
        else:
            blockers = [*filter(None, (blocker_of(one.now) for one in renewed))]
            before = _open(filter(None, (one.before and blocker_of(one.before) for one in renewed)))
        now = _open(blockers)
        if before is self._blockers:
            self._blockers = now
        else:
            for key in before:
                self._blockers.pop(key, None)
            self._blockers |= now
        if not wanted(BLOCKER_DETECTED) and not wanted(BLOCKER_RESOLVED):
            return
        gone = {_key(one): one for one in blockers if one.resolved_at is not None}
        for key, blocker in _oldest_first(now):
            if key not in before and wanted(BLOCKER_DETECTED):
                yield Change(BLOCKER_DETECTED, entry.seq, entry.at, self.shown(), blocker, _mark(key))
        for key, blocker in _oldest_first(before):
            if key not in now and wanted(BLOCKER_RESOLVED):
                resolved = gone.get(key) or replace(blocker, resolved_at=entry.at)
                yield Change(BLOCKER_RESOLVED, entry.seq, entry.at, self.shown(), resolved, _mark(key))

    def _of_milestones(self, entry: Entry, wanted: Callable[[str], bool]) -> Iterator[Change]:
        achieved = [one for one in self.shown().execution.milestones if one.achieved_at is not None]
        was, self._milestones = self._milestones, {one.position for one in achieved}
        for one in achieved:
            if one.position not in was and wanted(MILESTONE):
                yield Change(MILESTONE, entry.seq, entry.at, self.shown(), one, str(one.position))


def _open(blockers: Iterable[Blocker]) -> dict[_BlockerKey, Blocker]:
    return {_key(one): one for one in blockers if one.resolved_at is None}


def _oldest_first(blockers: dict[_BlockerKey, Blocker]) -> list[tuple[_BlockerKey, Blocker]]:
    """The same order whether they were met one after the other or found together."""
    return sorted(blockers.items(), key=lambda one: (one[1].created_at, one[0][0].value, one[0][1] or 0))


def _key(blocker: Blocker) -> _BlockerKey:
    # A pause is the same one whichever step is the next to begin.
    return blocker.kind, None if blocker.kind is BlockedBy.PAUSE else blocker.position, blocker.created_at


def _mark(key: _BlockerKey) -> str:
    kind, position, at = key
    return f"{kind.value}/{position}/{at.timestamp()}"


def _facet(status: Status, unfolding: Unfolding) -> Facet:
    history = unfolding.history
    reverted = history.rollback is not None and history.rollback.outcome == "complete"
    match status:
        case Status.ROLLING_BACK:
            return Facet.COMPENSATING if unfolding.undoing else Facet.DRAINING
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
