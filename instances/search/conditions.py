"""A predicate as a condition on `i` (instance) and `l` (its live row, nulls once it is finished).

Values only ever become parameters; every piece of text here is fixed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from instances.lifecycle import Kind, Status
from instances.listing import FIRST_KEY, LAST_KEY
from instances.search.query import AnyOf, Compare, Every, Facet, Field, InFacets, Not, Op, Predicate, facets_of

_REVERTED = "i.reverted"
COMPENSATING = f"""exists (select from journal c where c.account_id = $1 and c.key = l.key and c.seq >= l.live_from
    and c.run = l.run and c.kind = {int(Kind.ROLLBACK_STEP_STARTED)})"""
STATUS = "coalesce(l.status, i.status)"
# The time in a key, which is shown as that of the creation.
ASKED_AT = """timestamptz 'epoch' + interval '1 millisecond'
    * ('x' || left(translate({}::text, '-', ''), 12))::bit(48)::bigint"""
COLUMNS = {
    Field.KEY: ("i.key", "uuid"),
    Field.NO: ("i.no", "bigint"),
    Field.WORKFLOW: ("i.workflow_key", "uuid"),
    Field.TRANSACTION_ID: ("i.transaction_id", "text"),
    Field.INSTANCE_ID: ("i.instance_id", "text"),
    Field.TRIGGER_SOURCE: ("i.trigger_source", "bigint"),
    Field.TRIGGERED_BY: ("i.triggered_by", "text"),
    Field.VERSION: ("i.version_key", "uuid"),
    Field.PARENT: ("i.parent_key", "uuid"),
    Field.ORIGIN: ("i.origin_key", "uuid"),
    Field.STARTED_AT: (f"coalesce(l.started_at, i.started_at, {ASKED_AT.format('i.key')})", "timestamptz"),
    Field.ENDED_AT: ("i.ended_at", "timestamptz"),
    Field.UPDATED_AT: ("coalesce(l.modified_at, i.ended_at, i.created_at)", "timestamptz"),
    Field.DELETED_AT: ("i.deleted_at", "timestamptz"),
}
NEEDED = """i.key, i.no, i.workflow_key, i.transaction_id, i.instance_id, i.trigger_source, i.triggered_by,
    i.version_key, i.parent_key, i.origin_key, i.status, i.reverted, i.created_at, i.started_at,
    i.ended_at, i.deleted_at"""
"""Columns of an instance that conditions and orders look at."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """What concurrency limits keep from starting: of `workflows`, or `everywhere` in the account."""

    everywhere: bool = False
    workflows: frozenset[UUID] = frozenset()

    def holds(self, workflow_key: UUID) -> bool:
        return self.everywhere or workflow_key in self.workflows


class Parameters:
    """Values of a statement, numbered as they come; the first is the account."""

    def __init__(self, account_id: UUID) -> None:
        self.values: list[Any] = [account_id]

    def add(self, value: Any, kind: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def facet_column(parameters: Parameters, held: HeldBack) -> str:
    """An expression for the number of an instance's facet."""
    stuck = _held(parameters, held)
    return f"""case {STATUS} when 0 then case when {stuck} then 0 else 1 end when 1 then 2 when 2 then 3 when 3 then 4
    when 4 then 5 when 5 then case when {COMPENSATING} then 7 else 6 end when 6 then 8
    when 7 then case when {_REVERTED} then 10 else 9 end else case when {_REVERTED} then 12 else 11 end end"""


def _held(parameters: Parameters, held: HeldBack) -> str:
    if held.everywhere:
        return "l.started_at is null"
    if not held.workflows:
        return "false"
    return f"(l.started_at is null and i.workflow_key = any ({parameters.add(sorted(held.workflows), 'uuid[]')}))"


