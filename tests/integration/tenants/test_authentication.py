"""Tokens at the door: who gets in, and how soon a change counts."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from app.errors import InvalidRequest, NotAuthenticated
from app.settings import SettingsError
from tenants.auth import SCOPES
from tenants.errors import AlreadyExists
from tenants.keys import ID_BYTES
from tenants.remembered import CACHE_TIME
from tenants.service import TenantService
from tenants.store import tokens as store
from tenants.tokens import TokenGrant


@pytest.fixture
async def elsewhere(db, clock, ids, settings):
    """Another process on the same database."""
    service = TenantService(db, clock, ids, settings)
    yield service
    await service.close()


async def refused(service: TenantService, text: str) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        await service.authenticate(text)
    return caught.value.message


async def test_a_token_names_its_account_scopes_and_role(tenants, boss, make_token):
    token = await make_token("executions:write")
    caller = await tenants.authenticate(token.text)
    assert (caller.account_id, caller.token_id, caller.user_id) == (boss.account_id, token.id, None)
    assert caller.scopes == {"executions:write", "executions:read"}
    assert (caller.role, caller.name, caller.workspace_id) == ("operator", "t", None)
    assert (await tenants.authenticate((await make_token()).text)).scopes == SCOPES


@pytest.mark.parametrize(
    "text", ["", "sk_", "sk_short", "nonsense", "sk_" + "é" * 30, "sk_a\x00" * 9, "sk_" + "x" * 5000]
)
async def test_what_is_no_token_never_reaches_the_database(tenants, monkeypatch, text):
    async def unreachable(*_):
        raise AssertionError("asked the database")

    monkeypatch.setattr(store, "credential_by_hash", unreachable)
    assert await refused(tenants, text) == "Authentication error"


async def test_an_unknown_token_is_refused_and_a_damaged_one_told_so(tenants, make_token):
    token = await make_token()
    assert await refused(tenants, "sk_" + "x" * 50) == "Authentication error"
    assert "damaged" in await refused(tenants, token.text[:-1] + ("A" if token.text[-1] != "A" else "B"))


async def test_only_a_keyed_hash_is_stored(make_token, admin):
    token = await make_token()
    dump = str(await admin.fetch("select * from api_token")) + str(await admin.fetch("select * from audit_line"))
    assert token.text not in dump
    assert token.text[3:34] not in dump
    [row] = await admin.fetch("select hash from api_token")
    assert len(row["hash"]) == ID_BYTES + 32


async def test_times_bound_a_token(tenants, make_token, clock):
    now = clock.now()
    token = await make_token(not_before=now + timedelta(minutes=1), expires_at=now + timedelta(minutes=2))
    assert "not valid before 2026-01-01T00:01:00.000Z" in await refused(tenants, token.text)
    clock.advance(60)
    await tenants.authenticate(token.text)
    clock.advance(60)
    assert "expired on 2026-01-01T00:02:00.000Z" in await refused(tenants, token.text)


async def test_a_revoked_token_stops_at_once_here_and_within_a_second_elsewhere(
    tenants, elsewhere, boss, make_token, clock
):
    token = await make_token()
    await tenants.authenticate(token.text)
    await elsewhere.authenticate(token.text)
    await tenants.tokens.revoke(boss, token.id)
    await refused(tenants, token.text)
    await elsewhere.authenticate(token.text)
    clock.advance(CACHE_TIME.total_seconds() + 0.001)
    await refused(elsewhere, token.text)
    assert CACHE_TIME.total_seconds() <= 0.5


async def test_rolling_disabling_a_user_and_an_account_take_effect_within_a_second(
    tenants, elsewhere, boss, make_token, clock
):
    user = await tenants.users.create(boss, "ada", role="operator")
    rolled, of_user, of_account = await make_token(), await make_token(user_id=user.id), await make_token()
    for token in (rolled, of_user, of_account):
        await elsewhere.authenticate(token.text)
    fresh = await tenants.tokens.roll(boss, rolled.id)
    await tenants.users.disable(boss, user.id)
    clock.advance(0.501)
    await refused(elsewhere, rolled.text)
    await elsewhere.authenticate(fresh)
    assert "user is disabled" in await refused(elsewhere, of_user.text)
    await tenants.accounts.disable(boss)
    clock.advance(0.501)
    assert "account is disabled" in await refused(elsewhere, of_account.text)
    await tenants.accounts.disable(boss, disabled=False)
    await tenants.users.disable(boss, user.id, disabled=False)
    clock.advance(0.501)
    await elsewhere.authenticate(of_account.text)
    await elsewhere.authenticate(of_user.text)


async def test_one_query_serves_all_requests_that_wait_for_it(tenants, make_token, monkeypatch):
    token = await make_token()
    asked = 0
    original = store.credential_by_hash

    async def counted(*arguments):
        nonlocal asked
        asked += 1
        return await original(*arguments)

    monkeypatch.setattr(store, "credential_by_hash", counted)
    await asyncio.gather(*(tenants.authenticate(token.text) for _ in range(50)))
    await tenants.authenticate(token.text)
    assert asked == 1


async def test_a_look_up_that_began_before_a_revocation_is_not_remembered(tenants, boss, make_token, monkeypatch):
    token = await make_token()
    found, go_on = asyncio.Event(), asyncio.Event()
    original = store.credential_by_hash

    async def slow(*arguments):
        credential = await original(*arguments)
        found.set()
        await go_on.wait()
        return credential

    monkeypatch.setattr(store, "credential_by_hash", slow)
    early = asyncio.create_task(tenants.authenticate(token.text))
    await found.wait()
    await tenants.tokens.revoke(boss, token.id)
    go_on.set()
    await early
    await refused(tenants, token.text)


async def test_one_waiter_that_gives_up_does_not_fail_the_others(tenants, make_token, monkeypatch):
    token = await make_token()
    go_on = asyncio.Event()
    original = store.credential_by_hash

    async def slow(*arguments):
        await go_on.wait()
        return await original(*arguments)

    monkeypatch.setattr(store, "credential_by_hash", slow)
    first, second = (asyncio.create_task(tenants.authenticate(token.text)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    assert (await second).token_id == token.id


async def test_last_use_is_written_off_the_path_and_at_most_once_a_minute(tenants, boss, make_token, clock):
    token = await make_token()
    other = await make_token()

    async def last_used(which):
        return (await tenants.tokens.get(boss, which.id)).last_used_at

    first = clock.now()
    await tenants.authenticate(token.text)
    assert await last_used(token) is None
    await tenants._authenticator.flush()
    assert await last_used(token) == first
    clock.advance(59)
    await tenants.authenticate(token.text)
    await tenants._authenticator.flush()
    assert await last_used(token) == first
    clock.advance(2)
    await tenants.authenticate(token.text)
    await tenants.close()
    assert await last_used(token) == clock.now()
    assert await last_used(other) is None


async def test_a_token_moves_to_the_new_secret_while_it_is_used(tenants, make_token, db, clock, ids, settings):
    used, unused = await make_token(), await make_token()
    rotated = dataclasses.replace(
        settings, secret="another secret, long enough as well", secret_previous=settings.secret
    )
    rotating = TenantService(db, clock, ids, rotated)
    await rotating.authenticate(used.text)
    await rotating.close()
    after = TenantService(db, clock, ids, dataclasses.replace(rotated, secret_previous=""))
    await after.authenticate(used.text)
    await refused(after, unused.text)
    await after.close()


async def test_a_strange_secret_is_refused_at_start(tenants, db, clock, ids, settings):
    other = dataclasses.replace(settings, secret="another secret, long enough as well")
    await tenants.check_secret()
    await tenants.check_secret()
    with pytest.raises(SettingsError, match="not the secret this database was set up with"):
        await TenantService(db, clock, ids, other).check_secret()
    clock.advance(1)
    rotating = dataclasses.replace(other, secret_previous=settings.secret)
    await TenantService(db, clock, ids, rotating).check_secret(accept=False)
    await tenants.check_secret()
    await TenantService(db, clock, ids, rotating).check_secret()
    await TenantService(db, clock, ids, other).check_secret()
    with pytest.raises(SettingsError, match="was replaced by another one"):
        await tenants.check_secret()
    for undecided in (rotating, dataclasses.replace(settings, secret_previous=other.secret), rotating):
        clock.advance(1)
        await TenantService(db, clock, ids, undecided).check_secret()
    await TenantService(db, clock, ids, other).check_secret()
    lost = TenantService(db, clock, ids, dataclasses.replace(settings, secret="a third secret after losing the others"))
    await lost.reset_secret()
    await lost.check_secret()
    with pytest.raises(SettingsError):
        await tenants.check_secret()


async def test_headers_carry_credentials_in_three_ways(tenants, boss, stranger, make_token):
    ours, theirs = await make_token(), await make_token(caller=stranger)
    both = {"authorization": f"Bearer {ours.text}", "x-auth-key": (await make_token()).text}
    for headers in ({"authorization": f"Bearer {ours.text}"}, {"x-auth-email": "a@b", "x-auth-key": ours.text}, both):
        assert (await tenants.authenticate_headers(headers)).account_id == boss.account_id
    with pytest.raises(InvalidRequest, match="two different accounts"):
        await tenants.authenticate_headers(both | {"x-auth-key": theirs.text})
    with pytest.raises(NotAuthenticated):
        await tenants.authenticate_headers({})
    with pytest.raises(NotAuthenticated):
        await tenants.authenticate_headers(both | {"x-auth-key": "sk_unknown_but_long_enough"})


async def test_a_developers_token_is_adopted_once(tenants, boss, stranger):
    grant = TokenGrant(name="dev", scopes=["admin"])
    row = await tenants.tokens.adopt(boss, grant, "sk_dev-token-of-mine")
    caller = await tenants.authenticate("sk_dev-token-of-mine")
    assert (caller.token_id, caller.role, caller.scopes) == (row.id, "admin", SCOPES)
    for account in (boss, stranger):
        with pytest.raises(AlreadyExists, match="in use already"):
            await tenants.tokens.adopt(account, grant, "sk_dev-token-of-mine")
