"""The suite's own ground: every test has a database and a Redis of its own."""

import pytest


@pytest.mark.parametrize("turn", range(20))
async def test_database_is_fresh(turn, db, account, redis):
    async with db.scope(account) as connection:
        assert await connection.fetchval("select count(*) from account") == 1
    assert await redis.dbsize() == 0
    await redis.set("left", "behind")
