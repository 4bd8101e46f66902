"""How pages and totals of a search are written as SQL: ranges of indexes, merged or sorted, counted or known.

`instances.search.store` runs what is written here. Every statement begins with the account, `$1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from instances.lifecycle import Status
from instances.listing import FIRST_KEY, LAST_KEY
from instances.search.conditions import (
    ASKED_AT,
    COLUMNS,
    COMPENSATING,
    NEEDED,
    Conditions,
    HeldBack,
    Parameters,
    facet_column,
)
from instances.search.plan import Group, Part, Plan
from instances.search.query import By, Facet, Field, Search

_OF_ACCOUNT = f"select {NEEDED} from instance i where i.account_id = $1"
_OF_WORKFLOW = "i.account_id = $1 and i.workflow_key = e.workflow_key"
_LIVE_OF_WORKFLOW = "l.account_id = $1 and l.workflow_key = e.workflow_key"
# Both of each row by itself: where little is known of a table, a planner would rather read all live rows of an account
# for each instance, or all instances for each workflow.
LIVE = "left join lateral (select v.* from live v where v.account_id = $1 and v.key = i.key limit 1) l on true"
WORKFLOW = """cross join lateral (
  select w.* from workflow w where w.account_id = $1 and w.workflow_key = i.workflow_key limit 1) w"""
# Plans a sub-select by itself. As sorts are off, it would be read through in the order wanted outside: the table's.
_APART = "offset 0"
_ORDERS = {
    By.CREATED: "i.key {d}",
    By.TRANSACTION: "w.handle {d}, i.workflow_key {d}, i.transaction_id {d}, i.key {d}",
    By.STARTED: f"{COLUMNS[Field.STARTED_AT][0]} {{d}}, i.key {{d}}",
    By.ENDED: "i.ended_at {d}, i.key {d}",
    By.UPDATED: f"{COLUMNS[Field.UPDATED_AT][0]} {{d}}, i.key {{d}}",
    By.HANDLE: "w.handle {d}, i.key {d}",
    By.TRANSACTION_ID: "i.transaction_id {d}, i.key {d}",
    By.FACET: "({ranks})[1 + {facet}] {d}, i.key {d}",
}
_ON_INSTANCE_ALONE = frozenset({By.CREATED, By.TRANSACTION, By.ENDED, By.HANDLE, By.TRANSACTION_ID})
_NAMED = frozenset({By.TRANSACTION, By.HANDLE})


_PARTS = {
    Part.WHOLE: "true",
    Part.REVERTED: "i.status >= 7 and i.reverted",
    Part.UNREVERTED: "i.status >= 7 and i.reverted is not true",
    Part.FRESH: "l.started_at is null",
    Part.BEGUN: "l.started_at is not null",
    Part.COMPENSATING: COMPENSATING,
    Part.DRAINING: f"not {COMPENSATING}",
}
_START = ("started_at", "key")
FEW = 20_000
"""How many of a status are counted to know how many others there are."""
_MAY_BE_FRESH = frozenset({Status.QUEUED, Status.PAUSED})
"""Statuses of unfinished instances that no worker may have had yet."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A range of an index: `table` (`i` for instances or `l` for live rows), for each of what `each` gives if anything,
    in the order of these columns. `begun`: of those that have started; `ended`: of finished ones.
    """

    each: str
    table: str
    alias: str = "i"
    order: tuple[str, ...] = ("key",)
    begun: bool = False
    ended: bool = False


@dataclass(slots=True)
class Statement:
    """A search, as statements over one list of parameters."""

    search: Search
    plan: Plan
    parameters: Parameters
    conditions: Conditions
    conditions_of_ended: Conditions
    held: HeldBack
    scan: int
    """Rows looked at, at most."""

    _condition: str = ""
    _condition_of_ended: str = ""

    @property
    def condition(self) -> str:
        """What must hold for a row. Its values become parameters when it is first asked for: all must be used."""
        self._condition = self._condition or self._written(self.conditions)
        return self._condition

    @property
    def condition_of_ended(self) -> str:
        """The same for rows known to be finished."""
        self._condition_of_ended = self._condition_of_ended or self._written(self.conditions_of_ended)
        return self._condition_of_ended

    def _written(self, conditions: Conditions) -> str:
        condition = conditions.of(self.search.where)
        if self.plan.workflows is None:
            return condition
        return f"{condition} and i.workflow_key = any ({self.parameters.add(sorted(self.plan.workflows), 'uuid[]')})"

    @property
    def direction(self) -> str:
        backwards = self.search.start is not None and self.search.start.backwards
        return "desc" if self.search.descending != backwards else "asc"

    @property
    def visible(self) -> str:
        return "true" if self.search.with_deleted else "i.deleted_at is null"

    def keys(self, a: str) -> str:
        return self._between(a, self.plan.low, self.plan.high)

    def _between(self, a: str, low: UUID, high: UUID) -> str:
        return f"{a}.key >= {self.parameters.add(low, 'uuid')} and {a}.key <= {self.parameters.add(high, 'uuid')}"

    def order(self) -> str:
        facet = ranks = ""
        if self.search.by is By.FACET:
            facet = facet_column(self.parameters, self.held)
            given = [self.search.ranks.get(one, int(one)) for one in Facet]
            ranks = self.parameters.add(given, "int[]")
        return _ORDERS[self.search.by].format(d=self.direction, facet=facet, ranks=ranks)

    @property
    def named(self) -> str:
        """The workflow, when the order needs it."""
        if self.search.by not in _NAMED:
            return ""
        return WORKFLOW

    # --- single rows ---------------------------------------------------------------------------------------------

    def points(self) -> str:
        """Rows the filter names, as a table `i`."""
        plan, add = self.plan, self.parameters.add
        if plan.keys is not None:
            return f"({_OF_ACCOUNT} and i.key = any ({add(sorted(plan.keys), 'uuid[]')}) {_APART})"
        if plan.nos is not None:
            return f"({_OF_ACCOUNT} and i.no = any ({add(sorted(plan.nos), 'bigint[]')}) {_APART})"
        column, values = (
            ("transaction_id", plan.transactions) if plan.transactions is not None else ("instance_id", plan.ids)
        )
        each, texts = self._each(plan.among), add(sorted(values or ()), "text[]")
        # The order is what no other index has.
        return f"""(select i.* {each} cross join lateral (
          select {NEEDED} from instance i where {_OF_WORKFLOW} and i.{column} = any ({texts})
          order by i.{column}) i limit {self.scan + 1})"""

    # --- rows that indexes leave ---------------------------------------------------------------------------------

    def scans(self, *, by_start: bool) -> list[Scan]:
        """Ranges of indexes, in the order of the start or of keys, which together have the rows the plan leaves."""
        if by_start:
            return [scan for group in _begun_together(self.plan.groups()) for scan in self._by_start(group)]
        if self.search.with_deleted or (self.plan.any_facet and self.plan.workflows is None):
            return [Scan("", f"from instance i where i.account_id = $1 and {self.visible} and {self.keys('i')}")]
        if self.plan.any_facet:
            table = f"from instance i where {_OF_WORKFLOW} and {self.visible} and {self.keys('i')}"
            return [Scan(self._each(self.plan.among), table)]
        return [self.by_key(group) for group in self.plan.groups()]

    def by_key(self, group: Group) -> Scan:
        each = self._each(group.workflows, group.statuses)
        if group.finished:
            table = f"from instance i where {_OF_WORKFLOW} and i.status = s.status and i.status >= 6 and {self.visible}"
            return Scan(each, f"{table} and {_PARTS[group.part]} and {self.keys('i')}", ended=True)
        if group.part is Part.BEGUN:  # few, behind a queue of which `live_status` would read all
            begun = f"select l.* from live l where {_LIVE_OF_WORKFLOW} and l.started_at is not null"
            table = f"from ({begun} order by l.started_at desc, l.key desc {_APART}) l where l.status = s.status"
            return Scan(each, f"{table} and {self.keys('l')}", "l")
        table = f"from live l where {_LIVE_OF_WORKFLOW} and l.status = s.status and {_PARTS[group.part]}"
        return Scan(each, f"{table} and {self.keys('l')}", "l")

    def _by_start(self, group: Group) -> list[Scan]:
        """Those that have started, in the order of the start, and those that have not, in the order of creation."""
        if group.finished:
            each = self._each(group.workflows, group.statuses)
            table = f"""from instance i where {_OF_WORKFLOW} and i.status = s.status and i.status >= 6
              and {self.visible} and {_PARTS[group.part]}"""
            return [
                Scan(each, f"{table} and {self._started('i')}", order=_START, begun=True, ended=True),
                Scan(each, f"{table} and {self._never_started('i')}", order=_START, ended=True),
            ]
        found: list[Scan] = []
        if group.part is not Part.FRESH:
            statuses = self.parameters.add(list(map(int, group.statuses)), "smallint[]")
            table = f"from live l where {_LIVE_OF_WORKFLOW} and l.status = any ({statuses}) and {_PARTS[group.part]}"
            found.append(
                Scan(self._each(group.workflows), f"{table} and {self._started('l')}", "l", _START, begun=True)
            )
        fresh = [status for status in group.statuses if status in _MAY_BE_FRESH]
        if fresh and group.part in (Part.WHOLE, Part.FRESH):
            table = f"from live l where {_LIVE_OF_WORKFLOW} and l.status = s.status and {self._never_started('l')}"
            found.append(Scan(self._each(group.workflows, fresh), table, "l"))
        return found

    def _started(self, a: str) -> str:
        """That it has started, in the time the plan leaves."""
        add, plan = self.parameters.add, self.plan
        bounds = [f"{a}.started_at is not null"]
        if plan.started_since is not None:
            bounds.append(f"{a}.started_at >= {add(plan.started_since, 'timestamptz')}")
        if plan.started_until is not None:
            bounds.append(f"{a}.started_at < {add(plan.started_until, 'timestamptz')}")
        if (plan.low, plan.high) != (FIRST_KEY, LAST_KEY):
            bounds.append(self._between(a, plan.low, plan.high))
        return " and ".join(bounds)

    def _never_started(self, a: str) -> str:
        """That it has not, and was created in that time."""
        return f"{a}.started_at is null and {self._between(a, *self.plan.asked_keys())}"

    def _each(self, workflows: Sequence[UUID], statuses: Sequence[Status] = ()) -> str:
        add = self.parameters.add
        each = f"from unnest({add(list(workflows), 'uuid[]')}) e(workflow_key)"
        if not statuses:
            return each
        return f"{each} cross join unnest({add(list(map(int, statuses)), 'smallint[]')}) s(status)"

    def branches(self, scans: Sequence[Scan], most: int, *, ordered: bool, limit: int | None = None) -> list[str]:
        """Selects of `key` and `at` (the start, or the creation before it), each of at most `most` rows of its scan per
        workflow and status, in order if `ordered`. With `limit`, so many at most of those the condition holds for.
        """
        return [self._branch(scan, most, ordered, limit) for scan in scans]

    def _branch(self, scan: Scan, most: int, ordered: bool, limit: int | None) -> str:
        a = scan.alias
        order = "order by " + ", ".join(f"{{a}}.{one} {self.direction}" for one in scan.order) if ordered else ""
        at = "{a}.started_at" if scan.begun else ASKED_AT.format("{a}.key")
        shown = f"{{a}}.key, {at} as at" if self.plan.by_start else "{a}.key"
        if limit is None:
            select = f"select {shown.format(a=a)} {scan.table} {order.format(a=a)} limit {most}"
        elif a == "i":
            inner = f"select {NEEDED} {scan.table} {order.format(a=a)} limit {most}"
            condition, live = (self.condition_of_ended, "") if scan.ended else (self.condition, LIVE)
            shown, order = shown.format(a=a), order.format(a=a)
            select = f"select {shown} from ({inner}) i {live} where {condition} {order} limit {limit}"
        else:
            inner = f"select l.key, l.started_at {scan.table} {order.format(a=a)} limit {most}"
            select = f"""select {shown.format(a="u")} from ({inner}) u
              join instance i on i.account_id = $1 and i.key = u.key {LIVE}
              where {self.condition} {order.format(a="u")} limit {limit}"""
        return f"select b.* {scan.each} cross join lateral ({select}) b" if scan.each else f"({select})"


def _begun_together(groups: list[Group]) -> list[Group]:
    """The same instances, those that have begun in one group where they are of the same workflows: by start, an index
    has all of them in order.
    """
    begun = [group for group in groups if group.part is Part.BEGUN]
    found: list[Group] = []
    for group in groups:
        more = [one for one in begun if one.workflows == group.workflows]
        if group.part is Part.WHOLE and not group.finished and more:
            fresh = tuple(status for status in group.statuses if status in _MAY_BE_FRESH)
            begun.remove(more[0])
            found.append(Group(group.workflows, group.statuses + more[0].statuses, Part.BEGUN))
            found += [Group(group.workflows, fresh, Part.FRESH)] if fresh else []
        elif group.part is not Part.BEGUN:
            found.append(group)
    return found + begun


def sorted_page(statement: Statement, source: str, *, checked: bool = False) -> str:
    """The page out of `source`, a table of instances `i`; `checked` if only wanted ones are in it."""
    limit = statement.parameters.add(statement.search.limit + 1, "bigint")
    offset = statement.parameters.add(statement.search.offset, "bigint")
    order = statement.order()
    live = "" if checked and statement.search.by in _ON_INSTANCE_ALONE else LIVE
    condition = "true" if checked else f"{statement.condition} and {statement.visible}"
    return f"""select i.key from {source} {live} {statement.named}
