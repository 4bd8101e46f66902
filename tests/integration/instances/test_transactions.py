"""Creating under a transaction id: one unfinished instance has it, however many ask at once."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any
from uuid import UUID

import pytest

from app.errors import InvalidRequest
from instances.creation import Wanted
from instances.engine.requests import Create
from instances.errors import InvalidTransactionId
from instances.lifecycle import Status
from instances.service import InstanceService
from tenants.ids import Ids
from tests.support.instances import World
from versions.errors import WorkflowNotFound

IDEMPOTENT = {"spec": "workflow/1", "name": "once", "idempotent": True, "nodes": []}


async def row(world: World, key: UUID) -> Any:
    return await world.admin.fetchrow("select * from instance where key = $1", key)


async def test_the_id_of_an_unfinished_one_finds_it_again(instances: InstanceService, world: World) -> None:
    first = await instances.create(world.caller, "orders", Wanted(transaction_id="t-1", input='{"a":1}'))
    assert first.outcome is Create.CREATED
    again = await instances.create(world.caller, "orders", Wanted(transaction_id="t-1", input='{"a":2}'))
    assert (again.outcome, again.key, again.no) == (Create.REUSED, first.key, first.no)
    made = await row(world, first.key)
    assert (made["instance_id"], made["transaction_id"], made["input"]) == ("t-1", "t-1", '{"a":1}')
    assert await world.admin.fetchval("select count(*) from instance") == 1


async def test_many_at_once_make_one(instances: InstanceService, world: World) -> None:
    wanted = Wanted(transaction_id="same time / same place")
    made = await asyncio.gather(*(instances.create(world.caller, "orders", wanted) for _ in range(8)))
    assert sorted(one.outcome for one in made) == [Create.CREATED] + [Create.REUSED] * 7
    assert len({one.key for one in made}) == 1
    only = await row(world, made[0].key)
    assert (only["instance_id"], only["transaction_id"]) == (str(only["key"]), "same time / same place")


async def test_an_answer_that_was_lost_is_given_again(instances: InstanceService, world: World, ids: Ids) -> None:
    key = ids.uuid7()
    for _ in range(2):
        made = await instances.create(world.caller, "orders", Wanted(transaction_id="t"), lambda _: key)
        assert (made.outcome, made.key) == (Create.CREATED, key)


async def test_after_the_end_there_is_a_new_one(instances: InstanceService, world: World) -> None:
    first = await instances.create(world.caller, "orders", Wanted(transaction_id="t"))
    await world.end(["t"])
    second = await instances.create(world.caller, "orders", Wanted(transaction_id="t"))
    assert second.outcome is Create.CREATED and second.key != first.key
    made = await row(world, second.key)
    assert (made["instance_id"], made["transaction_id"]) == (str(second.key), "t")
    third = await instances.create(world.caller, "orders", Wanted(transaction_id="t"))
    assert (third.outcome, third.key) == (Create.REUSED, second.key)


async def test_an_idempotent_workflow_finds_the_finished_one(instances: InstanceService, world: World) -> None:
    await world.workflow("once", definition=IDEMPOTENT)
    first = await instances.create(world.caller, "once", Wanted(transaction_id="t"))
    await world.end(["t"])
    again = await instances.create(world.caller, "once", Wanted(transaction_id="t"))
    assert (again.outcome, again.key, again.status) == (Create.REUSED, first.key, Status.COMPLETE)


async def test_an_instance_of_that_id_is_the_transaction(instances: InstanceService, world: World) -> None:
    """Born through another face, its transaction id is its own id."""
    born = await instances.create(world.caller, "orders", Wanted(instance_id="mine"))
    found = await instances.create(world.caller, "orders", Wanted(transaction_id="mine"))
    assert (found.outcome, found.key) == (Create.REUSED, born.key)


async def test_ids_belong_to_a_workflow_of_an_account(instances: InstanceService, world: World, other: World) -> None:
    await world.workflow("invoices")
    made = [
        await instances.create(world.caller, "orders", Wanted(transaction_id="t")),
        await instances.create(world.caller, "invoices", Wanted(transaction_id="t")),
        await instances.create(other.caller, "orders", Wanted(transaction_id="t")),
    ]
    assert {one.outcome for one in made} == {Create.CREATED}


async def test_a_hidden_one_is_not_found(instances: InstanceService, world: World) -> None:
    await world.workflow("once", definition=IDEMPOTENT)
    first = await instances.create(world.caller, "once", Wanted(transaction_id="t"))
    await world.end(["t"])
    await world.admin.execute("update instance set deleted_at = now() where key = $1", first.key)
    again = await instances.create(world.caller, "once", Wanted(transaction_id="t"))
    assert again.outcome is Create.CREATED


@pytest.mark.parametrize("id", ["", "x" * 256, "a\nb", "run", "steps", "subscribe"])
async def test_ids_that_are_refused(instances: InstanceService, world: World, id: str) -> None:
    with pytest.raises(InvalidTransactionId, match="transaction_id"):
        await instances.create(world.caller, "orders", Wanted(transaction_id=id))


async def test_unknown_workflows(instances: InstanceService, world: World, ids: Ids) -> None:
    with pytest.raises(WorkflowNotFound):
        await instances.create(world.caller, "unknown", Wanted(transaction_id="t"))
    elsewhere = dataclasses.replace(world.caller, workspace_id=ids.uuid7())
    with pytest.raises(WorkflowNotFound):
        await instances.create(elsewhere, "orders", Wanted(transaction_id="t"))


async def test_what_else_may_be_wanted(instances: InstanceService, world: World) -> None:
    wanted = Wanted(
        instance_id="all", dry_run=True, variables={"a": [1]}, timeout_ms=5_000, face="001", triggered_by="somebody"
    )
    await world.workflow("documents", definition=IDEMPOTENT)
    with pytest.raises(InvalidRequest, match="run dry"):  # a script would do everything for real
        await instances.create(world.caller, "orders", wanted)
    made = await row(world, (await instances.create(world.caller, "documents", wanted)).key)
    assert made["dry_run"] is True
    assert made["trigger_detail"] == '{"dryRun":true,"timeout":5000,"face":"001","variables":{"a":[1]}}'
    assert made["triggered_by"] == "somebody"
    plain = await row(world, (await instances.create(world.caller, "orders", Wanted(variables={"dryRun": True}))).key)
    assert plain["dry_run"] is None


@pytest.mark.parametrize("timeout", [0, -1, 366 * 86_400_000])
async def test_deadlines_that_are_refused(instances: InstanceService, world: World, timeout: int) -> None:
    with pytest.raises(InvalidRequest, match="timeout must be between"):
        await instances.create(world.caller, "orders", Wanted(timeout_ms=timeout))
