"""Versions nobody can come back to go, and deleted workflows of which nothing is left; all else stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from jobs.retention import store, workflows
from jobs.retention.workflows import PruneWorkflows
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tenants.limits import WORKFLOW_VERSIONS_KEPT

from .conftest import World, add_workflow

DAY = 86_400
KEPT = 3


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three versions are kept instead of a hundred, and everything is done in small pieces."""
    for name in ("_NEXT_WORKFLOW", "_OUTLIVED_VERSIONS", "_DELETE_VERSIONS"):
        text = getattr(store, name)
        assert f"offset {WORKFLOW_VERSIONS_KEPT} " in text
        monkeypatch.setattr(store, name, text.replace(f"offset {WORKFLOW_VERSIONS_KEPT} ", f"offset {KEPT} "))
    for name in ("WORKFLOWS", "INSTANCES", "CANDIDATES", "VERSIONS"):
        monkeypatch.setattr(workflows, name, 2)


@pytest.fixture
def prune(db: Database, clock: ManualClock) -> PruneWorkflows:
    return PruneWorkflows(db, clock)


@pytest.fixture
def deploy(admin: asyncpg.Connection, clock: ManualClock, ids: Ids) -> Callable:
    """`await deploy(world, n)`: keys of `n` new versions of its workflow, the last of which is current."""

    async def make(world: World, n: int = 1) -> list[UUID]:
        keys = [ids.uuid7() for _ in range(n)]
        for key in keys:
            await admin.execute(
                "insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source,"
                " source_hash, step_limit, created_at) select $1, $2, $3, max(no) + 1, 'document', 0, 'C', '{}', 'h',"
                " 25000, $4 from version where workflow_key = $3",
                world.account,
                key,
                world.workflow,
                clock.now(),
            )
        await admin.execute(
            "update workflow set current_version = $2 where workflow_key = $1", world.workflow, keys[-1]
        )
        return keys

    return make


async def round_of(prune: PruneWorkflows) -> int:
    """One round of all workflows; how many pieces of work it took."""
    pieces = 1
    while await prune.tick() or prune._walk is not None or prune._after != store.FIRST:
        pieces += 1
        assert pieces < 1000
    return pieces


async def numbers(admin: asyncpg.Connection, world: World) -> list[int]:
    rows = await admin.fetch("select no from version where workflow_key = $1 order by no", world.workflow)
    return [row["no"] for row in rows]


class TestVersions:
    async def test_the_latest_stay_and_numbers_go_on(self, world, neighbour, prune, deploy, admin, clock):
        await deploy(world, 9)
        await round_of(prune)
        assert len(await numbers(admin, world)) == 10, "none has been replaced for a day"
        clock.advance(DAY + 1)
        await round_of(prune)
        assert await numbers(admin, world) == [8, 9, 10]
        assert await numbers(admin, neighbour) == [1]
        await deploy(world)
        assert (await numbers(admin, world))[-1] == 11

    async def test_one_that_was_current_a_moment_ago_stays(self, world, prune, deploy, admin, clock):
        clock.advance(DAY + 1)
        await deploy(world, 5)
        clock.advance(DAY - 1)
        await round_of(prune)
        assert await numbers(admin, world) == [1, 2, 3, 4, 5, 6], "an instance of it may be being created"
        clock.advance(2)
        await round_of(prune)
        assert await numbers(admin, world) == [4, 5, 6]

    async def test_deploying_without_end_leaves_a_bounded_number(self, world, prune, deploy, admin, clock):
        for _ in range(20):
            await deploy(world, 2)
            clock.advance(DAY / 2)
            await round_of(prune)
            assert len(await numbers(admin, world)) <= KEPT + 2 * 2

    async def test_what_an_instance_has_stays_until_its_retention_is_over(self, world, prune, deploy, admin, clock):
        [running] = await world.create()
        await deploy(world, 2)
        [finished] = await world.create()
        await world.end([finished])
        await deploy(world, 2)
        hidden, *others = await world.create(5)
        await world.end([hidden, *others])
        await admin.execute("update instance set deleted_at = $2 where key = $1", hidden, clock.now())
        await admin.execute("delete from instance where key = any ($1)", others)
        await deploy(world, 8)
        clock.advance(DAY + 1)
        await round_of(prune)
        assert await numbers(admin, world) == [1, 3, 5, 11, 12, 13]

        await admin.execute("delete from instance where key = any ($1)", [finished, hidden])
        await round_of(prune)
        assert await numbers(admin, world) == [1, 11, 12, 13]
        assert list(await world.statuses()) == [running]

    async def test_many_instances_are_looked_at_in_pieces(self, world, prune, deploy, admin, clock):
        for n in range(6):
            for m in range(3):  # their ids have another order than their keys
                await world.create(instance_id=f"i{99 - 3 * n - m}")
            await deploy(world)
        await admin.execute("delete from instance where version_key in (select version_key from version where no = 2)")
        clock.advance(DAY + 1)
        assert await round_of(prune) > 10
        assert await numbers(admin, world) == [1, 3, 4, 5, 6, 7]

    async def test_the_current_one_stays_however_old(self, world, prune, deploy, admin, clock):
        await deploy(world, 5)
        await admin.execute("update workflow set current_version = (select version_key from version where no = 2)")
        clock.advance(DAY + 1)
        await round_of(prune)
        assert await numbers(admin, world) == [2, 4, 5, 6]

    async def test_what_an_endpoint_has_not_been_told_of_stays(self, world, prune, deploy, admin, clock):
        await admin.execute(
            "insert into feed_cursor (name, xid, no) values ('webhooks/' || $1::uuid, '0', 0)", world.account
        )
        [told] = await deploy(world)
        await admin.execute(
            "insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)"
            " values ($1, $2, array[$3::uuid], array[0], array[0], $4)",
            world.account,
            world.workflow,
            told,
            clock.now(),
        )
        await deploy(world, 5)
        clock.advance(DAY + 1)
        await round_of(prune)
        assert 2 in await numbers(admin, world)
        await admin.execute("update feed_cursor set xid = '9999999'")
        await round_of(prune)
        assert await numbers(admin, world) == [5, 6, 7]

    async def test_a_worker_that_dies_in_the_middle_leaves_it_to_others(self, world, db, deploy, admin, clock):
        await world.create()
        await deploy(world, 9)
        clock.advance(DAY + 1)
        for pieces in range(1, 8):
            dying = PruneWorkflows(db, clock)
            for _ in range(pieces):
                await dying.tick()
            left = await numbers(admin, world)
            assert {1, 8, 9, 10} <= set(left)
        await round_of(PruneWorkflows(db, clock))
        assert await numbers(admin, world) == [1, 8, 9, 10]

    async def test_a_workflow_being_deployed_is_not_waited_for(self, world, prune, deploy, admin, clock, dsn):
        await deploy(world, 5)
        clock.advance(DAY + 1)
        other = await asyncpg.connect(dsn)
        try:
            async with other.transaction():
                await other.execute("select from workflow for update")
                await round_of(prune)
            assert len(await numbers(admin, world)) == 6
        finally:
            await other.close()
        await round_of(prune)
        assert await numbers(admin, world) == [4, 5, 6]

    async def test_a_repetition_made_meanwhile_keeps_its_version(self, world, prune, deploy, admin, clock):
        """The repeated instance is deleted before the walk has come to the repetition, behind which it is."""
        restarted = await world.create(3)
        [original] = await world.create()
        first = await admin.fetchval("select version_key from instance where key = $1", original)
        newest = (await deploy(world, 6))[-1]
        await admin.execute("update instance set version_key = $1 where key = any ($2)", newest, restarted)
        clock.advance(DAY + 1)
        for _ in range(3):  # finds the workflow, its versions, the first two instances
            await prune.tick()
        assert prune._walk is not None
        assert prune._walk.passed == restarted[1]
        [repeated] = await world.create()
        await admin.execute("update instance set version_key = $2 where key = $1", repeated, first)
        await admin.execute("delete from instance where key <> $1", repeated)
        await round_of(prune)
        assert await numbers(admin, world) == [1, 5, 6, 7]


