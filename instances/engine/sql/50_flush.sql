-- One group commit of a worker. Locks each run's live row with its epoch, in (account, key) order; everything else is
-- computed from the locked rows. A row that is not found belongs to somebody else by now: nothing of it is written.
-- An ordinal already applied is answered, not applied again. Rows with epoch 0 are locked only (parents of ended runs).
-- A park leaves the epoch alone: the holder itself ends its turn, and until the next claim nobody else writes. All that can
-- still come under it was sent before (the park or an older flush, once more), so its ordinal is applied already: a run has
-- one flush under way, and a holder whose park was done sends nothing more. Waking, pausing and resuming a parked run need
-- no epoch either. Whoever claims it next, the same worker, too, gets a new one in the statement that sets the ordinal back
-- to 0; from then on nothing of the old turn finds the row.
-- nexts: 0 keep, 1 park, 2 settle a pause, 3 begin rollback, 4 release, 6 complete, 7 errored, 8 terminated.
-- Children left behind end in the same statement: those of runs that end, and those given up (g_i: by which, g_k: which,
-- g_undo: roll back first).
create or replace function flush_runs(
  accs uuid[], ks uuid[], epochs bigint[], ordinals int[], counts int[], nexts smallint[], dues timestamptz[], seens int[],
  bodies text[], rollbacks text[], awaited text[], ats timestamptz[],
  e_i int[], e_o int[], e_kind smallint[], e_name text[], e_count int[], e_attempt int[], e_at timestamptz[], e_payload text[],
  x_i int[], x_no bigint[], g_i int[], g_k uuid[], g_undo boolean[])
