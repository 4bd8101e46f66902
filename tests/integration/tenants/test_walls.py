"""The second wall: within the scope of one account, rows of another neither show nor change."""

from __future__ import annotations

import asyncpg
import pytest

WALLED = "select distinct tablename from pg_policies where schemaname = 'public' order by 1"
COLUMNS = """
select a.attname as name, format_type(a.atttypid, null) as type
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped and a.attnotnull
  and d.adnum is null and a.attidentity = ''
"""
SAMPLES = {
    "uuid": "gen_random_uuid()",
    "text": "gen_random_uuid()::text",
    "timestamp with time zone": "now()",
    "bytea": "gen_random_uuid()::text::bytea",
    "text[]": "'{}'::text[]",
    "uuid[]": "'{}'::uuid[]",
    "bigint[]": "'{}'::bigint[]",
    "smallint[]": "'{}'::smallint[]",
    "smallint": "0",
    "integer": "0",
    "bigint": "0",
    "double precision": "0",
    "boolean": "false",
}


async def insert_statement(admin: asyncpg.Connection, table: str) -> str:
    """An insert of one row of the account `$1`, made from the catalogue so that new tables are covered."""
    columns = await admin.fetch(COLUMNS, table)
    values = ["$1" if c["name"] == "account_id" else SAMPLES[c["type"]] for c in columns]
    return f"insert into {table} ({', '.join(c['name'] for c in columns)}) values ({', '.join(values)})"


async def test_every_table_with_an_account_is_walled(admin):
    tables = await admin.fetch(
        "select table_name from information_schema.columns where column_name = 'account_id' and table_schema = 'public'"
        " intersect select tablename from pg_tables where schemaname = 'public' order by 1"
    )
    walled = {row["tablename"] for row in await admin.fetch(WALLED)}
    assert {row["table_name"] for row in tables} == walled
    assert len(walled) >= 20
    forced = await admin.fetchval(
        "select count(*) from pg_class where relname = any($1) and relrowsecurity and relforcerowsecurity", list(walled)
    )
    assert forced == len(walled)


async def drop_checks(admin: asyncpg.Connection) -> None:
    """Sample rows mean nothing, so what checks their meaning is in the way; the walls are not checks."""
    checks = "select conrelid::regclass::text as t, conname as name from pg_constraint where contype = 'c'"
    for row in await admin.fetch(checks + " and connamespace = 'public'::regnamespace and conrelid <> 0"):
        await admin.execute(f"alter table {row['t']} drop constraint {row['name']}")


async def test_no_row_of_another_account_is_seen_changed_or_made(admin, db, boss, stranger):
    await drop_checks(admin)
    for row in await admin.fetch(WALLED):
        table = row["tablename"]
        insert = await insert_statement(admin, table)
        if table != "account":
            await admin.execute(insert, boss.account_id)
            await admin.execute(insert, stranger.account_id)
        theirs = await admin.fetch(f"select * from {table} where account_id = $1", stranger.account_id)
        assert theirs, table
        async with db.scope(boss.account_id) as connection:
            assert await connection.fetchval(f"select count(*) from {table}") >= 1, table
            assert await connection.fetch(f"select * from {table} where account_id = $1", stranger.account_id) == []
            assert await connection.execute(f"delete from {table} where account_id = $1", stranger.account_id) == (
                "DELETE 0"
            ), table
            update = f"update {table} set account_id = $1 where account_id = $1"
            assert await connection.execute(update, stranger.account_id) == "UPDATE 0", table
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(insert, stranger.account_id)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"update {table} set account_id = $1", stranger.account_id)
        assert await admin.fetch(f"select * from {table} where account_id = $1", stranger.account_id) == theirs, table


async def test_without_an_account_nothing_is_seen(admin, db, boss):
    async with db.scope(boss.account_id) as connection:
        await connection.execute("select set_config('millrace.account', '', true)")
        async with connection.transaction():
            await connection.execute("select set_config('millrace.account', '', true)")
            for row in await admin.fetch(WALLED):
                assert await connection.fetchval(f"select count(*) from {row['tablename']}") == 0


async def test_tables_of_the_installation_are_closed_to_tenants(db, boss):
    async with db.scope(boss.account_id) as connection:
        for table in ("keyring", "worker"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"select * from {table}")
