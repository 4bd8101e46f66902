"""Piccolo's view of this package's tables, for plain reads and writes.

The tables themselves are made by the migration: every primary key begins with `account_id`, which Piccolo cannot say,
so `id` is declared the key here and every query still filters by account (row-level security checks that it did).
Nullable columns say `default=None`, because Piccolo would fill them with now, a random UUID, 0 or an empty text.
"""

from __future__ import annotations

from piccolo.columns import UUID, Array, BigInt, Bytea, Integer, Text, Timestamptz
from piccolo.table import Table


class Account(Table, tablename="account"):
    """Whoever owns everything else. `limits` and `settings` are JSON text; concurrency and retention follow from it."""

    account_id = UUID(primary_key=True)
    name = Text()
    created_at = Timestamptz()
    modified_at = Timestamptz()
    disabled_at = Timestamptz(null=True, default=None)
    profile = Text()
    limits = Text()
    settings = Text()
    concurrency = Integer(null=True, default=None)
    success_retention_ms = BigInt(null=True, default=None)
    error_retention_ms = BigInt(null=True, default=None)


class Workspace(Table, tablename="workspace"):
    """A part of an account. Slugs but `default` are unique in the whole deployment."""

    account_id = UUID()
    id = UUID(primary_key=True)
    slug = Text()
    name = Text()
    created_at = Timestamptz()


class AppUser(Table, tablename="app_user"):
    """A user of an account. Users of several accounts with one `person_id` are the same person."""

    account_id = UUID()
    id = UUID(primary_key=True)
    person_id = UUID()
    name = Text()
    email = Text(null=True, default=None)
    password_hash = Text(null=True, default=None)
    logins_since = Timestamptz(null=True, default=None)
    role = Text()
    disabled_at = Timestamptz(null=True, default=None)
    created_at = Timestamptz()
    modified_at = Timestamptz()


class Membership(Table, tablename="membership"):
    """A user's part in a workspace. A user has one in each workspace, at most."""

    account_id = UUID()
    workspace_id = UUID()
    user_id = UUID(primary_key=True)
    role = Text()
    created_at = Timestamptz()


class ApiToken(Table, tablename="api_token"):
    """An API token. `hash` begins with the fingerprint of the secret it was made with; `policies` is JSON text."""

    account_id = UUID()
    id = UUID(primary_key=True)
    name = Text()
    hash = Bytea()
    scopes = Array(base_column=Text())
    role = Text()
    workspace_id = UUID(null=True, default=None)
    user_id = UUID(null=True, default=None)
    policies = Text(null=True, default=None)
    not_before = Timestamptz(null=True, default=None)
    expires_at = Timestamptz(null=True, default=None)
    disabled_at = Timestamptz(null=True, default=None)
    last_used_at = Timestamptz(null=True, default=None)
    created_at = Timestamptz()
    modified_at = Timestamptz()


class AuditLine(Table, tablename="audit_line"):
    """Who did what to what. `detail` is JSON text."""

    account_id = UUID()
    id = UUID(primary_key=True)
    at = Timestamptz()
    actor = Text()
    action = Text()
    target = Text()
    address = Text(null=True, default=None)
    request_id = Text(null=True, default=None)
    detail = Text(null=True, default=None)
