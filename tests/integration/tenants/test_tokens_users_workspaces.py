"""Tokens, users and workspaces of an account."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from uuid import UUID

import pytest
from argon2 import PasswordHasher

from app.errors import InvalidRequest, NotAllowed, NotAuthenticated
from tenants import tokens as tokens_module
from tenants.auth import SCOPES, Caller, expand
from tenants.errors import AlreadyExists, LimitReached, TokenNotFound, UserNotFound, WorkspaceNotFound
from tenants.tokens import TokenGrant
from tenants.users import _Passwords

GRANT = TokenGrant(name="ci", scopes=["workflows:write", "executions:read"])


# ---- tokens


async def test_a_token_is_replaced_as_a_whole(tenants, boss, make_token, clock):
    token = await make_token("tokens:read", expires_at=clock.now() + timedelta(days=1))
    clock.advance(5)
    row = await tenants.tokens.replace(boss, token.id, dataclasses.replace(GRANT, disabled=True))
    assert (row.name, row.scopes, row.role) == ("ci", ["executions:read", "workflows:write"], "workflow-designer")
    assert (row.expires_at, row.status(clock.now())) == (None, "disabled")
    assert (row.modified_at, row.created_at) == (clock.now(), clock.now() - timedelta(seconds=5))
    with pytest.raises(NotAuthenticated, match="disabled"):
        await tenants.authenticate(token.text)
    await tenants.tokens.replace(boss, token.id, GRANT)
    assert (await tenants.authenticate(token.text)).scopes == expand(GRANT.scopes)


async def test_tokens_are_listed_newest_first_and_expired_ones_when_asked_for(tenants, boss, make_token, clock):
    ids = []
    for index in range(5):
        expires = clock.now() + timedelta(seconds=2.5) if index == 1 else None
        ids.append((await make_token(expires_at=expires)).id)
        clock.advance(1)
    rows, total = await tenants.tokens.page(boss, limit=3)
    assert ([row.id for row in rows], total) == ([ids[4], ids[3], ids[2]], 4)
    rows, total = await tenants.tokens.page(boss, limit=3, offset=3, include_expired=True)
    assert ([row.id for row in rows], total) == ([ids[1], ids[0]], 5)
    rows, _ = await tenants.tokens.page(boss, limit=2, ascending=True, include_expired=True)
    assert [row.id for row in rows] == ids[:2]
    assert await tenants.tokens.page(boss, limit=3, offset=9) == ([], 4)


async def test_nobody_grants_or_takes_over_what_they_do_not_hold(tenants, boss, make_token):
    powerful = await make_token()
    minor = await tenants.authenticate((await make_token("tokens:write", "workflows:read")).text)
    with pytest.raises(NotAllowed, match="cannot grant executions:read, workflows:write"):
        await tenants.tokens.create(minor, GRANT)
    with pytest.raises(NotAllowed, match="only an admin can grant the role admin"):
        await tenants.tokens.create(minor, TokenGrant(name="x", scopes=["workflows:read"], role="admin"))
    with pytest.raises(NotAllowed, match="this token holds"):
        await tenants.tokens.roll(minor, powerful.id)
    with pytest.raises(NotAllowed, match="this token holds"):
        await tenants.tokens.replace(minor, powerful.id, TokenGrant(name="x", scopes=["workflows:read"]))
    titled = await make_token("workflows:read", role="admin")
    with pytest.raises(NotAllowed, match="has the role admin"):
        await tenants.tokens.roll(minor, titled.id)
    await tenants.authenticate(powerful.text)
    row, _ = await tenants.tokens.create(minor, TokenGrant(name="x", scopes=["workflows:read"]))
    assert await tenants.tokens.roll(minor, row.id)


async def test_a_restricted_caller_sees_and_makes_tokens_of_its_workspace_only(tenants, boss, make_token):
    workspace = await tenants.workspaces.create(boss, "team")
    other = await make_token()
    caller = await tenants.authenticate((await make_token(workspace_id=workspace.id)).text)
    row, text = await tenants.tokens.create(caller, GRANT)
    assert row.workspace_id == workspace.id
    assert (await tenants.authenticate(text)).workspace_id == workspace.id
    rows, total = await tenants.tokens.page(caller, limit=10)
    assert {each.workspace_id for each in rows} == {workspace.id}
    assert total == 2
    for call in (
        tenants.tokens.get(caller, other.id),
        tenants.tokens.roll(caller, other.id),
        tenants.tokens.revoke(caller, other.id),
        tenants.tokens.replace(caller, other.id, GRANT),
    ):
        with pytest.raises(TokenNotFound):
            await call


async def test_another_accounts_token_is_not_there(tenants, boss, stranger, make_token):
    theirs = await make_token(caller=stranger)
    for call in (
        tenants.tokens.get(boss, theirs.id),
        tenants.tokens.roll(boss, theirs.id),
        tenants.tokens.revoke(boss, theirs.id),
        tenants.tokens.replace(boss, theirs.id, GRANT),
    ):
        with pytest.raises(TokenNotFound):
            await call
    await tenants.authenticate(theirs.text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name must be"),
        ({"name": "x" * 121}, "name must be"),
        ({"name": "a\x00"}, "name must be"),
        ({"scopes": []}, "scopes must not be empty"),
        ({"scopes": ["workflows:fly"]}, "unknown scope 'workflows:fly'"),
        ({"role": "king"}, "role must be one of"),
    ],
)
async def test_a_grant_that_cannot_be_is_refused(tenants, boss, changes, message):
    with pytest.raises(InvalidRequest, match=message):
        await tenants.tokens.create(boss, dataclasses.replace(GRANT, **changes))


async def test_times_of_a_grant_must_make_sense(tenants, boss, clock):
    now = clock.now()
    with pytest.raises(InvalidRequest, match=r"expires_on must be in the future; it is 2026-01-01T00:00:00.000Z now"):
        await tenants.tokens.create(boss, dataclasses.replace(GRANT, expires_at=now))
    later = now + timedelta(hours=1)
    with pytest.raises(InvalidRequest, match="not_before must be before expires_on"):
        await tenants.tokens.create(boss, dataclasses.replace(GRANT, expires_at=later, not_before=later))


async def test_an_account_has_so_many_tokens_and_no_more(tenants, boss, make_token, monkeypatch):
    monkeypatch.setattr(tokens_module, "TOKENS_PER_ACCOUNT", 2)
    await make_token()
    await make_token()
    with pytest.raises(LimitReached, match="at most 2 tokens"):
        await make_token()


async def test_so_many_tokens_also_when_made_at_the_same_time(tenants, boss, make_token, monkeypatch):
    monkeypatch.setattr(tokens_module, "TOKENS_PER_ACCOUNT", 2)
    made = await asyncio.gather(*(make_token() for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in made].count(LimitReached) == 3
    assert (await tenants.tokens.page(boss, limit=9))[1] == 2


async def test_a_token_is_given_to_a_user_of_its_account(tenants, boss, stranger, make_token):
    token, theirs = await make_token(), await make_token(caller=stranger)
    ada = await tenants.users.create(boss, "ada", role="viewer")
    await tenants.authenticate(token.text)
    await tenants.tokens.give(boss, token.id, ada.id)
    assert (await tenants.authenticate(token.text)).user_id == ada.id
    with pytest.raises(UserNotFound):
        await tenants.tokens.give(stranger, theirs.id, ada.id)
    with pytest.raises(TokenNotFound):
        await tenants.tokens.give(boss, theirs.id, ada.id)
    assert (await tenants.accounts.audit_lines(boss.account_id, limit=1))[0].action == "token.give"


# ---- users


async def test_a_user_logs_in_with_name_or_address(tenants, boss):
    user = await tenants.users.create(boss, "Ada", role="admin", email="Ada@Example.org", password="correct horse")
    assert (user.disabled_at, user.role) == (None, "admin")
    for name in ("Ada", "Ada@Example.org", "ada@example.ORG"):
        assert (await tenants.users.check_password(boss.account_id, name, "correct horse")).id == user.id
    assert (await tenants.users.find(boss.account_id, "ada@example.org")).id == user.id
    assert (await tenants.users.find(boss.account_id, user.id.hex)).id == user.id
    assert [row.name for row in await tenants.users.all(boss.account_id)] == ["Ada"]


async def test_a_login_that_fails_never_says_why(tenants, boss, stranger):
    user = await tenants.users.create(boss, "ada", role="viewer", password="correct horse")
    await tenants.users.create(boss, "bob", role="viewer")
    attempts = [
        (boss, "ada", "wrong horse"),
        (boss, "ada", ""),
        (boss, "ada", "\ud800"),
        (boss, "bob", ""),
        (boss, "nobody", "correct horse"),
        (boss, "a\x00", "correct horse"),
        (stranger, "ada", "correct horse"),
    ]
    said = set()
    for account, name, password in attempts:
        with pytest.raises(NotAuthenticated) as caught:
            await tenants.users.check_password(account.account_id, name, password)
        said.add(caught.value.message)
    await tenants.users.disable(boss, user.id)
    with pytest.raises(NotAuthenticated) as caught:
        await tenants.users.check_password(boss.account_id, "ada", "correct horse")
    assert {caught.value.message} == said


async def test_passwords_are_argon2_and_replaced(tenants, boss, admin):
    user = await tenants.users.create(boss, "ada", role="viewer", password="correct horse")
    assert (await admin.fetchval("select password_hash from app_user")).startswith("$argon2id$")
    await tenants.users.set_password(boss, user.id, "battery staple")
    await tenants.users.check_password(boss.account_id, "ada", "battery staple")
    with pytest.raises(NotAuthenticated):
        await tenants.users.check_password(boss.account_id, "ada", "correct horse")
    lines = await tenants.accounts.audit_lines(boss.account_id)
    assert "battery" not in str(lines)


async def test_a_hash_takes_what_rfc_9106_recommends(monkeypatch):
    """Its second choice, for machines without much memory: 64 MiB, three passes, four lanes."""
    monkeypatch.setattr("tenants.users.PasswordHasher", PasswordHasher)
    assert (await _Passwords().hash("correct horse")).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


async def test_an_old_hash_is_raised_at_the_next_login(tenants, boss, admin):
    user = await tenants.users.create(boss, "ada", role="viewer", password="correct horse")
    old = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash("correct horse")
    await admin.execute("update app_user set password_hash = $1", old)
    assert (await tenants.users.check_password(boss.account_id, "ada", "correct horse")).id == user.id
    assert await admin.fetchval("select password_hash from app_user") != old
    await tenants.users.check_password(boss.account_id, "ada", "correct horse")


async def test_names_and_addresses_are_unique_in_the_account(tenants, boss, stranger):
    await tenants.users.create(boss, "ada", role="viewer", email="ada@example.org")
    for name, email in (("ada", None), ("other", "ADA@example.org")):
        with pytest.raises(AlreadyExists):
            await tenants.users.create(boss, name, role="viewer", email=email)
    await tenants.users.create(stranger, "ada", role="viewer", email="ada@example.org")


@pytest.mark.parametrize(
    ("name", "role", "email", "password", "message"),
    [
        ("", "viewer", None, None, "name must be"),
        ("a\nb", "viewer", None, None, "name must be"),
        ("ada", "boss", None, None, "role must be one of admin, workflow-designer"),
        ("ada", "viewer", "nowhere", None, "email must be"),
        ("ada", "viewer", None, "short", "password must be a text of 8 to 1024"),
    ],
)
async def test_a_user_that_cannot_be_is_refused(tenants, boss, name, role, email, password, message):
    with pytest.raises(InvalidRequest, match=message):
        await tenants.users.create(boss, name, role=role, email=email, password=password)


async def test_another_accounts_user_is_not_there(tenants, boss, stranger):
    theirs = await tenants.users.create(stranger, "ada", role="viewer")
    for call in (
        tenants.users.by_id(boss.account_id, theirs.id),
        tenants.users.find(boss.account_id, "ada"),
        tenants.users.find(boss.account_id, theirs.id.hex),
        tenants.users.disable(boss, theirs.id),
        tenants.users.set_role(boss, theirs.id, "admin"),
        tenants.users.set_password(boss, theirs.id, "correct horse"),
    ):
        with pytest.raises(UserNotFound):
            await call
    await tenants.users.set_role(stranger, theirs.id, "operator")
    assert (await tenants.users.by_id(stranger.account_id, theirs.id)).role == "operator"


# ---- workspaces


async def test_a_workspace_is_found_by_slug_and_id(tenants, boss, stranger):
    team = await tenants.workspaces.create(boss, "team-1", "The team")
    assert [row.slug for row in await tenants.workspaces.all(boss.account_id)] == ["default", "team-1"]
    for spelling in ("team-1", team.id.hex, str(team.id)):
        assert await tenants.workspaces.get(boss.account_id, spelling) == team
        with pytest.raises(WorkspaceNotFound):
            await tenants.workspaces.get(stranger.account_id, spelling)
    assert (await tenants.workspaces.get(stranger.account_id, "default")).account_id == stranger.account_id
    with pytest.raises(AlreadyExists):
        await tenants.workspaces.create(boss, "team-1")
    with pytest.raises(AlreadyExists, match="unique in a deployment"):
        await tenants.workspaces.create(stranger, "team-1")


@pytest.mark.parametrize("slug", ["", "A", "-a", "a_b", "new", "settings", "a\x00", "x" * 65])
async def test_a_slug_that_cannot_be_is_refused(tenants, boss, slug):
    with pytest.raises(InvalidRequest, match="slug must"):
        await tenants.workspaces.create(boss, slug)
    with pytest.raises(WorkspaceNotFound):
        await tenants.workspaces.get(boss.account_id, slug)


async def test_members_have_roles(tenants, boss):
    team = await tenants.workspaces.create(boss, "team")
    ada, bob = [await tenants.users.create(boss, name, role="operator") for name in ("ada", "bob")]
    await tenants.workspaces.add_member(boss, team, ada.id)
    await tenants.workspaces.add_member(boss, team, bob.id, "admin")
    await tenants.workspaces.add_member(boss, team, ada.id, "admin")
    members = await tenants.workspaces.members(boss.account_id, team)
    assert [(member.name, member.role) for member in members] == [("ada", "admin"), ("bob", "admin")]
    await tenants.workspaces.remove_member(boss, team, bob.id)
    with pytest.raises(UserNotFound, match="no member"):
        await tenants.workspaces.remove_member(boss, team, bob.id)
    with pytest.raises(UserNotFound, match="no such user"):
        await tenants.workspaces.add_member(boss, team, UUID(int=9))
    with pytest.raises(InvalidRequest, match="role must be admin or member"):
        await tenants.workspaces.add_member(boss, team, ada.id, "owner")
    assert await tenants.workspaces.role_of(as_user(boss, ada.id), team) == "admin"
    assert await tenants.workspaces.role_of(as_user(boss, bob.id), team) is None


async def test_who_counts_as_a_member(tenants, boss):
    team, other = [await tenants.workspaces.create(boss, slug) for slug in ("team", "other")]
    user = await tenants.users.create(boss, "ada", role="operator")
    role_of = tenants.workspaces.role_of
    token = Caller(boss.account_id, UUID(int=1), None, "t", expand(["executions:write"]), "operator")
    assert await role_of(token, team) == "member"
    assert await role_of(dataclasses.replace(token, scopes=SCOPES), team) == "admin"
    restricted = dataclasses.replace(token, workspace_id=team.id)
    assert await role_of(restricted, team) == "member"
    assert await role_of(restricted, other) is None
    assert (await tenants.workspaces.visible(restricted, "team")).id == team.id
    with pytest.raises(WorkspaceNotFound):
        await tenants.workspaces.visible(restricted, "other")
    person = as_user(boss, user.id)
    assert await role_of(person, team) is None
    await tenants.workspaces.add_member(boss, team, user.id)
    assert await role_of(person, team) == "member"
    assert await role_of(dataclasses.replace(person, role="admin", scopes=SCOPES), other) == "admin"


def as_user(boss: Caller, user_id: UUID) -> Caller:
    return Caller(boss.account_id, None, user_id, "u", expand(["executions:write"]), "operator")
