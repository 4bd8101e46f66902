"""Whole documents, run by the real engine on a real database."""

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from instances.engine.requests import Controlled
from instances.engine.runs import attempts, breath
from instances.lifecycle import Kind, Status
from instances.runtimes.document import commands, register_action_handler, unregister_action_handler
from instances.runtimes.document.scope import PayloadScope
from tests.support.document_runs import call, event, fails, noop, sets, wait

UNDO = {"type": "set", "config": {"values": {"input": "{{ compensation.input }}"}}}


async def test_a_chain(documents):
    await documents.deploy("chain", [sets("a", values={"x": "{{ trigger.x }}"}), noop("b", "a"), noop("c", "b")])
    await documents.engine.worker()
    key = await documents.start("chain", {"x": 1})
    await documents.engine.until(key, Status.COMPLETE)
    assert await documents.steps(key, Kind.STEP_COMPLETED) == ["a-1", "b-1", "c-1"]
    starts = [row["payload"] for row in await documents.engine.journal(key) if row["kind"] == Kind.STEP_STARTED]
    assert starts == ['{"type":"set"}', '{"type":"noop"}', '{"type":"noop"}']


async def test_a_call_with_retries(documents, service):
    service.failing = 2
    config = {"url": service.url("/{{ trigger.id }}"), "method": "POST", "body": {"n": "{{ trigger.n }}"}}
    node = call("a", config=config, retries={"limit": 3, "delay": 0})
    await documents.deploy("call", [node])
    await documents.engine.worker()
    key = await documents.start("call", {"id": "x y", "n": 5})
    row = await documents.engine.until(key, Status.COMPLETE)
    assert [(request.method, request.body) for request in service.requests] == [("POST", b'{"n":5}')] * 3
    assert f'"key":"call:{key}:a:invoke"' in row["output"]
    assert (await documents.engine.kinds(key)).count(Kind.ATTEMPT_FAILED) == 2


async def test_an_address_that_is_not_allowed(documents):
    await documents.deploy("inside", [call("a", config={"url": "https://{{ trigger.host }}/"}, retries={"limit": 5})])
    await documents.engine.worker()
    error = await documents.run("inside", {"host": "169.254.169.254"}, Status.ERRORED)
    assert error == {
        "name": "API_CALL_FAILED",
        "message": "API call failed: the URL must lead to an address that may be called",
    }


async def test_rows_are_written_once(documents, account, db):
    nodes = [
        {"id": "n", "type": "send_notification", "config": {"message": "Hi {{ trigger.who }}", "recipient": "ada"}},
        {"id": "t", "type": "create_task", "config": {"title": "Do it"}, "depends_on": ["n"]},
    ]
    await documents.deploy("rows", nodes)
    await documents.engine.worker()
    key = await documents.start("rows", {"who": "Ada"})
    await documents.engine.until(key, Status.COMPLETE)
    async with db.scope(account) as connection:
        [note] = await connection.fetch("select * from notification")
        [task] = await connection.fetch("select * from task")
    assert (note["message"], note["recipient"], note["node"], note["instance_key"]) == ("Hi Ada", "ada", "n", key)
    assert (task["title"], task["status"], task["priority"]) == ("Do it", "TODO", "MEDIUM")


async def test_sleep_and_event_across_parks(documents):
    nodes = [
        wait("w", config={"duration": "1 hour"}),
        event("e", "w"),
        sets("a", "e", values={"got": "{{ previous }}"}),
    ]
    await documents.deploy("waits", nodes)
    engine = documents.engine
    await engine.worker()
    key = await documents.start("waits")
    await engine.until(key, Status.WAITING)
    await engine.advance(3601)
    await engine.written(key, Kind.WAIT_STARTED)
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "go", '{"x":1}')
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == '{"got":{"x":1}}'


async def test_a_match_leaves_other_events_unread(documents):
    await documents.deploy("match", [event("e", config={"match": "payload.id == trigger.id"})])
    engine = documents.engine
    await engine.worker()
    key = await documents.start("match", {"id": 2})
    await engine.until(key, Status.WAITING)
    for number in (1, 2):
        await engine.client.send_event(engine.account, key, "go", f'{{"id":{number}}}')
    assert (await engine.until(key, Status.COMPLETE))["output"] == '{"id":2}'


