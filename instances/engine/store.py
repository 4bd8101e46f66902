"""Every statement of the engine: the only SQL of the platform that spans accounts.

The work is done by SQL functions (`sql/*.sql`), one round trip each; this module names them and shapes their
arguments and answers. Every join in them carries `(account_id, key)`; rows are locked in that order or skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from instances.engine.runs.pieces import Pieces
from instances.lifecycle import Kind

_SQL = Path(__file__).with_name("sql")

WORKER_LOCK_CLASS = 0x4D57
"""First half of the session advisory lock a worker holds while alive; the second half is its id."""

CREATE = f"select * from create_instances({','.join(f'${n}' for n in range(1, 19))})"
CREATE_TRANSACTION = f"select * from create_transaction({','.join(f'${n}' for n in range(1, 16))})"
SEND_EVENTS = "select * from send_events($1,$2,$3,$4,$5,$6,$7,$8)"
CLAIM = "select * from claim_runs($1,$2,$3,$4,$5,$6)"
FLUSH = f"select * from flush_runs({','.join(f'${n}' for n in range(1, 26))})"
PAUSE = "select * from pause_run($1,$2,$3)"
RESUME = "select * from resume_run($1,$2,$3)"
ROLL_BACK = "select * from roll_back_run($1,$2,$3)"
TERMINATE = "select * from terminate_runs($1,$2,$3,$4)"
DELETE = "select * from delete_instances($1,$2,$3)"
RESTART = "select * from restart_run($1,$2,$3,$4,$5)"
CANCEL = "select * from cancel_run($1,$2,$3,$4,$5)"
HIDE = "select * from hide_instance($1,$2,$3)"
ANSWER = f"select * from answer_step({','.join(f'${n}' for n in range(1, 14))})"
RETRY = f"select * from retry_instance({','.join(f'${n}' for n in range(1, 12))})"
REOPEN = "select * from reopen_run($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)"
TAKE_OVER = "select * from take_over($1,$2,$3,$4)"
GIVE_BACK = "select give_back($1,$2,$3,$4,$5)"
REFUSE = "select give_back($1,$2,$3,$4,$5,$6)"

REGISTER = """
insert into worker (lease_until, renewed_at, started_at, host, pid, runtimes, slots)
values ($1::timestamptz + $2::interval, $1, $1, $3, $4, $5, $6) returning id, epoch"""
LOCK_WORKER = "select pg_advisory_lock($1::int, $2::int)"
RENEW = """
update worker set renewed_at = $3, lease_until = $3::timestamptz + $4::interval where id = $1 and epoch = $2
returning clock_timestamp() as now"""
RETIRE = "delete from worker where id = $1 and epoch = $2"
HELD = "select account_id, key, epoch, signal, want from live where owner = $1"

# What a replay reads: results and open starts, not logs, received events or attempts that are over. Of the log lines a
# session wrote it is told the numbers, in one row before all others, so that they are not written again.
_REPLAYED = sorted({*Kind} - {Kind.LOG, Kind.EVENT_RECEIVED, Kind.QUEUED, Kind.PAUSE_REQUESTED})
JOURNAL = f"""
select c.o, j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at, j.payload
from unnest($1::uuid[], $2::uuid[], $3::bigint[]) with ordinality as c(a, k, first, o)
cross join lateral (
  select j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at,
         case when j.kind <> {int(Kind.STEP_PIECE)} then j.payload end as payload
    from journal j where j.account_id = c.a and j.key = c.k and j.seq >= c.first
    and j.kind = any (array{[int(k) for k in _REPLAYED]}::smallint[])
  union all
  select 0, 0, {int(Kind.LOG)}::smallint, null, null, null, null, string_agg(j.seq::text, ',' order by j.seq)
    from journal j where j.account_id = c.a and j.key = c.k and j.seq >= c.first
    and j.kind = {int(Kind.LOG)} and j.name is null
    having count(*) > 0
  order by 1) j
order by c.o, j.seq"""
SWEEP = f"""
with gone as (
  delete from journal j where j.account_id = $1 and j.key = $2 and j.seq = any (array(
    select p.seq from journal p where p.account_id = $1 and p.key = $2 and p.seq > $7
      and p.kind = {int(Kind.STEP_PIECE)} and p.run = $3 and p.name = $4 and p.count = $5 and p.attempt = $6
    order by p.seq limit $8))
  returning j.seq)
select max(seq) from gone"""
INBOX = """
select c.o, q.no, q.type, q.payload, q.at
from unnest($1::uuid[], $2::uuid[]) with ordinality as c(a, k, o)
cross join lateral (select q.* from inbox q where q.account_id = c.a and q.key = c.k order by q.no) q
order by c.o, q.no"""
INPUT = "select input from instance where account_id = $1 and key = $2"
RECEIVED = f"""
select c.k as key, c.dedupe from unnest($1::uuid[], $2::uuid[], $3::text[]) as c(a, k, dedupe)
cross join lateral (select from journal j where j.account_id = c.a and j.key = c.k
  and j.kind = {int(Kind.EVENT_RECEIVED)} and j.payload = c.dedupe limit 1) j"""
CREATED_KEYS = "select key from instance where account_id = any ($1::uuid[]) and key = any ($2::uuid[])"


def function_scripts() -> list[str]:
    """The engine's SQL functions, in the order they must be installed."""
    return [path.read_text() for path in sorted(_SQL.glob("*.sql"))]


async def claim(
    connection: Any,
    worker_id: int,
    runtimes: Sequence[int],
    limit: int,
    after: UUID,
    shunned: Sequence[UUID],
    now: datetime,
) -> list[Any]:
    """Claim up to `limit` ready runs; the last row (key null) carries `next_due`, `more` and the database's `now`."""
    return await connection.fetch(CLAIM, worker_id, list(runtimes), limit, after, list(shunned), now)


async def journals(connection: Any, runs: Sequence[tuple[UUID, UUID, int]]) -> dict[tuple[UUID, UUID], list[Any]]:
    """Journal rows a replay needs, of several runs in one read, by (account, key); from `first` seq on."""
    columns = list(zip(*runs, strict=True)) if runs else [(), (), ()]
    rows = await connection.fetch(JOURNAL, *(list(c) for c in columns))
    found: dict[tuple[UUID, UUID], list[Any]] = {(a, k): [] for a, k, _ in runs}
    for row in rows:
        account, key, _ = runs[row["o"] - 1]
        found[account, key].append(row)
    return found


async def sweep(connection: Any, account_id: UUID, key: UUID, pieces: Pieces, after: int, limit: int) -> int | None:
    """Delete up to `limit` pieces of a stream behind seq `after`; the last one's seq, None when there are no more."""
    of = pieces.run, pieces.name, pieces.count, pieces.attempt
    return await connection.fetchval(SWEEP, account_id, key, *of, after, limit)


async def inboxes(connection: Any, runs: Sequence[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], list[Any]]:
    """Unread outside facts of several runs in one read, oldest first."""
    rows = await connection.fetch(INBOX, [a for a, _ in runs], [k for _, k in runs])
    found: dict[tuple[UUID, UUID], list[Any]] = {run: [] for run in runs}
    for row in rows:
        found[runs[row["o"] - 1]].append(row)
    return found


async def take_over(connection: Any, worker_id: int, silent: timedelta, now: datetime) -> list[tuple[UUID, UUID]]:
    """Put the runs of dead workers (never of `worker_id`, who asks) back into the queue; which ones."""
    rows = await connection.fetch(TAKE_OVER, worker_id, WORKER_LOCK_CLASS, silent, now)
    return [(row["account_id"], row["key"]) for row in rows]
