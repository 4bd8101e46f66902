-- What is done to executions beyond the commands: cancelled by somebody, hidden, answered from outside. Outcomes are those
-- of the commands: 0 done, 1 nothing to do, 2 no unfinished instance, 3 refused.

-- End a run and keep who cancelled it and why (`body`), with `undo` after compensating it. `at` is when it ended.
create or replace function cancel_run(acc uuid, k uuid, undo boolean, body text, t timestamptz)
returns table (outcome smallint, status smallint, owner int, at timestamptz) language plpgsql as $$
#variable_conflict use_column
declare
  family uuid[]; r live; i instance; mine record;
begin
  select array_agg(f.key) into family from lock_families(array[acc], array[k], false, null, null) f;
  select * into r from live l where l.account_id = acc and l.key = k;
  if family is null or not found then
    select * into i from instance s where s.account_id = acc and s.key = k;
    return query select case when i.status = 8 then 1 else 2 end::smallint, nullif(i.status, 0), null::int, i.ended_at; return;
  end if;
  if r.status = 5 and r.want >= 2 then  -- it was cancelled before, and is being undone
    return query select 1::smallint, 5::smallint, r.owner, null::timestamptz; return;
  end if;
  if undo and r.status <> 5 then
    select x.* into mine from roll_back_run(acc, k, t) x;
  else
    select 0::smallint as outcome, case when x.ended then 8 else 5 end::smallint as status, x.owner into mine
    from end_families(acc, family, false, t) x order by x.key = k desc limit 1;
  end if;
  update instance s set error = body where s.account_id = acc and s.key = k;
  return query select 0::smallint, mine.status, mine.owner, case when mine.status = 8 then t end;
end $$;

-- Hide a finished instance: it is gone for everybody but those who ask for deleted ones, and counts on.
create or replace function hide_instance(acc uuid, k uuid, t timestamptz)
returns table (outcome smallint, status smallint, owner int) language plpgsql as $$
#variable_conflict use_column
declare i instance;
begin
  select * into i from instance s where s.account_id = acc and s.key = k for no key update;
  if not found or i.deleted_at is not null then return query select 2::smallint, null::smallint, null::int; return; end if;
  if i.status < 6 then return query select 3::smallint, 0::smallint, null::int; return; end if;
  update instance s set deleted_at = t where s.account_id = acc and s.key = k;
  return query select 0::smallint, i.status, null::int;
end $$;

-- Store facts that answer a step which has waited since the entry `since` of the run the caller looked at. Refused when
-- anything of these kinds was written about the step since, or an answer to that wait was stored before (`dedupe`): under
-- the lock of the run, so of two answers one is told so. Also 4: too much is unread.
create or replace function answer_step(acc uuid, k uuid, run_ int, since bigint, kinds smallint[], name_ text, count_ int,
  types text[], payloads text[], dedupe text, max_unread int, max_bytes int, t timestamptz)
returns table (outcome smallint, status smallint, owner int) language plpgsql as $$
#variable_conflict use_column
declare
  r live; n int := cardinality(types); refused int;
begin
  select * into r from live l where l.account_id = acc and l.key = k for no key update;
  if not found then return query select 2::smallint, null::smallint, null::int; return; end if;
  if r.run <> run_ or exists (select from journal j where j.account_id = acc and j.key = k and j.seq > since
      and (j.kind = 15 and j.payload = dedupe or j.kind = any (kinds) and j.name = name_ and j.count = count_)) then
    return query select 3::smallint, r.status, r.owner; return;
  end if;
  if r.unread + n > max_unread then return query select 4::smallint, r.status, r.owner; return; end if;
  select count(*) filter (where s.outcome <> 0) into refused from send_events(array_fill(acc, array[n]), array_fill(k, array[n]),
    types, payloads, array(select dedupe || repeat('+', n - o) from generate_series(1, n) o order by o), max_unread, max_bytes, t) s;
  if refused > 0 then
    raise exception 'too many bytes are unread' using errcode = 'program_limit_exceeded';
  end if;
  return query select 0::smallint, r.status, r.owner;
end $$;

-- Create instance `k`, which repeats the finished instance `origin` on its version, and begins with what that one's journal
-- says in the entries `kept`: results of steps that are not to run again, with their times, as if no attempt had made them
-- (attempt 0), and the pieces of streams they returned, which are found by run and attempt. Refused when the origin is not as the caller saw it. Repeating
-- it with the same key is harmless. outcome: 0 created, 3 refused, 4 the queue is full.
create or replace function retry_instance(acc uuid, origin uuid, seen_run int, seen_seq bigint, k uuid, from_step text, detail text,
  by_ text, kept bigint[], queue_limit int, t timestamptz)
returns table (outcome smallint, no bigint) language plpgsql as $$
#variable_conflict use_column
declare
  i instance; rt smallint; made bigint; n bigint;
