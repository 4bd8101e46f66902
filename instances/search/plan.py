"""How a search gets at its rows: what of its filter an index serves, and what has to be looked at row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from instances.lifecycle import Status
from instances.listing import FIRST_KEY, LAST_KEY
from instances.search.conditions import key_bounds
from instances.search.query import Compare, Every, Facet, Field, InFacets, Keyset, Op, Predicate, Search, facets_of

_POINTS = {Field.KEY: "keys", Field.NO: "nos", Field.TRANSACTION_ID: "transactions", Field.INSTANCE_ID: "ids"}
_ALL = frozenset(Status)


@dataclass(slots=True)
class Plan:
    """What indexes serve. None: that does not narrow the search.

    `keys` to `ids` name single rows. `among`: the workflows to look into one by one, all of them when `workflows` does
    not narrow the search. `exact`: the narrowing alone decides, no row needs a second look.
    """

    low: UUID = FIRST_KEY
    high: UUID = LAST_KEY
    workflows: frozenset[UUID] | None = None
    statuses: frozenset[Status] = _ALL
    keys: frozenset[UUID] | None = None
    nos: frozenset[int] | None = None
    transactions: frozenset[str] | None = None
    ids: frozenset[str] | None = None
    started_since: datetime | None = None
    started_until: datetime | None = None
    exact: bool = True
    every_workflow: tuple[UUID, ...] | None = None

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
        sets = (self.workflows, self.statuses, self.keys, self.nos, self.transactions, self.ids)
        return self.low > self.high or any(found is not None and not found for found in sets)

    @property
    def finished(self) -> frozenset[Status]:
        return frozenset(status for status in self.statuses if status.finished)

    @property
    def unfinished(self) -> frozenset[Status]:
        return self.statuses - self.finished

    @property
    def any_status(self) -> bool:
        return self.statuses == _ALL


def plan(search: Search, handles: dict[Compare, list[UUID]]) -> Plan:
    """The plan of a search. `handles`: for each comparison of handles in it, the workflows it holds for."""
    found = Plan(workflows=None if search.workflows is None else frozenset(search.workflows))
    for part in _conjuncts(search.where):
        if not _narrow(found, part, handles):
            found.exact = False
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
        statuses = frozenset(facet.status for facet in part.facets)
        found.statuses &= statuses
        return facets_of(statuses) == part.facets or not _divided(part.facets)
    if not isinstance(part, Compare):
        return False
    if part.field in (Field.HANDLE, Field.WORKFLOW):
        return _narrow_workflows(found, part, handles)
    if part.field is Field.CREATED_AT and part.op in (Op.EQ, Op.LT, Op.LTE, Op.GT, Op.GTE):
        low, high = key_bounds(part)
        found.low, found.high = max(found.low, low), min(found.high, high)
        return True
    if part.field is Field.STARTED_AT:
        _narrow_start(found, part)
        return False
    if part.field in _POINTS and part.op in (Op.EQ, Op.IN):
        values: frozenset[Any] = frozenset(part.value if part.op is Op.IN else [part.value])
        known = getattr(found, _POINTS[part.field])
        setattr(found, _POINTS[part.field], values if known is None else known & values)
        return True
    return False


def _divided(facets: frozenset[Facet]) -> bool:
    """Whether some status is wanted in part only."""
    return any(not facets_of([facet.status]) <= facets for facet in facets)


def _narrow_workflows(found: Plan, part: Compare, handles: dict[Compare, list[UUID]]) -> bool:
    if part.field is Field.HANDLE:
        keys = frozenset(handles[part])
    elif part.op in (Op.EQ, Op.IN):
        keys = frozenset(part.value if part.op is Op.IN else [part.value])
    else:
        return False
    found.workflows = keys if found.workflows is None else found.workflows & keys
    return True


def _narrow_start(found: Plan, part: Compare) -> None:
    """What started before a time was created before it, too."""
    if part.op in (Op.GT, Op.GTE):
        found.started_since = part.value if found.started_since is None else max(found.started_since, part.value)
    elif part.op in (Op.LT, Op.LTE):
        found.started_until = part.value if found.started_until is None else min(found.started_until, part.value)
        _, high = key_bounds(Compare(Field.CREATED_AT, Op.LTE, part.value))
        found.high = min(found.high, high)


def _begin_at(found: Plan, start: Keyset | None, descending: bool) -> None:
    if start is None:
        return
    if descending != start.backwards:
        found.high = min(found.high, UUID(int=max(start.key.int - 1, 0)))
    else:
        found.low = max(found.low, UUID(int=min(start.key.int + 1, LAST_KEY.int)))
