"""What the engine can be asked for, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from instances.lifecycle import Control, Status, TriggerSource


class Create(IntEnum):
    """What became of a request to create an instance."""

    CREATED = 0
    EXISTS = 1
    """The id belongs to another instance of the workflow."""
    NO_WORKFLOW = 2
    QUEUE_FULL = 3
    DUPLICATE = 4
    """The id is used earlier in the same request."""
    ORPHAN = 5
    """The run that makes it has ended, or is another worker's by now."""
    REUSED = 6
    """Another instance has the transaction id; the answer is about that one."""
    INACTIVE = 7
    """The workflow is not active: nothing starts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInstance:
    """An instance to create. `input` and `trigger_detail` are JSON text; retention None: version, account, 30 days.

    A `trigger_detail` that begins with `{"dryRun":true` makes it a dry run.
    """

    account_id: UUID
    key: UUID
    instance_id: str
    handle: str
    workspace_id: UUID | None = None
    """Where the workflow must be to be found; None: anywhere in the account."""
    input: str | None = None
    trigger_source: TriggerSource = TriggerSource.API
    trigger_detail: str | None = None
    triggered_by: str | None = None
    success_retention_ms: int | None = None
    error_retention_ms: int | None = None
    parent_key: UUID | None = None
    """Whose child it is: who waits for its end, and does not leave it behind."""
    parent_step: str | None = None
    maker_key: UUID | None = None
    """The run in whose name it is made, if that is not `parent_key`; it must be unfinished."""
    maker_epoch: int | None = None
    """What the caller believes to be the maker's epoch; None: any."""
    depth: int = 0
    max_queued: int | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """The instance a request made, or found in its place; the outcome says which, and nothing of it where none is."""

    outcome: Create
    key: UUID
    workflow_key: UUID | None
    version_key: UUID | None
    no: int | None
    status: Status = Status.QUEUED


class SendEvent(IntEnum):
    """What became of an event."""

    STORED = 0
    NOT_LIVE = 1
    """The instance is finished or unknown."""
    TOO_MANY = 2
    """Too many unread events, or bytes of them."""
    DUPLICATE = 3
    """An unread event with the same dedupe key is there."""


@dataclass(frozen=True, slots=True)
class Controlled:
    """What became of a command."""

    outcome: Control
    status: Status | None
    """Status after the command; None when the instance is not there."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`at`: when it ended; None while it is being undone."""

    outcome: Control
    status: Status | None
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAnswer:
    """What answers a step that has waited since journal entry `since` of run `run`, unless an entry of `kinds` about it
    was written since. `facts` are types and payloads, the one it waits for last.
    """

    run: int
    since: int
    kinds: Sequence[int]
    name: str
    count: int
    facts: Sequence[tuple[str, str | None]]

    @property
    def dedupe(self) -> str:
        """What every answer to that wait is stored under, so that there is one."""
        return f"answer:{self.run}:{self.since}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A new instance that repeats a finished one, whose run and last seq were `run` and `seq`, taking over the entries
    `kept` of its journal. `from_step` and `detail` (its trigger detail) are kept with it.
    """

    account_id: UUID
    origin: UUID
    run: int
    seq: int
    key: UUID
    from_step: str | None
    detail: str | None
    triggered_by: str | None
    kept: Sequence[int]
    max_queued: int | None = None
