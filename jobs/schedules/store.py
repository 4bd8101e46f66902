"""Every statement about schedules that are due, for all accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from instances.engine.requests import Create, NewInstance
from instances.lifecycle import TriggerSource
from tenants.database import Database

# `shadowed`: an older schedule of the workflow has the same expression, so instance ids made of it are that one's.
_DUE_SCHEDULES = """
select s.account_id, s.id, s.cron, s.interval_ms, s.timezone, s.overlap, s.max_runs, s.runs, s.input, s.next_at,
       w.handle, w.handle is not null and a.disabled_at is null as enabled,
       not s.overlap and exists (select from live l where l.account_id = s.account_id and l.key = s.last_key) as busy,
       s.cron is not null and exists (
         select from schedule x where x.account_id = s.account_id and x.workflow_key = s.workflow_key
           and x.cron = s.cron and (x.created_at, x.id) < (s.created_at, s.id)) as shadowed
from schedule s
left join workflow w on w.account_id = s.account_id and w.workflow_key = s.workflow_key and w.deleted_at is null
  and w.current_version is not null
left join account a on a.account_id = s.account_id
where s.next_at <= $1 order by s.next_at limit $2
"""

# One statement moves the schedules that still are where they were read and creates their instances: whoever comes too
# late creates nothing, even if the instance has ended and is gone by then. `create_instances` wants its arrays sorted.
_FIRE_SCHEDULES = """
with n as materialized (
  select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::text[], $7::text[],
                       $8::text[], $9::text[], $10::int[])
    as n(account_id, id, was, next_at, key, handle, instance_id, input, detail, queued) order by account_id, id
), held as materialized (
  select n.* from n cross join lateral (
    select from schedule s where s.account_id = n.account_id and s.id = n.id and s.next_at = n.was for update) s
), wanted as materialized (
  select *, row_number() over (order by account_id, handle collate "C", instance_id collate "C") as o
  from held where key is not null
), made as materialized (
  select c.o, c.outcome from (
    select count(*)::int as n, array_agg(account_id order by o) as accounts, array_agg(handle order by o) as handles,
           array_agg(key order by o) as keys, array_agg(instance_id order by o) as ids,
           array_agg(input order by o) as inputs, array_agg(detail order by o) as details,
           array_agg(queued order by o) as limits
    from wanted having count(*) > 0) w
  cross join lateral create_instances(
    w.accounts, w.handles, w.keys, w.ids, w.inputs, array_fill($12::smallint, array[w.n]), w.details,
    array_fill(null::text, array[w.n]), array_fill(null::bigint, array[w.n]), array_fill(null::bigint, array[w.n]),
    array_fill(null::uuid, array[w.n]), array_fill(null::text, array[w.n]), array_fill(0::smallint, array[w.n]),
    w.limits, $11) c
), done as materialized (
  select h.account_id, h.id, h.next_at, h.key, m.outcome, coalesce(m.outcome in (0, 1), false) as fired
  from held h left join wanted w on w.account_id = h.account_id and w.id = h.id left join made m on m.o = w.o
)
update schedule s
set next_at = case when d.outcome = 2 or s.runs + d.fired::int >= s.max_runs then null else d.next_at end,
    last_key = case when d.fired then d.key else s.last_key end, runs = s.runs + d.fired::int
from done d where s.account_id = d.account_id and s.id = d.id
returning s.id, d.outcome
"""


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule whose time has come."""

    account_id: UUID
    id: UUID
    cron: str | None
    interval_ms: int | None
    timezone: str
    overlap: bool
    max_runs: int | None
    runs: int
    input: str | None
    next_at: datetime
    handle: str | None
    """The workflow, by handle; None when it is deleted or has no version."""
    enabled: bool
    """False: the workflow is gone or the account disabled."""
    busy: bool
    """Firings may not overlap and the last one's instance is unfinished."""
    shadowed: bool
    """An older schedule of the workflow has the same cron expression."""


@dataclass(frozen=True, slots=True)
class ScheduleMove:
    """`was` -> `next_at` (None: never again), creating `instance`; None: this firing is left out."""

    account_id: UUID
    id: UUID
    was: datetime
    next_at: datetime | None
    instance: NewInstance | None


async def due_schedules(db: Database, now: datetime, limit: int) -> list[DueSchedule]:
    """Schedules due at `now`, the longest overdue first."""
    return [DueSchedule(**dict(row)) for row in await db.engine.fetch(_DUE_SCHEDULES, now, limit)]


async def fire_schedules(db: Database, moves: Sequence[ScheduleMove], now: datetime) -> dict[UUID, Create | None]:
    """Move each schedule on, unless somebody else has, and create its instance: all or nothing.

    What became of the instances of those that were moved here, by schedule; None where there was none to create.
    """
    wanted = [m.instance for m in moves]
    rows = await db.engine.fetch(
        _FIRE_SCHEDULES,
        [m.account_id for m in moves],
        [m.id for m in moves],
        [m.was for m in moves],
        [m.next_at for m in moves],
        [i and i.key for i in wanted],
        [i and i.handle for i in wanted],
        [i and i.instance_id for i in wanted],
        [i and i.input for i in wanted],
        [i and i.trigger_detail for i in wanted],
        [i and i.max_queued for i in wanted],
        now,
        TriggerSource.CRON,
    )
    return {row["id"]: None if row["outcome"] is None else Create(row["outcome"]) for row in rows}