class Conditions:
    """Writes predicates out. `handles` gives, for each comparison of handles, the workflows it holds for. `finished`:
    for rows without a live row, whose own columns say all, so that nobody has to look for one.
    """

    def __init__(
        self, parameters: Parameters, held: HeldBack, handles: dict[Compare, list[UUID]], *, finished: bool = False
    ) -> None:
        self._parameters = parameters
        self._finished = finished
        self._status = "i.status" if finished else STATUS
        self._held_back = held
        self._handles = handles

    def of(self, predicate: Predicate) -> str:
        """The condition, in brackets where it needs them."""
        match predicate:
            case Every(parts):
                return f"({' and '.join(map(self.of, parts))})" if parts else "true"
            case AnyOf(parts):
                return f"({' or '.join(map(self.of, parts))})" if parts else "false"
            case Not(part):
                return f"({self.of(part)}) is not true"
            case InFacets(facets):
                return self._facets(facets)
            case Compare():
                return self._compare(predicate)

    def _facets(self, facets: frozenset[Facet]) -> str:
        if self._finished:
            facets = frozenset(facet for facet in facets if facet.status.finished)
        whole = {status for status in Status if facets_of([status]) <= facets}
        parts = [f"{self._status} = any ({self._parameters.add(sorted(map(int, whole)), 'int[]')})"] if whole else []
        for facet in sorted(facet for facet in facets if facet.status not in whole):
            parts.append(f"({self._status} = {int(facet.status)} and {self._half(facet)})")
        return f"({' or '.join(parts)})" if parts else "false"

    def _half(self, facet: Facet) -> str:
        """What tells a facet from the other one of its status."""
        match facet:
            case Facet.HELD_BACK:
                return _held(self._parameters, self._held_back)
            case Facet.ADMITTED:
                return f"({_held(self._parameters, self._held_back)}) is not true"
            case Facet.COMPENSATING:
                return COMPENSATING
            case Facet.DRAINING:
                return f"not {COMPENSATING}"
            case Facet.ERRORED_REVERTED | Facet.TERMINATED_REVERTED:
                return _REVERTED
            case _:
                return f"({_REVERTED}) is not true"

    def _compare(self, compare: Compare) -> str:
        if compare.field is Field.HANDLE:
            return f"i.workflow_key = any ({self._parameters.add(self._handles[compare], 'uuid[]')})"
        if compare.field is Field.CREATED_AT:
            return self._created(compare)
        column, kind = COLUMNS[compare.field]
        if self._finished:
            column = column.replace("l.started_at, ", "").replace("l.modified_at, ", "")
        return written(self._parameters, column, kind, compare.op, compare.value)

    def _created(self, compare: Compare) -> str:
        if compare.op in (Op.IS_NULL, Op.NOT_NULL):
            return "true" if compare.op is Op.NOT_NULL else "false"
        moments = compare.value if compare.op in (Op.IN, Op.NOT_IN) else [compare.value]
        ranges: Iterable[tuple[UUID, UUID]] = map(_same_millisecond, moments)
        if compare.op in (Op.IN, Op.EQ, Op.NE, Op.NOT_IN):
            inside = [f"i.key between {self._key(low)} and {self._key(high)}" for low, high in ranges if low <= high]
            found = f"({' or '.join(inside)})" if inside else "false"
            return f"not {found}" if compare.op in (Op.NE, Op.NOT_IN) else found
        low, high = key_bounds(compare)
        return f"i.key between {self._key(low)} and {self._key(high)}"

    def _key(self, key: UUID) -> str:
        return self._parameters.add(key, "uuid")


def written(parameters: Parameters, column: str, kind: str, op: Op, value: Any) -> str:
    """A comparison of a column with a value."""
    match op:
        case Op.IS_NULL | Op.NOT_NULL:
            return f"{column} {op.value}"
        case Op.IN | Op.NOT_IN:
            found = f"{column} = any ({parameters.add(list(value), f'{kind}[]')})"
            return found if op is Op.IN else f"({found}) is not true"
        case Op.NE:
            return f"{column} is distinct from {parameters.add(value, kind)}"
        case Op.CONTAINS:
            return f"strpos(lower({column}), lower({parameters.add(value, kind)})) > 0"
        case Op.LIKE | Op.ILIKE:
            return f"{column} {op.value} {parameters.add(_whole_escapes(value), kind)}"
        case _:
            return f"{column} {op.value} {parameters.add(value, kind)}"


def _whole_escapes(pattern: str) -> str:
    """The pattern, a lone backslash at its end taken literally: PostgreSQL would refuse it."""
    trailing = len(pattern) - len(pattern.rstrip("\\"))
    return pattern + "\\" if trailing % 2 else pattern


# --- creation times as keys --------------------------------------------------------------------------------------


def _key_at(milliseconds: int) -> UUID:
    """The lowest key of that millisecond."""
    return UUID(int=min(max(milliseconds << 80, FIRST_KEY.int), LAST_KEY.int))


def _same_millisecond(moment: datetime) -> tuple[UUID, UUID]:
    """Lowest and highest key of exactly this time; the first above the second when no key has it."""
    passed = moment - _EPOCH
    if passed % _MILLISECOND:
        return LAST_KEY, FIRST_KEY
    stamp = passed // _MILLISECOND
    return _key_at(stamp), UUID(int=max(_key_at(stamp + 1).int - 1, 0))


def _beside(op: Op, key: UUID) -> tuple[UUID, UUID]:
    """Lowest and highest key below or above one; the first above the second where there is none."""
    match op:
        case Op.LT:
            return (FIRST_KEY, UUID(int=key.int - 1)) if key > FIRST_KEY else (LAST_KEY, FIRST_KEY)
        case Op.LTE:
            return FIRST_KEY, key
        case Op.GT:
            return (UUID(int=key.int + 1), LAST_KEY) if key < LAST_KEY else (LAST_KEY, FIRST_KEY)
        case _:
            return key, LAST_KEY


def key_bounds(compare: Compare) -> tuple[UUID, UUID]:
    """Lowest and highest key, both included, of instances a comparison of keys or creation times can hold for."""
    if compare.field is Field.KEY:
        return _beside(compare.op, compare.value)
    if compare.op not in (Op.EQ, Op.LT, Op.LTE, Op.GT, Op.GTE):
        return FIRST_KEY, LAST_KEY
    passed = compare.value - _EPOCH
    floor, ceiling = passed // _MILLISECOND, -(-passed // _MILLISECOND)
    match compare.op:
        case Op.EQ:
            return _same_millisecond(compare.value)
        case Op.LT:
            return FIRST_KEY, UUID(int=max(_key_at(ceiling).int - 1, 0))
        case Op.LTE:
            return FIRST_KEY, UUID(int=max(_key_at(floor + 1).int - 1, 0))
        case Op.GT:
            return _key_at(floor + 1), LAST_KEY
        case _:
            return _key_at(ceiling), LAST_KEY
