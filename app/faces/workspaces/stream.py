"""The journal of an execution as the events of this face's stream.

The number of an event is that of the journal's entry it tells of, times `PER_ENTRY`, and a place among the events of
that entry: it is the same at every reading, so that a client goes on exactly behind the last one it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from app.faces.streams import frame
from app.faces.workspaces import views
from app.faces.workspaces.moments import Moments
from instances.lifecycle import Kind
from instances.projections.entries import Entry, ErrorInfo, read_failure
from instances.projections.execution import Execution
from instances.projections.execution_steps import ExecutionStep
from instances.search.executions import Shown
from tenants.clock import iso

PER_ENTRY = 1 << 14
"""More than a document has nodes; places count from 0."""
_STANDING, _LAST = PER_ENTRY - 2, PER_ENTRY - 1
"""Places of the progress a stream begins with, and of the event it ends with."""
READS_PER_S = 20_000
"""Entries of a journal read again in a second of waiting for news: the longer it is, the less often it is read."""

_ENDS = frozenset({Kind.COMPLETED, Kind.ERRORED, Kind.TERMINATED})
_STANDINGS = _ENDS | {
    Kind.STARTED,
    Kind.PAUSED,
    Kind.RESUMED,
    Kind.RESTARTED,
    Kind.REOPENED,
    Kind.ROLLBACK_STARTED,
}
"""Entries after which the execution stands otherwise."""
_UNDER_WAY = frozenset(
    {Kind.STEP_STARTED, Kind.SLEEP_STARTED, Kind.WAIT_STARTED, Kind.STEP_WAITING, Kind.ATTEMPT_FAILED}
)
"""Entries of steps that begin, wait, or will be tried again."""
_STEP_ENDS = frozenset(
    {
        Kind.STEP_COMPLETED,
        Kind.STEP_FAILED,
        Kind.STEP_SKIPPED,
        Kind.SLEEP_COMPLETED,
        Kind.WAIT_COMPLETED,
        Kind.WAIT_TIMED_OUT,
    }
)

Read = Callable[[], Awaitable[Shown]]
Follow = Callable[[int], AsyncGenerator[list[Entry]]]


def usable(told: Shown, last: int | None) -> bool:
    """Whether a stream can go on behind event `last`: there was such an entry, and no restart has made it void."""
    return last is not None and max(told.row.live_from, 1) <= last // PER_ENTRY <= told.execution.history.last_seq


def is_over(told: Shown, last: int | None) -> bool:
    """Whether who has seen event `last` has seen all."""
    end = told.execution.history.end
    return last is not None and end is not None and told.execution.situation.over and last >= _number(end.seq, _LAST)


async def consistent(read: Read) -> Shown:
    """The execution, its row as new as its journal."""
    while True:
        told = await read()
        if told.execution.history.end is None or told.execution.situation.over:
            return told


async def events(
    first: Shown, last: int | None, read: Read, follow: Follow, *, all_steps: bool, now: Callable[[], datetime]
) -> AsyncGenerator[bytes]:
    """Events behind `last`, or from the beginning, up to the end of the execution.

    `first` is the execution as it is now, `read` gives it anew (see :func:`consistent`), `follow` entries after one.
    """
    resumed = usable(first, last)
    yield connected(first, resumed=resumed, at=now())
    book: Book | None = Book(first, all_steps=all_steps)
    after = length = book.length
    if resumed and last is not None:
        after = last // PER_ENTRY - 1  # entry by entry, and what was seen of the first left out
    else:
        for piece in book.standing():
            yield piece
        if book.over:
            return
        book = None
    del first  # who waits for news holds no execution
    async with contextlib.aclosing(follow(after)) as batches:
        async for batch in batches:
            if not any(tells(entry, all_steps=all_steps) for entry in batch):
                continue
            if book is None or batch[-1].seq > length:
                await asyncio.sleep(length / READS_PER_S if length > READS_PER_S // 100 else 0)
                book = Book(await consistent(read), all_steps=all_steps)
                length = book.length
            for entry in batch:
                for id, event, data in book.of(entry):
                    if not resumed or last is None or id > last:
                        yield _frame(event, data, id)
                    if event == "complete":
                        return
            if batch[-1].seq >= length:
                book = None
    await read()  # nothing more comes, and no end was seen: it was deleted, which this says


def tells(entry: Entry, *, all_steps: bool) -> bool:
    """Whether a stream tells of such an entry."""
    kind = entry.kind
    return kind in _STEP_ENDS or kind in _STANDINGS or (all_steps and kind in _UNDER_WAY)


def connected(told: Shown, *, resumed: bool, at: datetime) -> bytes:
    """What a stream begins with."""
    data = {
        "executionId": views.execution_id(told.row),
        "timestamp": iso(at),
        "status": views.status_of(told.row.facet),
        "resumed": resumed,
    }
    return _frame("connected", data)


def heartbeat(at: datetime) -> bytes:
    """What is sent when nothing happens."""
    return _frame("heartbeat", {"timestamp": iso(at)})


def failed(message: str, code: str) -> bytes:
    """What a stream that fails ends with."""
    return _frame("error", {"message": message, "code": code})


Event = tuple[int, str, dict[str, Any]]
"""Number, name and data."""


class Book:
    """An execution as it was read, by the entries of its journal."""

    def __init__(self, shown: Shown, *, all_steps: bool) -> None:
        self._shown = shown
        self._told: Execution = shown.execution
        self._all_steps = all_steps
        self._moments = Moments(self._told)
        self._steps = _by_name(self._told)
        self._ends: dict[int, list[ExecutionStep]] = {}
        for step in self._told.finished:
            self._ends.setdefault(step.invoke.end_seq or 0, []).append(step)

    @property
    def over(self) -> bool:
        return self._told.situation.over

    @property
    def length(self) -> int:
        """Entries of the journal it was read from."""
        return self._told.history.last_seq

    def standing(self) -> Iterator[bytes]:
        """Everything so far: each step that is over, the progress, and the end if that has come."""
        for seq, steps in sorted(self._ends.items()):
            for place, step in enumerate(steps):
                yield _frame("step", views.step(step), _number(seq, place))
        end = self._told.history.end
        seq = end.seq if end is not None and self.over else self.length
        left = len(self._ends.get(seq, ()))
        for place, step in enumerate(views.never_begun(self._told), left):
            yield _frame("step", views.step(step), _number(seq, place))
        progress = views.progress(self._told.progress) | views.standing(self._shown.row)
        yield _frame("progress", progress, _number(seq, _STANDING))
        if self.over:
            yield _frame("complete", self._complete(), _number(seq, _LAST))

    def of(self, entry: Entry) -> Iterator[Event]:
        """What an entry tells."""
        seq = entry.seq
        ended = list(self._ends.get(seq, ()))
        last = entry.kind in _ENDS and self.over and self._is_end(entry)
        if last:
            ended += views.never_begun(self._told)
        for place, step in enumerate(ended):
            yield _number(seq, place), "step", views.step(step)
        if self._all_steps and entry.kind in _UNDER_WAY and (step := self._step(entry)) is not None:
            yield _number(seq, 0), "step", _under_way(step, entry)
        elif last:
            progress = views.progress(self._told.progress) | {"status": views.status_of(self._shown.row.facet)}
            yield _number(seq, _STANDING), "progress", progress
            yield _number(seq, _LAST), "complete", self._complete()
        elif ended or entry.kind in _STANDINGS:
            paused = {"paused": True} if entry.kind == Kind.PAUSED else {}
            numbers = views.progress(self._moments.progress(seq))
            yield _number(seq, len(ended)), "progress", numbers | {"status": "RUNNING"} | paused

    def _is_end(self, entry: Entry) -> bool:
        end = self._told.history.end
        return end is not None and end.seq == entry.seq

    def _step(self, entry: Entry) -> ExecutionStep | None:
        if self._told.document is not None:
            return self._steps.get((entry.name, None))
        return self._steps.get((entry.name, entry.count))

    def _complete(self) -> dict[str, Any]:
        told = self._told
        return {
            "status": views.status_of(self._shown.row.facet),
            "error": views.error_of(told),
            "durationMs": told.duration_ms(),
            "completedAt": None if told.ended_at is None else iso(told.ended_at),
        }


def _by_name(told: Execution) -> dict[tuple[str | None, int | None], ExecutionStep]:
    """Steps by what entries call them: nodes by their id, steps of scripts by name and count."""
    if told.document is not None:
        return {(step.id, None): step for step in told.steps if step.counts}
    return {(step.key.name, step.key.count): step for step in told.steps if step.key is not None}


def _under_way(step: ExecutionStep, entry: Entry) -> dict[str, Any]:
    error = None
    if entry.kind == Kind.ATTEMPT_FAILED:
        told = read_failure(entry.payload)
        error = views.failure(ErrorInfo(told.name, told.message))
    return views.step_under_way(step, attempts=entry.attempt or 1, error=error)


def _number(seq: int, place: int) -> int:
    return seq * PER_ENTRY + place


def _frame(event: str, data: dict[str, Any], id: int | None = None) -> bytes:
    return frame(event, msgspec.json.encode(data), id)
