"""People at the door: passwords, JWTs, sessions, tickets, and how soon a change counts."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from app.errors import InvalidRequest, NoRoute, NotAllowed, NotAuthenticated
from tenants import claims
from tenants.auth import ROLE_SCOPES, SCOPES, expand
from tenants.errors import (
    AlreadyExists,
    LoginRateExceeded,
    NotAMember,
    UserNotFound,
    WebhookTestRateExceeded,
    WorkspaceNotFound,
    WrongLogin,
)
from tenants.logins import REFRESH_LIFETIME
from tenants.service import TenantService
from tenants.sessions import COOKIE, cookie, cookie_in
from tenants.store import logins as store

HOUR = timedelta(hours=1)
PASSWORD = "correct horse"


@pytest.fixture
async def elsewhere(db, clock, ids, settings):
    """Another process on the same database."""
    service = TenantService(db, clock, ids, settings)
    yield service
    await service.close()


@pytest.fixture
async def ada(tenants, boss):
    """A user of our account who can log in."""
    return await tenants.users.create(boss, "ada", role="operator", email="ada@example.org", password=PASSWORD)


@pytest.fixture
async def person(tenants, ada, clock):
    """Ada, logged in a second ago."""
    found = await tenants.logins.log_in("ada", PASSWORD)
    clock.advance(1)
    return found


async def refused(call) -> None:
    with pytest.raises(NotAuthenticated):
        await call


# ---- logging in


async def test_a_login_needs_no_account_and_may_name_one(tenants, boss, stranger, ada, clock):
    clock.advance(1)
    theirs = await tenants.users.create(stranger, "ada", role="viewer", password="battery staple")
    for account in (None, boss.account_id.hex, "ours"):
        assert (await tenants.logins.log_in("ADA@example.org", PASSWORD, account=account)).user.id == ada.id
    for account in (stranger.account_id.hex, "theirs"):
        assert (await tenants.logins.log_in("ada", "battery staple", account=account)).user.id == theirs.id
        with pytest.raises(WrongLogin):
            await tenants.logins.log_in("ada", PASSWORD, account=account)
    with pytest.raises(WrongLogin):
        await tenants.logins.log_in("ada", "battery staple")
    lines = await tenants.accounts.audit_lines(boss.account_id)
    assert [line.actor for line in lines if line.action == "user.login"] == [f"user:{ada.id.hex}"] * 3


async def test_a_login_that_fails_says_and_costs_the_same_whatever_was_wrong(tenants, boss, ada, monkeypatch):
    await tenants.users.create(boss, "bob", role="viewer")
    gone = await tenants.users.create(boss, "eve", role="viewer", password=PASSWORD)
    await tenants.users.disable(boss, gone.id)
    closed = dataclasses.replace(boss, account_id=(await tenants.accounts.create("closed")).account_id)
    await tenants.users.create(closed, "zoe", role="viewer", password=PASSWORD)
    await tenants.accounts.disable(closed)
    hashed = 0
    matches = tenants.users._passwords._matches

    def counted(*arguments):
        nonlocal hashed
        hashed += 1
        return matches(*arguments)

    monkeypatch.setattr(tenants.users._passwords, "_matches", counted)
    attempts = [("ada", "wrong"), ("bob", ""), ("eve", PASSWORD), ("zoe", PASSWORD), ("nobody", PASSWORD), ("", "")]
    attempts += [("a\x00", PASSWORD), ("ada", "\ud800")]
    said = set()
    for name, password in attempts:
        with pytest.raises(WrongLogin) as caught:
            await tenants.logins.log_in(name, password)
        said.add(caught.value.message)
    for account in ("nowhere", "", "f" * 32, "a\x00b"):
        with pytest.raises(WrongLogin):
            await tenants.logins.log_in("ada", PASSWORD, account=account)
    assert len(said) == 1
    assert hashed == len(attempts) + 4


async def test_ten_attempts_an_hour_per_name_and_address(tenants, elsewhere, ada, redis, clock, monkeypatch):
    monkeypatch.setattr(tenants.users, "check_password", elsewhere.users.check_password)
    for index in range(10):
        if index % 2:
            await tenants.logins.log_in("ada", PASSWORD, address="192.0.2.1")
        else:
            await refused(tenants.logins.log_in("ADA", "wrong", address="192.0.2.1"))
    with pytest.raises(LoginRateExceeded) as caught:
        await tenants.logins.log_in("ada", PASSWORD, address="192.0.2.1")
    assert (caught.value.status, caught.value.retry_after) == (429, pytest.approx(360))
    await tenants.logins.log_in("ada", PASSWORD, address="192.0.2.2")
    await tenants.logins.log_in("ada@example.org", PASSWORD, address="192.0.2.1")
    clock.advance(360)
    await tenants.logins.log_in("ada", PASSWORD, address="192.0.2.1")
    assert b"ada" not in b"".join(await redis.keys("*"))


async def test_attempts_are_counted_without_redis_too(elsewhere, ada):
    for _ in range(10):
        await elsewhere.logins.log_in("ada", PASSWORD)
    with pytest.raises(LoginRateExceeded):
        await elsewhere.logins.log_in("ada", PASSWORD)


# ---- JWTs


async def test_a_jwt_makes_its_user_the_caller(tenants, boss, ada, person, clock):
    text = tenants.logins.issue(person, HOUR, claims.orchestration(person))
    caller = await tenants.authenticate(text)
    assert (caller.account_id, caller.user_id, caller.token_id) == (boss.account_id, ada.id, None)
    assert (caller.role, caller.scopes) == ("operator", expand(ROLE_SCOPES["operator"]))
    assert (caller.actor, caller.login_id) == (f"user:{ada.id.hex}", person.caller.login_id)
    assert caller.expires_at == clock.now() + HOUR
    assert (await tenants.authenticate_headers({"authorization": f"Bearer {text}"})).user_id == ada.id
    clock.advance(3600)
    await refused(tenants.authenticate(text))


async def test_claims_of_each_face(tenants, boss, ada, person):
    medusa = claims.medusa(person)
    assert (medusa["actor_id"], medusa["actor_type"], medusa["auth_provider"]) == (ada.id.hex, "user", "emailpass")
    assert medusa["app_metadata"] == {"user_id": ada.id.hex, "account_id": boss.account_id.hex}
    assert claims.orchestration(person) == {"id": ada.id.hex, "username": "ada", "role": "operator"}
    for made in (medusa, claims.orchestration(person), claims.jobsprint(person)):
        assert (await tenants.authenticate(tenants.logins.issue(person, HOUR, made))).user_id == ada.id


async def test_what_ends_a_login_ends_it_within_a_second_everywhere(tenants, elsewhere, boss, ada, person, clock):
    async def expire(change, undo=None):
        text = tenants.logins.issue(await current(), HOUR)
        for service in (tenants, elsewhere):
            await service.authenticate(text)
        clock.advance(0.001)
        await change
        await refused(tenants.authenticate(text))
        clock.advance(0.501)
        await refused(elsewhere.authenticate(text))
        if undo is not None:
            await undo
            clock.advance(0.501)
            await elsewhere.authenticate(text)

    async def current():
        return await tenants.logins.log_in("ada", PASSWORD)

    await expire(tenants.users.disable(boss, ada.id), tenants.users.disable(boss, ada.id, disabled=False))
    clock.advance(1)
    login = await current()
    text = tenants.logins.issue(login, HOUR)
    await elsewhere.authenticate(text)
    await tenants.logins.end(login.caller)
    await refused(tenants.authenticate(text))
    clock.advance(0.501)
    await refused(elsewhere.authenticate(text))
    clock.advance(1)
    await expire(tenants.users.set_password(boss, ada.id, PASSWORD))
    await expire(tenants.users.end_logins(boss, ada.id))
    await tenants.authenticate(tenants.logins.issue(await current(), HOUR))


async def test_an_account_that_is_disabled_takes_its_people_along(tenants, boss, person, clock):
    text = tenants.logins.issue(person, HOUR)
    await tenants.authenticate(text)
    await tenants.accounts.disable(boss)
    clock.advance(0.501)
    await refused(tenants.authenticate(text))


async def test_the_role_is_the_one_the_user_has_now(tenants, boss, ada, person):
    text = tenants.logins.issue(person, HOUR, {"role": "admin"})
    assert (await tenants.authenticate(text)).role == "operator"
    await tenants.users.set_role(boss, ada.id, "viewer")
    caller = await tenants.authenticate(text)
    assert (caller.role, caller.allows("executions:write")) == ("viewer", False)


async def test_a_jwt_is_looked_up_once_for_all_who_wait(tenants, person, monkeypatch):
    text = tenants.logins.issue(person, HOUR)
    asked = 0
    original = store.login

    async def counted(*arguments):
        nonlocal asked
        asked += 1
        return await original(*arguments)

    monkeypatch.setattr(store, "login", counted)
    await asyncio.gather(*(tenants.authenticate(text) for _ in range(50)))
    assert asked == 1


async def test_a_refresh_token_is_exchanged_once_and_its_theft_ends_the_login(tenants, ada, person, clock):
    first = tenants.logins.issue_refresh(person)
    access = tenants.logins.issue(person, HOUR)
    await refused(tenants.authenticate(first))
    await refused(tenants.logins.refresh(access))
    again = await tenants.logins.refresh(first)
    assert (again.user.id, again.caller.login_id) == (ada.id, person.caller.login_id)
    second = tenants.logins.issue_refresh(again)
    await tenants.authenticate(access)
    await refused(tenants.logins.refresh(first))
    await refused(tenants.authenticate(access))
    await refused(tenants.logins.refresh(second))


async def test_a_refresh_token_lasts_a_week(tenants, person, clock):
    text = tenants.logins.issue_refresh(person)
    clock.advance(REFRESH_LIFETIME.total_seconds())
    await refused(tenants.logins.refresh(text))


async def test_a_token_is_no_login(tenants, boss, ada, make_token):
    caller = await tenants.authenticate((await make_token(user_id=ada.id)).text)
    for call in (tenants.logins.person(caller), tenants.logins.end(caller), tenants.sessions.create(caller)):
        with pytest.raises(NotAllowed):
            await call


# ---- one person in several accounts


@pytest.fixture
async def double(tenants, boss, stranger, ada):
    """Ada in the other account: the same person, with another role and no password there."""
    other = await tenants.users.create(stranger, "ada.l", role="viewer", email="ada@example.org")
    await tenants.users.link(stranger, other.id, boss.account_id, ada.id)
    return other


async def test_a_person_acts_in_another_account_with_the_role_there(tenants, stranger, double, person, clock):
    caller = await tenants.logins.in_account(person.caller, stranger.account_id)
    assert (caller.account_id, caller.user_id, caller.role) == (stranger.account_id, double.id, "viewer")
    assert await tenants.logins.in_account(person.caller, person.caller.account_id) is person.caller
    assert (await tenants.logins.log_in("ada.l", PASSWORD, account="theirs")).user.id == double.id
    text = tenants.logins.issue(await tenants.logins.person(caller), HOUR)
    assert (await tenants.authenticate(text)).account_id == stranger.account_id
    await tenants.users.disable(stranger, double.id)
    with pytest.raises(NoRoute):
        await tenants.logins.in_account(person.caller, stranger.account_id)
    await refused(tenants.authenticate(text))


async def test_a_password_changed_in_one_account_ends_the_persons_logins_in_all(tenants, boss, ada, stranger, double):
    text = tenants.logins.issue(await tenants.logins.log_in("ada.l", PASSWORD, account="theirs"), HOUR)
    await tenants.authenticate(text)
    tenants._clock.advance(1)
    await tenants.users.set_password(boss, ada.id, "battery staple")
    await refused(tenants.authenticate(text))


async def test_the_same_name_and_address_are_not_the_same_person(tenants, stranger, ada, person, make_token):
    await tenants.users.create(stranger, "ada", role="admin", email="ada@example.org", password=PASSWORD)
    with pytest.raises(NoRoute):
        await tenants.logins.in_account(person.caller, stranger.account_id)
    token = await tenants.authenticate((await make_token(user_id=ada.id)).text)
    with pytest.raises(NoRoute):
        await tenants.logins.in_account(token, stranger.account_id)


async def test_only_an_operator_says_who_is_the_same_person(tenants, boss, stranger, ada, double, make_token):
    admin = await tenants.authenticate((await make_token(caller=stranger)).text)
    mallory = await tenants.users.create(stranger, "mallory", role="admin", password=PASSWORD)
    with pytest.raises(NotAllowed):
        await tenants.users.link(admin, mallory.id, boss.account_id, ada.id)
    with pytest.raises(AlreadyExists):
        await tenants.users.link(stranger, mallory.id, boss.account_id, ada.id)
    for user, account, other in ((boss.account_id, boss.account_id, ada.id), (mallory.id, boss.account_id, mallory.id)):
        with pytest.raises(UserNotFound):
            await tenants.users.link(stranger, user, account, other)


# ---- sessions


async def test_a_session_is_its_users_for_ten_hours(tenants, elsewhere, ada, person, clock, admin):
    value, until = await tenants.sessions.create(person.caller)
    assert until == clock.now() + timedelta(hours=10)
    caller = await elsewhere.sessions.resolve(value)
    assert (caller.user_id, caller.role, caller.expires_at) == (ada.id, "operator", until)
    clock.advance(61)
    await elsewhere.sessions.resolve(value)
    assert await admin.fetchval("select last_used_at from session") == clock.now()
    assert value not in str(await admin.fetch("select * from session"))
    clock.advance(36000 - 61)
    await refused(elsewhere.sessions.resolve(value))


async def test_a_session_ends_at_once_here_and_within_a_second_elsewhere(tenants, elsewhere, person, clock):
    value, _ = await tenants.sessions.create(person.caller)
    caller = await elsewhere.sessions.resolve(value)
    jwt = tenants.logins.issue(await tenants.logins.person(caller), timedelta(days=1))
    assert await tenants.sessions.end(value)
    assert not await tenants.sessions.end(value)
    await refused(tenants.sessions.resolve(value))
    clock.advance(0.501)
    await refused(elsewhere.sessions.resolve(value))
    await refused(tenants.recheck(caller))
    clock.advance(11 * 3600)
    await tenants.forget_expired()
    await refused(tenants.authenticate(jwt))
    await tenants.authenticate(tenants.logins.issue(person, HOUR))


@pytest.mark.parametrize("value", ["", "x", "a" * 43, "a" * 44, "é" * 43, "\x00" * 43])
async def test_another_value_is_no_session(tenants, person, value):
    await tenants.sessions.create(person.caller)
    await refused(tenants.sessions.resolve(value))
    assert not await tenants.sessions.end(value)


def test_the_cookie():
    assert cookie("v", secure=True) == "connect.sid=v; Path=/; Max-Age=36000; HttpOnly; SameSite=Lax; Secure"
    assert cookie("", secure=False) == "connect.sid=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    assert cookie_in(f'a=b; {COOKIE}="v" ;{COOKIE}=w') == "v"
    assert cookie_in("xconnect.sid=v; a") == ""


# ---- stream tickets


async def test_a_ticket_opens_one_stream_once_within_a_minute(
    tenants, elsewhere, ada, person, make_token, clock, admin
):
    jwt = await tenants.authenticate(tenants.logins.issue(person, HOUR))
    token = await tenants.authenticate((await make_token("executions:read")).text)
    for caller in (jwt, token):
        text = await tenants.tickets.issue(caller, "/api/a%20b/?x=1")
        assert text not in str(await admin.fetch("select * from stream_ticket"))
        clock.advance(59.9)
        found = await elsewhere.tickets.redeem(text, "/api/a b")
        assert found == caller
        await refused(tenants.tickets.redeem(text, "/api/a b"))
    late = await tenants.tickets.issue(token, "/x")
    clock.advance(60)
    await refused(tenants.tickets.redeem(late, "/x"))
    astray = await tenants.tickets.issue(token, "/x")
    await refused(tenants.tickets.redeem(astray, "/y"))
    await refused(tenants.tickets.redeem(astray, "/x"))


async def test_a_ticket_of_one_who_is_no_longer_welcome_opens_nothing(tenants, boss, ada, person, make_token):
    token = await make_token()
    of_token = await tenants.tickets.issue(await tenants.authenticate(token.text), "/x")
    of_login = await tenants.tickets.issue(person.caller, "/x")
    await tenants.tokens.revoke(boss, token.id)
    await tenants.logins.end(person.caller)
    await refused(tenants.tickets.redeem(of_token, "/x"))
    await refused(tenants.tickets.redeem(of_login, "/x"))


@pytest.mark.parametrize("path", ["", "x", "//x\x00", "/%00", "/" + "a" * 3000, "https://a.example/x"])
async def test_what_is_no_path_gets_no_ticket(tenants, person, path):
    with pytest.raises(InvalidRequest, match="path must"):
        await tenants.tickets.issue(person.caller, path)


async def test_operators_get_no_tickets(tenants, boss):
    with pytest.raises(NotAllowed):
        await tenants.tickets.issue(boss, "/x")


# ---- workspaces


async def test_who_enters_a_workspace_may_what_counts_there(tenants, boss, ada, person, make_token):
    team = await tenants.workspaces.create(boss, "team")
    enter = tenants.workspaces.enter
    outside = await enter(person.caller, "team")
    assert (outside.role, outside.caller.workspace_id) == (None, team.id)
    assert outside.caller.scopes == {scope for scope in person.caller.scopes if scope.endswith(":read")}
    with pytest.raises(NotAMember):
        await tenants.workspaces.require_member(person.caller, "team")
    await tenants.workspaces.add_member(boss, team, ada.id, "admin")
    inside = await tenants.workspaces.require_member(person.caller, team.id.hex)
    assert (inside.role, inside.caller.allows("workflows:write")) == ("admin", True)
    assert not inside.caller.allows("webhooks:read")
    await tenants.workspaces.add_member(boss, team, ada.id)
    inside = await enter(person.caller, "team")
    assert inside.caller.scopes == expand(["executions:write", "executions:delete", "workflows:read"])
    assert (await tenants.recheck(inside.caller)).scopes == inside.caller.scopes
    await tenants.workspaces.remove_member(boss, team, ada.id)
    assert not (await tenants.recheck(inside.caller)).allows("executions:write")
    token = await tenants.authenticate((await make_token()).text)
    assert (await enter(token, "team")).caller.scopes == SCOPES


async def test_a_restricted_token_enters_its_workspace_only(tenants, boss, make_token):
    team = await tenants.workspaces.create(boss, "team")
    token = await tenants.authenticate((await make_token(workspace_id=team.id)).text)
    assert (await tenants.workspaces.enter(token, "team")).caller.workspace_id == team.id
    with pytest.raises(WorkspaceNotFound):
        await tenants.workspaces.enter(token, "default")


async def test_a_slug_names_its_account_for_a_person_in_both(tenants, stranger, double, person, make_token):
    await tenants.workspaces.create(stranger, "theirs")
    entered = await tenants.workspaces.enter(person.caller, "theirs")
    assert (entered.caller.account_id, entered.caller.user_id) == (stranger.account_id, double.id)
    home = await tenants.workspaces.enter(person.caller, "default")
    assert home.caller.account_id == person.caller.account_id
    token = await tenants.authenticate((await make_token()).text)
    for caller in (token, await tenants.authenticate((await make_token(user_id=person.user.id)).text)):
        with pytest.raises(WorkspaceNotFound):
            await tenants.workspaces.enter(caller, "theirs")


async def test_a_strangers_workspace_is_not_there(tenants, stranger, person):
    row = await tenants.workspaces.create(stranger, "theirs")
    for name in ("theirs", row.id.hex, "nowhere", "NOT A SLUG"):
        with pytest.raises(WorkspaceNotFound):
            await tenants.workspaces.enter(person.caller, name)


# ---- limits and housekeeping


async def test_requests_are_counted_per_credential_when_the_account_has_a_limit(
    tenants, boss, make_token, redis, clock
):
    one, two = [await tenants.authenticate((await make_token()).text) for _ in range(2)]
    assert await tenants.count_request(one) is None
    assert await redis.keys("*") == []
    await tenants.accounts.set_limits(boss, changes={"requests_per_minute": 3})
    rates = [await tenants.count_request(one) for _ in range(4)]
    assert [(rate.limit, rate.remaining) for rate in rates] == [(3, 2), (3, 1), (3, 0), (3, 0)]
    assert [rate.retry_after for rate in rates] == [None, None, None, pytest.approx(20)]
    assert rates[-1].reset_after == pytest.approx(60)
    assert (await tenants.count_request(two)).remaining == 2
    clock.advance(20)
    assert (await tenants.count_request(one)).retry_after is None


async def test_requests_are_counted_without_redis_too(elsewhere, boss, make_token):
    caller = await elsewhere.authenticate((await make_token()).text)
    await elsewhere.accounts.set_limits(boss, changes={"requests_per_minute": 3})
    rates = [await elsewhere.count_request(caller) for _ in range(4)]
    assert [(rate.remaining, rate.retry_after) for rate in rates] == [(2, None), (1, None), (0, None), (0, 20.0)]


async def test_test_deliveries_have_a_limit_of_their_own(tenants, boss, make_token):
    caller = await tenants.authenticate((await make_token()).text)
    for _ in range(60):
        await tenants.admit_webhook_test(caller)
    with pytest.raises(WebhookTestRateExceeded) as caught:
        await tenants.admit_webhook_test(caller)
    assert caught.value.retry_after == pytest.approx(1)


async def test_what_has_ended_is_forgotten(tenants, person, clock, admin):
    value, _ = await tenants.sessions.create(person.caller)
    await tenants.sessions.end(value)
    await tenants.sessions.create(person.caller)
    await tenants.tickets.issue(person.caller, "/x")
    clock.advance(10 * 3600 + 1)
    assert await tenants.forget_expired() == 2
    assert await admin.fetchval("select count(*) from revoked_login") == 1
    clock.advance(REFRESH_LIFETIME.total_seconds())
    assert await tenants.forget_expired() == 1
