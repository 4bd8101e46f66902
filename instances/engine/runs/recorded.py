"""What a journal says to a run that is opened again: results to hand over, in order, and what is still open.

A pure fold over journal rows. Entries a restart has declared dead are dropped (a step is dead with all its entries
when it *started* at or after the restart's `from_seq`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from instances.engine.runs.endings import CLEARED, SUSPECTED
from instances.engine.runs.failures import decode_failure
from instances.engine.runs.pieces import Pieces
from instances.engine.runs.usage import VALUES, size_of
from instances.lifecycle import Kind
from instances.projections.values import stream_size
from instances.runtimes.protocol import (
    REQUESTS,
    Broken,
    Done,
    Message,
    Raw,
    RollbackRequested,
    StepKey,
    StepKind,
    StopRollback,
    TimerFired,
)
from instances.step_entries import COMPENSATION, LATER, STARTS, made_of


@dataclass(slots=True)
class OpenStep:
    """A step, sleep or wait that has started and not ended."""

    started_at: datetime
    due: int | None = None
    """Sleeps and waits: epoch ms, as planned at the start."""
    absolute: bool = False
    """A sleep until a moment, which pauses do not move."""
    attempts: int = 1
    """Attempts begun."""
    failures: int = 0
    """Attempts that count as failed."""
    deaths: int = 0
    """Sandboxes that died on the attempt the next failure will be counted for."""
    nested: bool = False
    """Called inside another step's attempt."""
    attempt_open: bool = True
    """The last attempt has no outcome: its worker died."""
    failed_at: datetime | None = None
    """When the last attempt failed; a retry follows `delay` ms later."""
    delay: int = 0
    since: datetime | None = None
    """Since when its time counts, if not since it started."""
    due_now: bool = False
    """It was asked for another attempt: that one follows at once."""
    waiting_at: datetime | None = None
    """Since when completion is awaited from outside."""
    compensate_input: Raw | None = None
    result: Raw | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """A result to hand over when its turn comes. `id`: the step key, `timer:<id>`, or a word for commands."""

    seq: int
    id: StepKey | str
    message: Message


@dataclass(slots=True)
class Recorded:
    """The past of one run."""

    started_at: datetime | None = None
    resolutions: list[Resolution] = field(default_factory=list)
    nested: dict[StepKey, Message] = field(default_factory=dict)
    """Results of steps called inside other steps' attempts: handed over when they are called again."""
    copied: dict[StepKey, Message] = field(default_factory=dict)
    """Results taken over from another instance: handed over as soon as their steps are called."""
    open: dict[StepKey, OpenStep] = field(default_factory=dict)
    fingerprints: dict[StepKey, str] = field(default_factory=dict)
    failed: dict[StepKey, OpenStep] = field(default_factory=dict)
    """Steps that have failed."""
    aside: dict[StepKey, OpenStep] = field(default_factory=dict)
    """Steps that have failed, and are tried again although the run went on."""
    given_up: dict[StepKey, int] = field(default_factory=dict)
    """Steps the run itself cancelled, and where: they have no outcome to hand over and must not begin again."""
    notes: set[tuple[int, str, int]] = field(default_factory=set)
    """(kind, name, count) of records written once."""
    timers: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    """Open timers: due (epoch ms) and when they were started."""
    pauses: list[tuple[datetime, datetime]] = field(default_factory=list)
    stored: int = 0
    """Bytes of outputs and received events."""
    streamed: int = 0
    """Bytes of streams that steps returned."""
    litter: set[Pieces] = field(default_factory=set)
    """Pieces of streams of attempts that have not completed."""
    lines: list[int] = field(default_factory=list)
    """Seqs of the log lines the session wrote: as many, from the first on, are not written again."""
    deaths_alone: int = 0
    """Workers that died while the run was opened alone."""
    rolling_back: bool = False
    rollback_stopped: bool = False
    rollback_ended: bool = False
    last_at: datetime | None = None

    @property
    def requests(self) -> int:
        """Outgoing requests the session has recorded."""
        return max((count for kind, name, count in self.notes if kind == Kind.NOTE and name == REQUESTS), default=0)

    def shifted(self, due: int, since: datetime) -> int:
        """A planned moment (epoch ms) moved by the pauses that began after `since`."""
        if not self.pauses:
            return due
        shift = sum(((end - start) for start, end in self.pauses if start >= since), timedelta())
        return due + int(shift.total_seconds() * 1000)


