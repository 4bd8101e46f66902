"""Accounts: made, limited, measured, and their audit log."""

from __future__ import annotations

import asyncio
import dataclasses
from uuid import UUID

import msgspec
import pytest

from app.errors import InvalidRequest, NotAllowed
from tenants.audit import Origin, origin
from tenants.auth import operator
from tenants.errors import AccountNotFound, AlreadyExists, CreationRateExceeded
from tenants.limits import DAY_MS, PROFILES, Limits
from tenants.store import accounts as account_store
from tenants.store import audit as audit_store

NOBODY = operator(UUID(int=5))


async def derived(admin, account_id):
    """What the engine's SQL reads."""
    row = await admin.fetchrow(
        "select concurrency, success_retention_ms, error_retention_ms from account where account_id = $1", account_id
    )
    return tuple(row)


async def test_an_account_comes_with_its_default_workspace(tenants, clock):
    account = await tenants.accounts.create("Ada's")
    assert (account.name, account.profile, account.created_at, account.disabled_at) == (
        "Ada's",
        "open",
        clock.now(),
        None,
    )
    [workspace] = await tenants.workspaces.all(account.account_id)
    assert workspace.slug == "default"
    assert await tenants.limits(account.account_id) == Limits()


async def test_an_account_id_can_be_chosen_once(tenants):
    chosen = UUID("0123456789abcdef0123456789abcdef")
    assert (await tenants.accounts.create("one", account_id=chosen)).account_id == chosen
    with pytest.raises(AlreadyExists, match="0123456789abcdef0123456789abcdef exists already"):
        await tenants.accounts.create("two", account_id=chosen)
    assert [row.name for row in await tenants.accounts.all()] == ["one"]


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 256, "\ud800"])
async def test_a_name_that_cannot_be_is_refused(tenants, name):
    with pytest.raises(InvalidRequest, match="name must be a text of 1 to 255"):
        await tenants.accounts.create(name)


async def test_an_unknown_account_is_named_so_everywhere(tenants):
    for call in (
        tenants.accounts.get(NOBODY.account_id),
        tenants.limits(NOBODY.account_id),
        tenants.accounts.usage(NOBODY.account_id),
        tenants.accounts.set_limits(NOBODY, profile="open"),
        tenants.accounts.disable(NOBODY),
        tenants.accounts.set_retention(NOBODY, success_retention_ms=1),
    ):
        with pytest.raises(AccountNotFound, match="there is no account 00000000000000000000000000000005"):
            await call


async def test_limits_follow_profile_and_single_changes(tenants, boss, admin):
    account = boss.account_id
    await tenants.accounts.set_limits(boss, profile="cloudflare-free")
    assert await tenants.limits(account) == PROFILES["cloudflare-free"]
    assert await derived(admin, account) == (100, 3 * DAY_MS, 3 * DAY_MS)
    await tenants.accounts.set_limits(boss, changes={"concurrency": 7, "steps": 5})
    assert (await tenants.limits(account)).concurrency == 7
    assert (await derived(admin, account))[0] == 7
    await tenants.accounts.set_limits(boss, changes={"concurrency": None})
    assert (await tenants.limits(account)).concurrency is None
    assert (await tenants.limits(account)).steps == 5
    await tenants.accounts.set_limits(boss, profile="open")
    assert await tenants.limits(account) == Limits()
    assert await derived(admin, account) == (None, 30 * DAY_MS, 30 * DAY_MS)


async def test_a_bad_limit_changes_nothing(tenants, boss):
    await tenants.accounts.set_limits(boss, changes={"workflows": 3})
    for changes in ({"workflows": -1}, {"nonsense": 1}, {"steps_max": 1}):
        with pytest.raises(InvalidRequest):
            await tenants.accounts.set_limits(boss, changes=changes)
    assert (await tenants.limits(boss.account_id)).workflows == 3


async def test_other_processes_see_a_limit_within_a_second(tenants, boss, admin, clock):
    await tenants.limits(boss.account_id)
    await admin.execute("""update account set limits = '{"queued":4}' where account_id = $1""", boss.account_id)
    clock.advance(1.001)
    assert (await tenants.limits(boss.account_id)).queued == 4


