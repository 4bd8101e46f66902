"""What a journal says to a run that is opened again: results to hand over, in order, and steps still open.

A pure fold over journal rows. Entries a restart has declared dead are dropped (a step is dead with all its entries
when it *started* at or after the restart's `from_seq`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from instances.lifecycle import Kind
from instances.payloads import decode_stored
from instances.runtimes.protocol import (
    Broken,
    Done,
    Failure,
    Message,
    RollbackRequested,
    StepKey,
    StepKind,
    StopRollback,
    TimerFired,
)


class FailureRecord(msgspec.Struct, omit_defaults=True):
    """A failure as journal payload."""

    name: str
    message: str
    code: str | None = None
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # msgspec reads `Raw | None` as None
    compensate_input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timed_out: bool = False
    delay: int | None = None
    requested: bool = False
    cancelled: bool = False

    def failure(self) -> Failure:
        return Failure(
            self.name, self.message, self.code, output=_text(self.output), compensate_input=_text(self.compensate_input)
        )


_failure_decoder = msgspec.json.Decoder(FailureRecord)
_encode = msgspec.json.Encoder().encode


def decode_failure(payload: str) -> FailureRecord:
    """What :func:`encode_failure` wrote."""
    return decode_stored(_failure_decoder, payload)


def encode_failure(
    failure: Failure,
    *,
    timed_out: bool = False,
    delay: int | None = None,
    requested: bool = False,
    cancelled: bool = False,
) -> str:
    """A failure as journal payload (JSON text). `cancelled`: the run gave the step up; no message follows."""
    return _encode(
        FailureRecord(
            failure.name,
            failure.message,
            failure.code,
            _raw(failure.output),
            _raw(failure.compensate_input),
            timed_out,
            delay,
            requested,
            cancelled,
        )
    ).decode("utf-8", "surrogatepass")


@dataclass(slots=True)
class OpenStep:
    """A step that has started and not ended."""

    key: StepKey
    seq: int
    """Of its start entry."""
    started_at: datetime
    fingerprint: str = ""
    attempts: int = 1
    """Attempts begun."""
    failures: int = 0
    """Attempts that count as failed."""
    deaths: int = 0
    """Sandboxes that died on the attempt the next failure will be counted for."""
    nested: bool = False
    attempt_open: bool = True
    """The last attempt has no outcome: its worker died."""
    failed_at: datetime | None = None
    """When the last attempt failed; a retry follows `delay` ms later."""
    delay: int = 0
    waiting_at: datetime | None = None
    """Since when completion is awaited from outside."""
    due: int | None = None
    """Sleeps and waits: epoch ms, as planned at the start."""
    absolute: bool = False
    last_failure: Failure | None = None
    compensate_input: str | None = None


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
    nested: dict[StepKey, Resolution] = field(default_factory=dict)
    """Results of steps called inside other steps' attempts: handed over when they are called again."""
    open: dict[StepKey, OpenStep] = field(default_factory=dict)
    fingerprints: dict[StepKey, str] = field(default_factory=dict)
    given_up: set[StepKey] = field(default_factory=set)
    """Steps the run itself cancelled: they have no outcome to hand over and must not begin again."""
    notes: set[tuple[int, str, int]] = field(default_factory=set)
    """(kind, name, count) of records written once."""
    timers: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    """Open timers: due (epoch ms) and when they were started."""
    pauses: list[tuple[datetime, datetime]] = field(default_factory=list)
    stored: int = 0
    """Bytes of outputs and received events."""
    lines: list[int] = field(default_factory=list)
    """Seqs of the log lines the session wrote: as many, from the first on, are not written again."""
    rolling_back: bool = False
    rollback_requested: bool = False
    rollback_stopped: bool = False
    rollback_ended: bool = False
    last_at: datetime | None = None

    def shifted(self, due: int, since: datetime) -> int:
        """A planned moment (epoch ms) moved by the pauses that began after `since`."""
        if not self.pauses:
            return due
        shift = sum(((end - start) for start, end in self.pauses if start >= since), timedelta())
        return due + int(shift.total_seconds() * 1000)


