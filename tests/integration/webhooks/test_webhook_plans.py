"""What the background's statements cost does not depend on what is stored: plans made on empty tables are kept."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from jobs.webhooks.schedule import LANES
from jobs.webhooks.store import happened, sending
from tests.integration.webhooks.conftest import Post

MANY = 20_000
LATER = timedelta(minutes=1)


async def pages(connection: asyncpg.Connection, statement: str, *arguments: Any) -> int:
    """Pages a statement touches, in a transaction that is undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        text = await connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *arguments)
    finally:
        await transaction.rollback()
    plan = json.loads(text or "")[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


@pytest.fixture
async def engine_connection(db):
    """A connection of the engine's, whose plans stay as they were made first."""
    connection = await db.dedicated("plans")
    yield connection
    await connection.close()


async def test_claiming_finishing_and_reading_stay_cheap(post: Post, engine_connection) -> None:
    world, now = post.world, post.world.clock.now()
    hooks = [await post.listen("*") for _ in range(4)]
    await post.made("i")
    cursor = await happened.begin(post.db, world.account, now, now)
    assert cursor is not None

    async def measured() -> dict[str, int]:
        first = await world.admin.fetchval("select min(no) from webhook_delivery where status = 0")
        finish = [world.account, hooks[0].no, first or 0, 0, now, 1, True, False, now, False, now, now, 200, None, "{}"]
        return {
            "claim": await pages(engine_connection, sending.CLAIM, now, now + LATER, 10, []),
            "finish": await pages(engine_connection, sending.FINISH, *finish, now),
            "feed": await pages(engine_connection, happened.FEED, world.account, *cursor, 50),
            "news": await pages(engine_connection, happened.NEWS, str(await happened.mark(post.db)), [world.account]),
            "begin": await pages(engine_connection, happened.BEGIN, world.account, now, now),
            "deliver": await pages(
                engine_connection,
                happened.DELIVER,
                world.account,
                [hooks[0].no],
                ["progress.updated"],
                ["evt_new"],
                [post.keys["i"]],
                ["{}"],
                now,
                now,
            ),
            "freshen": await pages(
                engine_connection, happened.FRESHEN, world.account, [hooks[0].no], [post.keys["i"]], ["evt_n"], ["{}"]
            ),
        }

    await measured()
    for status in (0, 1, 2):
        await world.admin.execute(
            "insert into webhook_delivery (account_id, webhook_no, event, event_id, instance_key, body, status,"
            " next_at, created_at, expires_at)"
            " select $1, w, case when n % 3 = 0 then 'progress.updated' else 'e' end, 'x',"
            " case when n % 7 = 0 then $6 else gen_random_uuid() end, '{}',"
            " $2, $3::timestamptz - n * interval '1 ms', $3, $3"
            " from unnest($4::bigint[]) w, generate_series(1, $5::int) n",
            world.account,
            status,
            now,
            [hook.no for hook in hooks],
            MANY // 12,
            post.keys["i"],
        )
    await world.admin.execute("update webhook set due_at = $1", now)
    await world.admin.execute(
        "insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)"
        " select account_id, workflow_key, '{}', '{}', '{}', created_at from instance, generate_series(1, $1::int)",
        MANY,
    )
    await post.settled()
    after = await measured()
    room = {"claim": 4 * LANES * 40, "feed": 200, "finish": 60, "deliver": 100, "news": 700}
    assert {name: cost for name, cost in after.items() if cost > room.get(name, 40)} == {}, after
