"""Everything at once: workers that freeze and lose their connections, commands, events, children, a limit.

Each run is different. The seed is printed when one fails; `MILLRACE_FUZZ_SEED` repeats its choices, but not the timing,
which is the machine's. `MILLRACE_FUZZ_SECONDS` gives it more time than the few seconds it takes by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.errors import Unavailable
from instances.engine import worker as engine_worker
from instances.engine.client import EngineClient
from instances.engine.journal_writer import Flush, Flushed, JournalWriter
from instances.engine.requests import SendEvent
from instances.engine.runs import suspicion
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import Attempt, Cancel, Child, Do, Failure, Retry, RunContext
from tests.support.engine import Engine, step
from tests.support.invariants import consistent
from tests.support.scripts import Steps, nap, outcome, wait
from tests.support.unreliable import UnreliableDatabase

SECONDS = float(os.environ.get("MILLRACE_FUZZ_SECONDS", "7"))
SEED = int(os.environ.get("MILLRACE_FUZZ_SEED", random.SystemRandom().randrange(1 << 32)))

WORKERS = 3
LIMIT = 12
EVENTS = 5
PER_SECOND = 8
"""Instances begun in each second of the fuzz."""
LEASE = 0.6
AGAIN = Retry(10_000, 0)
YEAR = 365 * 86_400


def consumer(run: RunContext) -> Steps:
    """Reads five events, works after each, and has a child do some of it; what it read.

    With the last event it is in a hurry: it leaves a child, or gives it up, that would sleep for years.
    """
    read: list[int] = []
    for n in range(1, EVENTS + 1):
        long = [step("kid", 2, child=Child("sleeper", None))] if n == EVENTS else []
        [message] = yield [*long, wait("w", "go", n, seconds=YEAR)]
        read.append(json.loads(message.value)["payload"])
        if long and run.key.int % 2:
            yield [Cancel(long[0].key, Failure("Hurry", "no time")), step("last", retry=AGAIN, data=(run.key, 0))]
        [message] = yield [step("work", n, retry=AGAIN, data=(run.key, n))]
        outcome(message)
        if n == 3:
            [message] = yield [step("kid", retry=AGAIN, child=Child("kid", None))]
            outcome(message)
    return json.dumps(read)


def kid(run: RunContext) -> Steps:
    """Works, sleeps and works."""
    yield [step("work", 1, retry=AGAIN, data=(run.key, 1))]
    yield [nap("nap", seconds=1)]
    yield [step("work", 2, retry=AGAIN, data=(run.key, 2))]
    return '"kid"'


def sleeper(run: RunContext) -> Steps:
    yield [nap("nap", seconds=YEAR)]
    return None


@dataclass
class Storm:
    """The weather, and what was seen in it."""

    engine: Engine
    dsn: str
    dice: random.Random
    databases: list[UnreliableDatabase] = field(default_factory=list)
    roots: list[UUID] = field(default_factory=list)
    terminated: set[UUID] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    done: set[tuple[UUID, str | None, int | None]] = field(default_factory=set)
    """Steps whose end is committed: instance, name, count."""
    most: int = 0
    """Runs that held a slot in one snapshot."""
    broken: list[str] = field(default_factory=list)
    """Promises that were seen broken."""
    over: bool = True
    """It has not begun yet, or has passed."""

    async def body(self, do: Do, _: Attempt) -> str | None:
        """Some work. What is done is not begun again."""
        key, n = do.data
        if (key, do.key.name, do.key.count) in self.done:
            self.broken.append(f"{do.key.counted} of {key} was done and began again")
        await asyncio.sleep(self.dice.choice((0, 0, 0.005, 0.1)))
        return f'"{n}"'

    def keep_the_books(self, writer: JournalWriter) -> None:
        """Note what a worker hears is committed, at that very moment."""
        submit = writer.submit

        def submit_and_note(flush: Flush) -> asyncio.Future[Flushed]:
            future = submit(flush)
            future.add_done_callback(note(flush))
            return future

        def note(flush: Flush) -> Callable[[asyncio.Future[Flushed]], None]:
            done = [(flush.key, name, count) for kind, name, count, *_ in flush.entries if kind == Kind.STEP_COMPLETED]
            return lambda future: self.done.update(done if future.result().accepted else ())

        writer.submit = submit_and_note  # type: ignore[method-assign]

    # --- those who use it ----------------------------------------------------------------------------------------

    async def insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until there is an answer."""
        while True:
            try:
                return await ask()
            except Unavailable:
                self.faults["unavailable"] += 1

    async def user(self) -> None:
        """Begins an instance and sends it its events, each after the last was accepted."""
        [key] = await self.insist(lambda: self.engine.create_many("consumer", 1))
        self.roots.append(key)
        client, account = self.engine.client, self.engine.account
        for n in range(1, EVENTS + 1):
            await asyncio.sleep(self.dice.choice((0, 0, 0.05, 0.3)))
            sent = await self.insist(lambda n=n: client.send_event(account, key, "go", str(n), dedupe=f"event {n}"))
            if sent is SendEvent.NOT_LIVE and key not in self.terminated:
                self.broken.append(f"event {n} was refused by {key}, which nobody ended")

    async def users(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3 * LIMIT):
                group.create_task(self.user())
            while not self.over:
                group.create_task(self.user())
                await asyncio.sleep(self.dice.uniform(0, 2 / PER_SECOND))

    async def operator(self) -> None:
        """Pauses, resumes and, seldom, terminates."""
        client, account = self.engine.client, self.engine.account
        while not self.over:
            await asyncio.sleep(self.dice.uniform(0, 0.04))
            if not self.roots:
                continue
            key = self.dice.choice(self.roots[-30:])
            command = self.dice.choice(["pause"] * 6 + ["resume"] * 8 + ["terminate"])
            if command == "terminate":
                self.terminated.add(key)
            await self.insist(lambda c=command, k=key: getattr(client, c)(account, k))

    # --- the weather ---------------------------------------------------------------------------------------------

    async def frost(self) -> None:
        """Freezes a worker past its lease. The others go on renewing theirs."""
        while not self.over:
            await asyncio.sleep(self.dice.uniform(0.1, 0.6))
            database = self.dice.choice(self.databases)
            database.freeze()
            await asyncio.sleep(self.dice.uniform(0, 0.1))
            await self.pass_time(LEASE + 0.1, frozen=database)
            await asyncio.sleep(self.dice.uniform(0, 0.3))
            database.thaw()
            self.faults["frozen"] += 1

    async def pass_time(self, seconds: float, frozen: UnreliableDatabase | None = None) -> None:
        self.engine.clock.advance(seconds)  # type: ignore[attr-defined]
        awake = [w.worker_id for d, w in zip(self.databases, self.engine.workers, strict=True) if d is not frozen]
        await self.eyes.execute(
            "update worker set lease_until = lease_until + make_interval(secs => $1),"
            " renewed_at = renewed_at + make_interval(secs => $1) where id = any ($2)",
            *(seconds, awake),
        )

    async def lightning(self) -> None:
        """Kills connections of workers and callers."""
        kill = (
            "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity"
            " where datname = current_database() and application_name like 'millrace-%' order by random() limit 1) q"
        )
        while not self.over:
            await asyncio.sleep(self.dice.uniform(0, 0.15))
            self.faults["killed"] += await self.eyes.fetchval(kill)

    async def lose(self, _sent: str, _answer: Any) -> None:
        """Loses the answer to what was committed just then."""
        if not self.over and self.dice.random() < 0.02:
            self.faults["lost answers"] += 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    # --- those who look ------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Looks at one moment after the other."""
        look = """
          select (select count(*) from live where phase = 1) as held,
            (select count(*) from live l join instance i using (account_id, key)
             where i.parent_key is not null and not exists (select from live p where p.key = i.parent_key)) as orphans
        """
        reader = await asyncpg.connect(self.dsn, server_settings={"application_name": "reader"})
        while not self.over:
            row = await reader.fetchrow(look)
            assert row is not None
            self.most = max(self.most, row["held"])
            if row["orphans"]:
                self.broken.append(f"{row['orphans']} children without a parent")
            await asyncio.sleep(0)
        await reader.close()

    # --- life ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Workers, each with a database of its own to lose."""
        self.eyes = await asyncpg.create_pool(
            self.dsn, min_size=0, max_size=5, server_settings={"application_name": "eyes"}
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.eyes.close)
            await self.engine.client.stop()
            self.engine.client = EngineClient(await self._database(stack), self.engine.clock, self.engine.bell)
            await self.engine.client.start()
            stack.push_async_callback(self.engine.close)
            for _ in range(WORKERS):
                self.databases.append(await self._database(stack))
                stack.callback(self.databases[-1].thaw)
                worker = await self.engine.worker(db=self.databases[-1], lease_seconds=LEASE, silent_seconds=LEASE / 2)
                self.keep_the_books(worker.writer)
            stack.push_async_callback(self.engine.close)
            yield

    async def _database(self, stack: contextlib.AsyncExitStack) -> UnreliableDatabase:
        database = UnreliableDatabase(self.dsn)
        await database.connect()
        stack.push_async_callback(database.close)
        database.hooks.append(self.lose)
        return database

    async def rage(self, seconds: float) -> None:
        self.over = False
        people = (self.users, self.operator, self.frost, self.lightning, self.watch)
        async with asyncio.TaskGroup() as group:
            for act in people:
                group.create_task(act())
            await asyncio.sleep(seconds)
            self.over = True

    async def calm_down(self) -> None:
        """The sun shines; whoever is paused is resumed, and everything comes to its end."""
        async with asyncio.timeout(20):
            while await self.eyes.fetchval("select exists (select from live)"):
                for row in await self.eyes.fetch("select key from live where status in (3, 4)"):
                    await self.insist(lambda k=row["key"]: self.engine.client.resume(self.engine.account, k))
                await self.pass_time(0.5)
                await asyncio.sleep(0.05)


