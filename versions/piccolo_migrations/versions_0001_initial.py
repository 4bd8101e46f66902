from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from tenants.database import run_script

ID = "2026-11-21T09:00:00:000002"
VERSION = "1.38.0"
DESCRIPTION = "initial schema"

SCHEMA = """
-- One row per upload of a script. Those versions point at are kept.
create table script (
  account_id uuid not null,
  id uuid not null,
  no bigint generated always as identity,
  name text not null,
  workspace_id uuid not null,              -- the same of all uploads of a name that are not deleted
  number int not null,                     -- among the uploads of this name, from 1
  metadata text not null,
  modules text not null,
  compiled text,
  bindings text not null,
  secrets text not null default '{}',
  etag text not null,
  size_bytes bigint not null,
  source text not null default 'api',
  author text,                             -- e-mail address of who sent it, where there is one
  deployed_at timestamptz,                 -- when it was deployed last; the latest of a name is the deployed one
  deleted_at timestamptz,
  created_at timestamptz not null,
  primary key (account_id, id)
);
create index script_name on script (account_id, name, no desc);

-- What was deployed when, for those who look back.
create table script_deployment (
  account_id uuid not null,
  id uuid not null,
  no bigint generated always as identity,
  name text not null,
  script_id uuid not null,
  source text not null,
  author text,
  annotations text not null default '{}',
  created_at timestamptz not null,
  primary key (account_id, id)
);
create index script_deployment_name on script_deployment (account_id, name, no desc);

-- What holds for a script whichever upload of it is deployed.
create table script_setting (
  account_id uuid not null,
  name text not null,
  settings text not null,
  primary key (account_id, name)
);

create table workflow (
  account_id uuid not null,
  workflow_key uuid not null,
  no bigint generated always as identity,
  handle text not null,
  display_name text not null,
  description text not null default '',
  workspace_id uuid not null,
  status text not null default 'active',   -- active, inactive, draft or archived: only an active one is started
  tags text not null default '[]',
  metadata text not null default '{}',
  script_name text not null,
  class_name text not null,
  current_version uuid,
  events text[] not null default '{}',     -- published events that start the current version
  concurrency int,
  created_at timestamptz not null,
  modified_at timestamptz not null,
  deleted_at timestamptz,
  primary key (account_id, workflow_key)
);
create unique index workflow_handle on workflow (account_id, handle) where deleted_at is null;
create unique index workflow_no on workflow (no, account_id);
create index workflow_newest on workflow (account_id, created_at, workflow_key) where deleted_at is null;
create index workflow_listening on workflow (account_id, handle) where events <> '{}' and deleted_at is null;

create table version (
  account_id uuid not null,
  version_key uuid not null,
  workflow_key uuid not null,
  no int not null,
  language text not null,
  runtime smallint not null,
  class_name text not null,
  script_id uuid,
  source text not null,
  source_hash text not null,
  graph text,
  settings text not null default '{}',
  dialect text not null default '003',
  original text,
  step_limit int not null,
  success_retention_ms bigint,
  error_retention_ms bigint,
  created_by text,                         -- as audit lines name who made it
  created_at timestamptz not null,
  primary key (account_id, version_key)
);
create index version_script on version (account_id, script_id) where script_id is not null;
create unique index version_no on version (account_id, workflow_key, no);

create table schedule (
  account_id uuid not null,
  id uuid not null,
  workflow_key uuid not null,
  cron text,
  interval_ms bigint,
  timezone text not null default 'UTC',
  overlap boolean not null default true,
  max_runs int,
  runs int not null default 0,
  input text,
  next_at timestamptz,
  last_key uuid,
  created_at timestamptz not null,
  primary key (account_id, id)
);
create index schedule_workflow on schedule (account_id, workflow_key);
create index schedule_due on schedule (next_at) where next_at is not null;

create table node_statistics (
  account_id uuid not null,
  workflow_key uuid not null,
  node text not null,
  runs bigint not null,
  mean_ms double precision not null,
  primary key (account_id, workflow_key, node)
);

-- Statistics before there are rows, for the plans that are cached early (the instances' migration says more).
insert into workflow (account_id, workflow_key, handle, display_name, workspace_id, script_name, class_name, current_version, created_at, modified_at)
select '00000000-0000-0000-0000-000000000001', md5(n::text)::uuid, md5(n::text), '', '00000000-0000-0000-0000-000000000001', '', '', md5('v' || n)::uuid, '2026-01-01', '2026-01-01'
from generate_series(1, 1000) n;
insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source, source_hash, step_limit, created_at)
select '00000000-0000-0000-0000-000000000001', md5('v' || n)::uuid, '00000000-0000-0000-0000-000000000001', n, '', 0, '', '', '', 1, '2026-01-01'
from generate_series(1, 1000) n;
analyze workflow, version;
truncate workflow, version restart identity;

select wall(t) from unnest(array['script','script_deployment','script_setting','workflow','version','schedule','node_statistics']::regclass[]) t;
"""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="versions", description=DESCRIPTION)

    async def apply():
        await run_script(SCHEMA)

    manager.add_raw(apply)
    return manager
