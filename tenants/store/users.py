"""Users, and who of them are the same person."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from tenants.schemas import UserRow
from tenants.store.rows import first_as
from tenants.tables import AppUser

USER = """
select u.account_id, u.id, u.person_id, u.name, u.email, u.password_hash, u.logins_since, u.role, u.disabled_at,
       u.created_at, u.modified_at
"""

# A user without a password of their own uses the one of the same person in another account. The name counts before the
# address and the older user before the younger; the password is held against one user only.
USER_TO_LOG_IN = f"""
{USER}, coalesce(u.password_hash, p.password_hash) as accepted_hash
from app_user u
join account a on a.account_id = u.account_id and a.disabled_at is null
left join lateral (
  select p.password_hash from app_user p
  where p.person_id = u.person_id and p.password_hash is not null and p.disabled_at is null
  order by p.created_at, p.account_id limit 1
) p on u.password_hash is null
where (u.name = $1 or lower(u.email) = lower($1)) and u.disabled_at is null
  and coalesce(u.password_hash, p.password_hash) is not null
  and ($2::uuid is null or u.account_id = $2) and ($3::text is null or a.name = $3)
order by u.name = $1 desc, u.created_at, u.account_id limit 1
"""

LINK_USER = """
update app_user set person_id = (select p.person_id from app_user p where p.account_id = $3 and p.id = $4),
                    modified_at = $5
where account_id = $1 and id = $2
  and exists (select from app_user p where p.account_id = $3 and p.id = $4)
  and not exists (
    select from app_user p join app_user mine on mine.person_id = p.person_id
    where p.account_id = $3 and p.id = $4 and mine.account_id = $1 and mine.id <> $2)
returning person_id
"""

USER_BY_NAME = f"""
{USER} from app_user u where u.account_id = $1 and (u.name = $2 or lower(u.email) = lower($2))
order by u.name = $2 desc limit 1
"""


async def user_to_log_in(
    engine: Any, name: str, account_id: UUID | None, account_name: str | None
) -> tuple[UserRow, str] | None:
    """The user a name or an e-mail address means, of the accounts that fit, and the hash their password must have."""
    row = await engine.fetchrow(USER_TO_LOG_IN, name, account_id, account_name)
    if row is None:
        return None
    values = dict(row)
    accepted = values.pop("accepted_hash")
    return UserRow(**values), accepted


async def link_user(
    engine: Any, account_id: UUID, user_id: UUID, to_account: UUID, to_user: UUID, now: datetime
) -> bool:
    """Make a user the same person as another; False when there is no such user, or that person is here already."""
    return await engine.fetchval(LINK_USER, account_id, user_id, to_account, to_user, now) is not None


async def insert_user(values: dict[str, Any]) -> bool:
    """Add a user; False when the name or the e-mail address is taken."""
    return bool(await AppUser.insert(AppUser(**values)).on_conflict(action="DO NOTHING"))


async def user_by_id(account_id: UUID, user_id: UUID) -> UserRow | None:
    return first_as(
        UserRow, await AppUser.select().where(AppUser.account_id == account_id, AppUser.id == user_id).first()
    )


async def user_by_name(connection: Any, account_id: UUID, name: str) -> UserRow | None:
    """The user of that name, or else the one with that e-mail address (in any case)."""
    row = await connection.fetchrow(USER_BY_NAME, account_id, name)
    return UserRow(**row) if row else None


async def users(account_id: UUID) -> list[UserRow]:
    query = AppUser.select().where(AppUser.account_id == account_id).order_by(AppUser.name)
    return [UserRow(**row) for row in await query]


async def update_user(account_id: UUID, user_id: UUID, changes: dict[Any, Any]) -> bool:
    """Set columns of a user; False when there is none."""
    query = AppUser.update(changes).where(AppUser.account_id == account_id, AppUser.id == user_id)
    return bool(await query.returning(AppUser.id))
