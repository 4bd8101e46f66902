-- Commands from outside. Each locks the live row first; what ends or replaces a run draws a new epoch, what the holder
-- must see raises `signal`. outcome: 0 done, 1 nothing to do, 2 no unfinished instance, 3 refused.
create or replace function pause_run(acc uuid, k uuid, t timestamptz)
returns table (outcome smallint, status smallint, owner int) language plpgsql as $$
#variable_conflict use_column
declare r live;
begin
  select * into r from live l where l.account_id = acc and l.key = k for no key update;
  if not found then return query select 2::smallint, null::smallint, null::int; return; end if;
  if r.status in (3, 4) then return query select 1::smallint, r.status, r.owner; return; end if;
  if r.status = 5 then return query select 3::smallint, r.status, r.owner; return; end if;
  if r.phase = 1 then
    update live l set status = 4, want = 1, signal = l.signal + 1, seq = l.seq + 1, modified_at = t where l.account_id = acc and l.key = k;
  else
    update live l set status = 3, phase = 3, signal = l.signal + 1, seq = l.seq + 1, modified_at = t where l.account_id = acc and l.key = k;
  end if;
  perform note_command(acc, k, r, case when r.phase = 1 then 16 else 17 end::smallint, null, t);
  return query select 0::smallint, case when r.phase = 1 then 4 else 3 end::smallint, r.owner;
end $$;

create or replace function resume_run(acc uuid, k uuid, t timestamptz)
returns table (outcome smallint, status smallint, owner int) language plpgsql as $$
#variable_conflict use_column
declare r live;
begin
  select * into r from live l where l.account_id = acc and l.key = k for no key update;
  if not found then return query select 2::smallint, null::smallint, null::int; return; end if;
  if r.status = 5 then return query select 3::smallint, r.status, r.owner; return; end if;
  if r.status not in (3, 4) then return query select 1::smallint, r.status, r.owner; return; end if;
  if r.status = 4 then
    update live l set status = 1, want = 0, signal = l.signal + 1, seq = l.seq + 1, modified_at = t where l.account_id = acc and l.key = k;
  else
    update live l set status = 0, phase = 0, prio = case when l.started_at is null then 1 else 0 end, ready_at = t, want = 0,
      signal = l.signal + 1, seq = l.seq + 1, modified_at = t where l.account_id = acc and l.key = k;
  end if;
  perform note_command(acc, k, r, 18::smallint, null, t);
  return query select 0::smallint, case when r.status = 4 then 1 else 0 end::smallint, r.owner;
end $$;

-- End locked runs, without rollback. One that is rolling back finishes the compensation in flight first, unless `forced`
-- (delete). Returns what was ended or asked to stop, with its holder. Rows are looked up one by one, as in `families`.
create or replace function end_families(acc uuid, family uuid[], forced boolean, t timestamptz)
returns table (key uuid, ended boolean, owner int) language plpgsql as $$
#variable_conflict use_column
declare
  doomed uuid[]; stopping uuid[]; owners int[];
begin
  select array_agg(l.key order by l.key) filter (where forced or l.status <> 5), array_agg(l.key order by l.key) filter (where not forced and l.status = 5)
  into doomed, stopping
  from unnest(family) x(k) cross join lateral (select v.* from live v where v.account_id = acc and v.key = x.k limit 1) l;

  if doomed is not null then
    select array_agg(l.owner order by x.o) into owners
    from unnest(doomed) with ordinality x(k, o) cross join lateral (select v.* from live v where v.account_id = acc and v.key = x.k limit 1) l;
    insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
    select acc, l.workflow_key, array_agg(l.key), array_agg(l.seq + 1), array_agg(l.seq + 1), t
    from unnest(doomed) x(k) cross join lateral (select v.* from live v where v.account_id = acc and v.key = x.k limit 1) l group by 2;
    perform end_runs(array_fill(acc, array[cardinality(doomed)]), doomed, array_fill(8::smallint, array[cardinality(doomed)]),
      array_fill(null::text, array[cardinality(doomed)]), array_fill(null::text, array[cardinality(doomed)]), array_fill(t, array[cardinality(doomed)]));
    return query select x.k, true, x.w from unnest(doomed, owners) as x(k, w);
  end if;

  if stopping is not null then
    return query update live l set want = 3, signal = l.signal + 1, modified_at = t,
      prio = case when l.phase = 2 then -1 else l.prio end, ready_at = case when l.phase = 2 then t else l.ready_at end,
      phase = case when l.phase = 2 then 0 else l.phase end
    from unnest(stopping) x(k) where l.account_id = acc and l.key = x.k
    returning l.key, false, l.owner;
  end if;
