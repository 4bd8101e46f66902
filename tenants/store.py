"""Every SQL statement of this package.

Plain rows go through Piccolo and join the scope that is open: `Database.scope(account)` for whatever a tenant asks for,
`Database.across_accounts()` for operators. Functions that take a connection say which role it needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from tenants.keys import ID_BYTES
from tenants.schemas import AccountRow, AuditRow, MemberRow, OutdatedToken, TokenRow, Usage, UserRow, WorkspaceRow
from tenants.tables import Account, ApiToken, AppUser, AuditLine, Membership, Workspace

R = TypeVar("R")

# A credential is presented before its account is known: this and its siblings run as the engine role.
CREDENTIAL = """
select t.account_id, t.id, t.name, t.hash, t.scopes, t.role, t.workspace_id, t.user_id, t.not_before, t.expires_at,
       t.disabled_at, t.last_used_at, a.disabled_at as account_disabled_at, u.disabled_at as user_disabled_at
from api_token t
join account a on a.account_id = t.account_id
left join app_user u on u.account_id = t.account_id and u.id = t.user_id
"""
CREDENTIAL_BY_HASH = CREDENTIAL + "where t.hash = any($1::bytea[]) limit 1"
CREDENTIAL_BY_ID = CREDENTIAL + "where t.account_id = $1 and t.id = $2"

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
WORKSPACE_OF_PERSON = """
select w.account_id from app_user u
join app_user other on other.person_id = u.person_id
join workspace w on w.account_id = other.account_id
where u.account_id = $1 and u.id = $2 and w.slug = $3 and w.slug <> 'default'
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

# `hash` moves to the current secret while the token is in use, so that a rotation can end. A token revoked or rolled
# meanwhile no longer has the old hash and is left alone; one that another process is writing can wait for its next use.
TOUCH_TOKENS = """
with n as materialized (
  select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bytea[], $5::bytea[])
    as n(account_id, id, at, old_hash, hash)
), t as materialized (
  select t.account_id, t.id, n.at, n.hash
  from api_token t join n on t.account_id = n.account_id and t.id = n.id and t.hash = n.old_hash
  for update of t skip locked
)
update api_token set last_used_at = greatest(api_token.last_used_at, t.at), hash = t.hash
from t where api_token.account_id = t.account_id and api_token.id = t.id
"""

INSERT_AUDIT_LINES = """
insert into audit_line (account_id, id, at, actor, action, target, address, request_id, detail)
select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[])
"""

ACCOUNT_LIMITS = "select account_id, profile, limits from account where account_id = any($1::uuid[])"

MEMBERS = """
select m.workspace_id, m.user_id, u.name, m.role, m.created_at
from membership m join app_user u on u.account_id = m.account_id and u.id = m.user_id
where m.account_id = $1 and m.workspace_id = $2
order by u.name
"""

PUT_MEMBER = """
insert into membership (account_id, workspace_id, user_id, role, created_at) values ($1, $2, $3, $4, $5)
on conflict (account_id, workspace_id, user_id) do update set role = excluded.role
"""

USER_BY_NAME = f"""
{USER} from app_user u where u.account_id = $1 and (u.name = $2 or lower(u.email) = lower($2))
order by u.name = $2 desc limit 1
"""

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

# Takes the key when it is free, was forgotten, or its holder never answered; the seed stays in the last case, so that
# what the first holder may have created is found again.
BEGIN_IDEMPOTENT = """
insert into idempotency_key as k (account_id, operation, key, request_hash, seed, created_at, held_until)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (account_id, operation, key) do update set
  request_hash = excluded.request_hash,
  seed = case when k.created_at < $8 then excluded.seed else k.seed end,
  created_at = case when k.created_at < $8 then excluded.created_at else k.created_at end,
  held_until = excluded.held_until, status = null, response = null
where k.created_at < $8
   or (k.status is null and k.held_until <= $6 and k.request_hash = excluded.request_hash)
returning k.seed
"""
IDEMPOTENT_ANSWER = """
select request_hash, status, response from idempotency_key where account_id = $1 and operation = $2 and key = $3
"""
FINISH_IDEMPOTENT = """
update idempotency_key set status = $5, response = $6
where account_id = $1 and operation = $2 and key = $3 and seed = $4 and status is null
"""
ABANDON_IDEMPOTENT = """
delete from idempotency_key
where account_id = $1 and operation = $2 and key = $3 and seed = $4 and held_until = $5 and status is null
"""
RELEASE_IDEMPOTENT = """
update idempotency_key set held_until = $5
where account_id = $1 and operation = $2 and key = $3 and seed = $4 and status is null
"""

