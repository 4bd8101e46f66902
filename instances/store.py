"""Every SQL statement with which the API reads instances. Changes go through the engine (`instances.engine`).

Functions take a connection scoped to the account (`Database.scope`) and the account. An instance is read together with
its workflow, its live row and its journal in one statement, so that an answer never mixes two moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from instances.lifecycle import Kind, Status
from instances.listing import COUNTED_ROWS, ListQuery
from instances.projections.entries import Entry
from instances.projections.instance_view import InstanceFacts
from instances.projections.values import PREVIEW, StoredStream

# --- where an instance is --------------------------------------------------------------------------------------

# $3: the workspace the caller is restricted to, or null.
_WORKFLOW_IS = (
    "w.account_id = $1 and w.handle = $2 and w.deleted_at is null and ($3::uuid is null or w.workspace_id = $3)"
)

WORKFLOW = f"select w.workflow_key, w.current_version from workflow w where {_WORKFLOW_IS}"

LOCATE = f"""
select w.workflow_key, i.key
from workflow w
left join instance i on i.account_id = $1 and i.workflow_key = w.workflow_key and i.instance_id = $4
  and i.deleted_at is null
where {_WORKFLOW_IS}"""

LOCATE_MANY = f"""
select w.workflow_key, i.key, i.instance_id
from workflow w
left join lateral unnest($4::text[]) as wanted(instance_id) on true
left join instance i on i.account_id = $1 and i.workflow_key = w.workflow_key
  and i.instance_id = wanted.instance_id and i.deleted_at is null
where {_WORKFLOW_IS}"""


async def find_workflow(
    connection: asyncpg.Connection, account_id: UUID, handle: str, workspace_id: UUID | None
) -> tuple[UUID, UUID | None] | None:
    """Key and current version of a workflow, or None when the account has none of that handle."""
    row = await connection.fetchrow(WORKFLOW, account_id, handle, workspace_id)
    return None if row is None else (row["workflow_key"], row["current_version"])


async def locate(
    connection: asyncpg.Connection, account_id: UUID, handle: str, workspace_id: UUID | None, instance_id: str
) -> tuple[UUID, UUID | None] | None:
    """Keys of the workflow and of the instance (None: it has none of that id); None when there is no such workflow."""
    row = await connection.fetchrow(LOCATE, account_id, handle, workspace_id, instance_id)
    return None if row is None else (row["workflow_key"], row["key"])


async def locate_many(
    connection: asyncpg.Connection, account_id: UUID, handle: str, workspace_id: UUID | None, ids: Iterable[str]
) -> tuple[UUID, dict[str, UUID]] | None:
    """The workflow's key, and the keys of those instances that exist; None when there is no such workflow."""
    rows = await connection.fetch(LOCATE_MANY, account_id, handle, workspace_id, sorted(set(ids)))
    if not rows:
        return None
    return rows[0]["workflow_key"], {row["instance_id"]: row["key"] for row in rows if row["key"] is not None}


EVENT_RECEIVED = f"""
select exists (select from journal j where j.account_id = $1 and j.key = $2
  and j.kind = {int(Kind.EVENT_RECEIVED)} and j.payload = $3)"""


async def event_received(connection: asyncpg.Connection, account_id: UUID, key: UUID, dedupe: str) -> bool:
    """Whether an event with this dedupe key was ever stored for the instance, read since or not."""
    return bool(await connection.fetchval(EVENT_RECEIVED, account_id, key, dedupe))


# --- one instance with its journal -----------------------------------------------------------------------------

_FACTS = """
  w.workflow_key, w.handle, i.key, i.instance_id, i.version_key, i.no, i.transaction_id, i.triggered_by, i.parent_key,
  coalesce(l.status, i.status) as status, i.created_at, i.ended_at, i.trigger_source, i.trigger_detail,
  coalesce(l.started_at, i.started_at) as started_at, coalesce(l.modified_at, i.ended_at, i.created_at) as modified_at,
  i.input, i.output, i.error, i.rollback, coalesce(l.run, i.run) as run"""

# $a kinds; $b characters of outputs that are needed (null: all of them, as of values that must be read to be shown);
# $c, $d name and count of the only step that is needed (null: all). Entries void since the last full restart are left
# out. Outputs are stored outside the row: substr reads only the slices it needs.
_JOURNAL = """
left join lateral (
  select array_agg(j.seq) as seqs, array_agg(j.run) as runs, array_agg(j.kind) as kinds, array_agg(j.name) as names,
         array_agg(j.count) as counts, array_agg(j.attempt) as attempts, array_agg(j.at) as ats,
         array_agg(j.payload) as payloads
  from (
    select j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at,
           case when {b}::int is null or j.kind <> all ({outputs}) or substr(j.payload, 1, 1) = ' ' then j.payload
                else substr(j.payload, 1, {b}) end as payload
    from journal j
    where j.account_id = $1 and j.key = i.key and j.seq >= coalesce(l.live_from, i.live_from)
      and j.kind = any ({a}::smallint[])
      and ({c}::text is null or j.name is null or (j.name = {c} and j.count = {d}))
    order by j.seq) j
) j on true"""
_OUTPUTS = [int(kind) for kind in (Kind.STEP_COMPLETED, Kind.WAIT_COMPLETED, Kind.ROLLBACK_STEP_COMPLETED)]