end $$;

-- End runs and their unfinished children.
create or replace function terminate_runs(acc uuid, targets uuid[], forced boolean, t timestamptz)
returns table (key uuid, ended boolean, owner int) language plpgsql as $$
#variable_conflict use_column
declare
  family uuid[];
begin
  select array_agg(f.key) into family
  from lock_families(array_fill(acc, array[cardinality(targets)]), targets, forced, null, null) f;
  return query select * from end_families(acc, family, forced, t);
end $$;

-- Ask a run to compensate and then end as terminated, and its unfinished children with it. What never started has nothing
-- to compensate: it ends.
create or replace function roll_back_run(acc uuid, k uuid, t timestamptz)
returns table (outcome smallint, status smallint, owner int) language plpgsql as $$
#variable_conflict use_column
declare
  r live; family uuid[]; unstarted uuid[];
begin
  select array_agg(f.key) into family from lock_families(array[acc], array[k], false, null, null) f;
  if family is null then return query select 2::smallint, null::smallint, null::int; return; end if;
  select * into r from live l where l.account_id = acc and l.key = k;
  if r.status = 5 then
    perform end_families(acc, array[k], false, t);
    return query select 0::smallint, 5::smallint, r.owner; return;
  end if;
  select array_agg(u.key) into unstarted from undo_runs(array_fill(acc, array[cardinality(family)]), family, t) u;
  perform end_families(acc, unstarted, false, t);
  if k = any (unstarted) then
    return query select 0::smallint, 8::smallint, null::int; return;
  end if;
  return query select 0::smallint, 5::smallint, r.owner;
end $$;

-- Delete instances, ending unfinished ones first. The id is free again. Returns the keys that existed.
-- Written so that only the primary keys fit, and planned for the targets at hand: with the account as a constant, or the
-- condition of `instance_status`, a planner with old statistics reads all finished instances for each target.
create or replace function delete_instances(acc uuid, targets uuid[], t timestamptz)
returns table (key uuid, owner int) language plpgsql set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  owners int[]; keys_ uuid[]; gone uuid[];
begin
  select array_agg(x.key), array_agg(x.owner) into keys_, owners from terminate_runs(acc, targets, true, t) x;
  with s as materialized (
    select acc as a, k from unnest(targets) x(k) order by k
  ), d as (
    delete from instance i using s where i.account_id = s.a and i.key = s.k and i.status::int >= 6
    returning i.key, i.workflow_key, i.status, i.started_at, i.ended_at
  ), c as (
    insert into counter (account_id, workflow_key, slot, status, n, us)
    -- slots of their own: end_runs has locked others already, and in one transaction they must be locked in order
    select acc, workflow_key, 16 + pg_backend_pid() % 15, status, -count(*), -sum(took_us(started_at, ended_at)) from d group by 2, 4 order by 2, 4
    on conflict (account_id, workflow_key, status, slot) do update set n = counter.n + excluded.n, us = counter.us + excluded.us)
  select array_agg(d.key) into gone from d;
  if exists (select from unnest(targets) x(k) cross join lateral (select from instance y where y.account_id = acc and y.key = x.k limit 1) i) then
    raise exception 'an instance was restarted while it was being deleted' using errcode = 'serialization_failure';
  end if;
  with s as materialized (select acc as a, k from unnest(gone) x(k))
  delete from journal j using s where j.account_id = s.a and j.key = s.k;
  with s as materialized (select acc as a, k from unnest(gone) x(k))
  delete from inbox q using s where q.account_id = s.a and q.key = s.k;
  with s as materialized (select acc as a, k from unnest(gone) x(k))
  delete from notification n using s where n.account_id = s.a and n.instance_key = s.k;
  with s as materialized (select acc as a, k from unnest(gone) x(k))
  delete from task n using s where n.account_id = s.a and n.instance_key = s.k;
  return query select x.k, owners[array_position(keys_, x.k)] from unnest(gone) x(k);
end $$;

-- Start over (from_seq null) on the workflow's newest version, or from the step whose start entry is `from_seq`, on the
-- same version. Entries of steps started at or after from_seq are dead; unread events are gone. Conditional on the run
-- the caller looked at, when given.
create or replace function restart_run(acc uuid, k uuid, from_seq_ bigint, seen_run int, t timestamptz)
returns table (outcome smallint, status smallint, owner int) language plpgsql as $$
#variable_conflict use_column
declare
  i instance; r live; v record; first_ bigint; alive boolean; last_ bigint; family uuid[];
