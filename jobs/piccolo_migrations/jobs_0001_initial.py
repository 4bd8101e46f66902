from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from tenants.database import run_script

ID = "2026-11-21T09:00:00:000004"
VERSION = "1.38.0"
DESCRIPTION = "initial schema"

SCHEMA = """
-- A background job that ends or deletes many instances of one workflow, in chunks; a chunk and its progress commit
-- together. `position`: the last key dealt with. `worked_at`: the last chunk, so that jobs take turns.
create table termination_job (
  account_id uuid not null,
  id uuid not null,
  workflow_key uuid not null,
  kind text not null check (kind in ('terminate_all', 'terminate_batch', 'delete_batch', 'delete_workflow')),
  statuses smallint[],
  instance_keys uuid[],
  created_before timestamptz not null,
  position uuid,
  done bigint not null default 0,
  created_at timestamptz not null,
  worked_at timestamptz,
  finished_at timestamptz,
  primary key (account_id, id)
);
create index termination_job_open on termination_job (worked_at nulls first, created_at) where finished_at is null;
create unique index termination_job_running on termination_job (account_id, workflow_key, kind)
  where finished_at is null and kind in ('terminate_all', 'delete_workflow');
create index termination_job_finished on termination_job (finished_at) where finished_at is not null;

-- How far a reader of the feed has come. `until`: somebody reads for it now; forgotten when that time is over.
create table feed_cursor (
  name text primary key,
  xid xid8 not null,
  no bigint not null,
  until timestamptz
);
grant select, insert, update, delete on feed_cursor to millrace_engine;

-- Where events are sent. `since`: what was committed before it was registered (or switched on) is none of its business.
-- `due_at`: no delivery of it is due earlier; so whoever looks for work reads endpoints, not deliveries. `lanes`: requests
-- it gets at once while it is `slowed_until` a time.
create table webhook (
  account_id uuid not null,
  no bigint generated always as identity,
  id uuid not null,
  workspace_id uuid,
  url text not null,
  events text[] not null,
  format text not null default 'standard' check (format in ('standard', 'classic')),
  secret bytea not null,
  former_secret bytea,
  former_until timestamptz,
  active boolean not null default true,
  disabled_reason text,
  since pg_snapshot not null default pg_current_snapshot(),
  due_at timestamptz,
  failures int not null default 0,
  failing_since timestamptz,
  lanes smallint not null default 8,
  slowed_until timestamptz,
  created_at timestamptz not null,
  deleted_at timestamptz
);
create index webhook_gone on webhook (deleted_at) where deleted_at is not null;
create index webhook_due on webhook (due_at) where active and due_at is not null;
create index webhook_active on webhook (account_id) where active;
alter table webhook add primary key (account_id, no);

-- An event on its way to an endpoint. status: 0 pending, 1 delivered, 2 dead. `next_at`: when it is due; while it is
-- `claimed`, when whoever sends it is given up. `claim` counts who had it: only the last may write what came of it.
-- `tries` are attempts of the schedule under way, `attempts` all ever made; `log` has the last ones, as JSON texts.
create table webhook_delivery (
  account_id uuid not null,
  no bigint generated always as identity,
  webhook_no bigint not null,
  event text not null,
  event_id text not null,
  instance_key uuid,
  body text not null,
  status smallint not null default 0,
  tries smallint not null default 0,
  attempts int not null default 0,
  claim int not null default 0,
  claimed boolean not null default false,
  next_at timestamptz,
  last_status int,
  last_error text,
  log text[] not null default '{}',
  created_at timestamptz not null,
  delivered_at timestamptz,
  expires_at timestamptz not null
);
create index webhook_delivery_expires on webhook_delivery (expires_at);
create index webhook_delivery_progress on webhook_delivery (account_id, webhook_no, instance_key, no) where event = 'progress.updated';
create index webhook_delivery_newest on webhook_delivery (account_id, webhook_no, no);
create index webhook_delivery_claimed on webhook_delivery (account_id, webhook_no) where claimed;
create index webhook_delivery_open on webhook_delivery (account_id, webhook_no, next_at) where status = 0;
alter table webhook_delivery add primary key (account_id, no);

-- Changes of definitions go into the feed of their workflow, in the transaction that makes them: seqs of 0 tell that the
-- key is a version's, of -1 that the workflow of that key was deleted. Only of accounts that send events anywhere.
create function tell_definition() returns trigger language plpgsql as $$
begin
  if exists (select from webhook w where w.account_id = new.account_id and w.active) then
    if tg_table_name = 'version' then
      insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
      values (new.account_id, new.workflow_key, array[new.version_key], array[0], array[0], new.created_at);
    else
      insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
      values (new.account_id, new.workflow_key, array[new.workflow_key], array[-1], array[-1], new.deleted_at);
    end if;
  end if;
  return null;
end $$;
create trigger version_told after insert on version for each row execute function tell_definition();
create trigger deletion_told after update of deleted_at on workflow for each row
  when (old.deleted_at is null and new.deleted_at is not null) execute function tell_definition();

select wall(t) from unnest(array['termination_job','webhook','webhook_delivery']::regclass[]) t;
"""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="jobs", description=DESCRIPTION)

    async def apply():
        await run_script(SCHEMA)

    manager.add_raw(apply)
    return manager
