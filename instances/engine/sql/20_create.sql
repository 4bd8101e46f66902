-- Create instances, several requests at once. Resolves handle -> workflow -> current version under the statement's own
-- snapshot, so nothing created after a PUT answered runs the version before it. Repeating a create with the same key is
-- harmless. outcome: 0 created, 1 the id belongs to another instance, 2 no such workflow, 3 the queue is full, 5 the run
-- that makes it (makers, with the epoch it believes in, if any) is over or somebody else's, 7 the workflow is not active.
-- Where `spaces` names a workspace, workflows of others are not found. Whoever asks from within one must name it.
-- The arrays come sorted by (account, handle, id): one order of inserting into the unique index everywhere. Rows are
-- told apart by their position in the arrays, never by joining them with each other.
create or replace function create_instances(
  accs uuid[], handles text[], ks uuid[], ids text[], inputs text[], sources smallint[], details text[], bys text[],
  success_ms bigint[], error_ms bigint[], parents uuid[], steps text[], depths smallint[], queue_limits int[], t timestamptz,
  makers uuid[] default null, epochs bigint[] default null, spaces uuid[] default null)
returns table (o bigint, outcome smallint, workflow_key uuid, version_key uuid, no bigint, key uuid)
language plpgsql as $$
#variable_conflict use_column
declare
  workflows uuid[]; versions uuid[]; runtimes smallint[]; fit boolean[]; full_up boolean[]; kept_success bigint[]; kept_error bigint[];
  orphans boolean[]; over boolean[]; wanted int; made uuid[]; numbers bigint[]; place int[];