begin
  select array_agg(f.key) into family from lock_families(array[acc], array[k], false, array[acc], array[k]) f;
  select * into r from live l where l.account_id = acc and l.key = k for no key update;
  alive := found;
  if alive and family is null then
    raise exception 'the instance was restarted at the same time' using errcode = 'serialization_failure';
  end if;
  select * into i from instance s where s.account_id = acc and s.key = k for no key update;
  if not found or i.deleted_at is not null then return query select 2::smallint, null::smallint, null::int; return; end if;
  if not alive and i.status = 0 then  -- ended between the two looks
    return query select 3::smallint, null::smallint, null::int; return;
  end if;
  if alive and r.status = 5 or seen_run is not null and seen_run <> (case when alive then r.run else i.run end) then
    return query select 3::smallint, r.status, r.owner; return;
  end if;
  first_ := coalesce(from_seq_, 2);
  last_ := case when alive then r.seq else i.seq end + 1;
  if alive then
    -- The children of the run that is over; those that roll back do so to their end.
    perform end_families(acc, array(select l.key from unnest(array_remove(family, k)) x(member) cross join lateral (
      select v.key, v.status from live v where v.account_id = acc and v.key = x.member limit 1) l where l.status <> 5), false, t);
  else
    -- In a slot that is locked after instances, as in `delete_instances`. Those of `end_runs` are locked before them.
    insert into counter (account_id, workflow_key, slot, status, n, us)
    values (acc, i.workflow_key, 16 + pg_backend_pid() % 15, i.status, -1, -took_us(i.started_at, i.ended_at))
    on conflict (account_id, workflow_key, status, slot) do update set n = counter.n + excluded.n, us = counter.us + excluded.us;
  end if;
  select x.version_key, x.runtime into v from version x
  where x.account_id = acc and x.version_key = case when from_seq_ is null
    then coalesce((select w.current_version from workflow w where w.account_id = acc and w.workflow_key = i.workflow_key and w.deleted_at is null), i.version_key)
    else i.version_key end;
  -- What a restart from a step keeps did start, whether or not the run has been claimed since.
  update instance s set status = 0, output = null, error = null, rollback = null, ended_at = null, retain_until = null,
    started_at = case when from_seq_ is not null then s.started_at end, version_key = v.version_key
  where s.account_id = acc and s.key = k;
  delete from inbox q where q.account_id = acc and q.key = k;
  if from_seq_ is null then  -- nobody reads the streams of the run that is over (kind 48)
    delete from journal j where j.account_id = acc and j.key = k and j.kind = 48
      and j.seq >= case when alive then r.live_from else i.live_from end;
  end if;
  if alive then
    update live l set status = 0, phase = 0, prio = 0, ready_at = t, owner = null, epoch = nextval('epoch_seq'), runtime = v.runtime,
      seq = last_, flush_no = 0, signal = l.signal + 1, want = 0, awaits = '{}', run = l.run + 1, takeovers = 0, unread = 0, unread_bytes = 0,
      live_from = case when from_seq_ is null then last_ else l.live_from end,
      started_at = case when from_seq_ is not null then l.started_at end, modified_at = t
    where l.account_id = acc and l.key = k;
  else
    insert into live (account_id, key, workflow_key, runtime, prio, ready_at, epoch, seq, run, live_from, started_at, modified_at)
    values (acc, k, i.workflow_key, v.runtime, 0, t, nextval('epoch_seq'), last_, i.run + 1,
      case when from_seq_ is null then last_ else i.live_from end, case when from_seq_ is not null then i.started_at end, t);
  end if;
  insert into journal (account_id, key, seq, run, kind, at, payload)
  values (acc, k, last_, case when alive then r.run else i.run end + 1, 19, t, json_build_object('from_seq', first_)::text);
  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at) values (acc, i.workflow_key, array[k], array[last_], array[last_], t);
  return query select 0::smallint, 0::smallint, r.owner;
end $$;

-- The journal entry and the feed row of a command; `r` is the live row as it was.
create or replace function note_command(acc uuid, k uuid, r live, kind_ smallint, payload_ text, t timestamptz) returns void language plpgsql as $$
begin
  insert into journal (account_id, key, seq, run, kind, at, payload) values (acc, k, r.seq + 1, r.run, kind_, t, payload_);
  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
  values (acc, r.workflow_key, array[k], array[r.seq + 1], array[r.seq + 1], t);
end $$;