def _journal(first: int) -> str:
    """The journal join, with its parameters numbered from `first`."""
    a, b, c, d = (f"${first + n}" for n in range(4))
    return _JOURNAL.format(a=a, b=b, c=c, d=d, outputs=f"array{_OUTPUTS}::smallint[]")


READ = f"""
select {_FACTS}, j.*
from workflow w
left join instance i on i.account_id = $1 and i.workflow_key = w.workflow_key and i.instance_id = $4
  and i.deleted_at is null
left join live l on l.account_id = $1 and l.key = i.key
{_journal(5)}
where {_WORKFLOW_IS}"""

READ_BY_KEY = f"""
select {_FACTS}, j.*
from instance i
join workflow w on w.account_id = $1 and w.workflow_key = i.workflow_key
left join live l on l.account_id = $1 and l.key = i.key
{_journal(3)}
where i.account_id = $1 and i.key = $2 and i.deleted_at is null"""


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a journal is read."""

    kinds: tuple[int, ...]
    cut: int | None = None
    """Characters of outputs; None: whole."""
    step: tuple[str, int] | None = None
    """Name and count of the only step wanted."""

    def arguments(self) -> tuple[Any, ...]:
        name, count = self.step or (None, None)
        return self.kinds, self.cut, name, count


_STEP_KINDS = frozenset(
    {
        Kind.STEP_STARTED,
        Kind.ATTEMPT_STARTED,
        Kind.ATTEMPT_FAILED,
        Kind.ATTEMPT_INTERRUPTED,
        Kind.STEP_COMPLETED,
        Kind.STEP_FAILED,
        Kind.STEP_WAITING,
        Kind.STEP_RETRIED,
        Kind.REOPENED,
        Kind.SLEEP_STARTED,
        Kind.SLEEP_COMPLETED,
        Kind.WAIT_STARTED,
        Kind.WAIT_COMPLETED,
        Kind.WAIT_TIMED_OUT,
    }
)
_ROLLBACK_KINDS = frozenset(kind for kind in Kind if Kind.ROLLBACK_STARTED <= kind <= Kind.ROLLBACK_ENDED)
_LIFE_KINDS = frozenset({Kind.QUEUED, Kind.STARTED, Kind.PAUSED, Kind.RESUMED, Kind.RESTARTED, Kind.TERMINATED})


def _kinds(kinds: Iterable[Kind]) -> tuple[int, ...]:
    return tuple(sorted(int(kind) for kind in kinds))


SHOWN = Detail(_kinds(_STEP_KINDS | _ROLLBACK_KINDS | _LIFE_KINDS), cut=PREVIEW + 2)
"""For the instance view: no more of each output than is shown, one to tell that there is more, and one for a mark."""
COUNTED = Detail(
    _kinds(
        {
            Kind.QUEUED,
            Kind.STARTED,
            Kind.RESTARTED,
            Kind.REOPENED,
            Kind.STEP_STARTED,
            Kind.SLEEP_STARTED,
            Kind.WAIT_STARTED,
        }
        | {Kind.ROLLBACK_STARTED, Kind.ROLLBACK_STEP_STARTED, Kind.ROLLBACK_ENDED}
    )
)
"""For the simple view: the steps there are."""
STARTS = Detail(_kinds({Kind.RESTARTED, Kind.STEP_STARTED, Kind.SLEEP_STARTED, Kind.WAIT_STARTED}))
"""To find the step a restart begins with."""
_NOTES = frozenset({Kind.LOG, Kind.NOTE, Kind.STEP_PIECE})
WHOLE = Detail(_kinds(set(Kind) - _NOTES))
"""Everything the folds know, but for log lines."""
_ASIDE = frozenset({Kind.QUEUED, Kind.EVENT_RECEIVED, Kind.MILESTONE, Kind.SYNC_POINT})
STEPS = Detail(_kinds(set(Kind) - _NOTES - _ASIDE))
"""For pages of executions that show their steps, and nothing that happened beside them."""


def one_step(name: str, count: int) -> Detail:
    """One step, its output whole."""
    return Detail(_kinds(_STEP_KINDS | {Kind.RESTARTED}), step=(name, count))


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """An instance and the entries of its journal that were asked for."""

    facts: InstanceFacts
    entries: list[Entry]


async def read_instance(
    connection: asyncpg.Connection,
    account_id: UUID,
    handle: str,
    workspace_id: UUID | None,
    instance_id: str,
    detail: Detail,
) -> InstanceRecord | UUID | None:
    """The instance; the workflow's key alone when it has none of that id; None when there is no such workflow."""
    row = await connection.fetchrow(READ, account_id, handle, workspace_id, instance_id, *detail.arguments())
    if row is None:
        return None
    return row["workflow_key"] if row["key"] is None else _record(row)