# table -> (its time column). Rows go in bounded batches, oldest first, those another process deletes are skipped.
EXPIRING = {
    "idempotency_key": "created_at",
    "stream_ticket": "expires_at",
    "session": "expires_at",
    "revoked_login": "expires_at",
    "audit_line": "at",
}
DELETE_EXPIRED = """
delete from {table} where ctid = any(array(
  select ctid from {table} where {column} < $1 order by {column} limit $2 for update skip locked))
"""

# Held until the transaction ends: of two processes that start with different secrets, one sees the other's.
LOCK_KEYRING = "lock table keyring in share row exclusive mode"
KEYRING = "select id from keyring order by first_used_at desc"
DROP_FROM_KEYRING = "delete from keyring where id = any($1::bytea[])"
ADD_TO_KEYRING = "insert into keyring (id, first_used_at) values ($1, $2)"

# A token's hash begins with the fingerprint of the secret it was made with.
TOKENS_BY_KEY = """
select substr(hash, 1, $1) as key, count(*) as n from api_token where expires_at is null or expires_at > $2 group by 1
"""
TOKENS_OF_KEYS = """
select account_id, id, name, last_used_at from api_token
where substr(hash, 1, $1) = any($2::bytea[]) and (expires_at is null or expires_at > $3)
order by account_id, id limit $4
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Credential:
    """An API token as authentication needs it, with what disables it from outside."""

    account_id: UUID
    id: UUID
    name: str
    hash: bytes
    scopes: list[str]
    role: str
    workspace_id: UUID | None
    user_id: UUID | None
    not_before: datetime | None
    expires_at: datetime | None
    disabled_at: datetime | None
    last_used_at: datetime | None
    account_disabled_at: datetime | None
    user_disabled_at: datetime | None


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


# ---- engine role: what does not know or does not care about the account


async def credential_by_hash(engine: Any, hashes: Sequence[bytes]) -> Credential | None:
    """The token stored under one of `hashes`, whichever account it belongs to."""
    row = await engine.fetchrow(CREDENTIAL_BY_HASH, list(hashes))
    return Credential(**row) if row else None


async def credential_by_id(engine: Any, account_id: UUID, token_id: UUID) -> Credential | None:
    row = await engine.fetchrow(CREDENTIAL_BY_ID, account_id, token_id)
    return Credential(**row) if row else None


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


async def login(engine: Any, account_id: UUID, user_id: UUID, revocable: Sequence[UUID]) -> Login | None:
    """The user of a login; `revocable` are the ids under which the login may have been ended."""
    row = await engine.fetchrow(LOGIN, account_id, user_id, list(revocable))
    return _login(dict(row)) if row else None


async def same_person(engine: Any, account_id: UUID, user_id: UUID, other_account: UUID) -> UUID | None:
    """The user of `other_account` who is the same person."""
    return await engine.fetchval(SAME_PERSON, account_id, user_id, other_account)


async def account_of_workspace(engine: Any, account_id: UUID, user_id: UUID, slug: str) -> UUID | None:
    """The account with a workspace of that slug, of those in which the user is somebody."""
    return await engine.fetchval(WORKSPACE_OF_PERSON, account_id, user_id, slug)


async def link_user(
    engine: Any, account_id: UUID, user_id: UUID, to_account: UUID, to_user: UUID, now: datetime
) -> bool:
    """Make a user the same person as another; False when there is no such user, or that person is here already."""
    return await engine.fetchval(LINK_USER, account_id, user_id, to_account, to_user, now) is not None


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


async def touch_tokens(engine: Any, uses: Sequence[tuple[UUID, UUID, datetime, bytes, bytes]]) -> None:
    """Record uses: (account, token, when, hash it was found under, hash it should have)."""
    await engine.execute(TOUCH_TOKENS, *(list(column) for column in zip(*uses, strict=True)))


async def account_limits(engine: Any, account_ids: Sequence[UUID]) -> list[tuple[UUID, str, str]]:
    """Id, profile and overrides (JSON text) of those of the accounts that exist."""
    return [tuple(row) for row in await engine.fetch(ACCOUNT_LIMITS, list(account_ids))]


async def delete_expired(engine: Any, table: str, before: datetime, limit: int) -> int:
    """Delete up to `limit` rows of an `EXPIRING` table that are older than `before`; how many were deleted."""
    statement = DELETE_EXPIRED.format(table=table, column=EXPIRING[table])
    return int((await engine.execute(statement, before, limit)).split()[-1])


async def keyring(engine: Any) -> list[bytes]:
    """Fingerprints of the secrets this database was used with, the one that is current last taken first."""
    return [row["id"] for row in await engine.fetch(KEYRING)]


async def lock_keyring(engine: Any) -> None:
    """Keep others from reading and changing it in turn with us, until the transaction ends."""
    await engine.execute(LOCK_KEYRING)


async def drop_from_keyring(engine: Any, key_ids: Sequence[bytes]) -> None:
    await engine.execute(DROP_FROM_KEYRING, list(key_ids))


async def add_to_keyring(engine: Any, key_id: bytes, now: datetime) -> None:
    await engine.execute(ADD_TO_KEYRING, key_id, now)


async def tokens_by_key(engine: Any, now: datetime) -> dict[bytes, int]:
    """How many tokens that have not expired need which secret, by its fingerprint."""
    return {row["key"]: row["n"] for row in await engine.fetch(TOKENS_BY_KEY, ID_BYTES, now)}


async def tokens_of_keys(engine: Any, key_ids: Sequence[bytes], now: datetime, limit: int) -> list[OutdatedToken]:
    """Tokens that need one of these secrets and have not expired."""
    rows = await engine.fetch(TOKENS_OF_KEYS, ID_BYTES, list(key_ids), now, limit)
    return [OutdatedToken(**row) for row in rows]


# ---- any connection


async def insert_audit_lines(connection: Any, lines: Sequence[tuple[Any, ...]]) -> None:
    """Write audit lines (account, id, at, actor, action, target, address, request id, detail), any accounts'."""
    await connection.execute(INSERT_AUDIT_LINES, *(list(column) for column in zip(*lines, strict=True)))


