"""The feed: every entry is announced exactly once, and its cursor misses nobody who commits late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine import store
from instances.engine.journal_writer import Next
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import BeginRollback, Do, EndRollback, Fail, Failure, RunContext, StepKey, StepKind
from tests.support.engine import Engine, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, awaits_go, calls_child, naps, one_step, wait


async def announced(admin: asyncpg.Connection) -> None:
    """Each journal entry is in exactly one range of exactly one row of its workflow."""
    rows = await admin.fetch(
        "select f.account_id, f.workflow_key, k.key, k.first, k.last from feed f"
        " cross join lateral unnest(f.keys, f.first_seqs, f.last_seqs) as k(key, first, last)"
    )
    told: Counter[tuple[UUID, UUID, UUID, int]] = Counter()
    for row in rows:
        assert row["first"] <= row["last"], dict(row)
        for seq in range(row["first"], row["last"] + 1):
            told[row["account_id"], row["workflow_key"], row["key"], seq] += 1
    entries = await admin.fetch(
        "select account_id, i.workflow_key, key, j.seq, j.kind from journal j join instance i using (account_id, key)"
    )
    written = Counter((r["account_id"], r["workflow_key"], r["key"], r["seq"]) for r in entries)
    kinds = {(r["key"], r["seq"]): Kind(r["kind"]).name for r in entries}
    missing = [(kinds[key, seq], seq) for _, _, key, seq in written - told]
    extra = [(kinds.get((key, seq)), seq) for _, _, key, seq in told - written]
    assert (missing, extra) == ([], [])


Life = Callable[[Engine, Puppet, UUID, Any], Awaitable[Any]]


async def _park(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await puppet.flush(row, Next.PARK, entries=2, due=engine.clock.now() + timedelta(days=1))


async def _refused_park(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await engine.client.send_event(engine.account, key, "t", None)
    await puppet.flush(row, Next.PARK, entries=1)
    await puppet.flush(row, Next.PARK)


async def _settle(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await engine.client.pause(engine.account, key)
    await puppet.flush(row, Next.SETTLE_PAUSE, entries=1)
    await engine.client.resume(engine.account, key)


async def _refused_settle(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await puppet.flush(row, Next.SETTLE_PAUSE, entries=1)
    await puppet.flush(row, Next.SETTLE_PAUSE)


async def _pause_a_parked_run(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await _park(engine, puppet, key, row)
    await engine.client.pause(engine.account, key)


async def _release(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await puppet.flush(row, Next.RELEASE, entries=1)


async def _release_while_pausing(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await engine.client.pause(engine.account, key)
    await puppet.flush(row, Next.RELEASE)
    assert await engine.status(key) is Status.PAUSED


async def _complete(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await puppet.flush(row, Next.COMPLETE, entries=1)
    await engine.client.restart(engine.account, key)


async def _refused_end(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await engine.client.terminate(engine.account, key, rollback=True)
    await puppet.flush(row, Next.COMPLETE, entries=1)
    await puppet.flush(row, Next.ERRORED)
    await puppet.flush(row, Next.TERMINATED)


async def _sent_again(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    change = puppet.change(row, entries=2)
    await puppet.send(change)
    await puppet.send(change)


async def _terminate(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await engine.client.terminate(engine.account, key)
    await puppet.flush(row, entries=3)


async def _events(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    for dedupe in ("a", "b", "a"):
        await engine.client.send_event(engine.account, key, "t", None, dedupe=dedupe)


async def _lost_while_pausing(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await engine.client.pause(engine.account, key)
    heir = await Puppet.enter(engine)
    await engine.admin.execute("delete from worker where id = $1", puppet.worker_id)
    assert len(await heir.take_over()) == 1
    assert await engine.status(key) is Status.PAUSED


async def _given_back_while_pausing(engine: Engine, puppet: Puppet, key: UUID, row: Any) -> None:
    await engine.client.pause(engine.account, key)
    arguments = [engine.account], [key], [row["epoch"]], engine.clock.now()
    await puppet.connection.execute(store.GIVE_BACK, puppet.worker_id, *arguments)
    assert await engine.status(key) is Status.PAUSED


LIVES: list[Life] = [
    _park,
    _refused_park,
    _settle,
    _refused_settle,
    _pause_a_parked_run,
    _release,
    _release_while_pausing,
    _complete,
    _refused_end,
    _sent_again,
    _terminate,
    _events,
    _lost_while_pausing,
    _given_back_while_pausing,
]


@pytest.mark.parametrize("life", LIVES, ids=lambda f: f.__name__.strip("_"))
async def test_every_entry_is_announced_once(engine: Engine, puppet: Puppet, life: Life) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    await life(engine, puppet, key, await puppet.claim_one())
    await announced(engine.admin)


async def test_a_batch_announces_each_workflow_in_a_row_of_its_own(engine: Engine, puppet: Puppet) -> None:
    other = await engine.add_account()
    for account in (engine.account, other):
        for handle in ("a", "b"):
            await engine.define(handle, one_step, account=account)
            await engine.create_many(handle, 3, account=account)
    rows = await puppet.claim()
    await engine.admin.execute("delete from feed where keys <> '{}'")
    await puppet.send(*(puppet.change(row, entries=2) for row in rows))
    feed = await engine.admin.fetch("select * from feed")
    assert len(feed) == len({(row["account_id"], row["workflow_key"]) for row in feed}) == 4
    assert all(len(row["keys"]) == 3 for row in feed)


async def test_whole_lives_are_announced(engine: Engine) -> None:
    def undoes(run: RunContext) -> Steps:
        yield [step("a")]
        failure = Failure("Error", "no")
        yield [BeginRollback(failure), Do(StepKey(StepKind.ROLLBACK, "a"), config='{"config":{}}')]
        yield [EndRollback(True), Fail(failure)]
        return None

    await engine.define("child", awaits_go)
    await engine.define("parent", calls_child)
    await engine.define("naps", naps)
    await engine.define("undoes", undoes)
    await engine.worker()
    parents = await engine.create_many("parent", 2)
    nap, undone = await engine.create("naps"), await engine.create("undoes")
    for key in parents:
        await engine.until(key, Status.WAITING)
    kids = await engine.admin.fetch("select key from instance where parent_key = any ($1)", parents)
    await engine.eventually(
        lambda: engine.admin.fetchval("select count(*) = 2 from live where status = 2 and 'go' = any (awaits)")
    )
    await engine.client.send_event(engine.account, kids[0]["key"], "go", None)
    await engine.client.terminate_many(engine.account, [kids[1]["key"]])
    await engine.until(nap, Status.WAITING)
    await engine.client.pause(engine.account, nap)
    await engine.client.resume(engine.account, nap)
    await engine.until(nap, Status.WAITING)
    await engine.advance(60)
    await engine.until(nap, Status.COMPLETE)
    await engine.until(undone, Status.ERRORED)
    await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 0 from live"))
    await announced(engine.admin)


class Reader:
    """What webhooks, streams and sums do: take what is below every running transaction, in order, and move on.

    Transactions of all databases of the server count, also those of other tests.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._admin = engine.admin
        self._xid, self._no = 0, 0
        self.read: list[UUID] = []

    async def look(self) -> None:
        rows = await self._admin.fetch(
            "select xid::text::bigint as xid, no, keys from feed where (xid, no) > ($1::bigint::text::xid8, $2::bigint)"
            " and xid < pg_snapshot_xmin(pg_current_snapshot()) order by xid, no",
            self._xid,
            self._no,
        )
        for row in rows:
            self._xid, self._no = row["xid"], row["no"]
            self.read += row["keys"]

    async def catch_up(self) -> None:
        """Look until there is nothing new."""

        async def all_is_read() -> bool:
            await self.look()
            return len(self.read) >= await self._admin.fetchval("select sum(cardinality(keys)) from feed")

        await self._engine.eventually(all_is_read)


