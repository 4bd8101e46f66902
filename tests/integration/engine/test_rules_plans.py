"""Plans made on empty tables: what a statement touches does not grow with what is stored.

A connection keeps the plans it made first. Here it makes them on an empty database and never again, and then the tables
grow by thousands of rows of one account and one workflow. Cost is counted in pages, which is the same on every machine.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.embedded.postgres import EmbeddedPostgres
from instances.engine import store
from instances.engine.claims import ZERO
from instances.engine.journal_writer import Flush, Next, _columns
from instances.lifecycle import Kind
from jobs.retention import store as retention_store
from tenants import database
from tests.support.databases import Databases
from tests.support.engine import Engine
from tests.support.scripts import one_step
from tests.support.servers import POSTGRES_SETTINGS, scratch_home

FEW = 3
MANY = 100
ROUNDS = 4


@pytest.fixture(scope="module")
async def databases() -> AsyncIterator[Databases]:
    """Databases of a server of our own. On the shared one, whoever migrates a database sends so many notes of what
    has changed that all connections forget their plans; and autovacuum makes those of a table forgotten.
    """
    home = scratch_home()
    server = EmbeddedPostgres(home, settings=POSTGRES_SETTINGS | {"autovacuum": "off"}, throwaway=True)
    server.start()
    databases = await Databases.open(server)
    yield databases
    await databases.close()
    server.stop()
    shutil.rmtree(home)


class Days:
    """Lets instances live through everything the engine has a statement for, on one connection."""

    def __init__(self, engine: Engine, connection: Any) -> None:
        self.engine = engine
        self.account = engine.account
        self.connection = connection
        self.pages: dict[str, int] | None = None
        """What each statement has touched, while that is measured."""
        self._ordinals: Counter[int] = Counter()
        self._me = 0

    async def begin(self) -> None:
        self._me = await self._worker()
        for name, statement, types in PLAIN:
            await self.connection.execute(
                f"create function pg_temp.{name}({types}) returns bigint language plpgsql as $do$ declare n bigint;"
                f" begin with q as ({statement}) select count(*) into n from q; return n; end $do$"
            )

    async def _worker(self) -> int:
        lease = timedelta(days=1000)
        arguments = (self.engine.clock.now(), lease, "host", 1, [0], 1000)
        return await self.connection.fetchval(store.REGISTER, *arguments)

    async def ask(self, name: str, statement: str, *arguments: Any) -> None:
        """Carry a statement out."""
        if self.pages is None:
            await self.connection.fetch(statement, *arguments)
            return
        text = await self.connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *arguments)
        plan = json.loads(text)[0]["Plan"]
        self.pages[name] = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    async def plain(self, name: str, *arguments: Any) -> None:
        """Carry out a statement that is no function."""
        numbers = ",".join(f"${n}" for n in range(1, len(arguments) + 1))
        await self.ask(name, f"select pg_temp.{name}({numbers})", *arguments)

    async def measured(self, n: int) -> dict[str, int]:
        """Pages each statement touches for `n` instances."""
        self.pages = {}
        await self.day(n)
        pages, self.pages = self.pages, None
        return pages

    # --- what happens in a day -----------------------------------------------------------------------------------

    async def day(self, n: int) -> None:
        now = self.engine.clock.now
        keys = await self.create("create", 8 * n)
        await self.send("event before the claim", keys[:n])
        await self.read(keys[:n])
        for name, statement in (("pause", store.PAUSE), ("resume", store.RESUME), ("roll back", store.ROLL_BACK)):
            for key in keys[: max(1, n // 40)]:
                await self.ask(name, statement, self.account, key, now())
        await self.ask("terminate", store.TERMINATE, self.account, keys[n : 2 * n], False, now())
        await self.ask("delete", store.DELETE, self.account, keys[2 * n : 3 * n], now())
        for key in keys[n : n + max(1, n // 40)]:
            await self.ask("restart", store.RESTART, self.account, key, None, None, now())
        held = await self.claim(4 * n)
        complete, parked, parents, lost = (held[i * n : i * n + n] for i in range(4))
        await self.flush("flush", held)
        await self.flush("flush that ends", complete, Next.COMPLETE, body='"done"')
        await self.flush("flush that parks", parked, Next.PARK, due=now() + timedelta(days=1), awaits=["go"])
        await self.send("event that wakes", [row["key"] for row in parked])
        kids = await self.create("create children", n, parents=[row["key"] for row in parents])
        await self.flush("flush that gives up", parents[:1], given_up=[(kids[0], False)])
        await self.flush("flush that ends parents", parents, Next.ERRORED, body='"failed"')
        await self.executions(n, [row["key"] for row in parents])
        await self.lose(lost[: n // 2], lost[n // 2 :])
        self.engine.clock.advance(1)  # type: ignore[attr-defined]
        await self.ask("retention", retention_store._RETIRE, now(), n, 50_000)

    async def create(self, name: str, n: int, parents: list[UUID] | None = None) -> list[UUID]:
        keys = [self.engine.ids.uuid7() for _ in range(n)]
        texts = [str(key) for key in keys]
        # An n-th of those that end may go at once.
        kept: list[int | None] = [1 if i % 8 == 0 else None for i in range(n)]
        none: list[None] = [None] * n
        arguments: list[Any] = [
            [self.account] * n,
            ["w"] * n,
            keys,
            texts,
            ['{"a":1}'] * n,
            [1] * n,
            none,
            none,
            kept,
            kept,
        ]
        arguments += [
            parents or none,
            none,
            [int(parents is not None)] * n,
            none,
            self.engine.clock.now(),
            parents or none,
            none,
            [self.account] * n,
        ]
        await self.ask(name, store.CREATE, *arguments)
        return keys

    async def executions(self, n: int, failed: list[UUID]) -> None:
        """What is done to single executions; `failed` have just ended so."""
        now, engine = self.engine.clock.now, self.engine
        for _ in range(max(1, n // 40)):
            text = str(engine.ids.uuid7())
            made = (self.account, "w", text, True, engine.ids.uuid7(), text, "1", 1, None, None, 1, 1, None)
            await self.ask("create under a transaction id", store.CREATE_TRANSACTION, *made, now(), self.account)
            await self.ask("find a transaction id", store.CREATE_TRANSACTION, *made, now(), self.account)
        for index, key in enumerate(failed[: 4 * max(1, n // 40)]):
            row = await engine.admin.fetchrow("select run, seq, status from instance where key = $1", key)
            if row is None or row["status"] != 7:
                continue
            seen = row["run"], row["seq"]
            match index % 4:
                case 0:
                    await self.ask("hide", store.HIDE, self.account, key, now())
                case 1:
                    new = engine.ids.uuid7()
                    kept = [2, 3]
                    await self.ask(
                        "retry", store.RETRY, self.account, key, *seen, new, "s", None, None, kept, None, now()
                    )
                    await self.ask("cancel", store.CANCEL, self.account, new, False, "1", now())
                case _:
                    await self.ask("reopen", store.REOPEN, self.account, key, *seen, "s", 1, 2, 2, False, now())
                    about = (seen[0], 2, [3], "s", 1, ["step:s"], ["1"], "answer", 1000, 1 << 24)
                    await self.ask("answer", store.ANSWER, self.account, key, *about, now())
                    await self.ask("cancel and undo", store.CANCEL, self.account, key, True, "1", now())
                    # It would be claimed before all others.
                    await self.connection.fetch(store.DELETE, self.account, [key], now())

    async def send(self, name: str, keys: list[UUID]) -> None:
        n = len(keys)
        dedupes = [str(self.engine.ids.uuid7()) for _ in keys]
        arguments = (
            [self.account] * n,
            sorted(keys),
            ["go"] * n,
            ["1"] * n,
            dedupes,
            1000,
            1 << 24,
            self.engine.clock.now(),
        )
        await self.ask(name, store.SEND_EVENTS, *arguments)

    async def claim(self, n: int) -> list[asyncpg.Record]:
        await self.ask("claim", store.CLAIM, self._me, [0], n, ZERO, [], self.engine.clock.now())
        return await self.engine.admin.fetch(
            "select l.*, i.parent_key from live l join instance i using (account_id, key) where l.owner = $1"
            " order by l.epoch desc limit $2",
            *(self._me, n),
        )

    async def flush(self, name: str, rows: list[asyncpg.Record], next: Next = Next.KEEP, **fields: Any) -> None:
        changes: list[Flush] = []
        for row in sorted(rows, key=lambda row: row["key"].bytes):
            self._ordinals[row["epoch"]] += 1
            now = self.engine.clock.now()
            entries = [(int(kind), "s", 1, 1, now, '"x"') for kind in (Kind.STEP_STARTED, Kind.STEP_COMPLETED)]
            change = Flush(
                self.account, row["key"], row["epoch"], self._ordinals[row["epoch"]], now, entries, next=next, **fields
            )
            change.seen = await self.engine.admin.fetchval("select signal from live where key = $1", row["key"]) or 0
            change.consumed = [
                fact["no"] for fact in await self.engine.admin.fetch("select no from inbox where key = $1", row["key"])
            ]
            changes.append(change)
        await self.ask(name, store.FLUSH, *_columns(changes))

    async def read(self, keys: list[UUID]) -> None:
        """What opens a run again, and what is asked at each renewal."""
        accounts = [self.account] * len(keys)
        await self.plain("journals", accounts, keys, [1] * len(keys))
        await self.plain("inboxes", accounts, keys)
        await self.plain("input", self.account, keys[0])
        await self.plain("received", accounts, keys, ["x"] * len(keys))
        await self.plain("created_keys", accounts, keys)

    async def lose(self, returned: list[asyncpg.Record], taken: list[asyncpg.Record]) -> None:
        """Runs given back, and runs of a worker that died."""
        columns = [[row[name] for row in returned] for name in ("account_id", "key", "epoch")]
        await self.ask("give back", store.GIVE_BACK, self._me, *columns, self.engine.clock.now())
        await self.ask("held", store.HELD, self._me)
        dead = await self._worker()
        await self.engine.admin.execute("update live set owner = $1 where owner = $2", dead, self._me)
        await self.engine.admin.execute("delete from worker where id = $1", dead)
        arguments = (self._me, store.WORKER_LOCK_CLASS, timedelta(days=1), self.engine.clock.now())
        await self.ask("take over", store.TAKE_OVER, *arguments)


PLAIN = [
    ("journals", store.JOURNAL, "uuid[], uuid[], bigint[]"),
    ("inboxes", store.INBOX, "uuid[], uuid[]"),
    ("input", store.INPUT, "uuid, uuid"),
    ("received", store.RECEIVED, "uuid[], uuid[], text[]"),
    ("created_keys", store.CREATED_KEYS, "uuid[], uuid[]"),
]


UNVACUUMED = {"claim": "live_ready", "held": "live_owner", "take over": "live_owner"}
"""Statements that pass over what left an index and was not vacuumed out of it yet."""


async def grown(engine: Engine) -> dict[str, tuple[int, int]]:
    """Pages each statement touches on the empty database and on the grown one, where it may not touch so many."""
    await engine.define("w", one_step)
    connection = await engine.db.dedicated("days")
    days = Days(engine, connection)
    await days.begin()
    await days.day(FEW)  # all plans are made
    before = await days.measured(FEW)
    for _ in range(ROUNDS):
        await days.day(MANY)
    for _ in range(3):
        await days.day(FEW)  # marks what is dead in the indexes
    after = await days.measured(FEW)
    await connection.close()
    sizes = await engine.admin.fetch(
        "select relname, pg_relation_size(oid) / 8192 as n from pg_class where relkind = 'i'"
    )
    dead = {row["relname"]: 4 * row["n"] for row in sizes}
    counts = "select (select count(*) from instance) > $1 and (select count(*) from live) > $2"
    assert await engine.admin.fetchval(counts, 25 * MANY, 15 * MANY)
    # Indexes are a level deeper now, where there was one page before.
    return {
        name: (pages, after[name])
        for name, pages in before.items()
        if after[name] > 2.2 * pages + 20 + dead.get(UNVACUUMED.get(name, ""), 0)
    }


async def test_no_statement_costs_more_as_tables_grow(engine: Engine) -> None:
    assert await grown(engine) == {}


@pytest.mark.parametrize(
    ("setting", "which"),
    [
        (
            "enable_seqscan",
            ["claim", "flush", "event that wakes", "pause", "journals", "inboxes", "take over"],
        ),
        ("enable_hashjoin", ["flush that ends", "flush that parks"]),
    ],
)
async def test_costs_grow_without_the_settings(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, setting: str, which: list[str]
) -> None:
    """What is measured here is what the settings of engine connections prevent."""
    monkeypatch.delitem(database.ENGINE_PLANNER, setting)
    assert {*which} <= {*(await grown(engine))}
