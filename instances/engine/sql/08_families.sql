-- Families: runs and the unfinished children they wait for, all the way down. Children end with their parent, and when it
-- gives them up, in the very statement that does so; nobody can create one for a parent that has ended.

-- Lock live rows in the one order everybody keeps to, by account and key; which ones there were.
create or replace function lock_runs(accs uuid[], ks uuid[]) returns table (account_id uuid, key uuid) language plpgsql as $$
#variable_conflict use_column
begin
  return query
  select l.account_id, l.key from (select distinct a, k from unnest(accs, ks) as c(a, k) order by 1, 2) s
  cross join lateral (select v.account_id, v.key from live v where v.account_id = s.a and v.key = s.k for no key update) l;
end $$;

-- The unfinished among `targets` and their unfinished descendants; what has ended has none. Below one that rolls back only
-- if `forced`: its children are its compensations. Rows are looked up one by one (lateral, limit 1): joined, the planner
-- reads all the account's rows for each target while it knows nothing about them.
create or replace function families(accs uuid[], targets uuid[], forced boolean)
returns table (account_id uuid, key uuid) language plpgsql stable as $$
#variable_conflict use_column
begin
  return query
  with recursive tree(a, k, rolling_back, d) as (
    select c.a, c.k, l.rolling_back, 0 from unnest(accs, targets) as c(a, k)
    cross join lateral (select v.status = 5 as rolling_back from live v where v.account_id = c.a and v.key = c.k limit 1) l
    union
    select z.a, i.key, l.rolling_back, z.d + 1 from tree z
    cross join lateral (select y.key from instance y where y.account_id = z.a and y.parent_key = z.k and y.status = 0) i
    cross join lateral (select v.status = 5 as rolling_back from live v where v.account_id = z.a and v.key = i.key limit 1) l
    where z.d < 16 and (forced or not z.rolling_back))
  select distinct a, k from tree;
end $$;

-- Lock families, the parents that will hear of their end, and `others`; which runs they are. Who is locked gets no further
-- children (see `create_instances`). What came between looking and locking is locked without waiting, as it is out of
-- order; where that fails, all of it has to be done again.
create or replace function lock_families(accs uuid[], targets uuid[], forced boolean, others_a uuid[], others_k uuid[])
returns table (account_id uuid, key uuid) language plpgsql as $$
#variable_conflict use_column
declare
  kin_a uuid[]; kin_k uuid[]; parents_a uuid[]; parents_k uuid[]; locked_a uuid[]; locked_k uuid[]; top_a uuid[]; top_k uuid[];
  now_a uuid[]; now_k uuid[]; late_a uuid[]; late_k uuid[]; caught int;
begin
  select array_agg(f.account_id), array_agg(f.key) into kin_a, kin_k from families(accs, targets, forced) f;
  select array_agg(c.a), array_agg(i.parent_key) into parents_a, parents_k from unnest(kin_a, kin_k) as c(a, k)
  cross join lateral (select y.parent_key from instance y where y.account_id = c.a and y.key = c.k limit 1) i
  where i.parent_key is not null;
  select array_agg(r.account_id), array_agg(r.key) into locked_a, locked_k
  from lock_runs(kin_a || parents_a || others_a, kin_k || parents_k || others_k) r;

  -- One that had ended is not meant when it is restarted meanwhile.
  select array_agg(a), array_agg(k) into top_a, top_k
  from (select a, k from unnest(accs, targets) as c(a, k) intersect select a, k from unnest(kin_a, kin_k) as c(a, k)
        intersect select a, k from unnest(locked_a, locked_k) as c(a, k)) q;
  loop
    select array_agg(f.account_id), array_agg(f.key) into now_a, now_k from families(top_a, top_k, forced) f;
    select array_agg(a), array_agg(k) into late_a, late_k
    from (select a, k from unnest(now_a, now_k) as c(a, k) except select a, k from unnest(locked_a, locked_k) as c(a, k)) q;
    exit when late_a is null;
    select count(*) into caught from unnest(late_a, late_k) as c(a, k)
    cross join lateral (select from live v where v.account_id = c.a and v.key = c.k for no key update skip locked) l;
    if caught < cardinality(late_k) then
      raise exception 'a family grew while it was being locked' using errcode = 'serialization_failure';
    end if;
    locked_a := locked_a || late_a;
    locked_k := locked_k || late_k;
  end loop;
  return query select a, k from unnest(now_a, now_k) as c(a, k);