async def test_the_cursor_misses_no_late_committer(engine: Engine, puppet: Puppet) -> None:
    """Three flushes begin in one order and commit in another; a reader looks between all of them."""
    await engine.define("w", one_step)
    keys = await engine.create_many("w", 3)
    rows = {row["key"]: row for row in await puppet.claim()}
    reader = Reader(engine)
    await reader.catch_up()
    before = len(reader.read)
    writers = [await Puppet.enter(engine) for _ in keys]
    transactions = []
    for key, writer in zip(keys, writers, strict=True):
        transaction = writer.connection.transaction()
        await transaction.start()
        await puppet.send(puppet.change(rows[key], entries=1), connection=writer.connection)
        transactions.append(transaction)
    for n in (2, 0, 1):
        await reader.look()
        await transactions[n].commit()
    await reader.catch_up()
    assert sorted(reader.read[before:]) == sorted(keys), "each one once"


async def test_a_reader_beside_running_writers_sees_every_row_once(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        yield [step("a")]
        yield [wait("w", "go")]
        return "1"

    await engine.define("w", script)
    for _ in range(3):
        await engine.worker()
    reader = Reader(engine)
    keys: list[UUID] = []
    for n in range(60):
        keys.append(await engine.create("w"))
        if n % 3 == 0:
            await engine.client.send_event(engine.account, keys[-1], "go", None)
        await reader.look()
    await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 40 and bool_and(status = 2) from live"))
    await reader.catch_up()
    assert len(reader.read) == await engine.admin.fetchval("select sum(cardinality(keys)) from feed")
    await announced(engine.admin)
