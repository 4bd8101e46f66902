"""How a search gets at its rows: what of its filter an index serves, and what has to be looked at row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from instances.lifecycle import Status
from instances.listing import FIRST_KEY, LAST_KEY
from instances.search.conditions import HeldBack, key_bounds
from instances.search.query import By, Compare, Every, Facet, Field, InFacets, Keyset, Op, Predicate, Search, facets_of

_POINTS = {Field.KEY: "keys", Field.NO: "nos", Field.TRANSACTION_ID: "transactions", Field.INSTANCE_ID: "ids"}
_COMPARISONS = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})
_RANGES = {Field.KEY: _COMPARISONS, Field.CREATED_AT: _COMPARISONS | {Op.EQ}}
"""What narrows the keys."""
_ALL = frozenset(Facet)
_LEAST = timedelta(microseconds=1)
"""What times differ by at least, here and in the database."""


class Part(Enum):
    """Which instances of a status."""

    WHOLE = "all of them"
    REVERTED = "everything undone"
    UNREVERTED = "not everything undone"
    FRESH = "unfinished, never started"
    BEGUN = "unfinished, started"
    COMPENSATING = "rolling back, compensations have begun"
    DRAINING = "rolling back, none has"


@dataclass(frozen=True, slots=True)
class Group:
    """Instances an index gives in order: of some workflows, in some statuses, the same part of each."""

    workflows: tuple[UUID, ...]
    statuses: tuple[Status, ...]
    part: Part

    @property
    def finished(self) -> bool:
        return self.statuses[0].finished


@dataclass(slots=True)
class Plan:
    """What indexes serve. None: that does not narrow the search.

    `keys` to `ids` name single rows. `among`: the workflows to look into one by one, all of them when `workflows` does
    not narrow the search. `rest`: what each row must be looked at for; of nothing, the search is `exact`: in the order
    of creation, or of the start if `by_start`, indexes give what is wanted and no more.
    """

    low: UUID = FIRST_KEY
    high: UUID = LAST_KEY
    workflows: frozenset[UUID] | None = None
    facets: frozenset[Facet] = _ALL
    keys: frozenset[UUID] | None = None
    nos: frozenset[int] | None = None
    transactions: frozenset[str] | None = None
    ids: frozenset[str] | None = None
    started_since: datetime | None = None
    started_until: datetime | None = None
    """Not included."""
    by_start: bool = False
    with_deleted: bool = False
    rest: list[Predicate] = field(default_factory=list)
    every_workflow: tuple[UUID, ...] | None = None
    held: HeldBack = field(default_factory=HeldBack)

    @property
    def among(self) -> list[UUID]:
        return sorted((self.every_workflow or ()) if self.workflows is None else self.workflows)

    @property
    def pointed(self) -> bool:
        """Whether the filter names the rows."""
        return any(found is not None for found in (self.keys, self.nos, self.transactions, self.ids))

    @property
    def empty(self) -> bool:
        """Whether no row can fit."""
        sets = (self.workflows, self.facets, self.keys, self.nos, self.transactions, self.ids)
        return self.low > self.high or any(found is not None and not found for found in sets)

    @property
    def exact(self) -> bool:
        return not self.rest

    @property
    def any_facet(self) -> bool:
        return self.facets == _ALL

    @property
    def unbounded(self) -> bool:
        """Whether neither creation nor start are narrowed: totals are known, then."""
        bounds = (self.low, self.high, self.started_since, self.started_until)
        return bounds == (FIRST_KEY, LAST_KEY, None, None)

    def asked_keys(self) -> tuple[UUID, UUID]:
        """Lowest and highest key of what never started, and counts as started when it was created."""
        low, high = self.low, self.high
        if self.started_since is not None:
            low = max(low, key_bounds(Compare(Field.CREATED_AT, Op.GTE, self.started_since))[0])
        if self.started_until is not None:
            high = min(high, key_bounds(Compare(Field.CREATED_AT, Op.LT, self.started_until))[1])
        return low, high

    def groups(self) -> list[Group]:
        """What `facets` stand for, in the workflows of `among`."""
        among = tuple(self.among)
        ended: dict[Part, list[Status]] = {}
        for status in Status:
            if status.finished and (part := _part(status, self.facets)) is not None:
                ended.setdefault(part, []).append(status)
        found = [Group(among, tuple(statuses), part) for part, statuses in ended.items()]
        going = tuple(status for status in _UNDIVIDED if facets_of([status]) <= self.facets)
        rolling = _part(Status.ROLLING_BACK, self.facets)
        if rolling is Part.WHOLE:
            going += (Status.ROLLING_BACK,)
        elif rolling is not None:
            found.append(Group(among, (Status.ROLLING_BACK,), rolling))
        found += self._queued(among, going)
        return [group for group in found if group.workflows and group.statuses]

    def _queued(self, among: tuple[UUID, ...], going: tuple[Status, ...]) -> list[Group]:
        """Queued ones, which a limit divides where it holds back, together with what is `going`."""
        queued = (Status.QUEUED,)
        held = tuple(key for key in among if self.held.holds(key))
        free = tuple(key for key in among if not self.held.holds(key))
        match Facet.HELD_BACK in self.facets, Facet.ADMITTED in self.facets:
            case True, True:
                return [Group(among, queued + going, Part.WHOLE)]
            case True, False:
                return [Group(among, going, Part.WHOLE), Group(held, queued, Part.FRESH)]
            case False, True:
                return [
                    Group(free, queued + going, Part.WHOLE),
                    Group(held, going, Part.WHOLE),
                    Group(held, queued, Part.BEGUN),
                ]
            case _:
                return [Group(among, going, Part.WHOLE)]


_UNDIVIDED = (Status.RUNNING, Status.WAITING, Status.PAUSED, Status.WAITING_FOR_PAUSE)
"""Statuses of unfinished instances that are one facet each."""
_HALVES = {
    Status.COMPLETE: {Facet.COMPLETE: Part.WHOLE},
    Status.ERRORED: {Facet.ERRORED: Part.UNREVERTED, Facet.ERRORED_REVERTED: Part.REVERTED},
    Status.TERMINATED: {Facet.TERMINATED: Part.UNREVERTED, Facet.TERMINATED_REVERTED: Part.REVERTED},
    Status.ROLLING_BACK: {Facet.DRAINING: Part.DRAINING, Facet.COMPENSATING: Part.COMPENSATING},
}


def _part(status: Status, facets: frozenset[Facet]) -> Part | None:
    """The part of a status that facets ask for."""
    wanted = [part for facet, part in _HALVES[status].items() if facet in facets]
    if len(wanted) == len(_HALVES[status]):
        return Part.WHOLE
    return wanted[0] if wanted else None


def plan(search: Search, handles: dict[Compare, list[UUID]], held: HeldBack) -> Plan:
    """The plan of a search. `handles`: for each comparison of handles in it, the workflows it holds for."""
    found = Plan(
        workflows=None if search.workflows is None else frozenset(search.workflows),
        by_start=search.by is By.STARTED,
        with_deleted=search.with_deleted,
        held=held,
    )
    for part in _conjuncts(search.where):
        if not _narrow(found, part, handles):
            found.rest.append(part)
    _begin_at(found, search.start, search.descending)
    return found


def _conjuncts(predicate: Predicate) -> Iterator[Predicate]:
    if isinstance(predicate, Every):
        for part in predicate.parts:
            yield from _conjuncts(part)
    else:
        yield predicate


def _narrow(found: Plan, part: Predicate, handles: dict[Compare, list[UUID]]) -> bool:
    """Narrow by one condition; whether nothing of it is left to check."""
    if isinstance(part, InFacets):
        found.facets &= part.facets
        return True
    if not isinstance(part, Compare):
        return False
    if part.field in (Field.HANDLE, Field.WORKFLOW):
        return _narrow_workflows(found, part, handles)
    if part.op in _RANGES.get(part.field, ()):
        low, high = key_bounds(part)
        found.low, found.high = max(found.low, low), min(found.high, high)
        return True
    if part.field is Field.STARTED_AT:
        return _narrow_start(found, part)
    if part.field in _POINTS and part.op in (Op.EQ, Op.IN):
        values: frozenset[Any] = frozenset(part.value if part.op is Op.IN else [part.value])
        known = getattr(found, _POINTS[part.field])
        setattr(found, _POINTS[part.field], values if known is None else known & values)
        return True
    return False


def _narrow_workflows(found: Plan, part: Compare, handles: dict[Compare, list[UUID]]) -> bool:
    if part.field is Field.HANDLE:
        keys = frozenset(handles[part])
    elif part.op in (Op.EQ, Op.IN):
        keys = frozenset(part.value if part.op is Op.IN else [part.value])
    else:
        return False
    found.workflows = keys if found.workflows is None else found.workflows & keys
    return True


def _narrow_start(found: Plan, part: Compare) -> bool:
    """Narrow the time of the start, which decides only in its own order: elsewhere rows are looked at. What started
    before a time was created before it, too.
    """
    try:
        since, until = _half_open(part)
    except OverflowError:
        return False
    if since is not None:
        found.started_since = since if found.started_since is None else max(found.started_since, since)
    if until is not None:
        found.started_until = until if found.started_until is None else min(found.started_until, until)
        if not found.by_start:
            found.high = min(found.high, key_bounds(Compare(Field.CREATED_AT, Op.LTE, until))[1])
    return found.by_start and (since, until) != (None, None)


def _half_open(part: Compare) -> tuple[datetime | None, datetime | None]:
    """The time a comparison leaves, its end not included."""
    match part.op:
        case Op.GTE:
            return part.value, None
        case Op.GT:
            return part.value + _LEAST, None
        case Op.LT:
            return None, part.value
        case Op.LTE:
            return None, part.value + _LEAST
        case _:
            return None, None


def _begin_at(found: Plan, start: Keyset | None, descending: bool) -> None:
    if start is None:
        return
    if descending != start.backwards:
        found.high = min(found.high, UUID(int=max(start.key.int - 1, 0)))
    else:
        found.low = max(found.low, UUID(int=min(start.key.int + 1, LAST_KEY.int)))
