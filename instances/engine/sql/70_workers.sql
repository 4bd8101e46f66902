-- Take the runs of dead workers back into the queue. Dead: no row, lease over, or session lock free and silent for a
-- while (a crash frees the lock at once; a restart of the database frees all of them, hence the second condition).
-- Paused-to-be runs are paused; compensations go ahead of everything.
create or replace function take_over(me int, lock_class int, silent interval, t timestamptz)
returns table (account_id uuid, key uuid) language plpgsql as $$
#variable_conflict use_column
declare dead int[]; lost_a uuid[]; lost_k uuid[];
begin
  delete from worker w
  where w.id in (select x.id from worker x where x.id <> me and (x.lease_until < t or (x.renewed_at < t - silent and not exists (
    select from pg_locks p where p.locktype = 'advisory' and p.classid = lock_class::oid and p.objid = x.id::oid and p.objsubid = 2
      and p.database = (select d.oid from pg_database d where d.datname = current_database()))))
    for update skip locked);
  dead := array(
    with recursive o(id) as (
      (select l.owner from live l where l.owner is not null order by 1 limit 1)
      union all
      select (select l.owner from live l where l.owner > o.id order by 1 limit 1) from o where o.id is not null)
    select id from o where id is not null and id <> me and not exists (select from worker w where w.id = o.id));
  if cardinality(dead) = 0 then return; end if;
  -- Found by owner, one dead worker after the other, then locked by key: asked for both at once, a planner that knows of
  -- no rows reads all of them in the order of their keys.
  select array_agg(l.account_id), array_agg(l.key) into lost_a, lost_k from (
    select f.account_id, f.key from unnest(dead) as d(id)
    cross join lateral (select v.account_id, v.key from live v where v.owner = d.id offset 0) f
    order by 1, 2) s
  cross join lateral (select v.account_id, v.key from live v where v.account_id = s.account_id and v.key = s.key and v.owner = any (dead)
                      for no key update) l;
  return query
  with back as (
    update live l
    set owner = null, epoch = nextval('epoch_seq'), phase = case when l.status = 4 then 3 else 0 end, seq = l.seq + (l.status = 4)::int,
        want = case when l.want = 1 then 0 else l.want end,
        status = case l.status when 1 then 0 when 4 then 3 else l.status end, prio = case when l.status = 5 then -1 else 0 end,
        ready_at = t, takeovers = l.takeovers + 1, modified_at = t
    from unnest(lost_a, lost_k) as c(a, k) where l.account_id = c.a and l.key = c.k
    returning l.account_id, l.key, l.workflow_key, l.seq, l.run, l.status
  ), paused as (
    insert into journal (account_id, key, seq, run, kind, at) select account_id, key, seq, run, 17, t from back where status = 3
  ), told as (
    insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
    select account_id, workflow_key, array_agg(key), array_agg(seq), array_agg(seq), t from back where status = 3 group by 1, 2)
  select back.account_id, back.key from back;
end $$;

-- Give back runs the worker does not hold in memory (a claim whose answer was lost) or that broke it; counted, so that a
-- run that breaks every worker ends. With `patience` they are runs it cannot open, which is not their fault: not counted,
-- and ready only after that while. Only rows that still carry the epoch; how many these were.
create or replace function give_back(w int, accs uuid[], ks uuid[], epochs bigint[], t timestamptz, patience interval default null)
returns int language plpgsql as $$
#variable_conflict use_column
declare mine_a uuid[]; mine_k uuid[];
begin
  select array_agg(l.account_id), array_agg(l.key) into mine_a, mine_k
  from unnest(accs, ks, epochs) as c(a, k, ep)
  cross join lateral (select v.account_id, v.key from live v where v.account_id = c.a and v.key = c.k and v.epoch = c.ep and v.owner = w for no key update) l;
  if mine_a is null then return 0; end if;
  perform let_go(mine_a, mine_k, t);
  update live l set takeovers = l.takeovers + (patience is null)::int, ready_at = l.ready_at + coalesce(patience, interval '0')
  from unnest(mine_a, mine_k) as c(a, k) where l.account_id = c.a and l.key = c.k;
  return cardinality(mine_a);
end $$;
