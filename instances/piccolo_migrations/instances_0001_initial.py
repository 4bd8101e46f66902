from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from tenants.database import run_script

ID = "2026-11-21T09:00:00:000003"
VERSION = "1.38.0"
DESCRIPTION = "initial schema"

SCHEMA = """
-- One sequence for every epoch ever given: none is used twice for a key, even after its row was deleted and made anew.
create sequence epoch_seq;
grant usage on sequence epoch_seq to millrace_engine;

-- Identity, parameters, outcome. Written at create and at the end; lists read it. `status` is 0 while unfinished
-- (the shown status is in `live` then), else 6 complete, 7 errored, 8 terminated. `error` of a terminated one says who
-- cancelled it, if anybody did. Rare things are null: `dry_run` true or null; `deleted_at` of one that is finished and
-- hidden; `origin_key` and `retried_from` of one that repeats another from a step on.
create table instance (
  account_id uuid not null,
  key uuid not null,
  workflow_key uuid not null,
  version_key uuid not null,
  instance_id text collate "C" not null,
  no bigint generated always as identity,
  transaction_id text not null,
  status smallint not null default 0,
  input text,
  output text,
  error text,
  rollback text,
  trigger_source smallint not null default 0,
  trigger_detail text,
  triggered_by text,
  parent_key uuid,
  parent_step text,
  depth smallint not null default 0,
  success_retention_ms bigint not null,
  error_retention_ms bigint not null,
  created_at timestamptz not null,
  started_at timestamptz,
  ended_at timestamptz,
  retain_until timestamptz,
  seq bigint not null default 0,
  run int not null default 1,
  live_from bigint not null default 1,
  dry_run boolean,
  deleted_at timestamptz,
  origin_key uuid,
  retried_from text,
  reverted boolean generated always as (starts_with(rollback, '{"outcome":"complete"')) stored  -- lists filter by it
) with (fillfactor = 90);
alter table instance alter input set storage external, alter output set storage external;
-- Order matters: while a table is empty all index scans cost the same, and the planner takes the index made last.
create unique index instance_no on instance (no, account_id);
create index instance_parent on instance (account_id, parent_key) where parent_key is not null and status = 0;  -- families
create index instance_retain on instance (retain_until) where retain_until is not null;             -- retention
create index instance_transaction on instance (account_id, workflow_key, transaction_id, key);
create index instance_origin on instance (account_id, origin_key, key) where origin_key is not null;         -- retries
create index instance_unreverted on instance (account_id, workflow_key, status, key desc)                   -- halves of
  where status >= 7 and deleted_at is null and reverted is not true;                                -- a status
create index instance_reverted on instance (account_id, workflow_key, status, key desc)
  where status >= 7 and deleted_at is null and reverted;
create index instance_status on instance (account_id, workflow_key, status, key desc)
  where status >= 6 and deleted_at is null;
create index instance_list on instance (account_id, workflow_key, key desc) where deleted_at is null;        -- newest first
create index instance_started on instance (account_id, workflow_key, status, started_at desc, key desc)
  include (ended_at, dry_run, deleted_at) where status >= 6;                                        -- lists, figures
create index instance_hidden on instance (account_id, workflow_key, status) where deleted_at is not null;    -- totals
create index instance_dry on instance (account_id, workflow_key, status, key)
  include (started_at, ended_at) where dry_run;                                                     -- figures
create unique index instance_uid on instance (account_id, workflow_key, instance_id);               -- create, get by id
alter table instance add primary key (account_id, key);

-- One narrow row per unfinished instance; every hot update happens here.
-- status (shown): 0 queued 1 running 2 waiting 3 paused 4 waitingForPause 5 rollingBack
-- phase (who may act): 0 ready to be claimed, 1 held by `owner`, 2 parked (until `ready_at` or an awaited fact), 3 stopped
-- want (asked of the holder): 0 nothing, 1 pause, 2 roll back and terminate, 3 stop rolling back
create table live (
  account_id uuid not null,
  key uuid not null,
  workflow_key uuid not null,
  runtime smallint not null,
  status smallint not null default 0,
  phase smallint not null default 0,
  prio smallint not null default 1,
  ready_at timestamptz,
  owner int,
  epoch bigint not null,
  seq bigint not null default 0,
  flush_no int not null default 0,
  signal int not null default 0,
  want smallint not null default 0,
  awaits text[] not null default '{}',
  run int not null default 1,
  live_from bigint not null default 1,
  takeovers smallint not null default 0,
  unread int not null default 0,
  unread_bytes int not null default 0,
  started_at timestamptz,
  modified_at timestamptz not null,
  check ((phase = 1) = (owner is not null))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
create index live_ready on live (account_id, workflow_key, runtime, prio, ready_at, key) where phase = 0;  -- claim
create index live_due on live (ready_at, account_id, key) where phase = 2 and ready_at is not null;         -- due timers
create index live_held on live (account_id, workflow_key) where phase = 1;                                  -- limits
create index live_owner on live (owner, account_id, key) where owner is not null;                           -- takeover, renewal
create index live_started on live (account_id, workflow_key, started_at desc, key desc)                     -- lists
  where started_at is not null;
create index live_status on live (account_id, workflow_key, status, key desc);                              -- lists, counts
alter table live add primary key (account_id, key);

-- What happened, append-only. `seq` is given under the lock of the live row and never repeats.
create table journal (
  account_id uuid not null,
  key uuid not null,
  seq bigint not null,
  run int not null,
  kind smallint not null,
  name text,
  count int,
  attempt int,
  at timestamptz not null,
  payload text,
  primary key (account_id, key, seq)
);
alter table journal alter payload set storage external;

-- Events and other outside facts an instance has not consumed yet; first in, first out per type.
create table inbox (
  account_id uuid not null,
  key uuid not null,
  no bigint generated always as identity,
  type text not null,
  dedupe text,
  payload text,
  at timestamptz not null
);
alter table inbox alter payload set storage external;
create unique index inbox_dedupe on inbox (account_id, key, dedupe) where dedupe is not null;
alter table inbox add primary key (account_id, key, no);

-- Worker processes and their leases. Cross-account by nature; only the engine role sees it.
create table worker (
  id int primary key generated always as identity,
  epoch bigint not null default nextval('epoch_seq'),
  lease_until timestamptz not null,
  renewed_at timestamptz not null,
  started_at timestamptz not null,
  host text not null,
  pid int not null,
  runtimes smallint[] not null,
  slots int not null
);
grant select, insert, update, delete on worker to millrace_engine;

-- One row per flush and workflow: which instances grew by which entries. `(xid, no)` below the oldest running
-- transaction is a cursor that misses nothing (webhooks, workflow-wide streams, roll-ups).
create table feed (
  account_id uuid not null,
  workflow_key uuid not null,
  xid xid8 not null default pg_current_xact_id(),
  no bigint generated always as identity,
  keys uuid[] not null,
  first_seqs bigint[] not null,
  last_seqs bigint[] not null,
  at timestamptz not null,
  primary key (account_id, workflow_key, xid, no)
);
create index feed_order on feed (xid, no);
create index feed_age on feed (at);

-- Finished instances per workflow and status, and how long they took in all (microseconds), in one row per writer slot
-- so that writers do not queue for one row.
create table counter (
  account_id uuid not null,
  workflow_key uuid not null,
  slot smallint not null,
  status smallint not null,
  n bigint not null,
  us bigint not null default 0,
  primary key (account_id, workflow_key, status, slot)
);

create table notification (
  account_id uuid not null,
  id uuid not null,
  workspace_id uuid,
  instance_key uuid not null,
  node text not null,
  recipient text,
  message text not null,
  read_at timestamptz,
  created_at timestamptz not null,
  primary key (account_id, id)
);
create index notification_instance on notification (account_id, instance_key);                              -- deletion
create index notification_newest on notification (account_id, created_at, id);

create table task (
  account_id uuid not null,
  id uuid not null,
  workspace_id uuid,
  instance_key uuid not null,
  node text not null,
  title text not null,
  description text not null default '',
  priority text not null,
  assigned_to text,
  status text not null default 'TODO',
  created_at timestamptz not null,
  done_at timestamptz,
  primary key (account_id, id)
);
create index task_instance on task (account_id, instance_key);                                              -- deletion
create index task_newest on task (account_id, created_at, id);

-- Statistics before there are rows. Plans are cached while tables are small; without statistics all indexes that begin
-- with the account look alike then, and a plan may read a whole account for one row. These rows say: one account and one
-- workflow may hold everything, keys and ids are unique. They stay known after the rows are gone.
insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, status, parent_key, success_retention_ms,
  error_retention_ms, created_at, retain_until)
select '00000000-0000-0000-0000-000000000001', md5(n::text)::uuid, '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001',
  md5(n::text), md5(n::text), case when n % 2 = 0 then 6 else 0 end, case when n % 10 = 5 then md5('p' || n)::uuid end, 1, 1,
  '2026-01-01', '2026-01-01'::timestamptz + n * interval '1 second' from generate_series(1, 3000) n;
insert into live (account_id, key, workflow_key, runtime, status, phase, prio, ready_at, owner, epoch, modified_at)
select '00000000-0000-0000-0000-000000000001', md5(n::text)::uuid, '00000000-0000-0000-0000-000000000001', 0, n % 3, n % 3, n % 2,
  case when n % 3 <> 1 then '2026-01-01'::timestamptz + n * interval '1 second' end, case when n % 3 = 1 then 1 end, n, '2026-01-01'
from generate_series(1, 3000) n;
insert into journal (account_id, key, seq, run, kind, at)
select '00000000-0000-0000-0000-000000000001', md5((n / 10)::text)::uuid, n % 10, 1, n % 8, '2026-01-01' from generate_series(1, 3000) n;
insert into inbox (account_id, key, type, dedupe, at)
select '00000000-0000-0000-0000-000000000001', md5((n / 2)::text)::uuid, 't' || n % 3, n, '2026-01-01' from generate_series(1, 3000) n;
analyze instance, live, journal, inbox;
truncate instance, live, journal, inbox restart identity;

select wall(t) from unnest(array['instance','live','journal','inbox','feed','counter','notification','task']::regclass[]) t;
"""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="instances", description=DESCRIPTION)

    async def apply():
        await run_script(SCHEMA)

    manager.add_raw(apply)
    return manager
