"""Every SQL statement with which instances are searched.

A search reads rows in one of three ways: single rows that its filter names; rows in the order of an index, as many as
the page needs; all rows that its indexes leave, sorted. The last two look at a bounded number of rows. All functions
take a connection scoped to the account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from instances.lifecycle import Status
from instances.projections.entries import Entry
from instances.projections.instance_view import InstanceFacts
from instances.search.conditions import COLUMNS, NEEDED, Conditions, HeldBack, Parameters, facet_column, written
from instances.search.plan import Plan
from instances.search.query import By, Compare, Facet, Field, Search
from instances.store import facts_of

Connection = asyncpg.Connection

STATEMENT_TIMEOUT_MS = 5_000

# For the transaction. Pages are read in the order of an index, and stop when they are full: a planner that expects many
# rows would rather read and sort them all.
CONFINE = f"""
select set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', true), set_config('enable_sort', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"""

# --- what every search needs to know -----------------------------------------------------------------------------

# What the claim looks at, too: rows held by workers, counted to the limit.
HELD_BACK = """
select null::uuid as workflow_key from account a
where a.account_id = $1 and a.concurrency is not null
  and (select count(*) from (select from live r where r.account_id = $1 and r.phase = 1
                             limit a.concurrency) q) >= a.concurrency
union all
select w.workflow_key from workflow w
where w.account_id = $1 and w.concurrency is not null
  and (select count(*) from (select from live r where r.account_id = $1 and r.workflow_key = w.workflow_key
                             and r.phase = 1 limit w.concurrency) q) >= w.concurrency"""

# In the order of handles; deleted ones, too: their instances are there until they are removed.
WORKFLOWS = """
select w.workflow_key from workflow w where w.account_id = $1 and ($2::uuid is null or w.workspace_id = $2)
order by w.handle, w.workflow_key"""

IN_ORDER = """
select w.workflow_key from workflow w where w.account_id = $1 and w.workflow_key = any ($2::uuid[])
order by w.handle, w.workflow_key"""


async def held_back(connection: Connection, account_id: UUID) -> HeldBack:
    """What concurrency limits keep from starting now."""
    found = {row["workflow_key"] for row in await connection.fetch(HELD_BACK, account_id)}
    return HeldBack(None in found, frozenset(key for key in found if key is not None))


async def workflows(connection: Connection, account_id: UUID, workspace_id: UUID | None) -> list[UUID]:
    """Keys of all workflows of the account, or of a workspace of it, by handle."""
    return [row["workflow_key"] for row in await connection.fetch(WORKFLOWS, account_id, workspace_id)]


async def in_order(connection: Connection, account_id: UUID, keys: Sequence[UUID]) -> list[UUID]:
    """Those of `keys` that are workflows of the account, by handle."""
    return [row["workflow_key"] for row in await connection.fetch(IN_ORDER, account_id, keys)]


async def workflows_where(connection: Connection, account_id: UUID, compare: Compare) -> list[UUID]:
    """Keys of the workflows whose handle a comparison holds for."""
    parameters = Parameters(account_id)
    condition = written(parameters, "w.handle", "text", compare.op, compare.value)
    rows = await connection.fetch(
        f"select w.workflow_key from workflow w where w.account_id = $1 and {condition}", *parameters.values
    )
    return [row["workflow_key"] for row in rows]


# --- where rows come from ----------------------------------------------------------------------------------------