begin
  select x.no into made from instance x where x.account_id = acc and x.key = k;
  if found then return query select 0::smallint, made; return; end if;
  select * into i from instance x where x.account_id = acc and x.key = origin for share;
  if not found or i.status not in (7, 8) or i.deleted_at is not null or i.run <> seen_run or i.seq <> seen_seq then
    return query select 3::smallint, null::bigint; return;
  end if;
  if queue_limit is not null and (select count(*) from (select from live l where l.account_id = acc and l.workflow_key = i.workflow_key
      and l.phase = 0 limit queue_limit) q) >= queue_limit then
    return query select 4::smallint, null::bigint; return;
  end if;
  select v.runtime into rt from version v where v.account_id = acc and v.version_key = i.version_key;
  insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, input, trigger_source, trigger_detail,
    triggered_by, success_retention_ms, error_retention_ms, created_at, dry_run, origin_key, retried_from)
  values (acc, k, i.workflow_key, i.version_key, k::text, k::text, i.input, 7, detail, by_, i.success_retention_ms, i.error_retention_ms,
    t, i.dry_run, origin, from_step)
  on conflict do nothing returning no into made;
  if not found then  -- made by another try of the same request, at the same time
    return query select 0::smallint, x.no from instance x where x.account_id = acc and x.key = k; return;
  end if;
  insert into journal (account_id, key, seq, run, kind, at) values (acc, k, 1, 1, 0, t);
  with s as materialized (
    select j.* from journal j where j.account_id = acc and j.key = origin and j.seq = any (kept)
  ), entries as (
    select s.* from s
    union all
    select p.* from s cross join lateral (
      select j.* from journal j where j.account_id = acc and j.key = origin and j.seq < s.seq and j.kind = 48 and j.run = s.run
        and j.name = s.name and j.count = s.count and j.attempt = s.attempt) p
    where s.kind = 6 and s.payload like ' %'
  )
  insert into journal (account_id, key, seq, run, kind, name, count, attempt, at, payload)
  select acc, k, 1 + row_number() over (order by e.seq), case when e.kind = 48 then e.run else 1 end, e.kind, e.name, e.count,
    case when e.kind = 48 then e.attempt else 0 end, e.at, e.payload from entries e;
  get diagnostics n = row_count;
  -- What is kept did start: it is undone when this one is rolled back, whether or not it has been claimed by then.
  insert into live (account_id, key, workflow_key, runtime, ready_at, epoch, seq, started_at, modified_at)
  values (acc, k, i.workflow_key, rt, t, nextval('epoch_seq'), 1 + n, case when n > 0 then t end, t);
  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
  values (acc, i.workflow_key, array[k], array[1::bigint], array[1 + n], t);
  return query select 0::smallint, made;
end $$;

-- Go on with an errored instance where it failed: the failure of a step, written at `failed_seq`, and what followed from it
-- are void, and the step is tried again. `aside`: the instance had gone on without that step and ended of something else,
-- which stands; only the step is tried again. Conditional on what the caller looked at. What a child's parent was told
-- cannot be taken back: children are not reopened.
create or replace function reopen_run(acc uuid, k uuid, seen_run int, seen_seq bigint, name_ text, count_ int, attempt_ int,
  failed_seq bigint, aside boolean, t timestamptz)
returns table (outcome smallint, status smallint, owner int) language plpgsql as $$
#variable_conflict use_column
declare
  i instance; r live; rt smallint;
begin
  select * into r from live l where l.account_id = acc and l.key = k for no key update;
  if found then return query select 3::smallint, r.status, r.owner; return; end if;
  select * into i from instance s where s.account_id = acc and s.key = k for no key update;
  if not found or i.deleted_at is not null then return query select 2::smallint, null::smallint, null::int; return; end if;
  if i.status <> 7 or i.parent_key is not null or seen_run <> i.run or seen_seq <> i.seq then
    return query select 3::smallint, i.status, null::int; return;
  end if;
  -- In a slot that is locked after instances, as in `delete_instances`.
  insert into counter (account_id, workflow_key, slot, status, n, us)
  values (acc, i.workflow_key, 16 + pg_backend_pid() % 15, 7, -1, -took_us(i.started_at, i.ended_at))
  on conflict (account_id, workflow_key, status, slot) do update set n = counter.n + excluded.n, us = counter.us + excluded.us;
  update instance s set status = 0, output = null, error = null, rollback = null, ended_at = null, retain_until = null
  where s.account_id = acc and s.key = k;
  select v.runtime into rt from version v where v.account_id = acc and v.version_key = i.version_key;
  insert into live (account_id, key, workflow_key, runtime, prio, ready_at, epoch, seq, run, live_from, started_at, modified_at)
  values (acc, k, i.workflow_key, rt, 0, t, nextval('epoch_seq'), i.seq + 1, i.run, i.live_from, i.started_at, t);
  insert into journal (account_id, key, seq, run, kind, name, count, attempt, at, payload)
  values (acc, k, i.seq + 1, i.run, case when aside then 34 else 33 end, name_, count_, attempt_, t,
    case when aside then '{"due":true}' else json_build_object('from_seq', failed_seq)::text end);
  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
  values (acc, i.workflow_key, array[k], array[i.seq + 1], array[i.seq + 1], t);
  return query select 0::smallint, 0::smallint, null::int;
end $$;
