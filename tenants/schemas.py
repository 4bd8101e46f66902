"""Rows as the services hand them out, and the bodies of requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class AccountRow(msgspec.Struct, frozen=True):
    """An account. `limits` and `settings` are JSON text; see `tenants.accounts`."""

    account_id: UUID
    name: str
    created_at: datetime
    modified_at: datetime
    disabled_at: datetime | None
    profile: str
    limits: str
    settings: str
    concurrency: int | None
    success_retention_ms: int | None
    error_retention_ms: int | None


class WorkspaceRow(msgspec.Struct, frozen=True):
    """A workspace of an account."""

    account_id: UUID
    id: UUID
    slug: str
    name: str
    created_at: datetime


class MemberRow(msgspec.Struct, frozen=True):
    """A user's membership of a workspace, with the user's name."""

    workspace_id: UUID
    user_id: UUID
    name: str
    role: str
    created_at: datetime


class UserRow(msgspec.Struct, frozen=True):
    """A user of an account."""

    account_id: UUID
    id: UUID
    person_id: UUID
    """The same in all accounts in which this is the same person."""
    name: str
    email: str | None
    password_hash: str | None
    logins_since: datetime | None
    """Logins before this do not count any more."""
    role: str
    disabled_at: datetime | None
    created_at: datetime
    modified_at: datetime


class TokenRow(msgspec.Struct, frozen=True):
    """An API token without its hash. `policies` is JSON text, None for a token made from scopes."""

    account_id: UUID
    id: UUID
    name: str
    scopes: list[str]
    role: str
    workspace_id: UUID | None
    user_id: UUID | None
    policies: str | None
    not_before: datetime | None
    expires_at: datetime | None
    disabled_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    modified_at: datetime

    def status(self, now: datetime) -> str:
        """`active`, `disabled` or `expired`."""
        if self.disabled_at is not None:
            return "disabled"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class OutdatedToken(msgspec.Struct, frozen=True):
    """A token that is stored under a secret that is not the current one."""

    account_id: UUID
    id: UUID
    name: str
    last_used_at: datetime | None


class AuditRow(msgspec.Struct, frozen=True):
    """A line of the audit log. `detail` is JSON text."""

    account_id: UUID
    id: UUID
    at: datetime
    actor: str
    action: str
    target: str
    address: str | None
    request_id: str | None
    detail: str | None


class Usage(msgspec.Struct, frozen=True):
    """What an account has now. `unfinished` and `finished` count instances by the number of their status."""

    workflows: int
    versions: int
    scripts: int
    script_bytes: int
    schedules: int
    unfinished: dict[int, int]
    finished: dict[int, int]
    tokens: int
    users: int
    workspaces: int


# ---- request bodies of the token routes


class PermissionGroupRef(msgspec.Struct, frozen=True):
    """A permission group, by id; whatever else describes it comes from the list of groups and says nothing new."""

    id: str


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One policy of a token. What cannot be enforced is refused, so an unknown field is an error here."""

    effect: str
    permission_groups: list[PermissionGroupRef]
    resources: dict[str, Any]
    id: str | None = None


class TokenBody(msgspec.Struct, frozen=True):
    """Body of token create (POST) and replace (PUT). Times may carry any offset; none means UTC."""

    name: str
    policies: list[Policy]
    condition: Any = None
    expires_on: datetime | None = None
    not_before: datetime | None = None
    status: str | None = None