async def test_whatever_happens_nothing_is_lost_and_nothing_is_done_twice(
    engine: Engine, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"MILLRACE_FUZZ_SEED={SEED}")
    dice = random.Random(SEED)
    # Loops that look ten times as often, so that there is more of everything in a second.
    monkeypatch.setattr(engine_worker, "random", SimpleNamespace(uniform=lambda a, b: dice.uniform(a, b) / 10))
    monkeypatch.setattr(suspicion, "MAX_DEATHS_ALONE", 10_000)  # workers die of the weather here
    storm = Storm(engine, dsn, dice)
    await engine.define("consumer", consumer, storm.body)
    await engine.define("kid", kid, storm.body)
    await engine.define("sleeper", sleeper)
    await engine.admin.execute("update account set concurrency = $1", LIMIT)
    async with storm.opened():
        await storm.rage(SECONDS)
        try:
            await storm.calm_down()
        except TimeoutError:
            storm.broken.append(f"never finished: {await engine.admin.fetch('select * from live')}")
    print(dict(storm.faults), f"{len(storm.roots)} instances, {len(storm.terminated)} terminated, {storm.most} at once")
    assert storm.broken == []
    assert LIMIT // 2 < storm.most <= LIMIT
    await everything_was_done_once(engine, storm)
    await consistent(engine.admin)