where {condition} order by {order} limit {limit} offset {offset}"""


def of_keys(branches: Sequence[str]) -> str:
    """The instances of the keys that `branches` select."""
    keys = _all(branches)
    return f"""(select {NEEDED} from ({keys}) c join instance i on i.account_id = $1 and i.key = c.key {_APART}) i"""


def merged_page(statement: Statement, branches: Sequence[str]) -> str:
    """The page out of branches that are in its order and checked already."""
    limit = statement.parameters.add(statement.search.limit + 1, "bigint")
    offset = statement.parameters.add(statement.search.offset, "bigint")
    d = statement.direction
    order = f"i.at {d}, i.key {d}" if statement.plan.by_start else f"i.key {d}"
    return f"select i.key from ({_all(branches)}) i order by {order} limit {limit} offset {offset}"


def _all(branches: Sequence[str]) -> str:
    return " union all ".join(branches)


def counted(branches: Sequence[str], most: int) -> str:
    return f"select count(*) from (select from ({_all(branches)}) c limit {most}) c"


def known_total(statement: Statement, most: int) -> str:
    """How many rows an exact and unbounded plan leaves, counted to `most` or a little beyond. Finished ones are counted
    already, hidden ones among them.
    """
    plan = statement.plan
    if plan.any_facet and plan.workflows is None:
        terms, others = [_ended(statement, None)], [Scan("", "from live l where l.account_id = $1", "l")]
    else:
        groups = plan.groups()
        halves = [group for group in groups if group.finished and group.part is not Part.WHOLE]
        whole = [status for group in groups if group.finished and group not in halves for status in group.statuses]
        terms = [_ended(statement, whole), *(_half(statement, group, most) for group in halves)]
        others = [statement.by_key(group) for group in groups if not group.finished]
    known = f"select {' + '.join(terms)} as n"
    if not others:
        return known
    branches = statement.branches(others, most, ordered=False)
    return f"""with known as materialized ({known})
