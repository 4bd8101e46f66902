-- Store events, several callers at once, whatever the status of the instance. An event wakes a parked run only when the
-- run awaits its type. outcome: 0 stored, 1 no unfinished instance, 2 too many unread, 3 already stored (same dedupe).
create or replace function send_events(accs uuid[], ks uuid[], types text[], payloads text[], dedupes text[],
  max_unread int, max_bytes int, t timestamptz)
returns table (o bigint, outcome smallint, owner int, phase smallint)
language plpgsql as $$
#variable_conflict use_column
declare
  locked_a uuid[]; locked_k uuid[];
begin
  -- Locks first, then a fresh snapshot: what another sender stored before it let go of the lock is seen below.
  select array_agg(l.account_id), array_agg(l.key) into locked_a, locked_k
  from (select distinct a, k from unnest(accs, ks) c(a, k) order by 1, 2) g
  cross join lateral (select v.account_id, v.key from live v where v.account_id = g.a and v.key = g.k for no key update) l;

  return query
  with n as materialized (
    select c.*, octet_length(coalesce(c.payload, '')) as size,
           c.dedupe is not null and (row_number() over (partition by c.a, c.k, c.dedupe order by c.o) > 1
             or exists (select from inbox q where q.account_id = c.a and q.key = c.k and q.dedupe = c.dedupe)) as repeated
    from unnest(accs, ks, types, payloads, dedupes) with ordinality as c(a, k, type, payload, dedupe, o)
  ), target as materialized (
    select l.* from unnest(locked_a, locked_k) g(a, k)
    cross join lateral (select v.account_id, v.key, v.workflow_key, v.owner, v.phase, v.status, v.seq, v.run, v.unread, v.unread_bytes, v.awaits
                        from live v where v.account_id = g.a and v.key = g.k limit 1) l
  ), judged as materialized (
    select n.*, l.account_id is not null as alive, l.workflow_key, l.seq, l.run, l.unread, l.unread_bytes, l.owner, l.phase as was,
           sum(case when n.repeated then 0 else 1 end) over w as place, sum(case when n.repeated then 0 else n.size end) over w as bytes
    from n left join target l on l.account_id = n.a and l.key = n.k
    window w as (partition by n.a, n.k order by n.o)
  ), kept as materialized (
    select *, row_number() over (partition by a, k order by o) as nth from judged
    where alive and not repeated and unread + place <= max_unread and unread_bytes + bytes <= max_bytes
  ), stored as (
    insert into inbox (account_id, key, type, dedupe, payload, at) select a, k, type, dedupe, payload, t from kept order by o
  ), entries as (
    insert into journal (account_id, key, seq, run, kind, name, at, payload)
    select a, k, seq + nth, run, 15, type, t, dedupe from kept
  ), sums as materialized (
    select a, k, min(workflow_key::text)::uuid as workflow_key, min(seq) as seq, count(*) as more, sum(size) as bytes, array_agg(type) as types
    from kept group by 1, 2
  ), told as (
    insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
    select a, workflow_key, array_agg(k), array_agg(seq + 1), array_agg(seq + more), t from sums group by 1, 2
  ), raised as (
    update live l
    set signal = l.signal + 1, seq = l.seq + s.more, unread = l.unread + s.more, unread_bytes = l.unread_bytes + s.bytes, modified_at = t,
        prio = case when l.phase = 2 and l.awaits && s.types then case when l.status = 5 then -1 else 0 end else l.prio end,
        ready_at = case when l.phase = 2 and l.awaits && s.types then t else l.ready_at end,
        status = case when l.phase = 2 and l.awaits && s.types and l.status = 2 then 0 else l.status end,
        phase = case when l.phase = 2 and l.awaits && s.types then 0 else l.phase end
    from sums s where l.account_id = s.a and l.key = s.k
    returning l.account_id, l.key, l.phase
  )
  select j.o, case when not j.alive then 1 when j.repeated then 3 when kept.o is null then 2 else 0 end::smallint,
         j.owner, coalesce(r.phase, j.was)
  from judged j left join kept on kept.o = j.o left join raised r on r.account_id = j.a and r.key = j.k
  order by j.o;
end $$;
