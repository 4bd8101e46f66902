from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from tenants.database import run_script

ID = "2026-11-21T09:00:00:000004"
VERSION = "1.38.0"
DESCRIPTION = "initial schema"

SCHEMA = """
-- A background job that ends or deletes many instances of one workflow, in chunks, with progress.
create table termination_job (
  account_id uuid not null,
  id uuid not null,
  workflow_key uuid not null,
  kind text not null,
  statuses smallint[],
  instance_keys uuid[],
  created_before timestamptz not null,
  position uuid,
  done bigint not null default 0,
  created_at timestamptz not null,
  lease_until timestamptz,
  finished_at timestamptz,
  primary key (account_id, id)
);
create index termination_job_open on termination_job (created_at) where finished_at is null;
create index termination_job_workflow on termination_job (account_id, workflow_key) where finished_at is null;

select wall('termination_job');
"""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="jobs", description=DESCRIPTION)

    async def apply():
        await run_script(SCHEMA)

    manager.add_raw(apply)
    return manager