async def test_limits_of_many_accounts_are_one_query(tenants, boss, stranger, monkeypatch, clock):
    asked: list[list[UUID]] = []
    read = account_store.account_limits

    async def counted(engine, account_ids):
        asked.append(sorted(account_ids))
        return await read(engine, account_ids)

    monkeypatch.setattr(account_store, "account_limits", counted)
    await tenants.accounts.set_limits(stranger, changes={"queued": 4})
    ours, theirs, nobodys = boss.account_id, stranger.account_id, NOBODY.account_id
    found = await tenants.accounts.limits_of({ours, theirs, nobodys})
    assert {account: limits.queued for account, limits in found.items()} == {ours: None, theirs: 4}
    await tenants.accounts.limits_of([ours, theirs])
    assert asked == [sorted([ours, theirs, nobodys])]
    clock.advance(1.001)
    await tenants.accounts.limits_of([ours])
    assert asked[1:] == [[ours]]


async def test_default_retention_stays_within_the_plan(tenants, boss, admin):
    await tenants.accounts.set_retention(boss, success_retention_ms=2 * DAY_MS, error_retention_ms=20 * DAY_MS)
    assert await derived(admin, boss.account_id) == (None, 2 * DAY_MS, 20 * DAY_MS)
    await tenants.accounts.set_limits(boss, profile="cloudflare-free")
    assert await derived(admin, boss.account_id) == (100, 2 * DAY_MS, 3 * DAY_MS)
    with pytest.raises(InvalidRequest, match=r"default_retention\.error_retention must be from 0 to 259200000"):
        await tenants.accounts.set_retention(boss, error_retention_ms=3 * DAY_MS + 1)
    settings = await tenants.accounts.set_retention(boss, success_retention_ms=None)
    assert (settings.success_retention_ms, settings.error_retention_ms) == (None, 20 * DAY_MS)
    assert await derived(admin, boss.account_id) == (100, 3 * DAY_MS, 3 * DAY_MS)
    await tenants.accounts.set_limits(boss, profile="open")
    assert (await derived(admin, boss.account_id))[2] == 20 * DAY_MS
    assert await tenants.accounts.settings(boss.account_id) == settings


async def test_defaults_of_the_account_are_not_one_workspace_s_to_change(tenants, boss):
    before = await tenants.accounts.settings(boss.account_id)
    with pytest.raises(NotAllowed, match="the account's defaults hold for all workspaces"):
        await tenants.accounts.set_retention(
            dataclasses.replace(boss, workspace_id=UUID(int=7)), success_retention_ms=1
        )
    assert await tenants.accounts.settings(boss.account_id) == before


async def test_usage_counts_what_the_account_has(tenants, boss, stranger, admin, make_token):
    await make_token()
    await tenants.users.create(boss, "ada", role="viewer")
    usage = await tenants.accounts.usage(boss.account_id)
    assert msgspec.to_builtins(usage, str_keys=True) == {
        **{"workflows": 0, "versions": 0, "scripts": 0, "script_bytes": 0, "schedules": 0},
        **{"unfinished": {}, "finished": {}, "tokens": 1, "users": 1, "workspaces": 1},
    }
    for account_id in (boss.account_id, stranger.account_id):
        await admin.execute(INSTANCES, account_id)
    usage = await tenants.accounts.usage(boss.account_id)
    assert (usage.workflows, usage.versions, usage.scripts, usage.script_bytes, usage.schedules) == (1, 1, 1, 7, 1)
    assert usage.unfinished == {0: 2, 3: 1}
    assert usage.finished == {6: 12, 7: 1}


INSTANCES = """
with w as (
  insert into workflow (account_id, workflow_key, handle, display_name, workspace_id, script_name, class_name,
                        created_at, modified_at)
  select $1, gen_random_uuid(), 'w', 'w', $1, 's', 'C', now(), now() returning workflow_key
), gone as (
  insert into workflow (account_id, workflow_key, handle, display_name, workspace_id, script_name, class_name,
                        created_at, modified_at, deleted_at)
  select $1, gen_random_uuid(), 'w', 'w', $1, 's', 'C', now(), now(), now() returning workflow_key
), v as (
  insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source, source_hash,
                       step_limit, created_at)
  select $1, gen_random_uuid(), workflow_key, 1, 'document', 0, 'C', '', '', 1, now() from (table w union table gone) x
), s as (
  insert into script (account_id, id, name, workspace_id, number, metadata, modules, bindings, etag, size_bytes,
                      created_at, deleted_at)
  select $1, gen_random_uuid(), 's', $1, n, '', '', '', '', n, now(), case when n > 4 then now() end
  from unnest(array[3, 4, 5]) n
), c as (
  insert into schedule (account_id, id, workflow_key, cron, created_at)
  select $1, gen_random_uuid(), workflow_key, '* * * * *', now() from (table w union table gone) x
), f as (
  insert into counter (account_id, workflow_key, slot, status, n)
  select $1, gen_random_uuid(), slot, status, n from (values (0, 6, 5), (1, 6, 7), (0, 7, 1)) x(slot, status, n)
)
insert into live (account_id, key, workflow_key, runtime, status, epoch, modified_at)
select $1, gen_random_uuid(), workflow_key, 0, status, 1, now() from w, unnest(array[0, 0, 3]) status
"""


