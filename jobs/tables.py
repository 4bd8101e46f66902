"""Piccolo's view of this package's tables; the statements of `store` are written by hand."""

from __future__ import annotations

from piccolo.columns import UUID as Uuid
from piccolo.columns import Array, BigInt, Boolean, Bytea, Integer, SmallInt, Text, Timestamptz
from piccolo.table import Table


class TerminationJob(Table, tablename="termination_job"):
    """A background job that ends or deletes many instances of one workflow."""

    account_id = Uuid(null=False)
    id = Uuid(primary_key=True)
    workflow_key = Uuid(null=False)
    kind = Text(null=False)
    statuses = Array(base_column=SmallInt(), null=True)
    instance_keys = Array(base_column=Uuid(), null=True)
    created_before = Timestamptz(null=False)
    position = Uuid(null=True)
    done = BigInt(default=0)
    created_at = Timestamptz(null=False)
    worked_at = Timestamptz(null=True)
    finished_at = Timestamptz(null=True)


class Webhook(Table, tablename="webhook"):
    """An endpoint that is told of events."""

    account_id = Uuid(null=False)
    no = BigInt(primary_key=True)
    id = Uuid(null=False)
    workspace_id = Uuid(null=True)
    url = Text(null=False)
    events = Array(base_column=Text(), null=False)
    format = Text(default="standard")
    secret = Bytea(null=False)
    former_secret = Bytea(null=True)
    former_until = Timestamptz(null=True)
    active = Boolean(default=True)
    disabled_reason = Text(null=True)
    due_at = Timestamptz(null=True)
    failures = Integer(default=0)
    failing_since = Timestamptz(null=True)
    lanes = SmallInt(default=8)
    slowed_until = Timestamptz(null=True)
    created_at = Timestamptz(null=False)
    deleted_at = Timestamptz(null=True)


class WebhookDelivery(Table, tablename="webhook_delivery"):
    """An event on its way to an endpoint."""

    account_id = Uuid(null=False)
    no = BigInt(primary_key=True)
    webhook_no = BigInt(null=False)
    event = Text(null=False)
    event_id = Text(null=False)
    instance_key = Uuid(null=True)
    body = Text(null=False)
    status = SmallInt(default=0)
    tries = SmallInt(default=0)
    attempts = Integer(default=0)
    claim = Integer(default=0)
    claimed = Boolean(default=False)
    next_at = Timestamptz(null=True)
    last_status = Integer(null=True)
    last_error = Text(null=True)
    log = Array(base_column=Text(), null=False)
    created_at = Timestamptz(null=False)
    delivered_at = Timestamptz(null=True)
    expires_at = Timestamptz(null=False)
