-- Microseconds an instance took, as counters sum them up; none without a start.
create or replace function took_us(began timestamptz, ended timestamptz) returns bigint language sql immutable as $$
  select greatest(coalesce((date_part('epoch', ended - began) * 1000000)::bigint, 0), 0) $$;

-- The one way to end runs: complete, errored or terminated, from a flush or from outside. The caller holds the locks of
-- the live rows and of their parents' live rows. Writes the last journal entry, the outcome, the counters, and tells
-- waiting parents.
create or replace function end_runs(accs uuid[], ks uuid[], statuses smallint[], bodies text[], rollbacks text[], ats timestamptz[])
returns void language plpgsql as $$
#variable_conflict use_column
begin
with c as materialized (
  select * from unnest(accs, ks, statuses, bodies, rollbacks, ats) as c(a, k, st, body, rb, t)
), gone as (
  delete from live l using c where l.account_id = c.a and l.key = c.k
  returning l.account_id, l.key, l.workflow_key, l.seq, l.run, l.live_from, l.started_at, l.unread, c.st, c.body, c.rb, c.t
), last_entry as (
  insert into journal (account_id, key, seq, run, kind, at, payload)
  select account_id, key, seq + 1, run, 24 + st, t, case when st < 8 then body end from gone
), outcome as (
  update instance i
  set status = g.st, output = case when g.st = 6 then g.body end, error = case g.st when 7 then g.body when 8 then i.error end,
      rollback = g.rb, started_at = g.started_at, ended_at = g.t, seq = g.seq + 1, run = g.run, live_from = g.live_from,
      retain_until = g.t + make_interval(secs => (case when g.st = 7 then i.error_retention_ms else i.success_retention_ms end) / 1000.0)
  from gone g where i.account_id = g.account_id and i.key = g.key
  returning i.account_id, i.key, i.workflow_key, i.parent_key, i.status, i.output, i.error, g.t, i.run
), unread as (
  delete from inbox q using gone g where q.account_id = g.account_id and q.key = g.key
), waiting as materialized (
  -- Parents that live on. The caller holds their locks, save for one restarted since: it has another run's child no more,
  -- and waiting for its lock here, out of order, could be a deadlock.
  select w.* from (
    select o.account_id, o.parent_key, array_agg('child:' || o.key) as types, max(o.t) as t from outcome o
    where o.parent_key is not null and not exists (select from c where c.a = o.account_id and c.k = o.parent_key) group by 1, 2) w
  cross join lateral (select from live p where p.account_id = w.account_id and p.key = w.parent_key for no key update skip locked) l
), told as (
  insert into inbox (account_id, key, type, dedupe, payload, at)
  select o.account_id, o.parent_key, 'child:' || o.key, 'child:' || o.key || ':' || o.run,
         case o.status when 6 then '{"status":"complete","output":' || coalesce(o.output, 'null') || '}'
                       when 7 then '{"status":"errored","error":' || coalesce(o.error, 'null') || '}'
                       else '{"status":"terminated"}' end, o.t
  from outcome o
  join waiting w on w.account_id = o.account_id and w.parent_key = o.parent_key
  on conflict do nothing
), parents as (
  update live p
  set signal = p.signal + 1, prio = case when p.status = 5 then -1 else 0 end, modified_at = w.t,
      phase = case when p.phase = 2 and p.awaits && w.types then 0 else p.phase end,
      ready_at = case when p.phase = 2 and p.awaits && w.types then w.t else p.ready_at end,
      status = case when p.phase = 2 and p.awaits && w.types and p.status = 2 then 0 else p.status end
  from waiting w
  where p.account_id = w.account_id and p.key = w.parent_key
)
insert into counter (account_id, workflow_key, slot, status, n, us)
select account_id, workflow_key, 1 + pg_backend_pid() % 15, st, count(*), sum(took_us(started_at, t)) from gone group by 1, 2, 4 order by 1, 2, 4
on conflict (account_id, workflow_key, status, slot) do update set n = counter.n + excluded.n, us = counter.us + excluded.us;
end $$;