select known.n + (select count(*) from (select from ({_all(branches)}) c
                  limit (select greatest({most} - known.n, 0) from known)) c) from known"""


def _ended(statement: Statement, statuses: Sequence[Status] | None) -> str:
    """How many finished instances there are, in statuses or in any, from the counters."""
    of, add = "", statement.parameters.add
    if statuses is not None:
        of = (
            f"and {{a}}.workflow_key = any ({add(statement.plan.among, 'uuid[]')})"
            f" and {{a}}.status = any ({add(list(map(int, statuses)), 'smallint[]')})"
        )
    hidden = f"""
      - (select count(*) from instance i where i.account_id = $1 and i.deleted_at is not null {of.format(a="i")})"""
    return f"""greatest((select coalesce(sum(c.n), 0)::bigint from counter c
      where c.account_id = $1 {of.format(a="c")}){"" if statement.search.with_deleted else hidden}, 0)"""


def _half(statement: Statement, group: Group, most: int) -> str:
    """How many are in one half of statuses. Where these are many and those of the other few: all but the others."""
    other = Part.REVERTED if group.part is Part.UNREVERTED else Part.UNREVERTED

    def count(part: Part, limit: int) -> str:
        scan = statement.by_key(Group(group.workflows, group.statuses, part))
        return f"({counted(statement.branches([scan], limit, ordered=False), limit)})"

    return f"""(select case when own.n <= {FEW} then own.n
      when other.n <= {FEW} then greatest({_ended(statement, group.statuses)} - other.n, 0)
      else {count(group.part, most)} end
      from (select {count(group.part, FEW + 1)} as n {_APART}) own
      cross join lateral (select case when own.n > {FEW} then {count(other, FEW + 1)} end as n {_APART}) other)"""


def total(statement: Statement, source: str) -> str:
    """How many rows of `source` the condition holds for."""
    return f"select count(*) from {source} {LIVE} where {statement.condition} and {statement.visible}"


def by_transaction(statement: Statement, workflows: Sequence[UUID], need: int, skipped: int = 0) -> str:
    """`need` keys behind the first `skipped` by transaction id, workflow after workflow in the order given."""
    d, among = statement.direction, statement.parameters.add(list(workflows), "uuid[]")
    return f"""select b.key from unnest({among}) with ordinality e(workflow_key, o) cross join lateral (
  select i.key, i.transaction_id from (
    select {NEEDED} from instance i where {_OF_WORKFLOW} and {statement.visible}
    order by i.transaction_id {d}, i.key {d} limit {statement.scan}) i {LIVE}
  where {statement.condition} order by i.transaction_id {d}, i.key {d} limit {skipped + need}) b
order by e.o, b.transaction_id {d}, b.key {d} limit {need} offset {skipped}"""