class TestDeletedWorkflows:
    async def delete(self, world: World) -> None:
        await world.admin.execute(
            "update workflow set deleted_at = $2 where workflow_key = $1", world.workflow, world.clock.now()
        )

    async def test_one_without_instances_goes_whole(self, world, neighbour, prune, deploy, admin, clock):
        await deploy(world, 5)
        for each in (world, neighbour):
            await admin.execute("insert into node_statistics values ($1, $2, 'n', 1, 1)", each.account, each.workflow)
            await admin.execute("insert into counter values ($1, $2, 0, 6, 0, 0)", each.account, each.workflow)
        await self.delete(world)
        await round_of(prune)
        assert await world.count("workflow") == 2, "it was deleted a moment ago"
        clock.advance(DAY + 1)
        await round_of(prune)
        for table in ("workflow", "version", "node_statistics", "counter"):
            rows = await admin.fetch(f"select workflow_key from {table}")
            assert [row[0] for row in rows] == [neighbour.workflow], table

    async def test_one_with_an_instance_stays(self, world, prune, deploy, admin, clock):
        [finished] = await world.create()
        await world.end([finished])
        await admin.execute("create table told as select * from feed")
        await admin.execute("delete from feed")
        await self.delete(world)
        clock.advance(DAY + 1)
        await round_of(prune)
        assert await world.count("workflow") == await world.count("version") == 1
        await admin.execute("update instance set deleted_at = now()")
        await round_of(prune)
        assert await world.count("workflow") == 1
        await admin.execute("delete from instance")
        await admin.execute("insert into feed overriding system value select * from told")
        await round_of(prune)
        assert await world.count("workflow") == 1, "the feed still has its end"
        await admin.execute("delete from feed")
        await round_of(prune)
        assert await world.count("workflow") == await world.count("version") == await world.count("counter") == 0

    async def test_one_that_is_still_being_deleted_stays(self, world, prune, admin, clock, ids):
        await self.delete(world)
        await admin.execute(
            "insert into termination_job (account_id, id, workflow_key, kind, created_before, created_at)"
            " values ($1, $2, $3, 'delete_workflow', $4, $4)",
            world.account,
            ids.uuid7(),
            world.workflow,
            clock.now(),
        )
        clock.advance(DAY + 1)
        await round_of(prune)
        assert await world.count("workflow") == 1
        await admin.execute("update termination_job set finished_at = now()")
        await round_of(prune)
        assert await world.count("workflow") == 0

    async def test_making_and_deleting_without_end_leaves_nothing(self, db, prune, admin, clock, ids, account):
        for number in range(10):
            await add_workflow(admin, ids, account, f"w{number}", clock.now())
            await admin.execute("update workflow set deleted_at = coalesce(deleted_at, $1)", clock.now())
            clock.advance(DAY / 2)
            await round_of(prune)
            assert await admin.fetchval("select count(*) from workflow") <= 3

    async def test_a_big_one_goes_in_pieces(self, world, db, deploy, admin, clock):
        await deploy(world, 6)
        await self.delete(world)
        clock.advance(timedelta(days=1).total_seconds() + 1)
        dying = PruneWorkflows(db, clock)
        for left in (7, 5, 3):
            await dying.tick()
            assert await world.count("version") == left
        assert await world.count("workflow") == 1
        await round_of(PruneWorkflows(db, clock))
        assert await world.count("version") == await world.count("workflow") == 0