async def everything_was_done_once(engine: Engine, storm: Storm) -> None:
    whole = json.dumps([*range(1, EVENTS + 1)])
    for key in storm.roots:
        row = await engine.admin.fetchrow("select status, output from instance where key = $1", key)
        assert row is not None
        journal = await engine.journal(key)
        assert [entry["seq"] for entry in journal] == [*range(1, len(journal) + 1)]
        came = [entry["payload"] for entry in journal if entry["kind"] == Kind.EVENT_RECEIVED]
        assert came == [f"event {n + 1}" for n in range(len(came))], "each event was stored once, in order"
        read = [json.loads(entry["payload"])["payload"] for entry in journal if entry["kind"] == Kind.WAIT_COMPLETED]
        assert read == [*range(1, len(read) + 1)], "each event was read once, in order"
        done = Counter((e["name"], e["count"]) for e in journal if e["kind"] == Kind.STEP_COMPLETED)
        assert {*done.values()} <= {1}
        if row["status"] == Status.TERMINATED:
            assert key in storm.terminated
        else:
            assert (row["status"], row["output"]) == (Status.COMPLETE, whole), row
    kids = await engine.admin.fetch(
        "select parent_key, parent_step, count(*) from instance where parent_key is not null"
        " group by 1, 2 having count(*) > 1"
    )
    assert kids == [], "each step had one child"
