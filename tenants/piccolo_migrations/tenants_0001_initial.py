from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from tenants.database import run_script

ID = "2026-11-21T09:00:00:000001"
VERSION = "1.38.0"
DESCRIPTION = "initial schema"

SCHEMA = """
-- Two roles: `millrace_api` sees only the account its session names; `millrace_engine` runs the few statements that
-- span accounts (claim, flush, coalesced create and event, sweep, retention).
do $$ begin
  if not exists (select from pg_roles where rolname = 'millrace_api') then create role millrace_api nologin; end if;
  if not exists (select from pg_roles where rolname = 'millrace_engine') then create role millrace_engine nologin; end if;
  if not (pg_has_role(current_user, 'millrace_api', 'member') and pg_has_role(current_user, 'millrace_engine', 'member')) then
    execute format('grant millrace_api, millrace_engine to %I', current_user);
  end if;
end $$;

create function current_account() returns uuid language sql stable
  as $$ select nullif(current_setting('millrace.account', true), '')::uuid $$;

-- Puts a table behind the second wall: the api role sees rows of its own account only, the engine role sees all.
create function wall(target regclass) returns void language plpgsql as $$
begin
  execute format('alter table %s enable row level security', target);
  execute format('alter table %s force row level security', target);
  execute format('create policy own_account on %s to millrace_api using (account_id = current_account()) with check (account_id = current_account())', target);
  execute format('create policy every_account on %s to millrace_engine using (true) with check (true)', target);
  execute format('grant select, insert, update, delete on %s to millrace_api, millrace_engine', target);
end $$;

create table account (
  account_id uuid primary key,
  name text not null,
  created_at timestamptz not null,
  modified_at timestamptz not null,
  disabled_at timestamptz,
  profile text not null default 'open',
  limits text not null default '{}',       -- single limits set by the operator, over the profile's
  settings text not null default '{}',     -- what the account set for itself
  concurrency int,                         -- these three follow from the above; the engine's SQL reads them
  success_retention_ms bigint,
  error_retention_ms bigint
);

create table workspace (
  account_id uuid not null,
  id uuid not null,
  slug text not null,
  name text not null,
  created_at timestamptz not null,
  primary key (account_id, id),
  unique (account_id, slug)
);
-- One face names a workspace without its account, so only the default one's slug may be in every account.
create unique index workspace_slug on workspace (slug) where slug <> 'default';

create table app_user (
  account_id uuid not null,
  id uuid not null,
  person_id uuid not null,                 -- the same for users of several accounts an operator said are one person
  name text not null,
  email text,
  password_hash text,
  logins_since timestamptz,                -- earlier logins no longer count: the password was changed
  role text not null,
  disabled_at timestamptz,
  created_at timestamptz not null,
  modified_at timestamptz not null,
  primary key (account_id, id)
);
create unique index app_user_email on app_user (account_id, lower(email)) where email is not null;
create unique index app_user_name on app_user (account_id, name);
create unique index app_user_person on app_user (person_id, account_id);
create index app_user_login_name on app_user (name);  -- these two: a login need not name its account
create index app_user_login_email on app_user (lower(email)) where email is not null;

create table membership (
  account_id uuid not null,
  workspace_id uuid not null,
  user_id uuid not null,
  role text not null,
  created_at timestamptz not null,
  primary key (account_id, workspace_id, user_id)
);

create table api_token (
  account_id uuid not null,
  id uuid not null,
  name text not null,
  hash bytea not null,
  scopes text[] not null,
  role text not null,
  workspace_id uuid,
  user_id uuid,
  policies text,
  not_before timestamptz,
  expires_at timestamptz,
  disabled_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null,
  modified_at timestamptz not null,
  primary key (account_id, id)
);
create unique index api_token_hash on api_token (hash);  -- the one look-up that does not know the account yet

create table session (
  account_id uuid not null,
  id uuid not null,
  user_id uuid not null,
  hash bytea not null,
  created_at timestamptz not null,
  last_used_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (account_id, id)
);
create unique index session_hash on session (hash);
create index session_age on session (expires_at);

create table stream_ticket (
  account_id uuid not null,
  id uuid not null,
  hash bytea not null,
  path text not null,
  token_id uuid,                           -- whose ticket it is: this token's, or
  user_id uuid,                            -- this user's, by
  login_id uuid,                           -- this login,
  login_expires_at timestamptz,            -- which lasts until then
  workspace_id uuid,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (account_id, id)
);
create unique index stream_ticket_hash on stream_ticket (hash);
create index stream_ticket_age on stream_ticket (expires_at);

-- Logins and single JWTs that were ended before their time; kept until they would have ended anyway.
create table revoked_login (
  account_id uuid not null,
  id uuid not null,
  expires_at timestamptz not null,
  primary key (account_id, id)
);
create unique index revoked_login_id on revoked_login (id);
create index revoked_login_age on revoked_login (expires_at);

create table idempotency_key (
  account_id uuid not null,
  operation text not null,
  key text not null,
  request_hash bytea not null,
  seed uuid not null,                      -- what the request creates is named by it, also when it is taken over
  status int,
  response text,
  created_at timestamptz not null,
  held_until timestamptz not null,         -- a request that was not answered by then may be taken over
  primary key (account_id, operation, key)
);
create index idempotency_key_age on idempotency_key (created_at);

create table audit_line (
  account_id uuid not null,
  id uuid not null,
  at timestamptz not null,
  actor text not null,
  action text not null,
  target text not null,
  address text,
  request_id text,
  detail text,
  primary key (account_id, id)
);
create index audit_line_age on audit_line (at);

-- Fingerprints of the secrets this database was used with; a process that has not the newest one refuses to start.
create table keyring (
  id bytea primary key,
  first_used_at timestamptz not null       -- since another one was the newest
);
grant select, insert, delete on keyring to millrace_engine;

select wall(t) from unnest(array['account','workspace','app_user','membership','api_token','session','stream_ticket','revoked_login',
  'idempotency_key','audit_line']::regclass[]) t;
"""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="tenants", description=DESCRIPTION)

    async def apply():
        await run_script(SCHEMA)

    manager.add_raw(apply)
    return manager
