"""What a search may ask: a predicate over instances, an order, a page. Pure data; faces build it, the store answers it.

A status of a face is a set of :class:`Facet`: a facet is as fine as any face tells statuses apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

from app.errors import InvalidRequest
from instances.lifecycle import Status
from instances.listing import COUNTED_ROWS

PAGE_MAX = 1_000
"""Rows of one page."""
LEAVES_MAX = 50
"""Comparisons of one search."""
DEPTH_MAX = 8
VALUES_MAX = 1_000
"""Values of one `in`."""
TEXT_MAX = 1_024
"""Characters of a text to compare with."""


class Facet(IntEnum):
    """Where an instance stands, as finely as any face shows it."""

    HELD_BACK = 0
    """Queued, never started, and a concurrency limit keeps it from starting."""
    ADMITTED = 1
    """Queued, and nothing but a free worker is missing."""
    RUNNING = 2
    WAITING = 3
    PAUSED = 4
    WAITING_FOR_PAUSE = 5
    DRAINING = 6
    """Rolling back; no compensation has begun, what runs may still finish."""
    COMPENSATING = 7
    COMPLETE = 8
    ERRORED = 9
    """Ended by a failure, with no rollback or a failed one."""
    ERRORED_REVERTED = 10
    """Ended by a failure, everything undone."""
    TERMINATED = 11
    TERMINATED_REVERTED = 12

    @property
    def status(self) -> Status:
        return _STATUSES[self]


_STATUSES = {
    Facet.HELD_BACK: Status.QUEUED,
    Facet.ADMITTED: Status.QUEUED,
    Facet.RUNNING: Status.RUNNING,
    Facet.WAITING: Status.WAITING,
    Facet.PAUSED: Status.PAUSED,
    Facet.WAITING_FOR_PAUSE: Status.WAITING_FOR_PAUSE,
    Facet.DRAINING: Status.ROLLING_BACK,
    Facet.COMPENSATING: Status.ROLLING_BACK,
    Facet.COMPLETE: Status.COMPLETE,
    Facet.ERRORED: Status.ERRORED,
    Facet.ERRORED_REVERTED: Status.ERRORED,
    Facet.TERMINATED: Status.TERMINATED,
    Facet.TERMINATED_REVERTED: Status.TERMINATED,
}


def facets_of(statuses: Collection[Status]) -> frozenset[Facet]:
    """All facets of these statuses."""
    return frozenset(facet for facet in Facet if facet.status in statuses)


class Field(Enum):
    """What a comparison may look at, and the type of its values."""

    KEY = "key", UUID
    """In the order of creation."""
    NO = "no", int
    WORKFLOW = "workflow_key", UUID
    HANDLE = "handle", str
    """The workflow's handle."""
    TRANSACTION_ID = "transaction_id", str
    INSTANCE_ID = "instance_id", str
    TRIGGER_SOURCE = "trigger_source", int
    """Numbers of `lifecycle.TriggerSource`."""
    TRIGGERED_BY = "triggered_by", str
    VERSION = "version_key", UUID
    PARENT = "parent_key", UUID
    ORIGIN = "origin_key", UUID
    CREATED_AT = "created_at", datetime
    """The time in the key, to the millisecond."""
    STARTED_AT = "started_at", datetime
    """When a worker first had it; while none has, when it was created."""
    ENDED_AT = "ended_at", datetime
    UPDATED_AT = "updated_at", datetime
    DELETED_AT = "deleted_at", datetime

    def __init__(self, label: str, kind: type) -> None:
        self.label = label
        self.kind = kind


class Op(Enum):
    """How a comparison compares. Text comparisons other than `CONTAINS` and `ILIKE` are exact."""

    EQ = "="
    NE = "<>"
    LT = "<"
    LTE = "<="
    GT = ">"
    GTE = ">="
    IN = "in"
    NOT_IN = "not in"
    LIKE = "like"
    """Texts only: `%` any characters, `_` any one, `\\` takes the next literally."""
    ILIKE = "ilike"
    """The same in any case."""
    CONTAINS = "contains"
    """Texts only: substring in any case; nothing in it is special."""
    IS_NULL = "is null"
    """No value (the given one is ignored)."""
    NOT_NULL = "is not null"


