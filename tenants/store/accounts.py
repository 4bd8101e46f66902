"""Accounts, their limits, and what they use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tenants.schemas import AccountRow, Usage
from tenants.store.rows import first_as
from tenants.tables import Account

ACCOUNT_LIMITS = "select account_id, profile, limits from account where account_id = any($1::uuid[])"

# What other packages' tables hold for one account.
USAGE = """
select
  (select count(*) from workflow where account_id = $1 and deleted_at is null) as workflows,
  (select count(*) from version v join workflow w using (account_id, workflow_key)
   where v.account_id = $1 and w.deleted_at is null) as versions,
  (select count(distinct name) from script where account_id = $1 and deleted_at is null) as scripts,
  (select coalesce(sum(size_bytes), 0)::bigint from script
   where account_id = $1 and deleted_at is null) as script_bytes,
  (select count(*) from schedule s join workflow w using (account_id, workflow_key)
   where s.account_id = $1 and s.cron is not null and w.deleted_at is null) as schedules,
  (select count(*) from api_token where account_id = $1) as tokens,
  (select count(*) from app_user where account_id = $1) as users,
  (select count(*) from workspace where account_id = $1) as workspaces
"""

UNFINISHED_BY_STATUS = "select status, count(*) as n from live where account_id = $1 group by status"

FINISHED_BY_STATUS = "select status, sum(n)::bigint as n from counter where account_id = $1 group by status"


async def account_limits(engine: Any, account_ids: Sequence[UUID]) -> list[tuple[UUID, str, str]]:
    """Id, profile and overrides (JSON text) of those of the accounts that exist."""
    return [tuple(row) for row in await engine.fetch(ACCOUNT_LIMITS, list(account_ids))]


async def usage(connection: Any, account_id: UUID) -> Usage:
    """What the account has now."""
    counts = dict(await connection.fetchrow(USAGE, account_id))
    unfinished = await connection.fetch(UNFINISHED_BY_STATUS, account_id)
    finished = await connection.fetch(FINISHED_BY_STATUS, account_id)
    return Usage(
        **counts,
        unfinished={row["status"]: row["n"] for row in unfinished},
        finished={row["status"]: row["n"] for row in finished},
    )


async def insert_account(values: dict[str, Any]) -> bool:
    """Add an account; False when its id is taken."""
    return bool(await Account.insert(Account(**values)).on_conflict(action="DO NOTHING"))


async def account(account_id: UUID) -> AccountRow | None:
    return first_as(AccountRow, await Account.select().where(Account.account_id == account_id).first())


async def account_for_update(account_id: UUID) -> AccountRow | None:
    """The account, locked until the transaction ends."""
    query = Account.select().where(Account.account_id == account_id).lock_rows("UPDATE").first()
    return first_as(AccountRow, await query)


async def accounts(limit: int, offset: int) -> list[AccountRow]:
    """Accounts, the oldest first. For operators."""
    query = Account.select().order_by(Account.created_at, Account.account_id).limit(limit).offset(offset)
    return [AccountRow(**row) for row in await query]


async def update_account(account_id: UUID, changes: dict[Any, Any]) -> bool:
    """Set columns of an account; False when there is none."""
    query = Account.update(changes).where(Account.account_id == account_id).returning(Account.account_id)
    return bool(await query)
