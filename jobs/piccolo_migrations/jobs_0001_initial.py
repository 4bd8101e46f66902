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

-- How far a reader of the feed has come.
create table feed_cursor (
  name text primary key,
  xid xid8 not null,
  no bigint not null
);
grant select, insert, update on feed_cursor to millrace_engine;

select wall('termination_job');
"""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="jobs", description=DESCRIPTION)

    async def apply():
        await run_script(SCHEMA)

    manager.add_raw(apply)
    return manager