_OF_ACCOUNT = f"select {NEEDED} from instance i where i.account_id = $1"
_OF_WORKFLOW = "i.account_id = $1 and i.workflow_key = e.workflow_key"
_LIVE = "left join live l on l.account_id = $1 and l.key = i.key"
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
_NAMED = frozenset({By.TRANSACTION, By.HANDLE})


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

    @property
    def keys(self) -> str:
        low, high = self.parameters.add(self.plan.low, "uuid"), self.parameters.add(self.plan.high, "uuid")
        return f"i.key >= {low} and i.key <= {high}"

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
        return "join workflow w on w.account_id = $1 and w.workflow_key = i.workflow_key"

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
        among = add(plan.among, "uuid[]")
        return f"""({_OF_ACCOUNT} and i.workflow_key = any ({among})
          and i.{column} = any ({add(sorted(values or ()), "text[]")}) limit {self.scan + 1})"""

    # --- rows that indexes leave ---------------------------------------------------------------------------------

    def branches(self, most: int, *, ordered: bool, joined: bool, limit: int | None = None) -> list[str]:
        """Selects of `key` that together give the rows indexes leave, each of at most `most` rows per workflow and
        status, in order of keys if `ordered`. `joined`: those for which the condition holds, `limit` of each.
        """
        plan = self.plan
        if self.search.with_deleted or (plan.any_status and plan.workflows is None):
            table = f"from instance i where i.account_id = $1 and {self.visible} and {self.keys}"
            return [self._select(table, most, ordered, joined, limit)]
        found: list[str] = []
        add = self.parameters.add
        each = f"from unnest({add(plan.among, 'uuid[]')}) e(workflow_key)"
        if plan.any_status:
            table = f"from instance i where {_OF_WORKFLOW} and {self.visible} and {self.keys}"
            return [self._lateral(each, self._select(table, most, ordered, joined, limit))]
        if plan.finished:
            statuses = f"{each} cross join unnest({add(sorted(map(int, plan.finished)), 'smallint[]')}) s(status)"
            table = f"""from instance i where {_OF_WORKFLOW}
              and i.status = s.status and i.status >= 6 and {self.visible} and {self.keys}"""
            found.append(self._lateral(statuses, self._select(table, most, ordered, joined, limit, ended=True)))
        if plan.unfinished:
            statuses = f"{each} cross join unnest({add(sorted(map(int, plan.unfinished)), 'smallint[]')}) s(status)"
            keys = self.keys.replace("i.key", "u.key")
            table = f"""from live u {{instance}} where u.account_id = $1 and u.workflow_key = e.workflow_key
              and u.status = s.status and {keys}"""
            found.append(self._lateral(statuses, self._select_live(table, most, ordered, joined, limit)))
        return found

    def _lateral(self, each: str, select: str) -> str:
        return f"select b.key {each} cross join lateral ({select}) b"

    def _select(
        self, table: str, most: int, ordered: bool, joined: bool, limit: int | None, *, ended: bool = False
    ) -> str:
        order = f"order by i.key {self.direction}" if ordered else ""
        if not joined:
            return f"select i.key {table} {order} limit {most}"
        condition, live = (self.condition_of_ended, "") if ended else (self.condition, _LIVE)
        inner = f"select {NEEDED} {table} {order} limit {most}"
        return f"select i.key from ({inner}) i {live} where {condition} {order} limit {limit}"

    def _select_live(self, table: str, most: int, ordered: bool, joined: bool, limit: int | None) -> str:
        order = f"order by u.key {self.direction}" if ordered else ""
        bare = f"select u.key {table.format(instance='')} {order} limit {most}"
        if not joined:
            return bare
        order = f"order by i.key {self.direction}" if ordered else ""
        return f"""select i.key from ({bare}) u join instance i on i.account_id = $1 and i.key = u.key {_LIVE}
          where {self.condition} {order} limit {limit}"""

    def window(self, most: int) -> list[str]:
        """Selects of `key` that give the rows started in the plan's time, each of at most `most` rows per workflow."""
        add, plan = self.parameters.add, self.plan
        each = f"from unnest({add(plan.among, 'uuid[]')}) e(workflow_key)"
        since = f"and i.started_at >= {add(plan.started_since, 'timestamptz')}" if plan.started_since else ""
        until = f"and i.started_at <= {add(plan.started_until, 'timestamptz')}" if plan.started_until else ""
        ended = f"""select i.key from instance i where {_OF_WORKFLOW}
          and i.status >= 6 {since} {until} limit {most}"""
        # What never started is told apart by its creation; it ended without a start.
        never = f"""select i.key from instance i where {_OF_WORKFLOW}
          and i.status >= 6 and i.started_at is null limit {most}"""
        inside = f"u.started_at is null or (true {since} {until})".replace("i.started_at", "u.started_at")
        unfinished = f"""select u.key from live u where u.account_id = $1 and u.workflow_key = e.workflow_key
          and ({inside}) limit {most}"""
        return [self._lateral(each, select) for select in (ended, never, unfinished)]


def sorted_page(statement: Statement, source: str) -> str:
    """The page out of `source`, a table of keys `c`, or of instances `i` when it is a sub-select of those."""
    limit = statement.parameters.add(statement.search.limit + 1, "bigint")
    offset = statement.parameters.add(statement.search.offset, "bigint")
    order = statement.order()
    return f"""select i.key from {source} {_LIVE} {statement.named}
where {statement.condition} and {statement.visible} order by {order} limit {limit} offset {offset}"""


def of_keys(branches: Sequence[str]) -> str:
    """The instances of the keys that `branches` select."""
    keys = " union all ".join(branches)
    return f"""(select {NEEDED} from ({keys}) c join instance i on i.account_id = $1 and i.key = c.key {_APART}) i"""