returns table (i bigint, accepted boolean, done boolean, status smallint, want smallint, signal int, seq bigint, now timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
  found_ boolean[]; skip boolean[]; base bigint[]; runs int[]; was smallint[]; wants smallint[]; signals int[]; workflows uuid[]; go boolean[];
  kin_a uuid[] := '{}'; kin_k uuid[] := '{}'; ending int[];
begin
  if 6 <= any (nexts) or cardinality(g_k) > 0 then
    select coalesce(array_agg(b.account_id), '{}'), coalesce(array_agg(b.key), '{}') into kin_a, kin_k
    from left_behind(accs, ks, nexts, g_i, g_k) b;
    if cardinality(kin_k) > 0 then
      select coalesce(array_agg(f.account_id), '{}'), coalesce(array_agg(f.key), '{}') into kin_a, kin_k
      from lock_families(kin_a, kin_k, false, accs, ks) f;
    end if;
  end if;

  with c as materialized (
    select c.*, l.seq, l.flush_no, l.run, l.status, l.phase, l.want, l.signal, l.workflow_key
    from unnest(accs, ks, epochs, ordinals, nexts, seens) with ordinality as c(a, k, ep, ord, nx, seen, o)
    left join lateral (select v.seq, v.flush_no, v.run, v.status, v.phase, v.want, v.signal, v.workflow_key from live v
                       where v.account_id = c.a and v.key = c.k and (c.ep = 0 or v.epoch = c.ep) for no key update) l on true)
  select array_agg(c.seq is not null order by o), array_agg(coalesce(c.flush_no >= ord, true) order by o),
         array_agg(coalesce(c.seq, 0) order by o), array_agg(coalesce(c.run, 0) order by o), array_agg(coalesce(c.status, 0::smallint) order by o),
         array_agg(coalesce(c.want, 0::smallint) order by o), array_agg(coalesce(c.signal, 0) order by o),
         array_agg(coalesce(c.workflow_key, '00000000-0000-0000-0000-000000000000'::uuid) order by o),
         array_agg(coalesce(case when c.seq is null then false
                            when c.flush_no >= ord then (nx = 1 and c.phase <> 1) or (nx = 3 and c.status = 5)
                            else case nx when 1 then c.signal = seen and c.status in (1, 5)
                                    when 2 then c.status = 4
                                    when 6 then c.want < 2 and c.status in (1, 4)
                                    when 7 then c.want < 2
                                    when 8 then c.want >= 2
                                    else nx > 0 end end, false) order by o)
  into found_, skip, base, runs, was, wants, signals, workflows, go from c;

  if (6 <= any (nexts) or cardinality(g_k) > 0) and exists (select b.account_id, b.key from left_behind(accs, ks, nexts, g_i, g_k) b
                                  except select a, k from unnest(kin_a, kin_k) as c(a, k)) then
    raise exception 'a child came while its parent was being locked' using errcode = 'serialization_failure';
  end if;

  insert into journal (account_id, key, seq, run, kind, name, count, attempt, at, payload)
  select accs[e.i], ks[e.i], base[e.i] + e.o, runs[e.i], e.kind, e.name, e.cnt, e.att, e.at, e.payload
  from unnest(e_i, e_o, e_kind, e_name, e_count, e_attempt, e_at, e_payload) as e(i, o, kind, name, cnt, att, at, payload)
  where not skip[e.i];

  if cardinality(x_i) > 0 then
    with gone as (
      delete from inbox q using unnest(x_i, x_no) as x(i, no)
      where not skip[x.i] and q.account_id = accs[x.i] and q.key = ks[x.i] and q.no = x.no
      returning q.account_id, q.key, q.type, octet_length(coalesce(q.payload, '')) as size
    ), sums as (
      select account_id, key, count(*) as n, sum(size) as bytes from gone where type not like 'child:%' group by 1, 2)
    update live l set unread = greatest(l.unread - s.n, 0), unread_bytes = greatest(l.unread_bytes - s.bytes, 0)
    from sums s where l.account_id = s.account_id and l.key = s.key;
  end if;

  update live l
  set seq = base[c.o] + counts[c.o], flush_no = ordinals[c.o], modified_at = ats[c.o],
      takeovers = case when counts[c.o] > 0 then 0 else l.takeovers end,
      status = case when not go[c.o] then l.status
                    when nexts[c.o] = 1 then case when l.status = 1 then 2 else l.status end
                    when nexts[c.o] = 3 then 5
                    else l.status end,
      want = case when go[c.o] and nexts[c.o] = 3 and l.want = 1 then 0 else l.want end,
      phase = case when go[c.o] and nexts[c.o] = 1 then 2 else l.phase end,
      owner = case when go[c.o] and nexts[c.o] = 1 then null else l.owner end,
      ready_at = case when go[c.o] and nexts[c.o] = 1 then dues[c.o] else l.ready_at end,
      awaits = case when go[c.o] and nexts[c.o] = 1 then coalesce(string_to_array(awaited[c.o], ','), '{}') else l.awaits end
  from unnest(accs, ks) with ordinality as c(a, k, o)
  where not skip[c.o] and l.account_id = c.a and l.key = c.k;

  if 2 = any (nexts) or 4 = any (nexts) then perform let_go(
    array(select accs[o] from generate_subscripts(nexts, 1) o where not skip[o] and go[o] and nexts[o] in (2, 4) order by o),
    array(select ks[o] from generate_subscripts(nexts, 1) o where not skip[o] and go[o] and nexts[o] in (2, 4) order by o), ats[1]);
  end if;

  ending := array(select o from generate_subscripts(nexts, 1) o where not skip[o] and go[o] and nexts[o] >= 6 order by o);
  if cardinality(kin_k) > 0 then
    select coalesce(array_agg(c.account_id), '{}'), coalesce(array_agg(c.key), '{}') into kin_a, kin_k from end_of_children(accs, ks,
      array(select case when o = any (ending) then nexts[o] else 0::smallint end from generate_subscripts(nexts, 1) o order by o),
      array(select g.i from unnest(g_i) as g(i) where not skip[g.i]), array(select g.k from unnest(g_i, g_k) as g(i, k) where not skip[g.i]),
      array(select g.undo from unnest(g_i, g_undo) as g(i, undo) where not skip[g.i]), ats[1]) c;
    insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
    select l.account_id, l.workflow_key, array_agg(l.key), array_agg(l.seq + 1), array_agg(l.seq + 1), ats[1] from unnest(kin_a, kin_k) as c(a, k)
    cross join lateral (select v.* from live v where v.account_id = c.a and v.key = c.k limit 1) l group by 1, 2;
  end if;
  if cardinality(ending) > 0 or cardinality(kin_k) > 0 then perform end_runs(
    array(select accs[o] from unnest(ending) o) || kin_a, array(select ks[o] from unnest(ending) o) || kin_k,
    array(select nexts[o] from unnest(ending) o) || array_fill(8::smallint, array[cardinality(kin_k)]),
    array(select bodies[o] from unnest(ending) o) || array_fill(null::text, array[cardinality(kin_k)]),
    array(select rollbacks[o] from unnest(ending) o) || array_fill(null::text, array[cardinality(kin_k)]),
    array(select ats[o] from unnest(ending) o) || array_fill(ats[1], array[cardinality(kin_k)]));
  end if;
  if cardinality(g_k) > 0 then  -- the end of what was given up is no news
    delete from inbox q using unnest(g_i, g_k) as g(i, k)
    where not skip[g.i] and q.account_id = accs[g.i] and q.key = ks[g.i] and q.type = 'child:' || g.k;
  end if;

  -- What let_go wrote it has announced itself.
  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
  select accs[o], workflows[o], array_agg(ks[o]), array_agg(base[o] + 1), array_agg(base[o] + counts[o] + (nexts[o] >= 6 and go[o])::int), max(ats[o])
  from generate_subscripts(nexts, 1) o
  where not skip[o] and (counts[o] > 0 or nexts[o] >= 6 and go[o]) group by 1, 2;

  return query
  select o::bigint, found_[o], go[o], was[o], wants[o], signals[o], base[o] + case when skip[o] then 0 else counts[o] end, clock_timestamp()
  from generate_subscripts(nexts, 1) o order by o;
end $$;