_FORWARD = {
    Kind.ROLLBACK_STEP_STARTED: Kind.STEP_STARTED,
    Kind.ROLLBACK_ATTEMPT_STARTED: Kind.ATTEMPT_STARTED,
    Kind.ROLLBACK_ATTEMPT_FAILED: Kind.ATTEMPT_FAILED,
    Kind.ROLLBACK_ATTEMPT_INTERRUPTED: Kind.ATTEMPT_INTERRUPTED,
    Kind.ROLLBACK_STEP_COMPLETED: Kind.STEP_COMPLETED,
    Kind.ROLLBACK_STEP_FAILED: Kind.STEP_FAILED,
    Kind.ROLLBACK_STEP_WAITING: Kind.STEP_WAITING,
}
BACKWARD = {forward: backward for backward, forward in _FORWARD.items()}
"""The kind a compensation writes where a forward step writes another."""

_STARTS = {Kind.STEP_STARTED: StepKind.DO, Kind.SLEEP_STARTED: StepKind.SLEEP, Kind.WAIT_STARTED: StepKind.WAIT}


VALUES = frozenset({Kind.STEP_COMPLETED, Kind.ROLLBACK_STEP_COMPLETED, Kind.COMPENSATE_INPUT, Kind.WAIT_COMPLETED})
"""Kinds whose payload is a value of the run's; those of the others are the engine's own."""


def size_of(payload: str | None) -> int:
    """Bytes of a payload as UTF-8."""
    if payload is None or payload.isascii():
        return len(payload or "")
    return len(payload.encode("utf-8", "surrogatepass"))


def fold(rows: list[Any]) -> Recorded:
    """Fold journal rows (`seq kind name count attempt at payload`, in seq order) into a run's past.

    A row of kind LOG stands for all of them: its payload is their seqs.
    """
    past = Recorded()
    starts: dict[StepKey | str, int] = {}
    note_seqs: dict[tuple[int, str, int], int] = {}
    paused_at: datetime | None = None
    for row in rows:
        kind = Kind(row["kind"])
        if kind is Kind.LOG:
            past.lines = [int(seq) for seq in row["payload"].split(",")]
            continue
        past.last_at = row["at"]
        if kind in VALUES:
            past.stored += size_of(row["payload"])
        if kind is Kind.STARTED:
            past.started_at = past.started_at or row["at"]
        elif kind is Kind.PAUSED:
            paused_at = row["at"]
        elif kind is Kind.RESUMED:
            if paused_at is not None:
                past.pauses.append((paused_at, row["at"]))
                paused_at = None
        elif kind is Kind.RESTARTED:
            _restart(past, starts, note_seqs, msgspec.json.decode(row["payload"])["from_seq"])
            paused_at = None
        elif kind is Kind.ROLLBACK_STARTED:
            record = decode_failure(row["payload"])
            past.rolling_back = True
            if record.requested:
                past.rollback_requested = True
                past.resolutions.append(
                    Resolution(row["seq"], "rollback", RollbackRequested(record.failure(), row["at"]))
                )
        elif kind is Kind.ROLLBACK_STOPPED:
            past.rollback_stopped = True
            past.resolutions.append(Resolution(row["seq"], "stop", StopRollback(row["at"])))
        elif kind is Kind.ROLLBACK_ENDED:
            past.rollback_ended = True
        elif kind is Kind.TIMER_STARTED:
            past.timers[row["name"]] = (msgspec.json.decode(row["payload"])["due"], row["at"])
            starts["timer:" + row["name"]] = row["seq"]
        elif kind is Kind.TIMER_FIRED:
            past.timers.pop(row["name"], None)
            past.resolutions.append(Resolution(row["seq"], "timer:" + row["name"], TimerFired(row["name"], row["at"])))
        elif kind in (Kind.STEP_SKIPPED, Kind.MILESTONE, Kind.SYNC_POINT, Kind.NOTE):
            note = (int(kind), row["name"], row["count"] or 1)
            past.notes.add(note)
            note_seqs[note] = row["seq"]
        else:
            _step(past, starts, kind, row)
    return past