def merged_page(statement: Statement, branches: Sequence[str]) -> str:
    """The page by key out of branches that are in order and checked already."""
    limit = statement.parameters.add(statement.search.limit + 1, "bigint")
    offset = statement.parameters.add(statement.search.offset, "bigint")
    keys = " union all ".join(branches)
    return f"select i.key from ({keys}) i order by i.key {statement.direction} limit {limit} offset {offset}"


def counted(branches: Sequence[str], most: int) -> str:
    return f"select count(*) from (select from ({' union all '.join(branches)}) c limit {most}) c"


def total(statement: Statement, source: str) -> str:
    """How many rows of `source` the condition holds for."""
    return f"select count(*) from {source} {_LIVE} where {statement.condition} and {statement.visible}"


async def keys(connection: Connection, statement: str, parameters: Parameters) -> list[UUID]:
    return [row["key"] for row in await connection.fetch(statement, *parameters.values)]


async def number(connection: Connection, statement: str, parameters: Parameters) -> int:
    return int(await connection.fetchval(statement, *parameters.values) or 0)


def by_transaction(statement: Statement, workflows: Sequence[UUID], need: int) -> str:
    """The first `need` keys by transaction id, workflow after workflow in the order given."""
    d, among = statement.direction, statement.parameters.add(list(workflows), "uuid[]")
    return f"""select b.key from unnest({among}) with ordinality e(workflow_key, o) cross join lateral (
  select i.key, i.transaction_id from (
    select {NEEDED} from instance i where {_OF_WORKFLOW} and {statement.visible}
    order by i.transaction_id {d}, i.key {d} limit {statement.scan}) i {_LIVE}
  where {statement.condition} order by i.transaction_id {d}, i.key {d} limit {need}) b
order by e.o, b.transaction_id {d}, b.key {d} limit {need}"""


def by_start(statement: Statement, need: int) -> str:
    """A table of keys that holds the first `need` by start: of each workflow the first that ended, all others."""
    d, add = statement.direction, statement.parameters.add
    each = f"from unnest({add(statement.plan.among, 'uuid[]')}) e(workflow_key)"
    ended = f"""select i.key from (
    select {NEEDED} from instance i where {_OF_WORKFLOW} and i.status >= 6
      and i.started_at is not null and {statement.visible}
    order by i.started_at {d}, i.key {d} limit {statement.scan}) i {_LIVE}
  where {statement.condition} order by i.started_at {d}, i.key {d} limit {need}"""
    never = f"""select i.key from instance i where {_OF_WORKFLOW} and i.status >= 6
    and i.started_at is null limit {statement.scan}"""
    branches = [ended, never] if statement.plan.finished else []
    if statement.plan.unfinished:
        branches += _unfinished_by_start(statement, need)
    return of_keys([f"select b.key {each} cross join lateral ({one}) b" for one in branches])


def _unfinished_by_start(statement: Statement, need: int) -> list[str]:
    """Of each workflow unfinished ones with the first by start among them: all, or those when `live` alone decides."""
    of_workflow = "select u.key from live u where u.account_id = $1 and u.workflow_key = e.workflow_key"
    if not statement.plan.exact:
        return [f"{of_workflow} limit {statement.scan}"]
    statuses = statement.parameters.add(sorted(map(int, statement.plan.unfinished)), "smallint[]")
    fitting = f"{of_workflow} and u.status = any ({statuses}) and {statement.keys.replace('i.key', 'u.key')}"
    d = statement.direction
    begun = f"{fitting} and u.started_at is not null order by u.started_at {d}, u.key {d} limit {need}"
    return [begun, f"{fitting} and u.started_at is null limit {statement.scan}"]


# --- what is shown of the rows found -----------------------------------------------------------------------------

# {facet}: the facet's number; {payloads}: whether payloads are read.
_ROWS = """
select w.handle, w.no as workflow_no, w.display_name, w.workspace_id, i.workflow_key, i.key, i.instance_id,
  i.version_key, i.no, i.transaction_id, i.success_retention_ms, i.error_retention_ms,
  i.triggered_by, i.parent_key, i.trigger_source, i.trigger_detail, i.created_at, i.ended_at, i.deleted_at, i.dry_run,
  i.origin_key, {facet} as facet, coalesce(l.started_at, i.started_at) as started_at,
  {modified} as modified_at, coalesce(l.run, i.run) as run, coalesce(l.live_from, i.live_from) as live_from,
  case when {payloads} then i.input end as input, case when {payloads} then i.output end as output, i.error, i.rollback
from unnest({keys}) with ordinality k(key, o)
join instance i on i.account_id = $1 and i.key = k.key
join workflow w on w.account_id = $1 and w.workflow_key = i.workflow_key
{live}
order by k.o"""