async def begin_idempotent(
    connection: Any,
    account_id: UUID,
    operation: str,
    key: str,
    request_hash: bytes,
    *,
    seed: UUID,
    now: datetime,
    held_until: datetime,
    forgotten: datetime,
) -> UUID | None:
    """Take an idempotency key: the seed to use, or None when somebody else has it or its answer is stored."""
    return await connection.fetchval(
        BEGIN_IDEMPOTENT, account_id, operation, key, request_hash, seed, now, held_until, forgotten
    )


async def idempotent_answer(
    connection: Any, account_id: UUID, operation: str, key: str
) -> tuple[bytes, int | None, str | None] | None:
    """(request hash, status, response) stored for a key; status None while it is in flight."""
    row = await connection.fetchrow(IDEMPOTENT_ANSWER, account_id, operation, key)
    return (row["request_hash"], row["status"], row["response"]) if row else None


async def finish_idempotent(
    connection: Any, account_id: UUID, operation: str, key: str, seed: UUID, status: int, response: str
) -> None:
    await connection.execute(FINISH_IDEMPOTENT, account_id, operation, key, seed, status, response)


async def abandon_idempotent(
    connection: Any, account_id: UUID, operation: str, key: str, seed: UUID, held_until: datetime | None
) -> None:
    """Give a key back as if it had never been used, by who holds it until then."""
    await connection.execute(ABANDON_IDEMPOTENT, account_id, operation, key, seed, held_until)


async def release_idempotent(
    connection: Any, account_id: UUID, operation: str, key: str, seed: UUID, now: datetime
) -> None:
    """Let the next request of a key take over at once, with the same seed."""
    await connection.execute(RELEASE_IDEMPOTENT, account_id, operation, key, seed, now)


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


# ---- plain rows of one account; the scope of that account (or an operator's) is open


def _first(kind: type[R], row: dict[str, Any] | None) -> R | None:
    return None if row is None else kind(**row)


async def insert_account(values: dict[str, Any]) -> bool:
    """Add an account; False when its id is taken."""
    return bool(await Account.insert(Account(**values)).on_conflict(action="DO NOTHING"))


async def account(account_id: UUID) -> AccountRow | None:
    return _first(AccountRow, await Account.select().where(Account.account_id == account_id).first())


async def account_for_update(account_id: UUID) -> AccountRow | None:
    """The account, locked until the transaction ends."""
    query = Account.select().where(Account.account_id == account_id).lock_rows("UPDATE").first()
    return _first(AccountRow, await query)


async def accounts(limit: int, offset: int) -> list[AccountRow]:
    """Accounts, the oldest first. For operators."""
    query = Account.select().order_by(Account.created_at, Account.account_id).limit(limit).offset(offset)
    return [AccountRow(**row) for row in await query]


async def update_account(account_id: UUID, changes: dict[Any, Any]) -> bool:
    """Set columns of an account; False when there is none."""
    query = Account.update(changes).where(Account.account_id == account_id).returning(Account.account_id)
    return bool(await query)


async def insert_workspace(values: dict[str, Any]) -> bool:
    """Add a workspace; False when its slug is taken."""
    return bool(await Workspace.insert(Workspace(**values)).on_conflict(action="DO NOTHING"))


async def workspaces(account_id: UUID) -> list[WorkspaceRow]:
    query = Workspace.select().where(Workspace.account_id == account_id).order_by(Workspace.slug)
    return [WorkspaceRow(**row) for row in await query]


