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
