"""A journal entry, and the shapes of the payloads the folds look into (documented on `lifecycle.Kind`)."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from instances.payloads import decode_stored


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One row of the journal. `payload` is JSON text, or None."""

    seq: int
    run: int
    kind: int
    name: str | None
    count: int | None
    attempt: int | None
    at: datetime
    payload: str | None = None


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as callers see it: what was thrown, by name and message."""

    name: str = "Error"
    message: str = ""


class StartPayload(msgspec.Struct, frozen=True):
    """Of STEP_STARTED and ROLLBACK_STEP_STARTED. `type` is the node type of a document's step; `items`, of a
    `for_each`, how many items it has: each has a start, and nothing has one that stands for all of it.
    """

    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    type: str | None = None
    sensitive: bool = False
    items: int | None = None


class FailurePayload(msgspec.Struct):
    """Of every entry that carries an error. `delay` is the wait before the next attempt in milliseconds; `cancelled`:
    nothing went wrong, it was abandoned.
    """

    name: str = "Error"
    message: str = ""
    code: str | None = None
    delay: float | None = None
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    compensate_input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timed_out: bool = False
    cancelled: bool = False


class TimerPayload(msgspec.Struct):
    """Of SLEEP_STARTED and WAIT_STARTED. `due` is in epoch milliseconds, pauses that came later not included."""

    due: float | None = None
    absolute: bool = False
    type: str | None = None
    items: int | None = None


class WaitingPayload(msgspec.Struct):
    """Of STEP_WAITING. `until` is in epoch milliseconds, `type` the event that completes the step."""

    until: float | None = None
    type: str | None = None


class ReasonPayload(msgspec.Struct):
    """Of STEP_SKIPPED."""

    reason: str | None = None


class RestartPayload(msgspec.Struct):
    """Of RESTARTED. Entries of steps that started at or after `from_seq` are dead; 2 leaves only QUEUED."""

    from_seq: int = 2


class RollbackPayload(msgspec.Struct):
    """Of ROLLBACK_ENDED: `complete` or `failed`."""

    outcome: str = "complete"
    error: ErrorInfo | None = None


class SyncPointPayload(msgspec.Struct):
    """Of SYNC_POINT: `reached`, `completed` or `failed`."""

    state: str = "completed"


class LogPayload(msgspec.Struct):
    """Of LOG. `data` is whatever the code logged beside the message."""

    level: str = "info"
    message: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class SourcePayload(msgspec.Struct):
    """Of TERMINATED, if it has one: who asked."""

    source: str = "api"


def json_text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    """The JSON text of an optional field (msgspec has no `Raw | None`)."""
    return None if isinstance(raw, msgspec.UnsetType) else bytes(raw).decode()


P = TypeVar("P", bound=msgspec.Struct)


class PayloadReader(Generic[P]):
    """Decodes the payloads of one kind; an entry without a payload reads as the shape's defaults."""

    __slots__ = ("_decoder", "_kind")

    def __init__(self, kind: type[P]) -> None:
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def __call__(self, payload: str | None) -> P:
        return self._kind() if payload is None else decode_stored(self._decoder, payload)


read_start = functools.lru_cache(maxsize=1024)(PayloadReader(StartPayload))
"""Every run of a step begins with the same: a page of instances has few that differ."""
read_failure = PayloadReader(FailurePayload)
read_timer = PayloadReader(TimerPayload)
read_waiting = PayloadReader(WaitingPayload)
read_reason = PayloadReader(ReasonPayload)
read_restart = PayloadReader(RestartPayload)
read_rollback = PayloadReader(RollbackPayload)
read_sync_point = PayloadReader(SyncPointPayload)
read_log = PayloadReader(LogPayload)
read_source = PayloadReader(SourcePayload)
read_error = PayloadReader(ErrorInfo)
