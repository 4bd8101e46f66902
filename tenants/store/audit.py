"""The audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tenants.schemas import AuditRow
from tenants.tables import AuditLine

INSERT_AUDIT_LINES = """
insert into audit_line (account_id, id, at, actor, action, target, address, request_id, detail)
select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[])
"""


async def insert_audit_lines(connection: Any, lines: Sequence[tuple[Any, ...]]) -> None:
    """Write audit lines (account, id, at, actor, action, target, address, request id, detail), any accounts'."""
    await connection.execute(INSERT_AUDIT_LINES, *(list(column) for column in zip(*lines, strict=True)))


async def audit_lines(account_id: UUID, limit: int, before: UUID | None = None) -> list[AuditRow]:
    """Lines of the account's audit log, the newest first; `before` is the id of the last line already seen."""
    query = AuditLine.select().where(AuditLine.account_id == account_id)
    if before is not None:
        query = query.where(AuditLine.id < before)
    return [AuditRow(**row) for row in await query.order_by(AuditLine.id, ascending=False).limit(limit)]