async def test_an_outside_step_is_completed_by_an_event(documents):
    await documents.deploy("outside", [{"id": "x", "type": "external"}, sets("a", "x", values={"x": "{{ previous }}"})])
    engine = documents.engine
    await engine.worker()
    key = await documents.start("outside")
    await engine.written(key, Kind.STEP_WAITING)
    await engine.client.send_event(engine.account, key, "step:x", '"done"')
    assert (await engine.until(key, Status.COMPLETE))["output"] == '{"x":"done"}'


async def test_a_failure_is_undone_deepest_first(documents):
    nodes = [
        sets("a", values={"x": 1}, compensate=UNDO),
        noop("b", "a", compensate=UNDO),
        fails("c", "b"),
    ]
    await documents.deploy("saga", nodes)
    engine = documents.engine
    await engine.worker()
    key = await documents.start("saga")
    row = await engine.until(key, Status.ERRORED)
    assert row["error"] == '{"name":"Error","message":"c broke"}'
    assert row["rollback"] == '{"outcome":"complete","error":null}'
    assert await documents.steps(key, Kind.ROLLBACK_STEP_COMPLETED) == ["b-1", "a-1"]


async def test_terminate_with_rollback(documents):
    await documents.deploy("stop", [noop("a", compensate=UNDO), event("e", "a")])
    engine = documents.engine
    await engine.worker()
    key = await documents.start("stop")
    await engine.until(key, Status.WAITING)
    assert isinstance(await engine.client.terminate(engine.account, key, rollback=True), Controlled)
    row = await engine.until(key, Status.TERMINATED)
    assert row["rollback"] == '{"outcome":"complete","error":null}'
    assert await documents.steps(key, Kind.ROLLBACK_STEP_COMPLETED) == ["a-1"]


async def test_the_deadline_rolls_back(documents):
    await documents.deploy("late", [noop("a", compensate=UNDO), event("e", "a")], limits={"timeout": "1 minute"})
    engine = documents.engine
    await engine.worker()
    key = await documents.start("late")
    await engine.until(key, Status.WAITING)
    await engine.advance(61)
    row = await engine.until(key, Status.ERRORED)
    assert '"EXECUTION_TIMEOUT"' in row["error"]
    assert await documents.steps(key, Kind.ROLLBACK_STEP_COMPLETED) == ["a-1"]


async def test_a_child_document(documents):
    await documents.deploy("inner", [sets("i", values={"twice": "{{ [trigger.n, trigger.n] }}"})])
    node = {"id": "c", "type": "workflow", "config": {"workflow": "inner", "input": {"n": "{{ trigger.n }}"}}}
    await documents.deploy("outer", [node, sets("a", "c", values={"got": "{{ previous.twice }}"})])
    await documents.engine.worker()
    assert await documents.run("outer", {"n": 4}) == {"got": [4, 4]}


@pytest.mark.parametrize("outside", [False, True])
async def test_what_a_step_leaves_for_its_compensation_survives_a_park(documents, register, outside):
    register("made", lambda _action, _context: {"success": True, "output": 1, "compensateInput": {"undo": 2}})
    first = {"id": "a", "type": "external"} if outside else {"id": "a", "type": "made"}
    nodes = [{**first, "compensate": UNDO}, event("e", "a", config={"timeout": "1 minute"})]
    await documents.deploy("left", nodes)
    engine = documents.engine
    await engine.worker()
    key = await documents.start("left")
    if outside:
        await engine.written(key, Kind.STEP_WAITING)
        await engine.client.send_event(engine.account, key, "step-input:a", '{"undo":2}')
        await engine.client.send_event(engine.account, key, "step:a", "1")
    await engine.written(key, Kind.WAIT_STARTED)
    await engine.until(key, Status.WAITING)
    await engine.advance(61)
    await engine.until(key, Status.ERRORED)
    [undone] = [row["payload"] for row in await engine.journal(key) if row["kind"] == Kind.ROLLBACK_STEP_COMPLETED]
    assert undone == '{"input":{"undo":2}}'


