"""The engine's SQL functions after an upgrade: those of this release, and no others of the same name."""

from __future__ import annotations

import re

import asyncpg

from app.migrations import migrate
from instances.engine import store


async def test_functions_of_an_older_release_are_replaced_whatever_their_shape(
    dsn: str, admin: asyncpg.Connection
) -> None:
    mine = "select oid::regprocedure::text from pg_proc where proname = any ($1) order by 1"
    names = re.findall(r"create or replace function (\w+)", "\n".join(store.function_scripts()))
    now = [row[0] for row in await admin.fetch(mine, names)]
    assert len(now) == len(set(names))
    await admin.execute("drop function let_go")
    await admin.execute(
        "create function let_go(uuid[], uuid[], timestamptz) returns text language sql as 'select null'"
    )
    await admin.execute("create function give_back(int) returns int language sql as 'select 1'")
    await admin.execute("update installed_functions set digest = 'of an older release'")

    await migrate(dsn)

    assert [row[0] for row in await admin.fetch(mine, names)] == now
    await admin.execute("select let_go('{}', '{}', now())")