_TEXT_OPS = frozenset({Op.LIKE, Op.ILIKE, Op.CONTAINS})
_LISTS = frozenset({Op.IN, Op.NOT_IN})
_UNARY = frozenset({Op.IS_NULL, Op.NOT_NULL})
_ORDERS = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})
_UNORDERED = frozenset({Field.WORKFLOW, Field.VERSION, Field.PARENT, Field.ORIGIN})


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison. Raises :class:`InvalidRequest` when the value is not one the field can be compared with."""

    field: Field
    op: Op
    value: Any = None

    def __post_init__(self) -> None:
        kind, label = self.field.kind, self.field.label
        if self.op in _UNARY:
            return
        if (self.op in _TEXT_OPS and kind is not str) or (self.op in _ORDERS and self.field in _UNORDERED):
            raise InvalidRequest(f"{label} cannot be compared by {self.op.value!r}")
        values = self.value if self.op in _LISTS else [self.value]
        if not isinstance(values, (list, tuple, set, frozenset)) or len(values) > VALUES_MAX:
            raise InvalidRequest(f"{label} takes a list of at most {VALUES_MAX} values")
        if self.op in _LISTS:
            object.__setattr__(self, "value", tuple(values))
        for value in values:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InvalidRequest(f"{label} must be compared with values of type {kind.__name__}")
            if isinstance(value, str) and (len(value) > TEXT_MAX or "\0" in value):
                raise InvalidRequest(f"{label} must be compared with a text of at most {TEXT_MAX} characters, none NUL")
            if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
                raise InvalidRequest(f"{label} must be compared with numbers of 64 bits")


@dataclass(frozen=True, slots=True)
class InFacets:
    """The instance is in one of these facets."""

    facets: frozenset[Facet]


@dataclass(frozen=True, slots=True)
class Every:
    """All of `parts` hold; of none, always."""

    parts: tuple[Predicate, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of `parts` holds; of none, never."""

    parts: tuple[Predicate, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    """`part` does not hold."""

    part: Predicate


Predicate = Compare | InFacets | Every | AnyOf | Not
EVERYTHING = Every()


def every(*parts: Predicate | None) -> Every:
    """All of these, None left out."""
    return Every(tuple(part for part in parts if part is not None))


def between(moment: Field, since: datetime | None, until: datetime | None) -> Predicate | None:
    """`since` included, `until` not; None when neither is given."""
    found: list[Predicate] = []
    if since is not None:
        found.append(Compare(moment, Op.GTE, since))
    if until is not None:
        found.append(Compare(moment, Op.LT, until))
    return every(*found) if found else None


def check(predicate: Predicate) -> None:
    """Raise :class:`InvalidRequest` for a filter that is too deep or too long."""
    leaves = 0

    def walk(part: Predicate, depth: int) -> None:
        nonlocal leaves
        if depth > DEPTH_MAX:
            raise InvalidRequest(f"a filter may be nested {DEPTH_MAX} deep")
        if isinstance(part, (Every, AnyOf)):
            for one in part.parts:
                walk(one, depth + 1)
        elif isinstance(part, Not):
            walk(part.part, depth + 1)
        else:
            leaves += 1

    walk(predicate, 0)
    if leaves > LEAVES_MAX:
        raise InvalidRequest(f"a filter may make at most {LEAVES_MAX} comparisons")


class By(Enum):
    """What a search may order by. Ties are always ordered by key, in the same direction."""

    CREATED = "created_at"
    """By key, which is the order of creation."""
    TRANSACTION = "workflow, transaction, run"
    """By handle, transaction id, key."""
    STARTED = "started_at"
    ENDED = "ended_at"
    """Unfinished ones last when ascending, first when descending."""
    UPDATED = "updated_at"
    HANDLE = "workflow"
    TRANSACTION_ID = "transaction_id"
    FACET = "status"
    """In the order the search's `ranks` give."""


@dataclass(frozen=True, slots=True)
class Keyset:
    """A place in a list by creation: rows beyond `key`. `backwards`: those before it, in the list's own order."""

    key: UUID
    backwards: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A page of an account's instances.

    `start` is for `By.CREATED` only and excludes `offset`. `ranks` is where each facet stands when ordered by facet.
    `payloads`: whether input, output and error come along. Raises :class:`InvalidRequest` for what cannot be asked.
    """

    where: Predicate = EVERYTHING
    workflows: Sequence[UUID] | None = None
    """Only instances of these (None: of all the caller sees)."""
    with_deleted: bool = False
    by: By = By.CREATED
    descending: bool = True
    ranks: Mapping[Facet, int] = field(default_factory=dict)
    limit: int = 100
    offset: int = 0
    start: Keyset | None = None
    counted: bool = True
    payloads: bool = True

    def __post_init__(self) -> None:
        check(self.where)
        if not 0 <= self.limit <= PAGE_MAX:
            raise InvalidRequest(f"limit must be a whole number from 0 to {PAGE_MAX}")
        if not 0 <= self.offset <= COUNTED_ROWS:
            raise InvalidRequest(f"offset must be a whole number from 0 to {COUNTED_ROWS}")
        if self.start is not None and (self.by is not By.CREATED or self.offset):
            raise InvalidRequest("a cursor goes with the order of creation and with no offset")