async def workspace_by_slug(account_id: UUID, slug: str) -> WorkspaceRow | None:
    query = Workspace.select().where(Workspace.account_id == account_id, Workspace.slug == slug).first()
    return _first(WorkspaceRow, await query)


async def workspace_by_id(account_id: UUID, workspace_id: UUID) -> WorkspaceRow | None:
    query = Workspace.select().where(Workspace.account_id == account_id, Workspace.id == workspace_id).first()
    return _first(WorkspaceRow, await query)


async def put_member(
    connection: Any, account_id: UUID, workspace_id: UUID, user_id: UUID, role: str, now: datetime
) -> None:
    """Make a user a member of a workspace, or change the role of one."""
    await connection.execute(PUT_MEMBER, account_id, workspace_id, user_id, role, now)


async def members(connection: Any, account_id: UUID, workspace_id: UUID) -> list[MemberRow]:
    return [MemberRow(**row) for row in await connection.fetch(MEMBERS, account_id, workspace_id)]


async def member_role(account_id: UUID, workspace_id: UUID, user_id: UUID) -> str | None:
    """The user's role in the workspace; None for a user who is no member."""
    of_user = (Membership.account_id == account_id) & (Membership.user_id == user_id)
    row = await Membership.select(Membership.role).where(of_user, Membership.workspace_id == workspace_id).first()
    return row["role"] if row else None


async def delete_member(account_id: UUID, workspace_id: UUID, user_id: UUID) -> bool:
    """Take a user out of a workspace; False for one who was no member."""
    of_user = (Membership.account_id == account_id) & (Membership.user_id == user_id)
    query = Membership.delete().where(of_user, Membership.workspace_id == workspace_id).returning(Membership.role)
    return bool(await query)


async def insert_user(values: dict[str, Any]) -> bool:
    """Add a user; False when the name or the e-mail address is taken."""
    return bool(await AppUser.insert(AppUser(**values)).on_conflict(action="DO NOTHING"))


async def user_by_id(account_id: UUID, user_id: UUID) -> UserRow | None:
    return _first(
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


TOKEN_COLUMNS = [column for column in ApiToken.all_columns() if column._meta.name != "hash"]


async def insert_token(values: dict[str, Any]) -> bool:
    """Add a token; False when its hash is taken, in this account or another."""
    return bool(await ApiToken.insert(ApiToken(**values)).on_conflict(action="DO NOTHING"))


async def token_by_id(account_id: UUID, token_id: UUID) -> TokenRow | None:
    query = ApiToken.select(*TOKEN_COLUMNS).where(ApiToken.account_id == account_id, ApiToken.id == token_id).first()
    return _first(TokenRow, await query)


async def tokens(
    account_id: UUID,
    *,
    workspace_id: UUID | None,
    live_at: datetime | None,
    ascending: bool,
    limit: int,
    offset: int,
) -> tuple[list[TokenRow], int]:
    """A page of tokens by age and how many there are; `live_at` leaves out those that had expired then."""
    where = ApiToken.account_id == account_id
    if workspace_id is not None:
        where = where & (ApiToken.workspace_id == workspace_id)
    if live_at is not None:
        where = where & (ApiToken.expires_at.is_null() | (ApiToken.expires_at > live_at))
    query = ApiToken.select(*TOKEN_COLUMNS).where(where).order_by(ApiToken.created_at, ApiToken.id, ascending=ascending)
    rows = await query.limit(limit).offset(offset)
    return [TokenRow(**row) for row in rows], await ApiToken.count().where(where)


async def count_tokens(account_id: UUID) -> int:
    return await ApiToken.count().where(ApiToken.account_id == account_id)


async def update_token(account_id: UUID, token_id: UUID, changes: dict[Any, Any]) -> bool:
    """Set columns of a token; False when there is none."""
    query = ApiToken.update(changes).where(ApiToken.account_id == account_id, ApiToken.id == token_id)
    return bool(await query.returning(ApiToken.id))


async def delete_token(account_id: UUID, token_id: UUID) -> bool:
    query = ApiToken.delete().where(ApiToken.account_id == account_id, ApiToken.id == token_id)
    return bool(await query.returning(ApiToken.id))


async def audit_lines(account_id: UUID, limit: int, before: UUID | None = None) -> list[AuditRow]:
    """Lines of the account's audit log, the newest first; `before` is the id of the last line already seen."""
    query = AuditLine.select().where(AuditLine.account_id == account_id)
    if before is not None:
        query = query.where(AuditLine.id < before)
    return [AuditRow(**row) for row in await query.order_by(AuditLine.id, ascending=False).limit(limit)]