begin
  select array_agg(w.workflow_key order by c.o), array_agg(v.version_key order by c.o), array_agg(coalesce(v.runtime, 0::smallint) order by c.o),
         array_agg(coalesce(c.s_ms, v.success_retention_ms, a.success_retention_ms, 2592000000) order by c.o),
         array_agg(coalesce(c.e_ms, v.error_retention_ms, a.error_retention_ms, 2592000000) order by c.o),
         array_agg(v.version_key is not null order by c.o)
  into workflows, versions, runtimes, kept_success, kept_error, fit
  from unnest(accs, handles, success_ms, error_ms, spaces) with ordinality as c(a, handle, s_ms, e_ms, space, o)
  left join lateral (select x.success_retention_ms, x.error_retention_ms from account x where x.account_id = c.a) a on true
  left join lateral (select x.workflow_key, case when x.status = 'active' then x.current_version end as current_version from workflow x
                     where x.account_id = c.a and x.handle = c.handle and x.deleted_at is null and x.current_version is not null
                       and (c.space is null or x.workspace_id = c.space)) w on true
  left join lateral (select x.version_key, x.runtime, x.success_retention_ms, x.error_retention_ms from version x
                     where x.account_id = c.a and x.version_key = w.current_version) v on true;

  full_up := array_fill(false, array[cardinality(ks)]);
  if cardinality(array_remove(queue_limits, null)) > 0 then
    full_up := array(
      select c.lim is not null and (select count(*) from (select from live l where l.account_id = accs[c.o] and l.workflow_key = workflows[c.o]
        and l.phase = 0 limit c.lim) q) >= c.lim
      from unnest(queue_limits) with ordinality as c(lim, o) order by c.o);
    fit := array(select fit[s.o] and not full_up[s.o] from generate_subscripts(ks, 1) s(o) order by s.o);
  end if;

  orphans := array_fill(false, array[cardinality(ks)]);
  over := orphans;
  makers := coalesce(makers, parents);
  if cardinality(array_remove(makers, null)) > 0 then
    -- Whoever ends a run waits for this lock, and then sees its child; whoever finds no run here makes none. A child whose
    -- end its parent knows already has been there: it is not made again, even if it was deleted since.
    with held as materialized (
      select l.* from (select distinct a, maker from unnest(accs, makers) as c(a, maker) where maker is not null order by 1, 2) c
      cross join lateral (select v.account_id, v.key, v.epoch from live v where v.account_id = c.a and v.key = c.maker for share) l
    )
    select array_agg(c.maker is not null and h.epoch is null order by c.o) into orphans
    from unnest(accs, makers, epochs) with ordinality as c(a, maker, epoch, o)
    left join lateral (select x.epoch from held x where x.account_id = c.a and x.key = c.maker and x.epoch = coalesce(c.epoch, x.epoch)) h on true;
    over := array(select exists (select from inbox q where q.account_id = c.a and q.key = c.maker and q.type = 'child:' || c.k)
                  from unnest(accs, ks, makers) with ordinality as c(a, k, maker, o) order by c.o);
    fit := array(select fit[s.o] and not orphans[s.o] and not over[s.o] from generate_subscripts(ks, 1) s(o) order by s.o);
  end if;

  with m as (
    insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, input, trigger_source,
      trigger_detail, triggered_by, parent_key, parent_step, depth, success_retention_ms, error_retention_ms, created_at, dry_run)
    select c.a, c.k, workflows[c.o], versions[c.o], c.id, c.id, c.input, c.source, c.detail, c.triggered_by, c.parent, c.step, c.depth,
           kept_success[c.o], kept_error[c.o], t, nullif(starts_with(c.detail, '{"dryRun":true'), false)
    from unnest(accs, ks, ids, inputs, sources, details, bys, parents, steps, depths)
         with ordinality as c(a, k, id, input, source, detail, triggered_by, parent, step, depth, o)
    where fit[c.o]
    on conflict do nothing
    returning key, no)
  select array_agg(m.key), array_agg(m.no) into made, numbers from m;

  -- The place of each row in `made`: in order when all that fit were made; looked up only after a conflict.
  wanted := cardinality(array_positions(fit, true));
  if wanted = coalesce(cardinality(made), 0) then
    place := array(select case when fit[s.o] then sum(fit[s.o]::int) over (order by s.o) end::int from generate_subscripts(ks, 1) s(o) order by s.o);
  else
    place := array(select array_position(made, ks[s.o]) from generate_subscripts(ks, 1) s(o) order by s.o);
  end if;

  insert into live (account_id, key, workflow_key, runtime, ready_at, epoch, seq, modified_at)
  select accs[s.o], ks[s.o], workflows[s.o], runtimes[s.o], t, nextval('epoch_seq'), 1, t
  from generate_subscripts(ks, 1) s(o) where place[s.o] is not null;

  insert into journal (account_id, key, seq, run, kind, at)
  select accs[s.o], ks[s.o], 1, 1, 0, t from generate_subscripts(ks, 1) s(o) where place[s.o] is not null;

  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
  select accs[s.o], workflows[s.o], array_agg(ks[s.o]), array_agg(1::bigint), array_agg(1::bigint), t
  from generate_subscripts(ks, 1) s(o) where place[s.o] is not null group by 1, 2;

  if cardinality(made) = cardinality(ks) then
    return query select s.o::bigint, 0::smallint, workflows[s.o], versions[s.o], numbers[place[s.o]], ks[s.o]
    from generate_subscripts(ks, 1) s(o) order by 1;
    return;
  end if;
  return query
  select s.o::bigint,
         case when orphans[s.o] then 5 when workflows[s.o] is null then 2 when place[s.o] is not null or over[s.o] or e.key = ks[s.o] then 0
              when versions[s.o] is null then 7 when full_up[s.o] then 3 else 1 end::smallint,
         workflows[s.o], versions[s.o], coalesce(numbers[place[s.o]], e.no), ks[s.o]
  from generate_subscripts(ks, 1) s(o)
  left join lateral (select x.key, x.no from instance x where x.account_id = accs[s.o] and x.workflow_key = workflows[s.o]
                     and x.instance_id = ids[s.o]) e on true
  order by 1;
end $$;