def _step(past: Recorded, starts: dict[StepKey | str, int], kind: Kind, row: Any) -> None:
    forward = _FORWARD.get(kind, kind)
    if forward in _STARTS:
        step_kind = StepKind.ROLLBACK if kind is Kind.ROLLBACK_STEP_STARTED else _STARTS[forward]
        _begin(past, starts, StepKey(step_kind, row["name"], row["count"]), row)
        return
    if forward in (Kind.SLEEP_COMPLETED,):
        step_kind = StepKind.SLEEP
    elif forward in (Kind.WAIT_COMPLETED, Kind.WAIT_TIMED_OUT):
        step_kind = StepKind.WAIT
    elif forward is not kind:
        step_kind = StepKind.ROLLBACK
    elif forward in _STEP_KINDS:
        step_kind = StepKind.DO
    else:
        return
    key = StepKey(step_kind, row["name"], row["count"])
    step = past.open.get(key)
    if step is None:
        return
    if forward is Kind.ATTEMPT_STARTED:
        step.attempts, step.attempt_open, step.failed_at, step.waiting_at = row["attempt"], True, None, None
    elif forward is Kind.ATTEMPT_INTERRUPTED:
        step.attempt_open, step.failed_at, step.delay = False, row["at"], 0
        step.deaths += row["payload"] is not None
    elif forward is Kind.ATTEMPT_FAILED:
        record = decode_failure(row["payload"])
        step.failures += 1
        step.deaths = 0
        step.attempt_open, step.waiting_at = False, None
        step.failed_at, step.delay, step.last_failure = row["at"], record.delay or 0, record.failure()
    elif forward is Kind.COMPENSATE_INPUT:
        step.compensate_input = row["payload"]
    elif forward is Kind.STEP_WAITING:
        step.attempt_open, step.waiting_at = False, row["at"]
    else:
        message = _outcome(forward, key, step, row)
        if message is not None and step.nested:
            past.nested[key] = Resolution(row["seq"], key, message)
        elif message is not None:
            past.resolutions.append(Resolution(row["seq"], key, message))
        else:
            past.given_up.add(key)
        del past.open[key]


_STEP_KINDS = frozenset(
    {
        Kind.ATTEMPT_STARTED,
        Kind.ATTEMPT_FAILED,
        Kind.ATTEMPT_INTERRUPTED,
        Kind.COMPENSATE_INPUT,
        Kind.STEP_COMPLETED,
        Kind.STEP_FAILED,
        Kind.STEP_WAITING,
    }
)


def _begin(past: Recorded, starts: dict[StepKey | str, int], key: StepKey, row: Any) -> None:
    payload = msgspec.json.decode(row["payload"]) if row["payload"] else {}
    past.open[key] = OpenStep(
        key,
        row["seq"],
        row["at"],
        fingerprint=payload.get("hash", ""),
        due=payload.get("due"),
        absolute=payload.get("absolute", False),
        nested=payload.get("nested", False),
    )
    past.fingerprints[key] = payload.get("hash", "")
    starts[key] = row["seq"]


def _outcome(kind: Kind, key: StepKey, step: OpenStep, row: Any) -> Message | None:
    """The message the entry was delivered as; None for a step the run itself had given up."""
    attempts = row["attempt"] or 1
    if kind is Kind.SLEEP_COMPLETED and row["payload"]:
        return None
    if kind in (Kind.STEP_COMPLETED, Kind.SLEEP_COMPLETED, Kind.WAIT_COMPLETED):
        return Done(key, row["payload"], row["at"], attempts, step.started_at, step.compensate_input)
    record = decode_failure(row["payload"])
    if record.cancelled:
        return None
    timed_out = record.timed_out or kind is Kind.WAIT_TIMED_OUT
    return Broken(key, record.failure(), row["at"], attempts, timed_out, step.started_at)


def _restart(
    past: Recorded, starts: dict[StepKey | str, int], note_seqs: dict[tuple[int, str, int], int], from_seq: int
) -> None:
    """Forget every step that started at or after `from_seq`, and every command of the run before."""
    dead = {id for id, seq in starts.items() if seq >= from_seq}
    past.resolutions = [
        r for r in past.resolutions if r.id not in dead and not (isinstance(r.id, str) and r.id in ("rollback", "stop"))
    ]
    past.nested = {key: resolution for key, resolution in past.nested.items() if key not in dead}
    past.open = {key: step for key, step in past.open.items() if key not in dead}
    past.lines = [seq for seq in past.lines if seq < from_seq]
    past.fingerprints = {key: text for key, text in past.fingerprints.items() if key not in dead}
    past.timers = {name: timer for name, timer in past.timers.items() if "timer:" + name not in dead}
    past.notes = {note for note in past.notes if note_seqs[note] < from_seq}
    past.given_up.clear()
    past.rolling_back = past.rollback_requested = past.rollback_stopped = past.rollback_ended = False
    for step in past.open.values():
        if step.attempt_open:  # cut off by the restart, not by a fault
            step.attempt_open, step.failed_at, step.delay = False, step.started_at, 0
    for id in dead:
        del starts[id]


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return None if isinstance(raw, msgspec.UnsetType) else bytes(raw).decode()


def _raw(text: str | None) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.UNSET if text is None else msgspec.Raw(text.encode("utf-8", "surrogatepass"))
