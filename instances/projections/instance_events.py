"""The journal of an instance as the events its subscribers are told (`WorkflowInstance.subscribe`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from instances.lifecycle import Kind
from instances.projections import activity
from instances.projections.activity import Activity
from instances.projections.entries import Entry, read_failure, read_rollback, read_start, read_timer
from instances.projections.values import is_tagged, stream_preview

REDACTED = "[REDACTED]"
PER_ENTRY = 4
"""Events one entry gives at most, and room: the end of a step is that of an attempt, and may change the status."""

TYPES = frozenset(
    {f"workflow_{what}" for what in ("queued", "started", "running", "paused", "waiting_for_pause", "waiting")}
    | {f"workflow_{what}" for what in ("completed", "errored", "terminated")}
    | {
        f"{of}{what}_{how}"
        for of in ("", "rollback_")
        for what in ("step", "attempt")
        for how in ("started", "completed")
    }
    | {f"{of}{what}_errored" for of in ("", "rollback_") for what in ("step", "attempt")}
    | {"sleep_started", "sleep_completed", "wait_started", "wait_completed", "wait_timed_out"}
    | {"rollback_started", "rollback_completed", "rollback_errored"}
)
"""Every type there is."""
LAST = frozenset({"workflow_completed", "workflow_errored", "workflow_terminated"})

Event = tuple[str, dict[str, Any], str | None]
"""Type, fields, and the stored text of its `output`, if it has one."""


class InstanceEvents:
    """Reads a journal from its beginning: what a step's end tells depends on how the step began."""

    def __init__(self, params: str | None) -> None:
        self._params = params
        self._activity = Activity()
        self._sensitive: set[tuple[str | None, int | None]] = set()
        self._attempts: dict[tuple[bool, str | None, int | None], int] = {}

    def of(self, entry: Entry) -> Iterator[tuple[int, Event]]:
        """What an entry tells: number and event. Numbers grow along the journal, and are the same at every reading."""
        for index, event in enumerate(self._told(entry)):
            yield entry.seq * PER_ENTRY + index, event

    def _told(self, entry: Entry) -> Iterator[Event]:
        waits = self._activity.heed(entry)
        if waits is False:
            yield "workflow_running", {}, None
        tell = _TELL.get(Kind(entry.kind))
        if tell is not None:
            yield from tell(self, entry)
        if waits:
            yield "workflow_waiting", {}, None

    # --- steps ---------------------------------------------------------------------------------------------------

    def _step_started(self, entry: Entry) -> Iterator[Event]:
        told = read_start(entry.payload)
        if told.sensitive:
            self._sensitive.add((entry.name, entry.count))
        prefix = _prefix(entry)
        yield f"{prefix}step_started", _named(entry) | {"config": told.config}, None
        yield from self._attempt_started(entry)

    def _attempt_started(self, entry: Entry) -> Iterator[Event]:
        number = self._attempts[_key(entry)] = entry.attempt or 1
        yield f"{_prefix(entry)}attempt_started", _named(entry) | {"attempt": number}, None

    def _attempt_failed(self, entry: Entry) -> Iterator[Event]:
        told = read_failure(entry.payload)
        fields = _named(entry) | {"attempt": self._attempts.get(_key(entry), 1), "error": _error(entry)}
        if told.delay is not None:
            fields["retryDelayMs"] = told.delay
        yield f"{_prefix(entry)}attempt_errored", fields, None

    def _step_completed(self, entry: Entry) -> Iterator[Event]:
        prefix = _prefix(entry)
        attempt = {"attempt": self._attempts.get(_key(entry), 1)}
        yield f"{prefix}attempt_completed", _named(entry) | attempt, None
        if prefix:
            yield "rollback_step_completed", _named(entry), None
        elif (entry.name, entry.count) in self._sensitive:
            yield "step_completed", _named(entry) | {"output": REDACTED}, None
        elif entry.payload is not None and (preview := stream_preview(entry.payload)) is not None:
            yield "step_completed", _named(entry) | {"output": preview}, None
        else:
            yield "step_completed", _named(entry), entry.payload

    def _step_failed(self, entry: Entry) -> Iterator[Event]:
        yield from self._attempt_failed(entry)
        prefix = _prefix(entry)
        yield f"{prefix}step_errored", _named(entry) | ({"error": _error(entry)} if prefix else {}), None

    def _sleep_started(self, entry: Entry) -> Iterator[Event]:
        due = read_timer(entry.payload).due
        fields = _named(entry)
        if due is not None:
            fields["durationMs"] = max(0, round(due - entry.at.timestamp() * 1000))
        yield "sleep_started", fields, None

    def _wait_started(self, entry: Entry) -> Iterator[Event]:
        kind = read_timer(entry.payload).type
        yield "wait_started", _named(entry) | {"eventType": kind}, None

    def _wait_ended(self, entry: Entry) -> Iterator[Event]:
        yield "wait_completed" if entry.kind == Kind.WAIT_COMPLETED else "wait_timed_out", _named(entry), None

    # --- the instance --------------------------------------------------------------------------------------------

    def _started(self, entry: Entry) -> Iterator[Event]:
        fields: dict[str, Any] = {}
        if self._params is not None and not is_tagged(self._params):
            fields["params"] = msgspec.Raw(self._params.encode())
        yield "workflow_started", fields, None
        yield "workflow_running", {}, None

    def _completed(self, entry: Entry) -> Iterator[Event]:
        yield "workflow_completed", {}, entry.payload

    def _errored(self, entry: Entry) -> Iterator[Event]:
        yield "workflow_errored", {"error": _error(entry)}, None

    def _rollback_ended(self, entry: Entry) -> Iterator[Event]:
        outcome = read_rollback(entry.payload).outcome
        yield "rollback_completed" if outcome == "complete" else "rollback_errored", {}, None


