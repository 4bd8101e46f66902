"""The log of an instance: what its code logged, and what the engine did, one line per fact.

A line's id is the `seq` of its journal entry, so a reader can go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from instances.lifecycle import Kind
from instances.projections.entries import (
    Entry,
    read_error,
    read_failure,
    read_log,
    read_reason,
    read_restart,
    read_rollback,
    read_sync_point,
    read_waiting,
)
from instances.step_entries import made_of
from tenants.clock import iso

LEVELS = ("debug", "info", "warn", "error")


class LogLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line. `source` is `console` for lines of the workflow's own code, `engine` for the platform's."""

    id: int
    timestamp: str
    level: str
    source: str
    message: str
    step: str | None = None
    attempt: int | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an entry of one kind reads: its level, and its message."""

    level: str
    message: Callable[[Entry], str]


def log_lines(entries: Iterable[Entry], minimum_level: str = "debug") -> Iterator[LogLine]:
    """The lines the entries give, of `minimum_level` and above, in order."""
    lowest = LEVELS.index(minimum_level)
    for entry in entries:
        line = _console_line(entry) if entry.kind == Kind.LOG else _engine_line(entry)
        if line is not None and LEVELS.index(line.level) >= lowest:
            yield line


def kinds_of_level(minimum_level: str) -> list[int]:
    """Kinds of entries that may give a line of `minimum_level` or above."""
    lowest = LEVELS.index(minimum_level)
    return [int(kind) for kind, rule in _ENGINE.items() if LEVELS.index(rule.level) >= lowest] + [int(Kind.LOG)]


def _console_line(entry: Entry) -> LogLine:
    told = read_log(entry.payload)
    return LogLine(
        id=entry.seq,
        timestamp=iso(entry.at),
        level=told.level if told.level in LEVELS else "info",
        source="console",
        message=told.message,
        step=_step(entry),
        attempt=entry.attempt,
        data=told.data,
    )


def _engine_line(entry: Entry) -> LogLine | None:
    rule = _ENGINE.get(entry.kind)
    if rule is None:
        return None
    return LogLine(
        id=entry.seq,
        timestamp=iso(entry.at),
        level=rule.level,
        source="engine",
        message=rule.message(entry),
        step=_step(entry),
        attempt=entry.attempt,
    )


def _step(entry: Entry) -> str | None:
    """The counted name of the step the entry is about; lines logged by a step carry it as it is."""
    if entry.name is None or entry.kind in _NAMES_NO_STEP:
        return None
    return entry.name if entry.count is None else f"{entry.name}-{entry.count}"


def _failed(what: str) -> Callable[[Entry], str]:
    def message(entry: Entry) -> str:
        told = read_failure(entry.payload)
        text = f"{what} {told.name}: {told.message}"
        return text if told.delay is None else f"{text} (next attempt in {told.delay:g} ms)"

    return message


def _skipped(entry: Entry) -> str:
    reason = read_reason(entry.payload).reason
    return f"Step skipped: {reason}" if reason else "Step skipped"


def _slept(entry: Entry) -> str:
    if entry.payload is None or made_of(entry.payload) is not None:
        return "Sleep completed"
    return _failed("Sleep cut off:")(entry)


def _waiting(entry: Entry) -> str:
    told = read_waiting(entry.payload)
    return f"Waiting for its completion from outside ({told.type or f'step:{entry.name}'})"


def _restarted(entry: Entry) -> str:
    return "Restarted" if read_restart(entry.payload).from_seq <= 2 else "Restarted from a step"


def _rollback_ended(entry: Entry) -> str:
    told = read_rollback(entry.payload)
    return f"Rollback {told.outcome}" + (f": {told.error.name}: {told.error.message}" if told.error else "")


def _errored(entry: Entry) -> str:
    error = read_error(entry.payload)
    return f"Instance failed: {error.name}: {error.message}"


def _said(text: str) -> Callable[[Entry], str]:
    return lambda entry: text


_ENGINE: dict[int, _Rule] = {
    Kind.QUEUED: _Rule("info", _said("Instance queued")),
    Kind.STARTED: _Rule("info", _said("Instance started")),
    Kind.STEP_STARTED: _Rule("debug", _said("Step started")),
    Kind.ATTEMPT_STARTED: _Rule("debug", _said("Attempt started")),
    Kind.ATTEMPT_FAILED: _Rule("warn", _failed("Attempt failed:")),
    Kind.ATTEMPT_INTERRUPTED: _Rule("debug", _said("Attempt interrupted; it will be repeated")),
    Kind.STEP_COMPLETED: _Rule("info", _said("Step completed")),
    Kind.STEP_FAILED: _Rule("error", _failed("Step failed:")),
    Kind.STEP_SKIPPED: _Rule("info", _skipped),
    Kind.STEP_WAITING: _Rule("info", _waiting),
    Kind.SLEEP_STARTED: _Rule("info", _said("Sleep started")),
    Kind.SLEEP_COMPLETED: _Rule("info", _slept),
    Kind.WAIT_STARTED: _Rule("info", _said("Waiting for an event")),
    Kind.WAIT_COMPLETED: _Rule("info", _said("Event delivered")),
    Kind.WAIT_TIMED_OUT: _Rule("warn", _failed("Wait ended without an event:")),
    Kind.EVENT_RECEIVED: _Rule("info", lambda entry: f"Event {entry.name} received"),
    Kind.PAUSE_REQUESTED: _Rule("info", _said("Pause requested")),
    Kind.PAUSED: _Rule("info", _said("Instance paused")),
    Kind.RESUMED: _Rule("info", _said("Instance resumed")),
    Kind.RESTARTED: _Rule("info", _restarted),
    Kind.ROLLBACK_STARTED: _Rule("warn", _failed("Rollback started after")),
    Kind.ROLLBACK_STEP_STARTED: _Rule("debug", _said("Rollback of the step started")),
    Kind.ROLLBACK_ATTEMPT_STARTED: _Rule("debug", _said("Rollback attempt started")),
    Kind.ROLLBACK_ATTEMPT_FAILED: _Rule("warn", _failed("Rollback attempt failed:")),
    Kind.ROLLBACK_ATTEMPT_INTERRUPTED: _Rule("debug", _said("Rollback attempt interrupted; it will be repeated")),
    Kind.ROLLBACK_STEP_COMPLETED: _Rule("info", _said("Rollback of the step completed")),
    Kind.ROLLBACK_STEP_FAILED: _Rule("error", _failed("Rollback of the step failed:")),
    Kind.ROLLBACK_STEP_WAITING: _Rule("info", _waiting),
    Kind.ROLLBACK_ENDED: _Rule("info", _rollback_ended),
    Kind.COMPLETED: _Rule("info", _said("Instance complete")),
    Kind.ERRORED: _Rule("error", _errored),
    Kind.TERMINATED: _Rule("info", _said("Instance terminated")),
    Kind.MILESTONE: _Rule("info", lambda entry: f"Milestone {entry.name} reached"),
    Kind.SYNC_POINT: _Rule(
        "info", lambda entry: f"Synchronisation point {entry.name} {read_sync_point(entry.payload).state}"
    ),
}

_NAMES_NO_STEP = frozenset({Kind.EVENT_RECEIVED, Kind.MILESTONE, Kind.SYNC_POINT})
