"""The engine's SQL functions after an upgrade: those of this release, and no others of the same name."""

from __future__ import annotations

import re

import asyncpg
import pytest

from app.migrations import FUNCTIONS, migrate, pending
from app.schema_errors import SchemaTooNew
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
    await admin.execute("update installed_functions set digest = '0.0.9/of an older release'")

    assert await pending(dsn) == [FUNCTIONS]
    assert await migrate(dsn) == [FUNCTIONS]
    assert await pending(dsn) == []

    assert [row[0] for row in await admin.fetch(mine, names)] == now
    await admin.execute("select let_go('{}', '{}', now())")


async def test_functions_of_a_newer_release_are_left_alone(dsn: str, admin: asyncpg.Connection) -> None:
    await admin.execute("update installed_functions set digest = '999.0.1/of a newer release'")
    with pytest.raises(SchemaTooNew, match=r"migrated by Millrace 999\.0\.1, which is newer"):
        await migrate(dsn)
    with pytest.raises(SchemaTooNew):
        await pending(dsn)


async def test_another_state_of_this_release_is_replaced(dsn: str, admin: asyncpg.Connection) -> None:
    await admin.execute("update installed_functions set digest = 'without a release'")
    assert await migrate(dsn) == [FUNCTIONS]
    assert await migrate(dsn) == []