async def read_by_key(
    connection: asyncpg.Connection, account_id: UUID, key: UUID, detail: Detail
) -> InstanceRecord | None:
    """The instance of that key, also when its workflow was deleted."""
    row = await connection.fetchrow(READ_BY_KEY, account_id, key, *detail.arguments())
    return None if row is None else _record(row)


def facts_of(row: Any, status: Status) -> InstanceFacts:
    """What a row says that has a column of each name but `status`."""
    return InstanceFacts(
        key=row["key"],
        instance_id=row["instance_id"],
        workflow_key=row["workflow_key"],
        handle=row["handle"],
        version_key=row["version_key"],
        no=row["no"],
        run=row["run"],
        status=status,
        created_at=row["created_at"],
        modified_at=row["modified_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        transaction_id=row["transaction_id"],
        trigger_source=row["trigger_source"],
        trigger_detail=row["trigger_detail"],
        triggered_by=row["triggered_by"],
        parent_key=row["parent_key"],
        input=row["input"],
        output=row["output"],
        error=row["error"],
        rollback=row["rollback"],
    )


def _record(row: Any) -> InstanceRecord:
    facts = facts_of(row, Status(row["status"]))
    if row["seqs"] is None:
        return InstanceRecord(facts, [])
    columns = (row[name] for name in ("seqs", "runs", "kinds", "names", "counts", "attempts", "ats", "payloads"))
    return InstanceRecord(facts, [Entry(*entry) for entry in zip(*columns, strict=True)])


# --- streams ---------------------------------------------------------------------------------------------------

PIECE = f"""
select j.seq, j.payload from journal j
where j.account_id = $1 and j.key = $2 and j.seq > $3 and j.kind = {int(Kind.STEP_PIECE)}
  and j.run = $4 and j.name = $5 and j.count = $6 and j.attempt = $7
order by j.seq limit 1"""


async def next_piece(
    connection: asyncpg.Connection, account_id: UUID, key: UUID, stream: StoredStream, after: int
) -> tuple[int, str] | None:
    """The piece of a stream that follows seq `after` (0: the first): its seq, and its bytes in base64."""
    of = (stream.run, stream.name, stream.count, stream.attempt)
    row = await connection.fetchrow(PIECE, account_id, key, after, *of)
    return None if row is None else (row["seq"], row["payload"])


# --- log lines -------------------------------------------------------------------------------------------------

LOG_ENTRIES = """
select j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at, j.payload
from journal j
where j.account_id = $1 and j.key = $2 and j.seq > $3 and j.kind = any ($4::smallint[])
order by j.seq limit $5"""

ENTRY_HEADS = """
select j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at, case when j.kind = $4 then j.payload end as payload
from journal j
where j.account_id = $1 and j.key = $2 and j.seq >= $3
order by j.seq"""

LOG_STATE = """
select coalesce(l.status, i.status) as status, coalesce(l.run, i.run) as run,
       coalesce(l.live_from, i.live_from) as live_from, coalesce(l.seq, i.seq) as seq
from instance i left join live l on l.account_id = $1 and l.key = i.key
where i.account_id = $1 and i.key = $2 and i.deleted_at is null"""


@dataclass(frozen=True, slots=True)
class LogState:
    """What decides about the lines of an instance. `seq` is that of its last entry."""

    status: Status
    run: int
    live_from: int
    seq: int


async def log_state(connection: asyncpg.Connection, account_id: UUID, key: UUID) -> LogState | None:
    """None when the instance is gone."""
    row = await connection.fetchrow(LOG_STATE, account_id, key)
    return None if row is None else LogState(Status(row["status"]), row["run"], row["live_from"], row["seq"])


async def log_entries(
    connection: asyncpg.Connection, account_id: UUID, key: UUID, after: int, kinds: Sequence[int], limit: int
) -> list[Entry]:
    """Up to `limit` entries of `kinds` after seq `after`, in order."""
    rows = await connection.fetch(LOG_ENTRIES, account_id, key, after, kinds, limit)
    return [Entry(*row) for row in rows]


async def entry_heads(connection: asyncpg.Connection, account_id: UUID, key: UUID, first: int) -> list[Entry]:
    """All entries from seq `first` on, without payloads but those of restarts."""
    return [Entry(*row) for row in await connection.fetch(ENTRY_HEADS, account_id, key, first, int(Kind.RESTARTED))]


# --- lists -----------------------------------------------------------------------------------------------------

# $4, $5 lowest and highest key; $6 rows; $7 offset. Three shapes, one per index: all instances, those that ended in a
# status, those unfinished in a status.
_ROW = """
    i.key, i.instance_id, i.version_key, {status} as status, i.ended_at, i.trigger_source,
    coalesce(l.started_at, i.started_at) as started_at,
    coalesce(l.modified_at, i.ended_at, i.created_at) as modified_at"""

_LIST_ALL = f"""
  select {_ROW.format(status="coalesce(l.status, i.status)")}
  from instance i left join live l on l.account_id = $1 and l.key = i.key
  where i.account_id = $1 and i.workflow_key = w.workflow_key and i.deleted_at is null and i.key >= $4 and i.key <= $5
  order by i.key {{order}} limit $6 offset $7"""

_LIST_ENDED = f"""
  select {_ROW.format(status="i.status")}
  from instance i left join live l on false
  where i.account_id = $1 and i.workflow_key = w.workflow_key and i.status = $8 and i.status >= 6
    and i.deleted_at is null and i.key >= $4 and i.key <= $5
  order by i.key {{order}} limit $6 offset $7"""

_LIST_UNFINISHED = f"""
  select {_ROW.format(status="l.status")}
  from live l join instance i on i.account_id = $1 and i.key = l.key
  where l.account_id = $1 and l.workflow_key = w.workflow_key and l.status = $8 and l.key >= $4 and l.key <= $5
  order by l.key {{order}} limit $6 offset $7"""

# The same ranges; $6 the most that is counted. The indexes alone are read.
_COUNT_ALL = """
  select from instance i
  where i.account_id = $1 and i.workflow_key = w.workflow_key and i.deleted_at is null and i.key >= $4 and i.key <= $5
  limit $6"""
_COUNT_ENDED = """
  select from instance i
  where i.account_id = $1 and i.workflow_key = w.workflow_key and i.status = $7 and i.status >= 6
    and i.deleted_at is null and i.key >= $4 and i.key <= $5 limit $6"""
_COUNT_UNFINISHED = """
  select from live l
  where l.account_id = $1 and l.workflow_key = w.workflow_key and l.status = $7 and l.key >= $4 and l.key <= $5
  limit $6"""

LISTS = {
    (shape, ascending): f"""
select w.workflow_key, p.*
from workflow w
left join lateral ({body.format(order="asc" if ascending else "desc")}) p on true
where {_WORKFLOW_IS}
order by p.key {"asc" if ascending else "desc"}"""
    for shape, body in (("all", _LIST_ALL), ("ended", _LIST_ENDED), ("unfinished", _LIST_UNFINISHED))
    for ascending in (False, True)
}
COUNTS = {
    shape: f"select (select count(*) from ({body}) counted) as total from workflow w where {_WORKFLOW_IS}"
    for shape, body in (("all", _COUNT_ALL), ("ended", _COUNT_ENDED), ("unfinished", _COUNT_UNFINISHED))
}


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One row of a list."""

    key: UUID
    instance_id: str
    version_key: UUID
    status: Status
    modified_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    trigger_source: int


async def list_instances(
    connection: asyncpg.Connection, account_id: UUID, handle: str, workspace_id: UUID | None, query: ListQuery
) -> tuple[UUID, list[InstanceRow]] | None:
    """The workflow's key and the page, one row longer when there is a next one; None when there is no such workflow."""
    shape, status = _shape(query)
    low, high = query.key_range()
    bounds = low, high, query.per_page + 1, query.offset
    rows = await connection.fetch(LISTS[shape, query.ascending], account_id, handle, workspace_id, *bounds, *status)
    if not rows:
        return None
    return rows[0]["workflow_key"], [_row(row) for row in rows if row["key"] is not None]


async def count_instances(
    connection: asyncpg.Connection,
    account_id: UUID,
    handle: str,
    workspace_id: UUID | None,
    query: ListQuery,
    cap: int = COUNTED_ROWS,
) -> int:
    """How many rows all pages of the list have together, counted to `cap`."""
    shape, status = _shape(query)
    low, high = query.count_range()
    total = await connection.fetchval(COUNTS[shape], account_id, handle, workspace_id, low, high, cap, *status)
    return total or 0


def _shape(query: ListQuery) -> tuple[str, list[int]]:
    if query.status is None:
        return "all", []
    return "ended" if query.status.finished else "unfinished", [int(query.status)]


def _row(row: Any) -> InstanceRow:
    return InstanceRow(
        row["key"],
        row["instance_id"],
        row["version_key"],
        Status(row["status"]),
        row["modified_at"],
        row["started_at"],
        row["ended_at"],
        row["trigger_source"],
    )
