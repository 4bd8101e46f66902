"""Every SQL statement with which instances are searched; `instances.search.statements` writes those of pages.

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
from instances.search.conditions import (
    COLUMNS,
    HeldBack,
    Parameters,
    facet_column,
    written,
)
from instances.search.query import Compare, Facet, Field
from instances.search.statements import LIVE, WORKFLOW
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


# --- pages and totals ---------------------------------------------------------------------------------------------


async def keys(connection: Connection, statement: str, parameters: Parameters) -> list[UUID]:
    return [row["key"] for row in await connection.fetch(statement, *parameters.values)]


async def number(connection: Connection, statement: str, parameters: Parameters) -> int:
    return int(await connection.fetchval(statement, *parameters.values) or 0)


# --- what is shown of the rows found -----------------------------------------------------------------------------

# {facet}: the facet's number; {payloads}: whether payloads are read.
_ROWS = """
select w.handle, w.no as workflow_no, w.display_name, w.workspace_id, i.workflow_key, i.key, i.instance_id,
  i.version_key, i.no, i.transaction_id, i.success_retention_ms, i.error_retention_ms,
  i.triggered_by, i.parent_key, i.trigger_source, i.trigger_detail, i.created_at, i.ended_at, i.deleted_at, i.dry_run,
  i.origin_key, {facet} as facet, coalesce(l.started_at, i.started_at) as started_at,
  {modified} as modified_at, coalesce(l.run, i.run) as run, coalesce(l.live_from, i.live_from) as live_from,
  coalesce(l.seq, i.seq) as last_seq,
  case when {payloads} then i.input end as input, case when {payloads} then i.output end as output, i.error, i.rollback
from unnest({keys}) with ordinality k(key, o)
join instance i on i.account_id = $1 and i.key = k.key
{workflow}
{live}
order by k.o"""

# All journals in one read, without entries void since the last full restart; a value that must be read whole to be
# shown is.
ENTRIES = """
select k.place, j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at,
  case when $5::int is null or j.kind <> all (array[6, 13, 25]::smallint[]) or substr(j.payload, 1, 1) = ' '
       then j.payload else substr(j.payload, 1, $5) end as payload
from unnest($2::uuid[], $3::bigint[]) with ordinality k(key, live_from, place)
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
    last_seq: int
    """The last entry of its journal."""
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
        workflow=WORKFLOW,
        live=LIVE,
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
        row["last_seq"],
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
    journals: list[list[Entry]] = [[] for _ in keys]
    found_entries = await connection.fetch(ENTRIES, account_id, keys, first, list(kinds), cut)
    for place, seq, run, kind, name, count, attempt, at, payload in found_entries:
        journals[place - 1].append(Entry(seq, run, kind, name, count, attempt, at, payload))
    return dict(zip(keys, journals, strict=True))


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
