"""The bodies that are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

from instances.projections.execution import Blocker, MilestoneState, SyncPointState
from instances.projections.execution_steps import ExecutionStep
from instances.search.executions import Shown
from tenants.auth import Caller
from tenants.clock import iso
from tenants.ids import account_hex, derived_uuid7
from tenants.limits import KIB
from tenants.spellings import ulid_text
from versions.definitions.schemas import Definition

API_VERSION = "v1"
DATA_BYTES = 20 * KIB
"""Data above this loses its largest members and says so."""
LARGE = (
    ("context", "output"),
    ("tasks", "synchronizationPoints"),
    ("blockers", "milestones"),
    ("description", "error"),
)
"""What is left out of data that is too large, one group after the other until it fits."""


class Payloads(Protocol):
    """How an API face shows what events are about."""

    def execution(self, shown: Shown) -> dict[str, Any]: ...

    def task(self, shown: Shown, step: ExecutionStep) -> dict[str, Any]: ...

    def progress(self, shown: Shown, means_ms: Mapping[str, float], now: datetime) -> dict[str, Any]: ...

    def blocker(self, shown: Shown, blocker: Blocker) -> dict[str, Any]: ...

    def milestone(self, shown: Shown, milestone: MilestoneState) -> dict[str, Any]: ...

    def sync_point(self, shown: Shown, point: SyncPointState) -> dict[str, Any]: ...

    def definition(self, found: Definition, caller: Caller) -> dict[str, Any]: ...

    def definition_id(self, workflow_no: int) -> str: ...


def event_id(at: datetime, *parts: object) -> str:
    """The id of an event: the same whenever it is worked out anew."""
    milliseconds = int(at.timestamp() * 1000)
    return "evt_" + ulid_text(derived_uuid7(milliseconds, "\n".join(map(str, parts)).encode()))


def body(
    format: str, account_id: UUID, event: str, id: str, at: datetime, sequence: int | None, data: Mapping[str, Any]
) -> str:
    """The body of a delivery as JSON text: what is signed and sent, byte for byte."""
    return envelope(format, account_id, event, id, at, sequence, bounded(data)).decode()


def envelope(
    format: str, account_id: UUID, event: str, id: str, at: datetime, sequence: int | None, data: msgspec.Raw
) -> bytes:
    """The same as bytes, with data of any size."""
    if format == "classic":
        return msgspec.json.encode({"event": event, "timestamp": iso(at), "payload": data})
    return msgspec.json.encode(
        {
            "id": id,
            "type": event,
            "event": event,
            "timestamp": iso(at),
            "accountId": account_hex(account_id),
            "apiVersion": API_VERSION,
            "sequence": sequence,
            "data": data,
        }
    )


def bounded(data: Mapping[str, Any]) -> msgspec.Raw:
    """The data as JSON, without its largest members when it is too large."""
    text = msgspec.json.encode(data)
    groups: Sequence[tuple[str, ...]] = LARGE
    kept = dict(data)
    for group in groups:
        if len(text) <= DATA_BYTES:
            break
        kept = {key: value for key, value in kept.items() if key not in group} | {"truncated": True}
        text = msgspec.json.encode(kept)
    return msgspec.Raw(text)
