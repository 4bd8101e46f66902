"""One execution by its key: waiting, cancelling, hiding, answering its steps; with a worker that runs documents."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from instances.creation import Wanted
from instances.egress import EgressClient, EgressPolicy
from instances.engine.client import EngineClient
from instances.engine.worker import EngineWorker
from instances.errors import (
    CannotCancel,
    InstanceNotFound,
    NotFinished,
    StepAnswered,
    StepAnsweredBefore,
    StepNotFound,
    StepNotWaiting,
    WrongPhase,
)
from instances.executions.answers import Phase
from instances.executions.service import Executions
from instances.executions.waiting import Until
from instances.lifecycle import Kind, Status
from instances.listing import ListQuery
from instances.runtimes.document import ActionStore, DocumentRuntime
from instances.service import InstanceService
from tenants.clock import ManualClock
from tenants.database import Database
from tests.support.document_runs import event, fails, noop, sets, wait
from tests.support.instances import World
from versions.service import VersionService

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
async def worker(
    db: Database, clock: ManualClock, engine: EngineClient, versions: VersionService
) -> AsyncIterator[EngineWorker]:
    egress = EgressClient(EgressPolicy(["127.0.0.1"]))
    runtime = DocumentRuntime(ActionStore(db), egress)
    worker = EngineWorker(db, clock, engine, {0: runtime}, versions.load)
    await worker.start()
    looking = asyncio.create_task(_look(worker))
    yield worker
    looking.cancel()
    await worker.drain(0)
    await worker.stop()
    await runtime.close()
    await egress.close()


async def _look(worker: EngineWorker) -> None:
    """There is no doorbell here."""
    while True:
        worker.wake()
        for run in worker._runs:
            run.look()
        await asyncio.sleep(0.01)


@dataclasses.dataclass
class Desk:
    """Documents run for the caller of a world."""

    world: World
    instances: InstanceService

    @property
    def executions(self) -> Executions:
        return self.instances.executions

    async def run(self, nodes: list[dict[str, Any]], *, wanted: Wanted | None = None, **document: Any) -> UUID:
        handle = f"w{self.world.ids.uuid7().hex}"
        await self.world.workflow(handle, definition={"spec": "workflow/1", "name": "w", "nodes": nodes, **document})
        return (await self.instances.create(self.world.caller, handle, wanted or Wanted(input="{}"))).key

    async def status(self, key: UUID) -> Status:
        return (await self.executions.wait(self.world.caller, key, Until.END, 0)).status

    async def until(self, key: UUID, status: Status) -> Any:
        async with asyncio.timeout(15):
            while await self.status(key) is not status:
                await asyncio.sleep(0.005)
        return await self.world.admin.fetchrow("select * from instance where key = $1", key)

    async def kinds(self, key: UUID) -> list[Kind]:
        rows = await self.world.admin.fetch("select kind from journal where key = $1 order by seq", key)
        return [Kind(row["kind"]) for row in rows]


@pytest.fixture
def desk(world: World, instances: InstanceService) -> Desk:
    return Desk(world, instances)


# --- waiting -----------------------------------------------------------------------------------------------------


async def test_waiting_for_the_end(desk: Desk) -> None:
    key = await desk.run([noop("a"), noop("b", "a")])
    waited = await desk.executions.wait(desk.world.caller, key, Until.END, 15)
    assert (waited.status, waited.ended, waited.rests) == (Status.COMPLETE, True, False)


@pytest.mark.parametrize(
    "node",
    [event("e"), wait("s", config={"durationMs": 60_000}), {"id": "x", "type": "external"}],
    ids=lambda node: node["id"],
)
async def test_waiting_for_rest(desk: Desk, node: dict[str, Any]) -> None:
    key = await desk.run([noop("a"), {**node, "depends_on": ["a"]}])
    waited = await desk.executions.wait(desk.world.caller, key, Until.REST, 15)
    assert (waited.status, waited.ended, waited.rests) == (Status.WAITING, False, True)


async def test_a_retry_that_is_due_later_is_no_rest(desk: Desk) -> None:
    key = await desk.run([{**fails("a"), "type": "call_api", "config": {"url": "http://127.0.0.1:1/"},
                           "retries": {"limit": 3, "delay": 3_600_000}}])  # fmt: skip
    await desk.until(key, Status.WAITING)
    waited = await desk.executions.wait(desk.world.caller, key, Until.REST, 0.05)
    assert (waited.status, waited.ended, waited.rests) == (Status.WAITING, False, False)


async def test_who_stops_waiting_leaves_the_run_alone(desk: Desk) -> None:
    key = await desk.run([event("e")])
    await desk.until(key, Status.WAITING)
    waiting = asyncio.create_task(desk.executions.wait(desk.world.caller, key, Until.END, 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await desk.status(key) is Status.WAITING


# --- cancelling --------------------------------------------------------------------------------------------------


async def test_cancelling_twice_gives_the_same_answer(desk: Desk, clock: ManualClock) -> None:
    key = await desk.run([event("e")])
    await desk.until(key, Status.WAITING)
    first = await desk.executions.cancel(desk.world.caller, key)
    clock.advance(5)
    second = await desk.executions.cancel(desk.world.caller, key, reason="again")
    assert (first.status, first.repeated, second.status, second.repeated) == (
        Status.TERMINATED, False, Status.TERMINATED, True,
    )  # fmt: skip
    assert first.at == second.at is not None
    row = await desk.until(key, Status.TERMINATED)
    by = str(desk.world.caller.user_id or desk.world.caller.token_id)
    error = json.loads(row["error"])
    assert error == {"name": "WorkflowTerminated", "message": "Cancelled by user", "by": error["by"]}
    assert error["by"] in (by, None)
    assert (await desk.kinds(key)).count(Kind.TERMINATED) == 1


async def test_cancelling_with_rollback(desk: Desk) -> None:
    undo = {"type": "set", "config": {"values": {"b": 1}}}
    key = await desk.run([sets("a", values={"x": 1}, compensate=undo), event("e", "a")])
    await desk.until(key, Status.WAITING)
    cancelled = await desk.executions.cancel(desk.world.caller, key, rollback=True)
    assert (cancelled.status, cancelled.at) == (Status.ROLLING_BACK, None)
    row = await desk.until(key, Status.TERMINATED)
    assert json.loads(row["error"])["message"] == "Cancelled by user"
    assert json.loads(row["rollback"])["outcome"] == "complete"
    assert (await desk.executions.cancel(desk.world.caller, key)).at == row["ended_at"]


async def test_what_ended_otherwise_cannot_be_cancelled(desk: Desk) -> None:
    key = await desk.run([noop("a")])
    await desk.until(key, Status.COMPLETE)
    with pytest.raises(CannotCancel, match="complete"):
        await desk.executions.cancel(desk.world.caller, key)


# --- hiding ------------------------------------------------------------------------------------------------------


async def test_a_hidden_one_is_nowhere(desk: Desk) -> None:
    world = desk.world
    await world.workflow("hides", definition={"spec": "workflow/1", "name": "w", "nodes": []})
    key = (await desk.instances.create(world.caller, "hides", Wanted(instance_id="mine"))).key
    await desk.until(key, Status.COMPLETE)
    await desk.executions.delete(world.caller, key)
    for gone in (
        lambda: desk.executions.delete(world.caller, key),
        lambda: desk.executions.cancel(world.caller, key),
        lambda: desk.executions.wait(world.caller, key, Until.END, 0),
        lambda: desk.instances.history(world.caller, key),
        lambda: desk.instances.view(world.caller, "hides", "mine"),
        lambda: desk.instances.restart(world.caller, "hides", "mine"),
        lambda: desk.instances.delete(world.caller, "hides", "mine"),
    ):
        with pytest.raises(InstanceNotFound):
            await gone()
    for status in (None, Status.COMPLETE):
        page = await desk.instances.list_page(world.caller, "hides", ListQuery(status=status))
        assert (page.rows, page.total) == ([], 0)
    counted = "select sum(n) from counter c join workflow w using (account_id, workflow_key) where w.handle = 'hides'"
    assert await world.admin.fetchval(counted) == 1
    assert await world.admin.fetchval("select retain_until is not null from instance where key = $1", key)


async def test_an_unfinished_one_cannot_be_hidden(desk: Desk) -> None:
    key = await desk.run([event("e")])
    with pytest.raises(NotFinished):
        await desk.executions.delete(desk.world.caller, key)


async def test_others_see_nothing(desk: Desk, other: World) -> None:
    key = await desk.run([{"id": "x", "type": "external"}])
    await desk.until(key, Status.WAITING)
    elsewhere = dataclasses.replace(desk.world.caller, workspace_id=desk.world.ids.uuid7())
    for caller in (other.caller, elsewhere):
        for act in (
            lambda caller=caller: desk.executions.wait(caller, key, Until.END, 0),
            lambda caller=caller: desk.executions.cancel(caller, key),
            lambda caller=caller: desk.executions.delete(caller, key),
            lambda caller=caller: desk.executions.complete_step(caller, key, "x", "1"),
            lambda caller=caller: desk.executions.fail_step(caller, key, "x", "1"),
        ):
            with pytest.raises(InstanceNotFound):
                await act()


# --- answers -----------------------------------------------------------------------------------------------------

UNDO = {"type": "set", "config": {"values": {"undone": "{{ compensation.input }}"}}}


async def test_a_step_is_completed_once(desk: Desk) -> None:
    key = await desk.run([{"id": "x", "type": "external"}, event("e", "x")])
    await desk.until(key, Status.WAITING)
    answers = [desk.executions.complete_step(desk.world.caller, key, "x", f'{{"n":{n}}}') for n in range(5)]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(type(None)) == 1
    refusals = {type(None), StepAnswered, StepAnsweredBefore, StepNotWaiting}
    assert {type(outcome) for outcome in outcomes} <= refusals
    async with asyncio.timeout(15):
        while Kind.WAIT_STARTED not in await desk.kinds(key):
            await asyncio.sleep(0.005)
    with pytest.raises(StepNotWaiting, match="complete"):
        await desk.executions.complete_step(desk.world.caller, key, "x", "1")


async def test_an_answer_that_is_not_read_yet_counts(desk: Desk, worker: EngineWorker) -> None:
    key = await desk.run([{"id": "x", "type": "external", "retries": {"limit": 1, "delay": 0}}])
    await desk.until(key, Status.WAITING)
    await worker.drain(0)
    await desk.executions.fail_step(desk.world.caller, key, "x", None)
    with pytest.raises(StepAnsweredBefore) as refused:
        await desk.executions.complete_step(desk.world.caller, key, "x", "1")
    assert refused.value.failed
    assert await desk.world.admin.fetchval("select count(*) from inbox where key = $1", key) == 1


async def test_a_failure_is_one_attempt(desk: Desk) -> None:
    key = await desk.run([{"id": "x", "type": "external", "retries": {"limit": 1, "delay": 0}}])
    await desk.until(key, Status.WAITING)
    await desk.executions.fail_step(desk.world.caller, key, "x", '{"message":"no","code":"E"}')
    async with asyncio.timeout(15):
        while (await desk.kinds(key)).count(Kind.STEP_WAITING) < 2:
            await asyncio.sleep(0.005)
    await desk.until(key, Status.WAITING)
    await desk.executions.complete_step(desk.world.caller, key, "x", '"good"')
    assert (await desk.until(key, Status.COMPLETE))["output"] == '"good"'


async def test_the_input_of_the_compensation_is_kept(desk: Desk) -> None:
    nodes = [{"id": "x", "type": "external", "compensate": UNDO}, {"id": "f", "type": "fail", "depends_on": ["x"]}]
    key = await desk.run(nodes)
    await desk.until(key, Status.WAITING)
    await desk.executions.complete_step(desk.world.caller, key, "x", '{"a":1}', compensate_input='{"b":2}')
    await desk.until(key, Status.ERRORED)
    undone = await desk.world.admin.fetchval(
        "select payload from journal where key = $1 and kind = $2", key, int(Kind.ROLLBACK_STEP_COMPLETED)
    )
    assert json.loads(undone) == {"undone": {"b": 2}}


async def test_a_compensation_is_completed_in_its_phase(desk: Desk) -> None:
    undo = {"type": "noop", "async": True}
    key = await desk.run([noop("a", compensate=undo), {"id": "f", "type": "fail", "depends_on": ["a"]}])
    async with asyncio.timeout(15):
        while Kind.ROLLBACK_STEP_WAITING not in await desk.kinds(key):
            await asyncio.sleep(0.005)
    with pytest.raises(WrongPhase):
        await desk.executions.complete_step(desk.world.caller, key, "a", None)
    await desk.executions.complete_step(desk.world.caller, key, "a", None, phase=Phase.COMPENSATE)
    row = await desk.until(key, Status.ERRORED)
    assert json.loads(row["rollback"])["outcome"] == "complete"


async def test_an_event_that_is_waited_for_may_be_answered(desk: Desk) -> None:
    key = await desk.run([event("e")])
    await desk.until(key, Status.WAITING)
    await desk.executions.complete_step(desk.world.caller, key, "e", '{"ok":true}')
    assert (await desk.until(key, Status.COMPLETE))["output"] == '{"ok":true}'


async def test_a_wait_may_be_failed(desk: Desk) -> None:
    key = await desk.run([event("e")])
    await desk.until(key, Status.WAITING)
    await desk.executions.fail_step(desk.world.caller, key, "e", '"it will not come"')
    row = await desk.until(key, Status.ERRORED)
    assert json.loads(row["error"]) == {"name": "Error", "message": "it will not come"}


async def test_steps_that_cannot_be_answered(desk: Desk) -> None:
    nodes = [noop("a"), event("e", "a"), wait("s", "a", config={"durationMs": 60_000}), noop("later", "e")]
    key = await desk.run(nodes)
    await desk.until(key, Status.WAITING)
    caller = desk.world.caller
    for step, state in (("a", "complete"), ("s", "asleep"), ("later", "pending")):
        with pytest.raises(StepNotWaiting, match=state):
            await desk.executions.complete_step(caller, key, step, "1")
    with pytest.raises(StepNotFound):
        await desk.executions.complete_step(caller, key, "nobody", "1")
    with pytest.raises(WrongPhase):
        await desk.executions.complete_step(caller, key, "a", "1", phase=Phase.COMPENSATE)
    await desk.executions.cancel(caller, key)
    with pytest.raises(StepNotWaiting):
        await desk.executions.complete_step(caller, key, "e", "1")


# --- one answer per item of a list -------------------------------------------------------------------------------

EACH = {"id": "x", "type": "external", "for_each": "{{ trigger.items }}", "timeout": "2 minutes"}


async def asked_for_each(desk: Desk, **document: Any) -> UUID:
    """An instance that waits for three answers, and is paused, so that it reads none."""
    key = await desk.run([EACH], wanted=Wanted(input='{"items":[1,2,3]}'), **document)
    await desk.until(key, Status.WAITING)
    await desk.executions.pause(desk.world.caller, key)
    return key


async def test_answers_by_name_are_for_the_items_in_their_order(desk: Desk) -> None:
    """For the first that waits and has none yet, whether or not the run has read those before."""
    key = await asked_for_each(desk)
    for answer in ("1", "2", "3"):
        await desk.executions.complete_step(desk.world.caller, key, "x", answer, count=None)
    with pytest.raises(StepAnsweredBefore):
        await desk.executions.complete_step(desk.world.caller, key, "x", "4", count=None)
    await desk.executions.resume(desk.world.caller, key)
    row = await desk.until(key, Status.COMPLETE)
    assert row["output"] == "[1,2,3]"


async def test_an_answer_for_an_item_is_for_no_other(desk: Desk) -> None:
    key = await asked_for_each(desk)
    answers = {3: ('"third"', '"undo third"'), 2: ('"second"', None), 1: ('"first"', '"undo first"')}
    for count, (answer, undo) in answers.items():
        await desk.executions.complete_step(desk.world.caller, key, "x", answer, count=count, compensate_input=undo)
        with pytest.raises(StepAnsweredBefore):
            await desk.executions.complete_step(desk.world.caller, key, "x", "0", count=count)
    await desk.executions.resume(desk.world.caller, key)
    row = await desk.until(key, Status.COMPLETE)
    assert json.loads(row["output"]) == ["first", "second", "third"]
    query = "select count, payload from journal where key = $1 and kind = $2 order by count"
    rows = await desk.world.admin.fetch(query, key, int(Kind.COMPENSATE_INPUT))
    assert [tuple(row) for row in rows] == [(1, '"undo first"'), (3, '"undo third"')]


async def test_events_by_name_are_for_the_items_in_their_order(desk: Desk) -> None:
    """But for those that have an answer of their own."""
    key = await asked_for_each(desk)
    for answer in ("1", "3"):
        assert await desk.instances.tell(desk.world.caller, await handle_of(desk, key), str(key), "step:x", answer)
    await desk.executions.complete_step(desk.world.caller, key, "x", "2", count=2)
    await desk.executions.resume(desk.world.caller, key)
    assert (await desk.until(key, Status.COMPLETE))["output"] == "[1,2,3]"


async def handle_of(desk: Desk, key: UUID) -> str:
    query = "select handle from instance join workflow using (account_id, workflow_key) where key = $1"
    return await desk.world.admin.fetchval(query, key)