def _plain(kind: str) -> Callable[[InstanceEvents, Entry], Iterator[Event]]:
    def tell(_events: InstanceEvents, _entry: Entry) -> Iterator[Event]:
        yield kind, {}, None

    return tell


def _sleep_completed(_events: InstanceEvents, entry: Entry) -> Iterator[Event]:
    yield "sleep_completed", _named(entry), None


def _key(entry: Entry) -> tuple[bool, str | None, int | None]:
    return bool(_prefix(entry)), entry.name, entry.count


def _prefix(entry: Entry) -> str:
    return "rollback_" if Kind.ROLLBACK_STEP_STARTED <= entry.kind <= Kind.ROLLBACK_STEP_WAITING else ""


def _named(entry: Entry) -> dict[str, Any]:
    return {"stepName": f"{entry.name}-{entry.count}"}


def _error(entry: Entry) -> dict[str, str]:
    told = read_failure(entry.payload)
    return {"name": told.name, "message": told.message}


_TELL: Mapping[Kind, Callable[[InstanceEvents, Entry], Iterator[Event]]] = {
    Kind.QUEUED: _plain("workflow_queued"),
    Kind.RESTARTED: _plain("workflow_queued"),
    Kind.REOPENED: _plain("workflow_queued"),
    Kind.STARTED: InstanceEvents._started,
    Kind.PAUSE_REQUESTED: _plain("workflow_waiting_for_pause"),
    Kind.PAUSED: _plain("workflow_paused"),
    Kind.RESUMED: _plain("workflow_running"),
    Kind.COMPLETED: InstanceEvents._completed,
    Kind.ERRORED: InstanceEvents._errored,
    Kind.TERMINATED: _plain("workflow_terminated"),
    Kind.STEP_STARTED: InstanceEvents._step_started,
    Kind.ATTEMPT_STARTED: InstanceEvents._attempt_started,
    Kind.STEP_RETRIED: InstanceEvents._attempt_started,
    Kind.ATTEMPT_FAILED: InstanceEvents._attempt_failed,
    Kind.STEP_COMPLETED: InstanceEvents._step_completed,
    Kind.STEP_FAILED: InstanceEvents._step_failed,
    Kind.SLEEP_STARTED: InstanceEvents._sleep_started,
    Kind.SLEEP_COMPLETED: _sleep_completed,
    Kind.WAIT_STARTED: InstanceEvents._wait_started,
    Kind.WAIT_COMPLETED: InstanceEvents._wait_ended,
    Kind.WAIT_TIMED_OUT: InstanceEvents._wait_ended,
    Kind.ROLLBACK_STARTED: _plain("rollback_started"),
    Kind.ROLLBACK_STEP_STARTED: InstanceEvents._step_started,
    Kind.ROLLBACK_ATTEMPT_STARTED: InstanceEvents._attempt_started,
    Kind.ROLLBACK_ATTEMPT_FAILED: InstanceEvents._attempt_failed,
    Kind.ROLLBACK_STEP_COMPLETED: InstanceEvents._step_completed,
    Kind.ROLLBACK_STEP_FAILED: InstanceEvents._step_failed,
    Kind.ROLLBACK_ENDED: InstanceEvents._rollback_ended,
}
KINDS = tuple(sorted(int(kind) for kind in _TELL.keys() | activity.KINDS))
"""Kinds of entries that tell something."""