async def test_a_child_is_undone_by_another_child(documents):
    await documents.deploy("ship", [sets("i", values={"parcel": 7})])
    await documents.deploy("unship", [sets("i", values={"returned": "{{ trigger.parcel }}"})])
    undo = {"type": "workflow", "config": {"workflow": "unship", "input": "{{ compensation.input }}"}}
    nodes = [{"id": "c", "type": "workflow", "config": {"workflow": "ship"}, "compensate": undo}, fails("b", "c")]
    await documents.deploy("outer", nodes)
    engine = documents.engine
    await engine.worker()
    key = await documents.start("outer")
    await engine.until(key, Status.ERRORED)
    [end] = [row["payload"] for row in await engine.journal(key) if row["kind"] == Kind.ROLLBACK_STEP_COMPLETED]
    assert end == '{"returned":7}'


async def test_pause_and_resume_in_the_middle(documents, register):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_action, _context):
        entered.set()
        await leave.wait()
        return 1

    register("slow", slow)
    await documents.deploy("pause", [{"id": "s", "type": "slow"}, noop("a", "s")])
    engine = documents.engine
    await engine.worker()
    key = await documents.start("pause")
    await asyncio.wait_for(entered.wait(), 10)
    await engine.client.pause(engine.account, key)
    leave.set()
    await engine.until(key, Status.PAUSED)
    assert await documents.steps(key, Kind.STEP_COMPLETED) == ["s-1"]
    await engine.client.resume(engine.account, key)
    await engine.until(key, Status.COMPLETE)
    assert await documents.steps(key, Kind.STEP_STARTED) == ["s-1", "a-1"]


async def test_handlers_that_time_out(documents, register):
    async def hangs(_action, _context):
        await asyncio.Event().wait()

    register("hangs", hangs)
    await documents.deploy("hang", [{"id": "h", "type": "hangs", "timeout": 20}])
    await documents.engine.worker()
    error = await documents.run("hang", status=Status.ERRORED)
    assert error["name"] == "STEP_TIMEOUT"


async def test_a_large_graph(documents):
    nodes = [noop("start")]
    nodes += [noop(f"mid{i}", "start") for i in range(200)]
    nodes += [sets("end", *(f"mid{i}" for i in range(200)), values={"n": "{{ length(previousStepResults) }}"})]
    await documents.deploy("wide", nodes)
    await documents.engine.worker()
    assert await documents.run("wide") == {"n": 201}


async def test_steps_given_up_do_not_run_again_on_replay(documents, register):
    """A run that failed while a sibling slept, and parks in its rollback, must not start the sibling again."""
    nodes = [
        wait("sleeping", config={"duration": "1 day"}),
        noop("a", compensate={"type": "external"}),
        fails("b", "a"),
    ]
    await documents.deploy("again", nodes)
    engine = documents.engine
    await engine.worker()
    key = await documents.start("again")
    await engine.written(key, Kind.ROLLBACK_STEP_WAITING)
    await engine.until(key, Status.ROLLING_BACK)

    async def parked():
        row = await engine.live(key)
        return row is not None and row["phase"] == 2

    await engine.eventually(parked)
    await engine.client.send_event(engine.account, key, "step:a:compensate", "null")
    await engine.until(key, Status.ERRORED)
    assert await documents.steps(key, Kind.SLEEP_STARTED) == ["sleeping-1"]
    assert await documents.steps(key, Kind.STEP_STARTED) == ["a-1", "b-1"]


async def test_restart_from_a_step_starts_again_what_was_given_up(documents):
    """A sibling that was given up when the run failed has no result: the restarted run needs it anew."""
    nodes = [wait("sleeping", config={"duration": "1 hour"}), event("e", config={"timeout": "1 minute"})]
    await documents.deploy("restart", [*nodes, noop("end", "sleeping", "e")])
    engine = documents.engine
    await engine.worker()
    key = await documents.start("restart")
    await engine.until(key, Status.WAITING)
    await engine.advance(61)
    await engine.until(key, Status.ERRORED)
    [start] = [row["seq"] for row in await engine.journal(key) if row["kind"] == Kind.WAIT_STARTED]
    await engine.client.restart(engine.account, key, from_seq=start)
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "go", "1")
    await engine.written(key, Kind.WAIT_COMPLETED)
    await engine.advance(3601)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"success"'


@pytest.fixture
def register():
    names = []

    def add(name, fn, schema=None):
        register_action_handler(name, fn, schema)
        names.append(name)

    yield add
    for name in names:
        unregister_action_handler(name)


