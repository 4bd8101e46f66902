"""Whether an instance runs or waits, as far as its journal says.

An instance waits while none of its attempts is in flight and something is awaited: a moment, an event, a retry, an
answer from outside. Its row says so from the moment it leaves the worker's memory, which no entry tells; here it waits
from the entry on that begins the wait, or ends the last attempt beside one.
"""

from __future__ import annotations

from dataclasses import dataclass

from instances.lifecycle import Kind
from instances.projections.entries import Entry, read_failure, read_restart, read_timer
from instances.runtimes.protocol import StepKey
from instances.step_entries import LATER, STARTS

SHORT_MS = 200
"""A run that is due again this soon stays where it is, and does not wait."""

_ENDS = frozenset(
    {
        Kind.STEP_COMPLETED,
        Kind.STEP_FAILED,
        Kind.SLEEP_COMPLETED,
        Kind.WAIT_COMPLETED,
        Kind.WAIT_TIMED_OUT,
    }
)
_SILENCES = frozenset(
    {Kind.PAUSE_REQUESTED, Kind.PAUSED, Kind.ROLLBACK_STARTED, Kind.COMPLETED, Kind.ERRORED, Kind.TERMINATED}
)
"""From these on the instance is something else: pausing, paused, rolling back, ended."""
KINDS = _ENDS | {
    Kind.STEP_STARTED,
    Kind.ATTEMPT_STARTED,
    Kind.ATTEMPT_FAILED,
    Kind.STEP_WAITING,
    Kind.SLEEP_STARTED,
    Kind.WAIT_STARTED,
    Kind.RESTARTED,
    Kind.RESUMED,
    Kind.STARTED,
}
"""Entries that may change it."""


@dataclass(slots=True)
class _Doing:
    """What an open step is doing. Neither: it waits for so short a time that nobody hears of it."""

    seq: int
    """Of its start."""
    runs: bool = False
    waits: bool = False


class Activity:
    """Reads a journal from its beginning."""

    def __init__(self) -> None:
        self._steps: dict[StepKey, _Doing] = {}
        self._waits = False
        self._silent = False

    def heed(self, entry: Entry) -> bool | None:
        """Take the next entry. True: with it the instance begins to wait; False: it runs again; None: no change."""
        if entry.kind in _SILENCES:
            self._silent, self._waits = True, False
            return None
        if entry.kind in (Kind.RESUMED, Kind.RESTARTED, Kind.STARTED):
            self._silent, self._waits = False, False
            if entry.kind == Kind.RESTARTED:
                self._restart(read_restart(entry.payload).from_seq)
                return None
        elif entry.kind in KINDS:
            self._step(entry)
        was, self._waits = self._waits, self._waiting()
        return None if self._silent or was == self._waits else self._waits

    def _waiting(self) -> bool:
        steps = self._steps.values()
        return not self._silent and any(step.waits for step in steps) and not any(step.runs for step in steps)

    def _step(self, entry: Entry) -> None:
        key = StepKey((STARTS.get(entry.kind) or LATER[entry.kind]), entry.name or "", entry.count or 1)
        if entry.kind in STARTS:
            self._steps[key] = _Doing(entry.seq)
        step = self._steps.get(key)
        if step is None:
            return
        if entry.kind in _ENDS:
            del self._steps[key]
        elif entry.kind in (Kind.STEP_STARTED, Kind.ATTEMPT_STARTED):
            step.runs, step.waits = True, False
        else:
            step.runs, step.waits = False, _awaited(entry)

    def _restart(self, from_seq: int) -> None:
        """Only steps that started before are still there; their attempts were cut off."""
        self._steps = {key: step for key, step in self._steps.items() if step.seq < from_seq}
        for step in self._steps.values():
            step.runs = False


def _awaited(entry: Entry) -> bool:
    """Whether the wait that begins with this entry is long enough to be one."""
    if entry.kind == Kind.ATTEMPT_FAILED:
        return (read_failure(entry.payload).delay or 0) > SHORT_MS
    if entry.kind == Kind.SLEEP_STARTED:
        due = read_timer(entry.payload).due
        return due is None or due - entry.at.timestamp() * 1000 > SHORT_MS
    return True
