"""kill -9 at every named point: what was accepted ends as it should, and what was committed is not done again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from app.migrations import pending
from instances.engine import faults
from instances.lifecycle import Kind
from tests.crash.installation import Installation, hold, mark
from tests.support.http_server import HttpServer

pytestmark = pytest.mark.crash

Case = Callable[[Installation, str], Awaitable[None]]
CASES: dict[str, Case] = {}
INSTANCES = 5


def case(*points: str) -> Callable[[Case], Case]:
    """This function tests these points; it gets the installation and the point."""

    def note(function: Case) -> Case:
        CASES.update(dict.fromkeys(points, function))
        return function

    return note


def test_every_point_has_a_case():
    assert set(CASES) == set(faults.POINTS)


def test_a_point_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="there is no point 'nowhere'"):
        faults.Fuse("nowhere:2")


@pytest.mark.parametrize("point", faults.POINTS)
async def test_killed(point: str, site: Installation) -> None:
    await CASES[point](site, point)


# --- workers -----------------------------------------------------------------------------------------------------


@case("after-claim", "before-flush", "after-flush", "before-acknowledgement", "step-not-journaled")
async def chain(site: Installation, point: str) -> None:
    """Steps one after the other, several instances side by side, killed in the middle."""
    await site.deploy("chain", [mark("a"), mark("b", "a"), mark("c", "b")])
    created = await site.create("chain", INSTANCES)
    passes = {"after-claim": 1, "step-not-journaled": 8, "before-acknowledgement": 8}.get(point, 2)
    await (await site.start("worker", crash=f"{point}:{passes}", ready=False)).killed()
    before = await site.snapshot()
    if point == "after-claim":
        assert before.executions == 0
        assert await site.statuses("chain") == {"running": INSTANCES}
    else:
        assert before.executions > 0
        assert len(before.completed) < 3 * INSTANCES

    await site.start("worker")
    await site.all_are("chain", "complete")
    await site.nothing_ran_twice(before)
    assert set(await site.completed()) == {(id, step, False) for id in created for step in "abc"}


@case("compensation-not-journaled")
async def rollback(site: Installation, point: str) -> None:
    """Undoing three steps of each instance, killed in the middle of it."""
    steps = [mark(id, *after, compensate={"type": "mark"}) for id, after in (("a", ()), ("b", ("a",)), ("c", ("b",)))]
    broken = {"id": "d", "type": "fail", "depends_on": ["c"], "config": {"message": "d broke"}}
    await site.deploy("undone", [*steps, broken])
    created = await site.create("undone", INSTANCES)
    await (await site.start("worker", crash=f"{point}:{INSTANCES + 2}", ready=False)).killed()
    before = await site.snapshot()
    assert await site.statuses("undone") == {"rollingBack": INSTANCES}

    await site.start("worker")
    await site.all_are("undone", "errored")
    await site.nothing_ran_twice(before)
    done = await site.completed()
    assert set(done) == {(id, step, undo) for id in created for step in "abc" for undo in (False, True)}
    for id in created:
        assert [step for key, step, undo in done if key == id and undo] == ["c", "b", "a"]
        assert (await site.instance("undone", id))["error"]["message"] == "d broke"


@case("timer-due")
async def timer(site: Installation, point: str) -> None:
    """The worker that would have woken parked runs dies at the moment they are due."""
    pause = {"id": "w", "type": "wait", "depends_on": ["a"], "config": {"duration": "1 second"}}
    await site.deploy("timed", [mark("a"), pause, mark("b", "w")])
    await site.create("timed", INSTANCES)
    await (await site.start("worker", crash=point, ready=False)).killed()
    before = await site.snapshot()
    assert {step for _, step, _ in before.completed} == {"a"}

    await site.start("worker")
    await site.all_are("timed", "complete")
    await site.nothing_ran_twice(before)
    assert len(await site.entries(Kind.SLEEP_COMPLETED)) == INSTANCES


STREAM = """
import { WorkflowEntrypoint } from "cloudflare:workers";
export class Flow extends WorkflowEntrypoint {
  async run(event, step) {
    const stream = await step.do("a", { retries: { limit: 5, delay: 0 } }, async ({ attempt }) => {
      let left = 8;
      return new ReadableStream({ pull(controller) {
        if (left-- === 0) controller.close();
        else controller.enqueue(new Uint8Array(100_000).fill(attempt));
      } });
    });
    let read = 0;
    for await (const chunk of stream) read += chunk.length;
    return read;
  }
}
"""


@case("stream-piece-kept")
async def stream(site: Installation, point: str) -> None:
    """A worker dies between two pieces of a stream: nobody sees half of it, and the next attempt stores all of it."""
    metadata = {"main_module": "index.js", "compatibility_date": "2026-11-01"}
    files = [
        ("metadata", (None, json.dumps(metadata), "application/json")),
        ("index.js", ("index.js", STREAM, "application/javascript+module")),
    ]
    assert (await site.api.put("/workers/scripts/streamed", files=files)).status_code == 200
    bound = {"script_name": "streamed", "class_name": "Flow"}
    assert (await site.api.put("/workflows/streamed", json=bound)).status_code == 200
    [id] = await site.create("streamed", 1)
    await (await site.start("worker", crash=f"{point}:3", ready=False)).killed()
    assert len(await site.entries(Kind.STEP_PIECE)) >= 3
    query = {"name": "a-1", "type": "step"}
    seen = await site.api.get(f"/workflows/streamed/instances/{id}/step", params=query)
    assert seen.json()["result"] == {"status": "running", "error": None}

    await site.start("worker")
    await site.all_are("streamed", "complete", 40)
    found = await site.instance("streamed", id)
    assert found["output"] == 800_000
    assert [attempt["success"] for attempt in found["steps"][0]["attempts"]] == [False, True]
    seen = await site.api.get(f"/workflows/streamed/instances/{id}/step", params=query)
    assert seen.content == b"\2" * 800_000

    async def only_the_second() -> bool:
        rows = await site.platform.db.engine.fetch(
            "select distinct attempt from journal where account_id = $1 and kind = $2",
            site.tenant.id,
            int(Kind.STEP_PIECE),
        )
        return [row["attempt"] for row in rows] == [2]

    await site.eventually(only_the_second)


@case("termination-chunk")
async def termination(site: Installation, point: str) -> None:
    """Ending 1,100 instances, of which some run, killed after the first of three chunks."""
    await site.deploy("ended", [hold("h")])
    for _ in range(11):
        await site.create("ended", 100)
    assert (await site.api.put("/workflows/ended/instances/terminate")).status_code == 200
    await (await site.start("worker", crash=point, ready=False)).killed()
    assert (await site.statuses("ended"))["terminated"] == 500

    await site.start("worker")
    await site.all_are("ended", "terminated")
    assert len(await site.entries(Kind.TERMINATED)) == 1100

    async def finished() -> bool:
        query = "select done from termination_job where finished_at is not null"
        return await site.platform.db.engine.fetchval(query) == 1100

    await site.eventually(finished)


TOLD = ("task.execution.started", "task.execution.completed")
ONCE = ("workflow.execution.started", "workflow.execution.completed")


@case("webhook-events-read", "webhook-events-put-up", "webhook-claimed", "webhook-sent")
async def webhooks(site: Installation, point: str) -> None:
    """The worker that tells an endpoint what happened dies: every event arrives, a repeat under the id it had."""
    receiver = HttpServer()
    receiver.answer("/hook")
    await receiver.start()
    try:
        hook = {"url": receiver.url("/hook"), "events": ["workflow.execution.*", "task.execution.*"]}
        answer = await site.api.post("http://millrace.test/api/webhooks", json=hook)
        assert answer.status_code == 201, answer.text
        await site.deploy("heard", [mark("a"), mark("b", "a")])
        await site.create("heard", INSTANCES)
        await (await site.start("worker", crash=point, ready=False)).killed()
        sent, put_up = len(receiver.requests), await _put_up(site)
        assert (sent > 0, put_up > 0) == (point == "webhook-sent", point != "webhook-events-read")
        await _let_deliveries_go(site)

        await site.start("worker")
        await site.all_are("heard", "complete")
        await site.eventually(lambda: _delivered(site, 6 * INSTANCES))
    finally:
        await receiver.stop()
    ids: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for request in receiver.requests:
        told = json.loads(request.body)
        about = told["data"].get("workflowExecutionId", told["data"]["id"]), told["data"].get("taskDefinitionId", "")
        ids[told["event"], *about].append(dict(request.headers)["webhook-id"])
    assert Counter(event for event, *_ in ids) == dict.fromkeys(TOLD, 2 * INSTANCES) | dict.fromkeys(ONCE, INSTANCES)
    assert all(len(set(same)) == 1 for same in ids.values())
    assert (len(receiver.requests) > len(ids)) == (sent > 0)


async def _put_up(site: Installation) -> int:
    query = "select count(*) from webhook_delivery where account_id = $1"
    return await site.platform.db.engine.fetchval(query, site.tenant.id)


async def _delivered(site: Installation, count: int) -> bool:
    query = "select count(*) = $2 and bool_and(status = 1) from webhook_delivery where account_id = $1"
    return await site.platform.db.engine.fetchval(query, site.tenant.id, count)


async def _let_deliveries_go(site: Installation) -> None:
    """What a sender or a reader that died had in hand is its own for a minute; let that be over."""
    engine, minute = site.platform.db.engine, "interval '1 minute'"
    await engine.execute(f"update webhook_delivery set next_at = next_at - {minute} where claimed")
    await engine.execute(f"update webhook set due_at = due_at - {minute}")
    await engine.execute(f"update feed_cursor set until = until - {minute}")


# --- API ---------------------------------------------------------------------------------------------------------


@case("created-not-answered")
async def creation(site: Installation, point: str) -> None:
    """The API dies between the commit and the answer; the caller asks again."""
    await site.deploy("made", [mark("a")])
    request: dict[str, Any] = {"json": {"instance_id": "mine"}, "headers": {"idempotency-key": "once"}}
    api = await site.start("serve", crash=point)
    async with site.client(api) as client:
        with pytest.raises(httpx.TransportError):
            await client.post("/workflows/made/instances", **request)
    await api.killed()
    assert await site.statuses("made") == {"queued": 1}

    _, api = await asyncio.gather(site.start("worker"), site.start("serve"))
    await site.all_are("made", "complete")
    await site.let_idempotency_keys_go()
    async with site.client(api) as client:
        again = await client.post("/workflows/made/instances", **request)
        assert (again.status_code, again.json()["result"]["id"]) == (200, "mine")
    assert await site.statuses("made") == {"complete": 1}
    assert len(site.executions()) == 1


@case("event-not-signalled")
async def event(site: Installation, point: str) -> None:
    """The API dies between the commit of an event and telling the worker; the caller sends it again."""
    waits = [
        {"id": "first", "type": "wait_for_event", "config": {"event": "go"}},
        {"id": "second", "type": "wait_for_event", "config": {"event": "go"}, "depends_on": ["first"]},
    ]
    await site.deploy("told", waits)
    [id] = await site.create("told", 1)
    _, api, another = await asyncio.gather(site.start("worker"), site.start("serve", crash=point), site.start("serve"))
    await site.all_are("told", "waiting")
    request: dict[str, Any] = {"json": {"n": 1}, "headers": {"idempotency-key": "once"}}
    async with site.client(api) as client:
        with pytest.raises(httpx.TransportError):
            await client.post(f"/workflows/told/instances/{id}/events/go", **request)
    await api.killed()
    await site.eventually(lambda: _waited(site, 1))

    await site.let_idempotency_keys_go()
    async with site.client(another) as client:
        again = await client.post(f"/workflows/told/instances/{id}/events/go", **request)
        assert again.status_code == 200, again.text
        assert (await client.post(f"/workflows/told/instances/{id}/events/go", json={"n": 2})).status_code == 200
    await site.all_are("told", "complete")
    assert (await site.instance("told", id))["output"] == {"n": 2}
    assert len(await site.entries(Kind.EVENT_RECEIVED)) == 2


@case("command-not-told")
async def command(site: Installation, point: str) -> None:
    """The API dies between the commit of a command and telling the worker that holds the run."""
    await site.deploy("ended", [hold("h"), mark("i", "h")])
    [id] = await site.create("ended", 1)
    worker, api = await asyncio.gather(site.start("worker"), site.start("serve", crash=point))
    await site.eventually(lambda: _ran(site, 1))
    async with site.client(api) as client:
        with pytest.raises(httpx.TransportError):
            await client.patch(f"/workflows/ended/instances/{id}/status", json={"status": "pause"})
    await api.killed()
    site.let_go(worker)
    await site.all_are("ended", "paused")
    assert [step for _, step, _ in await site.completed()] == ["h"]


async def _ran(site: Installation, count: int) -> bool:
    return len(site.executions()) == count


async def _waited(site: Installation, count: int) -> bool:
    return len(await site.entries(Kind.WAIT_COMPLETED)) == count


# --- migration ---------------------------------------------------------------------------------------------------


@case("migrations-not-committed", "functions-not-installed", "functions-half-installed")
async def migration(site: Installation, point: str) -> None:
    """The first migration of an empty database, killed, is done by the next one."""
    async with emptied(site) as connection:
        await (await site.start("migrate", crash=point, ready=False)).killed()
        made = await connection.fetchval("select to_regclass('account') is not null")
        assert made == (point != "migrations-not-committed")
        assert not await connection.fetchval("select to_regproc('claim_runs') is not null")

        assert await (await site.start("migrate", ready=False)).ended() == 0
        assert await connection.fetchval("select to_regproc('claim_runs') is not null")
        assert await connection.fetchval("select count(*) from installed_functions") == 1
    assert await pending(site.settings.database_url) == []


@asynccontextmanager
async def emptied(site: Installation) -> AsyncIterator[asyncpg.Connection]:
    """The installation's database without anything in it, and a connection to it."""
    connection = await asyncpg.connect(site.settings.database_url)
    try:
        await connection.execute("drop schema public cascade; create schema public")
        yield connection
    finally:
        await connection.close()
