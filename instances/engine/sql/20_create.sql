-- Create instances, several requests at once. Resolves handle -> workflow -> current version under the statement's own
-- snapshot, so nothing created after a PUT answered runs the version before it. Repeating a create with the same key is
-- harmless. outcome: 0 created, 1 the id belongs to another instance, 2 no such workflow, 3 the queue is full.
create or replace function create_instances(
  accs uuid[], handles text[], ks uuid[], ids text[], inputs text[], sources smallint[], details text[], bys text[],
  success_ms bigint[], error_ms bigint[], parents uuid[], steps text[], depths smallint[], queue_limits int[], t timestamptz)
returns table (o bigint, outcome smallint, workflow_key uuid, version_key uuid, no bigint, key uuid)
language plpgsql as $$
#variable_conflict use_column
begin
return query
with n as materialized (
  select c.*, w.workflow_key, v.version_key, v.runtime,
         coalesce(c.s_ms, v.success_retention_ms, a.success_retention_ms, 2592000000) as success_retention,
         coalesce(c.e_ms, v.error_retention_ms, a.error_retention_ms, 2592000000) as error_retention,
         c.queue_limit is not null and (select count(*) from (select from live l where l.account_id = c.a
           and l.workflow_key = w.workflow_key and l.phase = 0
           limit c.queue_limit) q) >= c.queue_limit as full_up
  from unnest(accs, handles, ks, ids, inputs, sources, details, bys, success_ms, error_ms, parents, steps, depths, queue_limits)
       with ordinality as c(a, handle, k, id, input, source, detail, triggered_by, s_ms, e_ms, parent, step, depth, queue_limit, o)
  left join lateral (select x.success_retention_ms, x.error_retention_ms from account x where x.account_id = c.a) a on true
  left join lateral (select x.workflow_key, x.current_version from workflow x
                     where x.account_id = c.a and x.handle = c.handle and x.deleted_at is null) w on true
  left join lateral (select x.version_key, x.runtime, x.success_retention_ms, x.error_retention_ms from version x
                     where x.account_id = c.a and x.version_key = w.current_version) v on true
  order by c.a, w.workflow_key, c.id collate "C"
), made as (
  insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, input, trigger_source,
    trigger_detail, triggered_by, parent_key, parent_step, depth, success_retention_ms, error_retention_ms, created_at)
  select a, k, workflow_key, version_key, id, id, input, source, detail, triggered_by, parent, step, depth,
         success_retention, error_retention, t
  from n where version_key is not null and not full_up
  on conflict do nothing
  returning account_id, key, no
), hot as (
  insert into live (account_id, key, workflow_key, runtime, ready_at, epoch, seq, modified_at)
  select n.a, n.k, n.workflow_key, n.runtime, t, nextval('epoch_seq'), 1, t
  from n join made m on m.account_id = n.a and m.key = n.k
), queued as (
  insert into journal (account_id, key, seq, run, kind, at) select account_id, key, 1, 1, 0, t from made
), told as (
  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
  select n.a, n.workflow_key, array_agg(n.k), array_agg(1::bigint), array_agg(1::bigint), t
  from n join made m on m.account_id = n.a and m.key = n.k group by 1, 2
)
select n.o,
       case when n.version_key is null then 2 when m.key is not null or e.key = n.k then 0 when n.full_up then 3 else 1 end::smallint,
       n.workflow_key, n.version_key, coalesce(m.no, e.no), n.k
from n
left join made m on m.account_id = n.a and m.key = n.k
left join lateral (select x.key, x.no from instance x
                   where x.account_id = n.a and x.workflow_key = n.workflow_key and x.instance_id = n.id) e on true
order by n.o;
end $$;
