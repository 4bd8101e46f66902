"""From the feed to deliveries: what endpoints are told, once each, whatever is killed in between."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from instances.lifecycle import Kind, Status
from instances.search import store as search_store
from jobs.retention.retiring import RetireInstances
from jobs.retention.store import expire
from jobs.webhooks import dispatch as dispatching
from jobs.webhooks.dispatch import READING, DispatchEvents
from jobs.webhooks.retiring import RetireDeliveries
from jobs.webhooks.store import happened
from tests.integration.webhooks.conftest import RUNS, Post

FIRST_DEFINITION = {
    "name": "Bills",
    "tasks": [{"name": "Write"}, {"name": "Send", "dependencies": ["Write"]}],
}


def names(told: list[dict[str, Any]]) -> list[str]:
    return [one["event"] for one in told]


async def test_a_life_is_told_as_it_was(post: Post) -> None:
    await post.listen("workflow.execution.*", "task.execution.*", "milestone.achieved", "blocker.*")
    await post.made("i")
    await post.happen("i", *RUNS, (Kind.MILESTONE, "packed"))
    post.world.clock.advance(1)
    await post.happen("i", (Kind.STEP_STARTED, "ship", 1, 1, {}), (Kind.STEP_WAITING, "ship", 1, 1, {}))
    post.world.clock.advance(1)
    await post.happen("i", (Kind.STEP_COMPLETED, "ship", 1, 1, "2"))
    await post.end("i")
    told = await post.delivered()
    assert sorted(names(told[:4])) == [
        "milestone.achieved",
        "task.execution.completed",
        "task.execution.started",
        "workflow.execution.started",
    ]
    assert sorted(names(told[4:8])) == [
        "blocker.detected",
        "task.execution.started",
        "task.execution.waiting",
        "workflow.execution.waiting",
    ]
    assert sorted(names(told[8:])) == [
        "blocker.resolved",
        "task.execution.completed",
        "workflow.execution.completed",
        "workflow.execution.resumed",
    ]
    assert [one["sequence"] for one in told] == sorted(one["sequence"] for one in told)
    by_name = {one["event"]: one["data"] for one in told}
    assert by_name["workflow.execution.started"]["status"] == "RUNNING"
    assert by_name["workflow.execution.waiting"]["status"] == "WAITING"
    end = by_name["workflow.execution.completed"]
    assert end["status"] == "COMPLETED" and end["context"] == {"id": end["id"], "version": 3}
    assert "taskExecutions" not in end and end["endTime"] is not None
    assert by_name["task.execution.waiting"]["taskDefinitionId"] == "ship"
    assert by_name["task.execution.waiting"]["workflowExecutionId"] == end["id"]
    assert by_name["milestone.achieved"]["name"] == "Packed"
    assert by_name["blocker.resolved"]["resolvedAt"] is not None


async def test_the_envelope_says_what_when_and_where_in_the_execution(post: Post) -> None:
    await post.listen("workflow.execution.started")
    await post.listen("workflow.execution.started", format="classic")
    at = post.world.clock.now()
    await post.made("i")
    [seq] = await post.happen("i", (Kind.STARTED,))
    post.world.clock.advance(60)
    await post.dispatched()
    await post.sent()
    bodies = [json.loads(request.body) for request in post.receiver.requests]
    standard = next(one for one in bodies if "id" in one)
    classic = next(one for one in bodies if "id" not in one)
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
    data = standard.pop("data")
    assert standard == {
        "id": standard["id"],
        "type": "workflow.execution.started",
        "event": "workflow.execution.started",
        "timestamp": stamp,
        "accountId": post.world.account.hex,
        "apiVersion": "v1",
        "sequence": seq,
    }
    assert standard["id"].startswith("evt_") and len(standard["id"]) == 30
    assert classic == {"event": "workflow.execution.started", "timestamp": stamp, "payload": data}


async def test_only_what_was_asked_for_is_told(post: Post) -> None:
    await post.listen("workflow.execution.failed")
    await post.made("i")
    await post.happen("i", *RUNS)
    await post.end("i", Status.ERRORED, '{"name":"Error","message":"no"}')
    [told] = await post.delivered()
    assert told["event"] == "workflow.execution.failed"
    assert (told["data"]["status"], told["data"]["error"]) == ("FAILED", "no")


async def test_what_was_committed_before_is_not_told_and_what_comes_after_is(post: Post) -> None:
    await post.made("before")
    await post.happen("before", (Kind.STARTED,))
    await post.listen("workflow.execution.started")
    await post.made("after")
    await post.happen("after", (Kind.STARTED,))
    told = await post.delivered()
    numbers = await post.world.admin.fetch("select no from instance where instance_id = 'after'")
    assert [one["data"]["id"] for one in told] == [str(numbers[0]["no"])]


async def test_of_two_endpoints_each_hears_what_came_after_itself(post: Post) -> None:
    first = await post.listen("workflow.execution.started")
    await post.made("one")
    await post.happen("one", (Kind.STARTED,))
    second = await post.listen("workflow.execution.started")
    await post.made("two")
    await post.happen("two", (Kind.STARTED,))
    await post.delivered()
    rows = await post.world.admin.fetch("select webhook_no from webhook_delivery")
    assert sorted(row["webhook_no"] for row in rows) == [first.no, first.no, second.no]


async def test_who_reads_too_slowly_puts_nothing_up_twice(post: Post) -> None:
    hook = await post.listen("workflow.execution.started")
    await post.made("one")
    await post.happen("one", (Kind.STARTED,))
    await post.settled()
    account, now = post.world.account, post.world.clock.now()
    read = await happened.begin(post.db, account, now, now + READING)
    assert read is not None
    rows = await happened.feed(post.db, account, read, 10)
    post.world.clock.advance(READING.total_seconds())
    assert len(await post.delivered()) == 1
    late = [happened.NewDelivery(hook.no, "workflow.execution.started", "evt_1", post.keys["one"], "{}")]
    assert not await happened.deliver(post.db, account, read, (rows[-1].xid, rows[-1].no), late, now, now)
    assert await post.world.admin.fetchval("select count(*) from webhook_delivery") == 1


async def test_a_transaction_that_began_before_the_registration_and_ends_after_it_is_told(post: Post, settings) -> None:
    import asyncpg

    await post.made("late")
    other = await asyncpg.connect(settings.database_url)
    try:
        begun = other.transaction()
        await begun.start()
        await other.execute("select pg_current_xact_id()")
        await post.listen("workflow.execution.started")
        await post.dispatch.tick()
        await other.execute("update live set seq = seq + 1 where key = $1", post.keys["late"])
        await other.execute(
            "insert into journal (account_id, key, seq, run, kind, at) values ($1, $2, 2, 1, 1, $3)",
            post.world.account,
            post.keys["late"],
            post.world.clock.now(),
        )
        await other.execute(
            "insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)"
            " select account_id, workflow_key, array[key], array[2::bigint], array[2::bigint], created_at from instance"
        )
        await post.dispatch.tick()
        await begun.commit()
    finally:
        await other.close()
    assert names(await post.delivered()) == ["workflow.execution.started"]


async def test_an_account_without_endpoints_is_not_read(post: Post, monkeypatch) -> None:
    async def never(*_: object) -> Any:
        raise AssertionError("the feed was read")

    monkeypatch.setattr(happened, "news", never)
    monkeypatch.setattr(happened, "feed", never)
    await post.made("i")
    await post.happen("i", *RUNS)
    assert await post.dispatch.tick() is False
    assert not post.dispatch.listens(post.world.account)
    assert await post.world.admin.fetchval("select count(*) from webhook_delivery") == 0


async def test_events_of_others_stay_with_them(post: Post, make_world) -> None:
    await post.listen("*")
    theirs = await make_world("theirs")
    await theirs.workflow("orders")
    stranger = Post(theirs, post.db, post.webhooks, post.dispatch, post.sender, post.receiver)
    await stranger.made("x")
    await stranger.happen("x", (Kind.STARTED,))
    assert await post.delivered() == []


async def test_an_endpoint_of_a_workspace_hears_of_that_workspace_only(post: Post, tenants) -> None:
    import dataclasses

    workspace = (await tenants.workspaces.create(post.world.caller, "sales", "Sales")).id
    await post.world.workflow("sales-orders", workspace=workspace)
    restricted = dataclasses.replace(post.world.caller, workspace_id=workspace)
    whole = post.world.caller
    post.world.caller = restricted
    await post.listen("workflow.execution.started")
    post.world.caller = whole
    for handle in ("orders", "sales-orders"):
        await post.made(f"of-{handle}", handle)
        await post.happen(f"of-{handle}", (Kind.STARTED,))
    told = await post.delivered()
    number = await post.world.admin.fetchval("select no from instance where instance_id = 'of-sales-orders'")
    assert [one["data"]["id"] for one in told] == [str(number)]
    assert await post.webhooks.all(restricted) == await post.webhooks.all(whole)
    other = dataclasses.replace(whole, workspace_id=post.world.ids.uuid7())
    assert await post.webhooks.all(other) == []


async def test_nothing_is_lost_or_doubled_when_a_dispatcher_dies_at_any_line(post: Post, monkeypatch) -> None:
    """It is cut off before and after each statement it makes; another one goes on."""
    await post.listen("workflow.execution.started")
    for n in range(6):
        await post.made(f"i{n}")
        await post.happen(f"i{n}", (Kind.STARTED,))
    monkeypatch.setattr(dispatching, "ROWS", 2)

    def dies(name: str, *, after: bool) -> None:
        real = getattr(happened, name)

        async def dying(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(happened, name, real)
            if after:
                await real(*args, **options)
            raise asyncio.CancelledError

        monkeypatch.setattr(happened, name, dying)

    await post.dispatch.tick()
    fresh = post.dispatch
    for name in ("begin", "feed", "hooks", "deliver"):
        for after in (False, True):
            dies(name, after=after)
            fresh = _another(fresh)
            with pytest.raises(asyncio.CancelledError):
                while True:
                    await fresh.tick()
                    if not await _unread(post):
                        await post.made(f"more-{name}-{after}")
                        await post.happen(f"more-{name}-{after}", (Kind.STARTED,))
                        await post.settled()
            post.world.clock.advance(READING.total_seconds())
    post.dispatch = _another(fresh)
    told = await post.delivered()
    expected = await post.world.admin.fetch("select no from instance where instance_id <> 'x' order by no")
    assert sorted(int(one["data"]["id"]) for one in told) == [row["no"] for row in expected]


def _another(one: DispatchEvents) -> DispatchEvents:
    """That of another process."""
    return DispatchEvents(one._db, one._clock, one._journals._recorder, one._definitions, one._payloads)


async def _unread(post: Post) -> bool:
    return bool(
        await post.world.admin.fetchval(
            "select exists (select from feed f, feed_cursor c where c.name like 'webhooks/%'"
            " and (f.xid, f.no) > (c.xid, c.no))"
        )
    )


async def test_two_dispatchers_make_each_delivery_once(post: Post) -> None:
    await post.listen("workflow.execution.started")
    for n in range(40):
        await post.made(f"i{n}")
        await post.happen(f"i{n}", (Kind.STARTED,))
    await post.settled()
    old = post.dispatch
    two = [_another(old) for _ in range(2)]
    for _ in range(4):
        await asyncio.gather(*(one.tick() for one in two))
    rows = await post.world.admin.fetch("select event_id, count(*) as n from webhook_delivery group by 1")
    assert len(rows) == 40 and {row["n"] for row in rows} == {1}


async def test_events_before_a_restart_that_came_meanwhile_are_told(post: Post) -> None:
    await post.listen("workflow.execution.started", "task.execution.completed")
    key = await post.made("i")
    seqs = await post.happen("i", *RUNS)
    await post.happen("i", (Kind.RESTARTED, None, None, None, {"from_seq": 2}))
    await post.world.admin.execute("update live set live_from = $2 where key = $1", key, seqs[-1] + 1)
    await post.happen("i", (Kind.STARTED,))
    assert sorted(names(await post.delivered())) == [
        "task.execution.completed",
        "workflow.execution.started",
        "workflow.execution.started",
    ]


async def test_progress_is_told_at_most_once_a_second_and_at_last_as_it_is(post: Post) -> None:
    await post.listen("progress.updated")
    await post.made("i")
    await post.happen("i", *RUNS)
    [first] = await post.delivered()
    assert (first["data"]["completedTasks"], first["data"]["totalTasks"]) == (1, 2)
    await post.happen("i", (Kind.STEP_STARTED, "ship", 1, 1, {}), (Kind.STEP_COMPLETED, "ship", 1, 1, "2"))
    assert await post.delivered() == []
    await post.end("i")
    assert await post.delivered() == []
    post.world.clock.advance(1)
    [second] = await post.delivered()
    assert second["data"]["completedTasks"] == 2
    assert await post.world.admin.fetchval("select count(*) from webhook_delivery") == 2


async def test_failures_retries_and_cancellations_of_tasks(post: Post) -> None:
    await post.listen("task.execution.*")
    await post.made("i")
    await post.happen("i", (Kind.STARTED,), (Kind.STEP_STARTED, "pack", 1, 1, {}))
    await post.happen("i", (Kind.ATTEMPT_FAILED, "pack", 1, 1, {"name": "E", "message": "once", "delay": 5000}))
    await post.happen("i", (Kind.ATTEMPT_STARTED, "pack", 1, 2))
    await post.happen("i", (Kind.STEP_FAILED, "pack", 1, 2, {"name": "E", "message": "for good"}))
    await post.end("i", Status.ERRORED, '{"name":"E","message":"for good"}')
    told = await post.delivered()
    assert names(told) == [
        "task.execution.started",
        "task.execution.retrying",
        "task.execution.failed",
        "task.execution.cancelled",
    ]
    assert [one["data"]["attempts"] for one in told] == [1, 1, 2, 0]
    assert [one["data"]["error"] for one in told] == [None, "once", "for good", None]


async def test_pauses_and_rollbacks(post: Post) -> None:
    await post.listen("workflow.execution.*")
    await post.made("i")
    await post.happen("i", (Kind.STARTED,), (Kind.PAUSE_REQUESTED,), (Kind.PAUSED,))
    await post.happen("i", (Kind.RESUMED,))
    await post.happen("i", (Kind.ROLLBACK_STARTED, None, None, None, {"name": "E", "message": "m"}))
    await post.happen("i", (Kind.ROLLBACK_ENDED, None, None, None, {"outcome": "complete"}))
    await post.end("i", Status.TERMINATED, None)
    told = await post.delivered()
    assert names(told) == [
        f"workflow.execution.{one}" for one in ("started", "paused", "resumed", "compensating", "cancelled")
    ]
    assert [one["data"]["status"] for one in told] == ["RUNNING", "WAITING", "RUNNING", "RUNNING", "CANCELLED"]


async def test_synchronisation_points(post: Post) -> None:
    definition = {
        "spec": "workflow/1",
        "name": "synced",
        "nodes": [{"id": "a", "type": "noop"}, {"id": "b", "type": "noop"}],
        "sync_points": [{"id": "both", "name": "Both", "required": ["a", "b"]}],
    }
    await post.world.workflow("synced", definition=definition)
    await post.listen("synchronization.point.*")
    await post.made("i", "synced")
    await post.happen("i", (Kind.STARTED,), (Kind.SYNC_POINT, "both", None, None, {"state": "reached"}))
    await post.happen("i", (Kind.SYNC_POINT, "both", None, None, {"state": "completed"}))
    told = await post.delivered()
    assert names(told) == ["synchronization.point.reached", "synchronization.point.completed"]
    assert [(one["data"]["id"], one["data"]["name"], one["data"]["state"]) for one in told] == [
        ("both", "Both", "reached"),
        ("both", "Both", "completed"),
    ]


async def test_definitions_are_told_whoever_changes_them(post: Post, versions) -> None:
    await post.listen("workflow.definition.*")
    made = await versions.definitions.create(post.world.caller, "002", FIRST_DEFINITION)
    number = str(made.definition.workflow.no)
    post.world.clock.advance(1)
    await versions.definitions.update(post.world.caller, "002", number, {"description": "d"}, decimal=True)
    post.world.clock.advance(1)
    await versions.definitions.delete(post.world.caller, number, decimal=True)
    told = await post.delivered()
    assert names(told) == [f"workflow.definition.{what}" for what in ("created", "updated", "deleted")]
    assert [one["data"].get("version") for one in told] == ["1.0.0", "1.0.1", None]
    assert told[0]["data"]["id"] == number and told[1]["data"]["description"] == "d"
    assert told[2]["data"] == {"id": number}
    assert [task["id"] for task in told[0]["data"]["tasks"]] == ["task-1", "task-2"]


async def test_large_data_loses_its_largest_members(post: Post, versions) -> None:
    await post.listen("workflow.definition.created")
    body = FIRST_DEFINITION | {"tasks": [{"name": f"t{n}", "description": "d" * 1000} for n in range(30)]}
    await versions.definitions.create(post.world.caller, "002", body)
    [told] = await post.delivered()
    assert told["data"]["truncated"] is True and told["data"]["name"] == "Bills" and "tasks" not in told["data"]


async def test_what_is_switched_off_hears_nothing_of_the_meantime(post: Post) -> None:
    from jobs.webhooks.service import Wanted

    hook = await post.listen("workflow.execution.started")
    await post.webhooks.update(post.world.caller, hook.no, Wanted(active=False))
    await post.made("meanwhile")
    await post.happen("meanwhile", (Kind.STARTED,))
    assert await post.delivered() == []
    await RetireDeliveries(post.db, post.world.clock).tick()
    assert await post.world.admin.fetchval("select count(*) from feed_cursor where name like 'webhooks/%'") == 0
    await post.webhooks.update(post.world.caller, hook.no, Wanted(active=True))
    assert await post.delivered() == []
    await post.made("later")
    await post.happen("later", (Kind.STARTED,))
    assert len(await post.delivered()) == 1


async def test_nothing_is_removed_that_has_not_been_told(post: Post) -> None:
    """Neither an instance whose retention is over at once, nor rows of the feed, however old."""
    admin, clock = post.world.admin, post.world.clock
    await post.listen("workflow.execution.started", "workflow.execution.completed")
    await post.delivered()  # the account is read from now on
    await post.made("short", success_retention_ms=0)
    await post.happen("short", (Kind.STARTED,))
    await post.end("short")
    clock.advance(3 * 86_400)
    retire = RetireInstances(post.db, clock)
    await retire.tick()
    await expire(post.db, clock.now(), 100)
    told = await post.delivered()
    assert names(told) == ["workflow.execution.started", "workflow.execution.completed"]
    await retire.tick()
    await expire(post.db, clock.now(), 100)
    assert await admin.fetchval("select count(*) from instance") == 0
    assert await admin.fetchval("select count(*) from feed") == 0


async def test_an_account_nobody_listens_in_any_more_keeps_nothing_back(post: Post) -> None:
    from jobs.webhooks.service import Wanted

    hook = await post.listen("workflow.execution.completed")
    await post.delivered()
    await post.webhooks.update(post.world.caller, hook.no, Wanted(active=False))
    await post.made("short", success_retention_ms=0)
    await post.end("short")
    retire = RetireInstances(post.db, post.world.clock)
    await RetireDeliveries(post.db, post.world.clock).tick()
    await retire.tick()
    assert await post.world.admin.fetchval("select count(*) from instance") == 0


async def test_a_journal_that_cannot_be_read_keeps_nobody_else_from_being_told(post: Post) -> None:
    await post.listen("task.execution.retrying", "workflow.execution.started")
    await post.made("broken")
    await post.happen("broken", (Kind.STARTED,))
    await post.happen("broken", (Kind.STEP_STARTED, "pack", 1, 1, {}), (Kind.ATTEMPT_FAILED, "pack", 1, 1, "{nonsense"))
    await post.made("whole")
    await post.happen("whole", (Kind.STARTED,))
    told = await post.delivered()
    assert names(told) == ["workflow.execution.started"] * 2


async def test_a_long_journal_is_read_once(post: Post, monkeypatch) -> None:
    """However often it has grown; by two processes in turns, by each."""
    read: list[int] = []
    real = search_store.entries

    async def counting(*args: Any) -> Any:
        journals = await real(*args)
        read.extend(len(entries) for entries in journals.values())
        return journals

    monkeypatch.setattr(search_store, "entries", counting)
    nodes = [{"id": f"s{n}", "type": "noop"} for n in range(200)]
    await post.world.workflow("long", definition={"spec": "workflow/1", "name": "long", "nodes": nodes})
    await post.listen("task.execution.completed")
    await post.made("i", "long")
    first, second = post.dispatch, _another(post.dispatch)
    for n in range(200):
        await post.happen("i", (Kind.STEP_STARTED, f"s{n}", 1, 1, {}), (Kind.STEP_COMPLETED, f"s{n}", 1, 1, "1"))
        if n % 5 == 4:
            post.dispatch = second if n % 10 == 4 else first
            await post.dispatched()
    told = await post.delivered()
    assert [one["data"]["taskDefinitionId"] for one in told] == [f"s{n}" for n in range(200)]
    assert sum(read) < 4 * 400
    assert max(read[10:]) <= 20


async def test_rows_that_tell_of_many_are_taken_piece_by_piece(post: Post, monkeypatch) -> None:
    monkeypatch.setattr(dispatching, "GROWN", 3)
    monkeypatch.setattr(dispatching, "AT_ONCE", 2)
    await post.listen("workflow.execution.started")
    for n in range(7):
        await post.made(f"i{n}")
        await post.happen(f"i{n}", (Kind.STARTED,))
    assert len(await post.delivered()) == 7


async def test_a_step_that_runs_per_item_begins_and_ends_once(post: Post) -> None:
    node = {"id": "each", "type": "noop", "for_each": "{{ input.items }}"}
    await post.world.workflow("many", definition={"spec": "workflow/1", "name": "many", "nodes": [node]})
    await post.listen("task.execution.*")
    await post.made("i", "many", input='{"items":[1,2]}')
    await post.happen("i", (Kind.STARTED,), (Kind.STEP_STARTED, "each", 1, 1, {}))
    await post.happen("i", (Kind.STEP_COMPLETED, "each", 1, 1, "1"), (Kind.STEP_STARTED, "each", 2, 1, {}))
    await post.happen("i", (Kind.STEP_COMPLETED, "each", 2, 1, "2"))
    await post.end("i")
    assert names(await post.delivered()) == ["task.execution.started", "task.execution.completed"]