def fold(rows: Iterable[Any]) -> Recorded:
    """Fold journal rows (`seq run kind name count attempt at payload`, in seq order) into a run's past.

    A row of kind LOG stands for all of them: its payload is their seqs.
    """
    builder = _Builder()
    for row in rows:
        if row["kind"] == Kind.LOG:
            builder.past.lines = [int(seq) for seq in row["payload"].split(",")]
            continue
        builder.past.last_at = row["at"]
        if row["kind"] in VALUES:
            builder.past.stored += size_of(row["payload"])
            builder.past.streamed += stream_size(row["payload"])
        handler = _HANDLERS.get(row["kind"])
        if handler is not None:
            handler(builder, row)
    builder.past.litter -= builder.kept.keys()
    return builder.past


class _Builder:
    """The past as far as the journal has been read."""

    def __init__(self) -> None:
        self.past = Recorded()
        self._starts: dict[StepKey | str, int] = {}
        self._noted: dict[tuple[int, str, int], int] = {}
        """Seqs of the entries that started steps and timers, and of notes: by these a restart decides."""
        self._paused_at: datetime | None = None
        self.kept: dict[Pieces, StepKey] = {}
        """Streams of attempts that have completed."""

    # --- the run -------------------------------------------------------------------------------------------------

    def started(self, row: Any) -> None:
        self.past.started_at = self.past.started_at or row["at"]

    def paused(self, row: Any) -> None:
        self._paused_at = row["at"]

    def resumed(self, row: Any) -> None:
        if self._paused_at is not None:
            self.past.pauses.append((self._paused_at, row["at"]))
            self._paused_at = None

    def restarted(self, row: Any) -> None:
        """Forget every step that started at or after `from_seq`, and every command of the run before."""
        from_seq, past = msgspec.json.decode(row["payload"])["from_seq"], self.past
        dead = {id for id, seq in self._starts.items() if seq >= from_seq}
        past.resolutions = [r for r in past.resolutions if r.id not in dead and r.id not in ("rollback", "stop")]
        past.copied = {key: message for key, message in past.copied.items() if key not in dead}
        past.nested = {key: message for key, message in past.nested.items() if key not in dead}
        past.open = {key: step for key, step in past.open.items() if key not in dead}
        past.lines = [seq for seq in past.lines if seq < from_seq]
        past.fingerprints = {key: text for key, text in past.fingerprints.items() if key not in dead}
        past.timers = {name: timer for name, timer in past.timers.items() if "timer:" + name not in dead}
        past.notes = {note for note in past.notes if self._noted[note] < from_seq}
        past.given_up.clear()
        past.failed = {key: step for key, step in past.failed.items() if key not in dead}
        past.aside = {key: step for key, step in past.aside.items() if key not in dead}
        self._go_on_anew()
        self.kept = {pieces: key for pieces, key in self.kept.items() if key not in dead}
        for id in dead:
            del self._starts[id]
        self._paused_at = None

    def reopened(self, row: Any) -> None:
        """Forget the failure of a step and what followed from it: it is open again, with an attempt to make; a wait has
        not begun.
        """
        failed_seq, past = msgspec.json.decode(row["payload"])["from_seq"], self.past
        kind = StepKind.WAIT if row["attempt"] is None else StepKind.DO
        key = StepKey(kind, row["name"], row["count"])
        void = {key, "rollback", "stop", "timer:timeout"}
        past.resolutions = [
            r for r in past.resolutions if r.id not in void and not (isinstance(r.id, str) and r.seq > failed_seq)
        ]
        past.timers.clear()
        past.given_up = {id: seq for id, seq in past.given_up.items() if seq < failed_seq}
        past.notes = {note for note in past.notes if self._noted[note] < failed_seq}
        self._go_on_anew()
        step = past.failed.pop(key, None)
        if step is not None and kind is StepKind.DO:
            past.open[key] = _again(step, row)
            past.open[key].due_now = True

    def _go_on_anew(self) -> None:
        """The run was over, and is not any more: no command to it counts, and no worker died on what it was doing."""
        past = self.past
        past.deaths_alone = 0
        past.rolling_back = past.rollback_stopped = past.rollback_ended = False
        for step in (*past.open.values(), *past.aside.values()):
            if step.attempt_open:
                step.attempt_open, step.failed_at, step.delay = False, step.started_at, 0

    def step_retried(self, row: Any) -> None:
        key = StepKey(StepKind.DO, row["name"], row["count"])
        step = self.past.failed.pop(key, None)
        if step is not None:
            self.past.aside[key] = _again(step, row)
            self.past.aside[key].due_now = row["payload"] is not None

    def rollback_started(self, row: Any) -> None:
        told = decode_failure(row["payload"])
        self.past.rolling_back = True
        if told.requested:
            self._resolve(row, "rollback", RollbackRequested(told.failure(), row["at"]))

    def rollback_stopped(self, row: Any) -> None:
        self.past.rollback_stopped = True
        self._resolve(row, "stop", StopRollback(row["at"]))

    def rollback_ended(self, _row: Any) -> None:
        self.past.rollback_ended = True

    def timer_started(self, row: Any) -> None:
        self.past.timers[row["name"]] = (msgspec.json.decode(row["payload"])["due"], row["at"])
        self._starts["timer:" + row["name"]] = row["seq"]

    def timer_fired(self, row: Any) -> None:
        self.past.timers.pop(row["name"], None)
        self._resolve(row, "timer:" + row["name"], TimerFired(row["name"], row["at"]))

    def noted(self, row: Any) -> None:
        note = (row["kind"], row["name"], row["count"] or 1)
        self.past.notes.add(note)
        self._noted[note] = row["seq"]
        if row["kind"] == Kind.NOTE and row["name"] == SUSPECTED:
            self.past.deaths_alone += 1
        elif row["kind"] == Kind.NOTE and row["name"] == CLEARED:
            self.past.deaths_alone = 0

    # --- steps ---------------------------------------------------------------------------------------------------

    def step_started(self, row: Any) -> None:
        key = StepKey(STARTS[row["kind"]], row["name"], row["count"])
        plan = msgspec.json.decode(row["payload"]) if row["payload"] else {}
        self.past.open[key] = OpenStep(
            row["at"], plan.get("due"), plan.get("absolute", False), nested=plan.get("nested", False)
        )
        self.past.fingerprints[key] = plan.get("hash", "")
        self._starts[key] = row["seq"]

    def piece(self, row: Any) -> None:
        self.past.litter.add(_pieces(row))

    def step_completed(self, row: Any) -> None:
        if row["attempt"] == 0:  # taken over from another instance, with the pieces of one attempt, by its number there
            key = _key(row)
            self.kept |= {p: key for p in self.past.litter if (p.name, p.count) == (key.name, key.count)}
        elif self.past.litter:
            self.kept[_pieces(row)] = _key(row)
        self.step_ended(row, _done)

    def step_ended(self, row: Any, message: Callable[[StepKey, OpenStep, Any], Message | None]) -> None:
        """`message` is what the session was told; None: nothing, it had given the step up."""
        key = _key(row)
        aside = self.past.aside.pop(key, None)
        step = aside or self.past.open.pop(key, None)
        if step is None:
            return
        told = message(key, step, row)
        if isinstance(told, Broken):
            step.attempts = told.attempts
            self.past.failed[key] = step
        if aside is not None:
            return
        if told is None:
            self.past.given_up[key] = row["seq"]
        elif step.nested:
            self.past.nested[key] = told
        elif row["attempt"] == 0:
            self.past.copied[key] = told
        else:
            self._resolve(row, key, told)

    def _resolve(self, row: Any, id: StepKey | str, message: Message) -> None:
        self.past.resolutions.append(Resolution(row["seq"], id, message))


