"""What is read of an instance before something is done to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from instances.lifecycle import Status
from instances.runtimes.protocol import RUNTIME_DOCUMENT
from versions.document import Document, decode_document, stored_rolls_back_cancelled

# $3: the workspace the caller is restricted to, or null. The workflow may be deleted: its instances go on.
EXECUTION = """
select i.key, i.instance_id, i.transaction_id, w.handle, i.version_key, v.runtime, v.source,
       i.origin_key, i.parent_key, i.ended_at, i.trigger_detail, i.error,
       coalesce(l.status, i.status) as status, coalesce(l.run, i.run) as run, coalesce(l.seq, i.seq) as seq
from instance i
join workflow w on w.account_id = $1 and w.workflow_key = i.workflow_key
join version v on v.account_id = $1 and v.version_key = i.version_key
left join live l on l.account_id = $1 and l.key = i.key
where i.account_id = $1 and i.key = $2 and i.deleted_at is null and ($3::uuid is null or w.workspace_id = $3)"""

STANDING = """
select coalesce(l.status, i.status) as status, coalesce(l.seq, i.seq) as seq
from instance i left join live l on l.account_id = $1 and l.key = i.key
where i.account_id = $1 and i.key = $2"""

RETRIES = "select key from instance where account_id = $1 and origin_key = $2 and deleted_at is null order by key"


@dataclass(frozen=True, slots=True)
class Execution:
    """An instance, its workflow's handle, and the version it runs. `seq` is that of its last journal entry."""

    key: UUID
    instance_id: str
    transaction_id: str
    handle: str
    version_key: UUID
    runtime: int
    source: str
    origin_key: UUID | None
    parent_key: UUID | None
    ended_at: datetime | None
    trigger_detail: str | None
    error: str | None
    status: Status
    run: int
    seq: int

    @property
    def document(self) -> Document | None:
        """What it runs, unless that is a script."""
        return decode_document(self.source) if self.runtime == RUNTIME_DOCUMENT else None

    @property
    def undone_when_cancelled(self) -> bool:
        """Whether what it runs asks for that."""
        return self.runtime == RUNTIME_DOCUMENT and stored_rolls_back_cancelled(self.source)

    @property
    def named(self) -> str:
        """As audit lines name it."""
        return f"{self.handle}/{self.instance_id}"


async def execution(
    connection: asyncpg.Connection, account_id: UUID, key: UUID, workspace_id: UUID | None
) -> Execution | None:
    """The instance of that key, unless it is hidden or outside the workspace."""
    row = await connection.fetchrow(EXECUTION, account_id, key, workspace_id)
    return None if row is None else _execution(row)


def _execution(row: Any) -> Execution:
    return Execution(
        row["key"],
        row["instance_id"],
        row["transaction_id"],
        row["handle"],
        row["version_key"],
        row["runtime"],
        row["source"],
        row["origin_key"],
        row["parent_key"],
        row["ended_at"],
        row["trigger_detail"],
        row["error"],
        Status(row["status"]),
        row["run"],
        row["seq"],
    )


async def standing(connection: asyncpg.Connection, account_id: UUID, key: UUID) -> tuple[Status, int] | None:
    """Status and seq of the last entry; None when the instance is gone."""
    row = await connection.fetchrow(STANDING, account_id, key)
    return None if row is None else (Status(row["status"]), row["seq"])


async def retries_of(connection: asyncpg.Connection, account_id: UUID, key: UUID) -> list[UUID]:
    """Instances that are retries of this one, the oldest first."""
    return [row["key"] for row in await connection.fetch(RETRIES, account_id, key)]
