"""Piccolo's view of this package's tables; the statements of `store` are written by hand."""

from __future__ import annotations

from piccolo.columns import UUID as Uuid
from piccolo.columns import Array, BigInt, SmallInt, Text, Timestamptz
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