async def test_every_change_leaves_a_line(tenants, boss, make_token):
    origin.set(Origin("203.0.113.9", "req-1"))
    token = await make_token("workflows:read")
    caller = await tenants.authenticate((await make_token()).text)
    await tenants.tokens.roll(caller, token.id)
    await tenants.tokens.revoke(caller, token.id)
    await tenants.audit(caller, "workflow.put", "orders", {"version": 2})
    await tenants.audit(caller, "instance.create", "i-1", wait=False)
    await tenants.close()
    lines = await tenants.accounts.audit_lines(boss.account_id)
    assert [line.action for line in lines] == [
        *("instance.create", "workflow.put", "token.revoke", "token.roll", "token.create", "token.create"),
        "account.create",
    ]
    assert lines[1].actor == f"token:{caller.token_id.hex}"
    assert (lines[1].target, lines[1].detail) == ("orders", '{"version":2}')
    assert {(line.address, line.request_id) for line in lines[:-1]} == {("203.0.113.9", "req-1")}
    assert (lines[-1].actor, lines[-1].address) == ("operator", None)
    again = await tenants.accounts.audit_lines(boss.account_id, limit=2, before=lines[1].id)
    assert [line.id for line in again] == [line.id for line in lines[2:4]]


async def test_concurrent_lines_share_inserts(tenants, boss, monkeypatch):
    inserts: list[int] = []
    original = audit_store.insert_audit_lines

    async def counted(connection, lines):
        inserts.append(len(lines))
        await original(connection, lines)

    monkeypatch.setattr(audit_store, "insert_audit_lines", counted)
    await asyncio.gather(*(tenants.audit(boss, "thing.do", str(n)) for n in range(1200)))
    assert inserts == [500, 500, 200]
    assert len(await tenants.accounts.audit_lines(boss.account_id, limit=2000)) == 1201


async def test_a_line_that_cannot_be_written_fails_only_who_waits(tenants, boss, monkeypatch):
    async def broken(*_):
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(audit_store, "insert_audit_lines", broken)
        await tenants.audit(boss, "a.b", "c", wait=False)
        with pytest.raises(OSError, match="gone"):
            await tenants.audit(boss, "a.b", "c")
    await tenants.audit(boss, "a.b", "d")
    assert [line.target for line in await tenants.accounts.audit_lines(boss.account_id, limit=1)] == ["d"]


async def test_what_is_past_keeping_is_forgotten_in_batches(tenants, boss, clock, admin):
    insert = (
        "insert into session (account_id, id, user_id, hash, created_at, last_used_at, expires_at)"
        " select $1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid()::text::bytea, $2, $2, $2"
        " from generate_series(1, 25)"
    )
    await admin.execute(insert, boss.account_id, clock.now())
    assert await tenants.forget_expired() == 0
    clock.advance(1)
    assert [await tenants.forget_expired(10) for _ in range(4)] == [10, 10, 5, 0]
    clock.advance(401 * 86400)
    assert await tenants.forget_expired() == 1  # the audit line of the account's creation
    assert await tenants.accounts.audit_lines(boss.account_id) == []


async def test_creations_are_admitted_up_to_the_accounts_rate(tenants, boss, clock):
    await tenants.admit_creations(boss.account_id, "w", 1_000_000)
    await tenants.accounts.set_limits(boss, changes={"creations_per_second": 2})
    await tenants.admit_creations(boss.account_id, "w", 2)
    with pytest.raises(CreationRateExceeded) as caught:
        await tenants.admit_creations(boss.account_id, "w")
    assert (caught.value.status, caught.value.code, caught.value.retry) == (429, 10457, True)
    assert caught.value.retry_after == pytest.approx(0.5)
    clock.advance(0.5)
    await tenants.admit_creations(boss.account_id, "w")