end $$;

-- What a flush leaves behind: the unfinished children of runs it ends (nexts), and those that runs give up (g_i, g_k).
create or replace function left_behind(accs uuid[], ks uuid[], nexts smallint[], g_i int[], g_k uuid[])
returns table (o bigint, account_id uuid, key uuid) language plpgsql stable as $$
#variable_conflict use_column
begin
  return query
  select c.o, c.a, i.key from unnest(accs, ks, nexts) with ordinality as c(a, k, nx, o)
  cross join lateral (select y.key from instance y where y.account_id = c.a and y.parent_key = c.k and y.status = 0) i
  where c.nx >= 6
  union all
  select g.i, accs[g.i], g.k from unnest(g_i, g_k) as g(i, k)
  where exists (select from live v where v.account_id = accs[g.i] and v.key = g.k limit 1);
end $$;

-- Ask locked runs to compensate and then end as terminated. Returns those that never started: they have nothing to
-- compensate and are left to the caller.
create or replace function undo_runs(accs uuid[], ks uuid[], t timestamptz)
returns table (account_id uuid, key uuid) language plpgsql as $$
#variable_conflict use_column
begin
  return query
  with c as materialized (
    select l.account_id, l.key, l.started_at is not null as started from unnest(accs, ks) as c(a, k)
    cross join lateral (select v.* from live v where v.account_id = c.a and v.key = c.k limit 1) l
    where l.status <> 5
  ), asked as (
    update live l
    set status = 5, want = 2, signal = l.signal + 1, modified_at = t, prio = case when l.phase = 1 then l.prio else -1 end,
        ready_at = case when l.phase = 1 then l.ready_at else t end, phase = case when l.phase = 1 then 1 else 0 end
    from c where c.started and l.account_id = c.account_id and l.key = c.key)
  select c.account_id, c.key from c where not c.started;
end $$;

-- What becomes of children left behind, all of them locked (see `left_behind`; nexts 0: did not end): those given up to be
-- undone (g_undo) are asked to roll back; what rolls back already does so to its end. Returns those that are to be ended.
create or replace function end_of_children(accs uuid[], ks uuid[], nexts smallint[], g_i int[], g_k uuid[], g_undo boolean[], t timestamptz)
returns table (account_id uuid, key uuid) language plpgsql as $$
#variable_conflict use_column
declare
  undo_a uuid[]; undo_k uuid[]; over_a uuid[]; over_k uuid[]; unstarted_a uuid[]; unstarted_k uuid[];
begin
  select array_agg(accs[g.i]), array_agg(g.k) into undo_a, undo_k from unnest(g_i, g_k, g_undo) as g(i, k, undo)
  where g.undo and nexts[g.i] < 6;
  if undo_a is not null then
    select array_agg(u.account_id), array_agg(u.key) into unstarted_a, unstarted_k
    from undo_runs(array(select f.account_id from families(undo_a, undo_k, false) f order by f.key),
                   array(select f.key from families(undo_a, undo_k, false) f order by f.key), t) u;
  end if;
  select array_agg(b.account_id), array_agg(b.key) into over_a, over_k from left_behind(accs, ks, nexts, g_i, g_k) b;
  return query
  select q.account_id, q.key from (
    select f.account_id, f.key from families(over_a, over_k, false) f
    union
    select a, k from unnest(unstarted_a, unstarted_k) as c(a, k)
    except
    select accs[o], ks[o] from generate_subscripts(ks, 1) o where nexts[o] >= 6) q
  cross join lateral (select v.status from live v where v.account_id = q.account_id and v.key = q.key limit 1) l
  where l.status <> 5;
end $$;