# All journals in one read, without entries void since the last full restart; a value that must be read whole to be
# shown is.
ENTRIES = """
select j.key, j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at,
  case when $5::int is null or j.kind <> all (array[6, 13, 25]::smallint[]) or substr(j.payload, 1, 1) = ' '
       then j.payload else substr(j.payload, 1, $5) end as payload
from unnest($2::uuid[], $3::bigint[]) k(key, live_from)
cross join lateral (select * from journal j where j.account_id = $1 and j.key = k.key and j.seq >= k.live_from
                    and j.kind = any ($4::smallint[]) order by j.seq) j"""


# Of children whose parent is there, and in the workspace $3 (null: any).
PARENT_STEPS = """
select i.key, w.handle, p.transaction_id, p.version_key, i.parent_step
from unnest($2::uuid[]) k(key)
join instance i on i.account_id = $1 and i.key = k.key
join instance p on p.account_id = $1 and p.key = i.parent_key
join workflow w on w.account_id = $1 and w.workflow_key = p.workflow_key
  and ($3::uuid is null or w.workspace_id = $3)"""


@dataclass(frozen=True, slots=True)
class Row:
    """An instance a search found. `facts` has no payloads unless they were asked for."""

    facts: InstanceFacts
    facet: Facet
    display_name: str
    workspace_id: UUID | None
    live_from: int
    deleted_at: datetime | None = None
    dry_run: bool = False
    origin_key: UUID | None = None
    workflow_no: int = 0
    retention_ms: int | None = None
    """How long it is kept behind its end: an end that is not there yet is taken for a good one."""


async def rows(
    connection: Connection, account_id: UUID, found: Sequence[UUID], held: HeldBack, *, payloads: bool
) -> list[Row]:
    """The instances of these keys, in this order; one that is gone is left out."""
    if not found:
        return []
    parameters = Parameters(account_id)
    statement = _ROWS.format(
        facet=facet_column(parameters, held),
        modified=COLUMNS[Field.UPDATED_AT][0],
        payloads=parameters.add(payloads, "boolean"),
        keys=parameters.add(list(found), "uuid[]"),
        live=_LIVE,
    )
    return [_row(row) for row in await connection.fetch(statement, *parameters.values)]


def _row(row: Any) -> Row:
    facet = Facet(row["facet"])
    return Row(
        facts_of(row, facet.status),
        facet,
        row["display_name"],
        row["workspace_id"],
        row["live_from"],
        row["deleted_at"],
        row["dry_run"] is True,
        row["origin_key"],
        row["workflow_no"],
        row["error_retention_ms" if facet.status is Status.ERRORED else "success_retention_ms"],
    )


async def entries(
    connection: Connection, account_id: UUID, found: Sequence[Row], kinds: Sequence[int], cut: int | None
) -> dict[UUID, list[Entry]]:
    """The journals of these instances, by key; outputs cut to `cut` characters (None: whole)."""
    keys, first = [row.facts.key for row in found], [row.live_from for row in found]
    journals: dict[UUID, list[Entry]] = {key: [] for key in keys}
    for row in await connection.fetch(ENTRIES, account_id, keys, first, list(kinds), cut):
        key, *entry = row
        journals[key].append(Entry(*entry))
    return journals


async def parent_steps(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, children: Sequence[UUID]
) -> list[tuple[UUID, str, str, UUID, str]]:
    """Of each child: its key; handle, transaction id and version of the parent; the parent's step, as rows spell it."""
    return [tuple(row) for row in await connection.fetch(PARENT_STEPS, account_id, children, workspace_id)]


# --- single instances --------------------------------------------------------------------------------------------

_WHO = """
select i.key from instance i join workflow w on w.account_id = $1 and w.workflow_key = i.workflow_key
where i.account_id = $1 and {which} and ($2::uuid is null or w.workspace_id = $2) and ($3 or i.deleted_at is null)"""

BY_KEY = _WHO.format(which="i.key = $4")
BY_NO = _WHO.format(which="i.no = $4")
# Of several runs of a transaction the newest.
BY_TRANSACTION = _WHO.format(which="i.workflow_key = $4 and i.transaction_id = $5") + " order by i.key desc limit 1"
BY_ID = _WHO.format(which="i.workflow_key = $4 and i.instance_id = $5")


async def locate(
    connection: Connection, statement: str, account_id: UUID, workspace_id: UUID | None, with_deleted: bool, *which: Any
) -> UUID | None:
    """The key of the instance one of the four statements above finds."""
    return await connection.fetchval(statement, account_id, workspace_id, with_deleted, *which)
