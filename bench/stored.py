"""An account that has run for days: very many instances in the tables, as the engine would have left them.

One instance per way to end is run for real; the others are copies of its rows with other keys, ids and times.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from bench import definitions
from bench.platform import Platform

WORKFLOWS = tuple(f"bench-stored-{number}" for number in range(8))
"""The first has half of the instances, the next a quarter, and so on."""
JOURNALS = 50_000
"""So many of the newest instances have journals, and of the oldest: pages show one or the other, by their order."""
SECONDS_APART = 0.5

# $1 instances; $2 models in the order complete, errored, terminated, waiting; $3 handles. Of 100 instances 80 are
# complete, 10 errored, 5 terminated, 5 wait; in an order that has nothing to do with that of the workflows.
COPIES = f"""
create table copied as
with model as (select o, i.* from unnest($2::uuid[]) with ordinality m(key, o) join instance i using (key)),
numbered as (
  select g, statement_timestamp() - ($1 - g) * interval '{SECONDS_APART} seconds' - interval '1 minute' as at,
         case when mix < 80 then 1 when mix < 90 then 2 when mix < 95 then 3 else 4 end as o,
         least(cardinality($3::text[]), 1 + floor(-log(2, 1 - spread))::int) as place
  from generate_series(1, $1::int) g, lateral (select g::bigint * 7919 % 100 as mix,
    (hashint4(g)::bigint + 2147483648) / 4294967296.0 as spread) h)
select n.g, n.at, w.workflow_key as of_workflow, v.version_key as of_version,
       (lpad(to_hex((extract(epoch from n.at) * 1000)::bigint), 12, '0') || '7' || substr(md5(g::text), 1, 3)
        || '8' || substr(md5(g::text), 4, 15))::uuid as new_key, m.key as model, m.created_at as model_at
from numbered n join model m on m.o = n.o
join workflow w on w.account_id = m.account_id and w.handle = ($3::text[])[n.place]
cross join lateral (select * from version v where v.account_id = w.account_id and v.workflow_key = w.workflow_key
                    order by v.no desc limit 1) v"""
INSTANCES = """
insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, status, input, output,
  error, trigger_source, triggered_by, success_retention_ms, error_retention_ms, created_at, started_at, ended_at,
  retain_until, seq)
select m.account_id, c.new_key, c.of_workflow, c.of_version, c.new_key, c.new_key, m.status, m.input, m.output, m.error,
  m.trigger_source, m.triggered_by, m.success_retention_ms, m.error_retention_ms, c.at,
  m.started_at - model_at + at + c.g % 1000 * interval '0.1 ms',
  m.ended_at - model_at + at + c.g % 997 * interval '1 ms',
  m.retain_until - model_at + at, m.seq
from copied c join instance m on m.key = c.model order by c.g"""
LIVE = """
insert into live (account_id, key, workflow_key, runtime, status, phase, prio, ready_at, epoch, seq, flush_no, awaits,
  started_at, modified_at)
select m.account_id, c.new_key, c.of_workflow, m.runtime, m.status, m.phase, m.prio, m.ready_at, nextval('epoch_seq'),
  m.seq, m.flush_no, m.awaits, m.started_at - model_at + at, m.modified_at - model_at + at
from copied c join live m on m.key = c.model order by c.g"""
JOURNAL = """
insert into journal (account_id, key, seq, run, kind, name, count, attempt, at, payload)
select m.account_id, c.new_key, m.seq, m.run, m.kind, m.name, m.count, m.attempt, m.at - model_at + c.at, m.payload
from copied c join journal m on m.key = c.model where c.g > $1 or c.g <= $2 order by c.g, m.seq"""
COUNTERS = """
insert into counter (account_id, workflow_key, slot, status, n, us)
select i.account_id, i.workflow_key, 1, i.status, count(*), sum(took_us(i.started_at, i.ended_at))
from copied c join instance i on i.key = c.new_key where i.status >= 6 group by 1, 2, 4
on conflict (account_id, workflow_key, status, slot) do update
set n = counter.n + excluded.n, us = counter.us + excluded.us"""
SAMPLE = """
select c.new_key as key, w.handle, w.workflow_key from copied c join workflow w on w.workflow_key = c.of_workflow
where c.g > $1 order by md5(c.g::text) limit 200"""


async def fill(platform: Platform, count: int) -> list[tuple[UUID, str]]:
    """Put `count` instances of ten steps into the account; some of the newest, with their workflows' handles.

    Does nothing when they are there already.
    """
    admin = platform.admin
    if await admin.fetchval("select count(*) from workflow where handle = $1", WORKFLOWS[0]):
        return []  # they are there
    for handle in WORKFLOWS:
        await platform.deploy(handle, definitions.STORED)
    models = await _models(platform)
    await admin.execute(COPIES, count, models, list(WORKFLOWS), timeout=600)
    for statement, *given in ((INSTANCES,), (LIVE,), (JOURNAL, count - JOURNALS, JOURNALS), (COUNTERS,)):
        await admin.execute(statement, *given, timeout=600)
    sample = await admin.fetch(SAMPLE, count - JOURNALS)
    await admin.execute("drop table copied")
    for table in ("instance", "live", "journal"):
        await admin.execute(f"vacuum analyze {table}", timeout=600)
    await admin.execute("checkpoint")
    return [(row["key"], row["handle"]) for row in sample]


async def _models(platform: Platform) -> list[UUID]:
    """One that is complete, one errored, one terminated, one that waits."""
    api, root = platform.api, f"/workflows/{WORKFLOWS[0]}/instances"
    ids: list[str] = [made["id"] for made in await api.call("POST", f"{root}/batch", [{"params": {"n": 1}}] * 4)]
    await platform.settle(WORKFLOWS[0])
    await api.call("POST", f"{root}/{ids[0]}/events/go", {"n": 1})
    await api.call("POST", f"{root}/{ids[1]}/events/go", {"n": "none"})
    await api.call("PATCH", f"{root}/{ids[2]}/status", {"status": "terminate"})
    for id, status in zip(ids, ("complete", "errored", "terminated", "waiting"), strict=True):
        await _until(api, f"{root}/{id}?simple=true", status)
    return [UUID(id) for id in ids]


async def _until(api: Any, path: str, status: str) -> None:
    async with asyncio.timeout(60):
        while (await api.call("GET", path))["status"] != status:
            await asyncio.sleep(0.02)
