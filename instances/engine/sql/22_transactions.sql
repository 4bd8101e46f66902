-- Create an instance under a transaction id of the workflow, unless one that is unfinished has it, or, with
-- `reuse_finished`, one that is finished. Whoever asks for the same id waits here, so two can never both find none; other
-- creates pay nothing for it. Without a key nothing is made: only looked up. The instance's own id is `id` where that is
-- given and free, else its key. `space`: as `spaces` of `create_instances`. outcome: those of `create_instances`, 6 there is one already (the key and status are its).
create or replace function create_transaction(
  acc uuid, handle_ text, tx text, reuse_finished boolean, k uuid, id text, input_ text, source smallint, detail text, by_ text,
  success_ms bigint, error_ms bigint, queue_limit int, t timestamptz, space uuid default null)
returns table (outcome smallint, workflow_key uuid, version_key uuid, no bigint, key uuid, status smallint)
language plpgsql as $$
#variable_conflict use_column
declare
  wf uuid; e record; made record; own_id text;
begin
  select w.workflow_key into wf from workflow w where w.account_id = acc and w.handle = handle_ and w.deleted_at is null
    and (space is null or w.workspace_id = space);
  if not found then
    return query select 2::smallint, null::uuid, null::uuid, null::bigint, k, null::smallint; return;
  end if;
  if k is not null then perform pg_advisory_xact_lock(hashtextextended(acc::text || wf::text || tx, 11)); end if;
  select i.key, i.version_key, i.no, i.status, coalesce(l.status, i.status) as shown into e
  from (select x.key, x.version_key, x.no, x.status from instance x
        where x.account_id = acc and x.workflow_key = wf and x.transaction_id = tx and x.deleted_at is null
        order by x.status = 0 desc, x.key desc limit 1) i
  left join lateral (select v.status from live v where v.account_id = acc and v.key = i.key limit 1) l on true;
  if found and (e.key = k or e.status = 0 or reuse_finished) then
    return query select case when e.key = k then 0 else 6 end::smallint, wf, e.version_key, e.no, e.key, e.shown; return;
  end if;
  if k is null then
    return query select 1::smallint, wf, null::uuid, null::bigint, null::uuid, null::smallint; return;
  end if;
  own_id := coalesce(id, k::text);
  if exists (select from instance x where x.account_id = acc and x.workflow_key = wf and x.instance_id = own_id) then
    own_id := k::text;
  end if;
  select c.* into made from create_instances(
    array[acc], array[handle_], array[k], array[own_id], array[input_], array[source], array[detail], array[by_], array[success_ms],
    array[error_ms], array[null::uuid], array[null::text], array[0::smallint], array[queue_limit], t, spaces => array[space]) c;
  if made.outcome = 0 and own_id <> tx then
    update instance i set transaction_id = tx where i.account_id = acc and i.key = k;
  end if;
  return query select made.outcome, made.workflow_key, made.version_key, made.no, made.key, 0::smallint;
end $$;