async def test_a_run_that_computes_much_lets_others_have_the_loop(documents, monkeypatch):
    monkeypatch.setattr(breath, "BREATH", 0)
    turns, seen = 0, []
    in_place = attempts.run_in_place

    def watched(*arguments):
        seen.append(turns)
        return in_place(*arguments)

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(attempts, "run_in_place", watched)
    await documents.deploy("wide", [sets(f"n{i}", values={"x": "{{ trigger }}"}) for i in range(20)])
    await documents.engine.worker()
    counting = asyncio.create_task(count())
    try:
        await documents.run("wide")
    finally:
        counting.cancel()
    assert len(seen) == len(set(seen)) == 20


async def test_a_run_that_keeps_the_loop_is_named_in_the_log(documents, account, monkeypatch):
    monkeypatch.setattr(breath, "BREATH", 0)
    monkeypatch.setattr(breath, "SLOW_TURN", 0)
    await documents.deploy("slow", [sets("a", values={"x": 1})])
    await documents.engine.worker()
    with capture_logs() as lines:
        await documents.run("slow")
    line = next(line for line in lines if line["event"] == "slow_turn")
    assert (line["account"], line["workflow"], line["log_level"]) == (account.hex, "slow", "warning")


async def test_an_event_is_held_against_a_match_once(documents, monkeypatch):
    looked_at = []

    class Watched(PayloadScope):
        def __init__(self, scope, payload):
            looked_at.append(payload)
            super().__init__(scope, payload)

    monkeypatch.setattr(commands, "PayloadScope", Watched)
    enough = asyncio.Event()

    async def busy(_action, _context):
        await enough.wait()

    register_action_handler("busy", busy)
    try:
        nodes = [event("e", config={"match": "payload > `4`"}), {"id": "b", "type": "busy"}]
        await documents.deploy("picky", nodes)
        engine = documents.engine
        worker = await engine.worker()
        key = await documents.start("picky")
        await engine.until(key, Status.RUNNING)
        for number in range(6):
            await engine.client.send_event(engine.account, key, "go", str(number))
            worker.poke(engine.account, key)
            async with asyncio.timeout(10):
                while str(number) not in looked_at:
                    await asyncio.sleep(0.005)
        enough.set()
        await engine.until(key, Status.COMPLETE)
    finally:
        unregister_action_handler("busy")
    assert looked_at == ["0", "1", "2", "3", "4", "5"]


async def test_a_deadline_given_at_creation_comes_before_the_documents(documents):
    await documents.deploy("late", [wait("w", config={"durationMs": 3_600_000})], limits={"timeout": "10 seconds"})
    engine = documents.engine
    await engine.worker()
    [key] = await engine.create_many("late", 1, trigger_detail='{"timeout":60000}')
    await engine.until(key, Status.WAITING)
    await engine.advance(30)
    [other] = await engine.create_many("late", 1)
    await engine.until(other, Status.WAITING)
    assert await engine.status(key) is Status.WAITING
    await engine.advance(31)
    for ended, limit in ((key, 60_000), (other, 10_000)):
        row = await engine.until(ended, Status.ERRORED)
        assert msgspec.json.decode(row["error"]) == {
            "name": "EXECUTION_TIMEOUT",
            "message": f"the instance did not finish within {limit} ms",
        }


async def test_a_dry_run_waits_for_nothing_and_touches_nothing(documents):
    nodes = [
        {"id": "n", "type": "send_notification", "config": {"message": "Hi"}},
        {"id": "w", "type": "wait", "config": {"duration": "1 day"}, "depends_on": ["n"]},
        {"id": "e", "type": "wait_for_event", "config": {"event": "go"}, "depends_on": ["w"]},
        {"id": "x", "type": "external", "depends_on": ["e"]},
        {"id": "v", "type": "set", "config": {"values": {"a": "{{ vars.a }}"}}, "depends_on": ["x"]},
    ]
    await documents.deploy("dry", nodes, vars={"a": 1})
    engine = documents.engine
    await engine.worker()
    [key] = await engine.create_many("dry", 1, trigger_detail='{"dryRun":true,"variables":{"a":2}}')
    row = await engine.until(key, Status.COMPLETE)
    assert (row["output"], row["dry_run"]) == ('{"a":2}', True)
    assert await engine.admin.fetchval("select count(*) from notification") == 0
