"""Logins by password, sessions in a browser, and tickets for streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from tenants.schemas import UserRow
from tenants.store.users import USER

_LOGIN = f"""
{USER}, a.disabled_at is not null as account_disabled,
  (select max(p.logins_since) from app_user p where p.person_id = u.person_id) as person_logins_since
"""

LOGIN = f"""
{_LOGIN}, exists (select from revoked_login r where r.id = any($3::uuid[])) as revoked
from app_user u join account a on a.account_id = u.account_id
where u.account_id = $1 and u.id = $2
"""

SAME_PERSON = """
select other.id from app_user u join app_user other on other.person_id = u.person_id
where u.account_id = $1 and u.id = $2 and other.account_id = $3
"""

REVOKE_LOGIN = """
insert into revoked_login (account_id, id, expires_at) values ($1, $2, $3)
on conflict (account_id, id) do nothing returning id
"""

INSERT_SESSION = """
insert into session (account_id, id, user_id, hash, created_at, last_used_at, expires_at)
values ($1, $2, $3, $4, $5, $5, $6)
"""

SESSION_BY_HASH = f"""
{_LOGIN}, false as revoked, s.id as session_id, s.last_used_at, s.expires_at
from session s
join app_user u on u.account_id = s.account_id and u.id = s.user_id
join account a on a.account_id = s.account_id
where s.hash = any($1::bytea[])
"""

TOUCH_SESSION = "update session set last_used_at = $3 where account_id = $1 and id = $2 and last_used_at < $3"

DELETE_SESSION = "delete from session where hash = any($1::bytea[]) returning account_id, id"

INSERT_TICKET = """
insert into stream_ticket (account_id, id, hash, path, token_id, user_id, login_id, login_expires_at, workspace_id,
                           created_at, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

TAKE_TICKET = """
delete from stream_ticket where hash = any($1::bytea[])
returning account_id, path, token_id, user_id, login_id, login_expires_at, workspace_id, expires_at
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Login:
    """The user of a login as authentication needs it."""

    user: UserRow
    account_disabled: bool
    revoked: bool
    logins_since: datetime | None
    """Of all users who are the same person, the latest."""


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A session and its user."""

    id: UUID
    last_used_at: datetime
    expires_at: datetime
    login: Login


@dataclasses.dataclass(frozen=True, slots=True)
class Ticket:
    """A stream ticket that was taken: whose it was, and for what."""

    account_id: UUID
    path: str
    token_id: UUID | None
    user_id: UUID | None
    login_id: UUID | None
    login_expires_at: datetime | None
    workspace_id: UUID | None
    expires_at: datetime


def _login(row: dict[str, Any]) -> Login:
    account_disabled, revoked = row.pop("account_disabled"), row.pop("revoked")
    logins_since = row.pop("person_logins_since")
    return Login(UserRow(**row), account_disabled, revoked, logins_since)


async def login(engine: Any, account_id: UUID, user_id: UUID, revocable: Sequence[UUID]) -> Login | None:
    """The user of a login; `revocable` are the ids under which the login may have been ended."""
    row = await engine.fetchrow(LOGIN, account_id, user_id, list(revocable))
    return _login(dict(row)) if row else None


async def same_person(engine: Any, account_id: UUID, user_id: UUID, other_account: UUID) -> UUID | None:
    """The user of `other_account` who is the same person."""
    return await engine.fetchval(SAME_PERSON, account_id, user_id, other_account)


async def revoke_login(engine: Any, account_id: UUID, login_id: UUID, expires_at: datetime) -> bool:
    """Note that a login, or one JWT, is over; False when it was already."""
    return await engine.fetchval(REVOKE_LOGIN, account_id, login_id, expires_at) is not None


async def insert_session(
    engine: Any, account_id: UUID, session_id: UUID, user_id: UUID, hash_: bytes, now: datetime, expires_at: datetime
) -> None:
    await engine.execute(INSERT_SESSION, account_id, session_id, user_id, hash_, now, expires_at)


async def session_by_hash(engine: Any, hashes: Sequence[bytes]) -> Session | None:
    """The session stored under one of `hashes`, whichever account it belongs to."""
    row = await engine.fetchrow(SESSION_BY_HASH, list(hashes))
    if row is None:
        return None
    values = dict(row)
    own = [values.pop(name) for name in ("session_id", "last_used_at", "expires_at")]
    return Session(*own, login=_login(values))


async def touch_session(engine: Any, account_id: UUID, session_id: UUID, now: datetime) -> None:
    await engine.execute(TOUCH_SESSION, account_id, session_id, now)


async def delete_session(engine: Any, hashes: Sequence[bytes]) -> tuple[UUID, UUID] | None:
    """Take a session away: its account and id."""
    row = await engine.fetchrow(DELETE_SESSION, list(hashes))
    return (row["account_id"], row["id"]) if row else None


async def insert_ticket(engine: Any, ticket_id: UUID, hash_: bytes, ticket: Ticket, now: datetime) -> None:
    await engine.execute(
        INSERT_TICKET,
        ticket.account_id,
        ticket_id,
        hash_,
        ticket.path,
        ticket.token_id,
        ticket.user_id,
        ticket.login_id,
        ticket.login_expires_at,
        ticket.workspace_id,
        now,
        ticket.expires_at,
    )


async def take_ticket(engine: Any, hashes: Sequence[bytes]) -> Ticket | None:
    """The ticket stored under one of `hashes`, which is gone with this."""
    row = await engine.fetchrow(TAKE_TICKET, list(hashes))
    return Ticket(**row) if row else None
