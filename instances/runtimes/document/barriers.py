"""Sync points and milestones: marks a run passes, with the records and timers they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instances.lifecycle import Kind
from instances.runtimes.document.plan import Plan, SyncPlan
from instances.runtimes.document.states import ACHIEVED, State
from instances.runtimes.protocol import CancelTimer, CommandMessage, Record, Timer

_RECORDS = {"reached": 1, "completed": 2, "failed": 3}
"""A sync point's entries by state; the number keeps them apart in the journal."""


@dataclass(slots=True)
class _Sync:
    plan: SyncPlan
    remaining: int
    state: State = State.PENDING
    reached: bool = False
    clock: bool = False
    """The timeout's timer is running."""


class Barriers:
    """The sync points and milestones of one run.

    `emit` takes commands. Sync points that end are told to `settled(unit, passes)`.
    """

    def __init__(
        self, plan: Plan, emit: Callable[[CommandMessage], None], settled: Callable[[int, bool], None]
    ) -> None:
        self._plan = plan
        self._emit = emit
        self._settled = settled
        self._syncs = [_Sync(sync, len(sync.required)) for sync in plan.syncs]
        self._needs = list(plan.milestone_needs)
        self._first = len(plan.nodes)

    def begin(self) -> None:
        """The instance started."""
        for number, milestone in enumerate(self._plan.milestones):
            if milestone.start:
                self._achieve(number)

    def complete(self) -> None:
        """The instance is about to complete."""
        for number, milestone in enumerate(self._plan.milestones):
            if milestone.end:
                self._achieve(number)

    def node_started(self, node: int) -> None:
        for unit in self._plan.syncs_of[node]:
            sync = self._syncs[unit - self._first]
            timeout = sync.plan.point.timeout
            if timeout is not None and not sync.clock and sync.state is State.PENDING:
                sync.clock = True
                self._emit(Timer(sync.plan.timer, timeout))

    def node_ended(self, node: int, state: State) -> None:
        """A node ended, in whatever way."""
        for unit in self._plan.syncs_of[node]:
            self._member_ended(self._syncs[unit - self._first], state)
        if state in ACHIEVED:
            self._count(self._plan.nodes[node].milestones)

    def timed_out(self, timer: str) -> SyncPlan | None:
        """The sync point whose timer this is, now failed; None for another timer or one that ended in time."""
        for sync in self._syncs:
            if sync.plan.timer == timer and sync.clock and sync.state is State.PENDING:
                sync.clock = False
                self._fail(sync)
                return sync.plan
        return None

    def stop(self) -> None:
        """The run failed: no sync point times out any more."""
        for sync in self._syncs:
            self._stop_clock(sync)

    def _member_ended(self, sync: _Sync, state: State) -> None:
        if not sync.reached:
            sync.reached = True
            self._record(sync, "reached")
        if sync.state is not State.PENDING:
            return
        if state not in ACHIEVED:
            self._fail(sync)
            return
        sync.remaining -= 1
        if not sync.remaining:
            sync.state = State.COMPLETE
            self._stop_clock(sync)
            self._record(sync, "completed")
            self._count(sync.plan.milestones)
            self._settled(sync.plan.index, True)

    def _fail(self, sync: _Sync) -> None:
        sync.state = State.FAILED
        self._stop_clock(sync)
        self._record(sync, "failed")
        self._settled(sync.plan.index, sync.plan.point.on_timeout == "continue")

    def _stop_clock(self, sync: _Sync) -> None:
        if sync.clock:
            sync.clock = False
            self._emit(CancelTimer(sync.plan.timer))

    def _record(self, sync: _Sync, state: str) -> None:
        self._emit(Record(Kind.SYNC_POINT, sync.plan.point.id, _RECORDS[state], f'{{"state":"{state}"}}'))

    def _count(self, milestones: tuple[int, ...]) -> None:
        for number in milestones:
            self._needs[number] -= 1
            if not self._needs[number]:
                self._achieve(number)

    def _achieve(self, number: int) -> None:
        self._emit(Record(Kind.MILESTONE, self._plan.milestones[number].id))