def _pieces(row: Any) -> Pieces:
    return Pieces(row["run"], row["name"], row["count"], row["attempt"])


def _key(row: Any) -> StepKey:
    return StepKey(LATER[row["kind"]], row["name"], row["count"])


Handler = Callable[[_Builder, Any], None]


def _on_step(apply: Callable[[OpenStep, Any], None]) -> Handler:
    """A handler of entries about a step that is open."""

    def handle(builder: _Builder, row: Any) -> None:
        key = _key(row)
        step = builder.past.open.get(key) or builder.past.aside.get(key)
        if step is not None:
            apply(step, row)

    return handle


def _attempt_started(step: OpenStep, row: Any) -> None:
    step.attempts, step.attempt_open, step.failed_at, step.waiting_at = row["attempt"], True, None, None
    step.due_now = False


def _again(step: OpenStep, row: Any) -> OpenStep:
    """A step that had failed, with a policy of retries that begins anew."""
    return OpenStep(step.started_at, attempts=row["attempt"], nested=step.nested, since=row["at"])


def _attempt_failed(step: OpenStep, row: Any) -> None:
    step.failures += 1
    step.deaths = 0
    step.attempt_open, step.waiting_at = False, None
    step.failed_at, step.delay = row["at"], decode_failure(row["payload"]).delay or 0


