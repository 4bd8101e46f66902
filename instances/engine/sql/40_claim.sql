-- Claim up to n ready runs for worker w. The only statement that raises the number of held runs, so limits are kept by
-- construction: one claimer per account at a time (advisory lock), then count and take in a fresh snapshot.
-- Cost depends on accounts with work, never on rows stored. The last row (key null) tells the last account looked at, the
-- next timer, whether ready runs are left behind (limits, other claimers), and the time.
create or replace function claim_runs(w int, caps smallint[], n int, after uuid, shunned uuid[], t timestamptz)
returns table (account_id uuid, key uuid, workflow_key uuid, epoch bigint, seq bigint, signal int, status smallint, want smallint,
  run int, live_from bigint, takeovers smallint, unread int, version_key uuid, instance_id text, input text, input_bytes int,
  created_at timestamptz, trigger_source smallint, trigger_detail text, triggered_by text, parent_key uuid, depth smallint,
  woken_at timestamptz, next_due timestamptz, more boolean, now timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
  accounts uuid[];
  last_looked uuid;
  share int;
  looks int := greatest(n, 20);  -- accounts: with one free slot, too, it must get past those that are at their limit
begin
  -- 1  timers that are due join the queue, ahead of new work; compensations ahead of everything
  with due as materialized (
    select l.account_id, l.key from live l where phase = 2 and ready_at <= t order by ready_at limit 2 * n for no key update skip locked)
  update live l set phase = 0, prio = case when l.status = 5 then -1 else 0 end, status = case when l.status = 2 then 0 else l.status end
  from due where l.account_id = due.account_id and l.key = due.key;

  -- 2  accounts with work, beginning after the last one served (loose index scan)
  accounts := array(
    with recursive a(id) as (
      (select l.account_id from live l where phase = 0 and l.account_id > after order by 1 limit 1)
      union all
      select (select l.account_id from live l where phase = 0 and l.account_id > a.id order by 1 limit 1) from a where a.id is not null)
    select id from a where id is not null limit looks);
  if cardinality(accounts) < looks then
    accounts := accounts || array(
      with recursive a(id) as (
        (select l.account_id from live l where phase = 0 order by 1 limit 1)
        union all
        select (select l.account_id from live l where phase = 0 and l.account_id > a.id order by 1 limit 1) from a where a.id < after)
      select id from a where id <= after limit looks - cardinality(accounts));
  end if;

  last_looked := accounts[cardinality(accounts)];

  -- 3  one claimer per account; a busy account is another claimer's
  select array_agg(x order by pos) into accounts from unnest(accounts) with ordinality a(x, pos)
  where x <> all (shunned) and pg_try_advisory_xact_lock(hashtextextended(x::text, 7));

  -- 4  fresh snapshot: count what is held, take the oldest of each lane within both limits
  if cardinality(accounts) > 0 then
    share := ceil(n::numeric / cardinality(accounts));
    return query
    with recursive free as materialized (
      select x as acc, pos, greatest(least(share, c.lim - (select count(*) from (select from live r where r.account_id = x and r.phase = 1 limit c.lim) q)), 0) as room
      from unnest(accounts) with ordinality u(x, pos)
      cross join lateral (select coalesce(a.concurrency, 1000000000) as lim from account a where a.account_id = x and a.disabled_at is null) c
    ), lanes(acc, pos, room, wf, rt) as (
      select f.acc, f.pos, f.room, h.wf, h.rt from free f
      cross join lateral (select l.workflow_key as wf, l.runtime as rt from live l where l.phase = 0 and l.account_id = f.acc
                          order by l.workflow_key, l.runtime limit 1) h
      union all
      select z.acc, z.pos, z.room, h.wf, h.rt from lanes z
      cross join lateral (select l.workflow_key as wf, l.runtime as rt from live l where l.phase = 0 and l.account_id = z.acc
                          and (l.workflow_key, l.runtime) > (z.wf, z.rt) order by l.workflow_key, l.runtime limit 1) h
    ), lane_room as materialized (
      select z.*, least(z.room, coalesce(m.concurrency - (select count(*) from (select from live r where r.account_id = z.acc
               and r.workflow_key = z.wf and r.phase = 1 limit m.concurrency) q), z.room)) as lroom
      from lanes z
      left join lateral (select x.concurrency from workflow x where x.account_id = z.acc and x.workflow_key = z.wf) m on true
      where z.rt = any (caps)
    ), candidates as materialized (
      select z.acc, z.pos, z.wf, z.room, z.lroom, h.* from lane_room z
      cross join lateral (
        (select l.key as k, l.prio as p, l.ready_at as ra from live l where l.phase = 0 and l.account_id = z.acc and l.workflow_key = z.wf
           and l.runtime = z.rt and l.prio = -1 order by l.prio, l.ready_at, l.key limit share)
        union all
        (select l.key, l.prio, l.ready_at from live l where l.phase = 0 and l.account_id = z.acc and l.workflow_key = z.wf
           and l.runtime = z.rt and l.prio in (0, 1) and l.ready_at <= t order by l.prio, l.ready_at, l.key limit greatest(z.lroom, 0))) h
    ), in_lane as materialized (
      select *, row_number() over (partition by acc, wf, p = -1 order by p, ra, k) as lane_rank from candidates
    ), picked as materialized (
      select acc, k, ra from (
        select *, row_number() over (partition by acc, p = -1 order by p, ra, k) as rank from in_lane where p = -1 or lane_rank <= lroom) q
      where p = -1 or rank <= room
      order by rank, pos limit n
    ), got as materialized (
      select g.*, ra from picked
      cross join lateral (select l.account_id as a2, l.key as k2 from live l where l.account_id = acc and l.key = k and l.phase = 0
                          for no key update skip locked) g
    ), taken as (
      update live l
      set phase = 1, owner = w, epoch = nextval('epoch_seq'), flush_no = 0, awaits = '{}', ready_at = null,
          status = case when l.status = 5 then 5 else 1 end, started_at = coalesce(l.started_at, t), modified_at = t
      from got where l.account_id = a2 and l.key = k2
      returning l.*, greatest(t, ra) as woken_at  -- what was woken is due, whatever the claimer's clock says
    )
    select x.account_id, x.key, x.workflow_key, x.epoch, x.seq, x.signal, x.status, x.want, x.run, x.live_from, x.takeovers, x.unread,
           i.version_key, i.instance_id, case when octet_length(i.input) <= 65536 then i.input end, octet_length(i.input),
           i.created_at, i.trigger_source, i.trigger_detail, i.triggered_by, i.parent_key, i.depth, x.woken_at,
           null::timestamptz, null::boolean, null::timestamptz
    from taken x
    cross join lateral (select s.* from instance s where s.account_id = x.account_id and s.key = x.key) i;
  end if;

  return query select last_looked, null::uuid, null::uuid, null::bigint, null::bigint, null::int, null::smallint, null::smallint,
    null::int, null::bigint, null::smallint, null::int, null::uuid, null::text, null::text, null::int, null::timestamptz, null::smallint,
    null::text, null::text, null::uuid, null::smallint, null::timestamptz,
    (select l.ready_at from live l where phase = 2 and ready_at is not null order by ready_at limit 1),
    exists (select from live l where phase = 0 and l.runtime = any (caps) and l.ready_at <= t), clock_timestamp();
end $$;