def _attempt_interrupted(step: OpenStep, row: Any) -> None:
    step.attempt_open, step.failed_at, step.delay = False, row["at"], 0
    step.deaths += row["payload"] is not None


def _compensate_input(step: OpenStep, row: Any) -> None:
    step.compensate_input = row["payload"]


def _result(step: OpenStep, row: Any) -> None:
    step.result = row["payload"]


def _waiting(step: OpenStep, row: Any) -> None:
    step.attempt_open, step.waiting_at = False, row["at"]


def _on_end(message: Callable[[StepKey, OpenStep, Any], Message | None]) -> Handler:
    """A handler of entries that end a step."""
    return lambda builder, row: builder.step_ended(row, message)


def _done(key: StepKey, step: OpenStep, row: Any) -> Message:
    return Done(
        key, row["payload"], row["at"], row["attempt"] or 1, step.started_at, step.compensate_input, step.result
    )


def _slept(key: StepKey, step: OpenStep, row: Any) -> Message | None:
    slept = row["payload"] is None or made_of(row["payload"]) is not None
    return (_done if slept else _broken)(key, step, row)


def _broken(key: StepKey, step: OpenStep, row: Any) -> Message | None:
    told = decode_failure(row["payload"])
    if told.cancelled:
        return None
    return Broken(key, told.failure(), row["at"], row["attempt"] or 1, told.timed_out, step.started_at)


_STEP_HANDLERS: dict[int, Handler] = {
    Kind.STEP_STARTED: _Builder.step_started,
    Kind.ATTEMPT_STARTED: _on_step(_attempt_started),
    Kind.ATTEMPT_FAILED: _on_step(_attempt_failed),
    Kind.ATTEMPT_INTERRUPTED: _on_step(_attempt_interrupted),
    Kind.STEP_WAITING: _on_step(_waiting),
    Kind.STEP_COMPLETED: _Builder.step_completed,
    Kind.STEP_FAILED: _on_end(_broken),
}
_HANDLERS: dict[int, Handler] = {
    **_STEP_HANDLERS,
    **{backward: _STEP_HANDLERS[forward] for forward, backward in COMPENSATION.items()},
    Kind.ROLLBACK_STEP_COMPLETED: _on_end(_done),  # compensations return no streams
    Kind.STEP_PIECE: _Builder.piece,
    Kind.COMPENSATE_INPUT: _on_step(_compensate_input),
    Kind.STEP_RESULT: _on_step(_result),
    Kind.SLEEP_STARTED: _Builder.step_started,
    Kind.SLEEP_COMPLETED: _on_end(_slept),
    Kind.WAIT_STARTED: _Builder.step_started,
    Kind.WAIT_COMPLETED: _on_end(_done),
    Kind.WAIT_TIMED_OUT: _on_end(_broken),
    Kind.STARTED: _Builder.started,
    Kind.PAUSED: _Builder.paused,
    Kind.RESUMED: _Builder.resumed,
    Kind.RESTARTED: _Builder.restarted,
    Kind.REOPENED: _Builder.reopened,
    Kind.STEP_RETRIED: _Builder.step_retried,
    Kind.ROLLBACK_STARTED: _Builder.rollback_started,
    Kind.ROLLBACK_STOPPED: _Builder.rollback_stopped,
    Kind.ROLLBACK_ENDED: _Builder.rollback_ended,
    Kind.TIMER_STARTED: _Builder.timer_started,
    Kind.TIMER_FIRED: _Builder.timer_fired,
    **dict.fromkeys((Kind.STEP_SKIPPED, Kind.MILESTONE, Kind.SYNC_POINT, Kind.NOTE), _Builder.noted),
}
