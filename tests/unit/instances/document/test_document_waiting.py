"""Sleeps, events, outside completion, timeouts, children, loops, sync points and milestones."""

from datetime import timedelta

import pytest

from instances.lifecycle import Kind
from instances.runtimes.protocol import (
    CancelTimer,
    Do,
    Failure,
    Finish,
    Record,
    Sleep,
    StepFailure,
    StepKind,
    Timer,
    Wait,
)
from tests.support.document_runs import START, call, drive, event, fails, noop, run_context, sets, wait
from versions.expressions import decode_json


async def ok(_do, _attempt):
    return '{"status":200}'


async def broken(_do, _attempt):
    raise StepFailure(Failure("Error", "no"))


# --- sleeps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "milliseconds"),
    [
        ({}, 1000),
        ({"durationMs": 250}, 250),
        ({"duration": "2 minutes"}, 120_000),
        ({"durationMs": "{{ trigger.ms }}"}, 4500),
        ({"duration": "{{ trigger.n }} seconds"}, 3000),
        ({"durationMs": "{{ trigger.zero }}"}, 0),
    ],
)
async def test_wait(config, milliseconds):
    run = await drive([wait("w", config=config), noop("a", "w")], input={"ms": 4500.0, "n": 3, "zero": 0})
    [sleep] = [c for c in run.commands if isinstance(c, Sleep)]
    assert (sleep.key.kind, sleep.key.name, sleep.duration) == (StepKind.SLEEP, "w", milliseconds)
    await run.finish()
    assert run.now == START + timedelta(milliseconds=milliseconds)
    assert run.started() == ["a"]


async def test_the_output_of_a_wait():
    run = await (await drive([wait("w", config={"durationMs": 250})])).finish()
    assert run.output == {"waited": True, "durationMs": 250}


async def test_outputs_reshape_a_wait():
    run = await (await drive([wait("w", outputs={"ms": "{{ result.durationMs }}"})])).finish()
    assert run.output == {"ms": 1000}
    await run.check_replay()


@pytest.mark.parametrize("value", ["{{ `-1` }}", "{{ 'soon' }}", "{{ trigger }}", "{{ `1e12` }}"])
async def test_a_wait_that_makes_no_sense_fails(value):
    run = await drive([wait("w", config={"durationMs": value}, retries={"limit": 2})])
    assert run.error.name == "INVALID_CONFIG"
    assert run.started() == ["w"]
    assert run.executed == [("w-1", 1)]


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        ("2026-01-01T00:00:30Z", 30),
        ("2026-01-01T02:00:30+02:00", 30),
        ("2026-01-02", 86_400),
        (1767225630000, 30),
        ("{{ trigger.at }}", 30),
        ("2020-01-01", 0),
    ],
)
async def test_wait_until(at, seconds):
    run = await (
        await drive([wait("w", type="wait_until", config={"at": at})], input={"at": "2026-01-01T00:00:30Z"})
    ).finish()
    assert run.now == START + timedelta(seconds=seconds)
    assert run.output == {"waited": True, "durationMs": seconds * 1000}


@pytest.mark.parametrize("at", ["{{ 'never' }}", "{{ `true` }}", "{{ `1e20` }}", "{{ missing }}"])
async def test_wait_until_nonsense(at):
    run = await drive([wait("w", type="wait_until", config={"at": at})])
    assert run.error.name == "INVALID_CONFIG"


async def test_a_sleep_that_cannot_be_rendered_is_a_failed_step():
    run = await drive([wait("w", config={"durationMs": "{{ trigger.x > 'a' }}"}, on_error="continue")], input={"x": 1})
    [do] = [c for c in run.commands if isinstance(c, Do)]
    assert (do.key.kind, do.key.name, do.immediate) == (StepKind.DO, "w", True)
    await run.check_replay()


async def test_total_timeout_of_a_sleep():
    run = await drive(
        [wait("w", config={"duration": "1 hour"}, total_timeout=5000, on_error="continue"), noop("a", "w")]
    )
    await run.advance(4)
    assert run.started() == []
    await run.advance(2)
    assert run.cancelled() == ["w"]
    assert run.started() == ["a"]
    await run.check_replay()


async def test_a_finished_sleep_takes_its_timer_along():
    run = await drive([wait("w", config={"durationMs": 10}, total_timeout=5000), event("e")])
    await run.advance(1)
    assert [c for c in run.commands if isinstance(c, (Timer, CancelTimer))] == [
        Timer("total:w-1", 5000),
        CancelTimer("total:w-1"),
    ]


# --- events ------------------------------------------------------------------------------------------------------


async def test_an_event_is_the_output():
    run = await drive([event("e"), sets("a", "e", values={"got": "{{ previous }}"})])
    [command] = [c for c in run.commands if isinstance(c, Wait)]
    assert (command.type, command.timeout, command.accepts) == ("go", 86_400_000, None)
    assert await run.event("go", '{"x": 1}')
    assert run.output == {"got": {"x": 1}}
    await run.check_replay()


async def test_an_event_that_does_not_come_is_event_timeout():
    run = await (await drive([event("e", config={"timeout": "1 minute"})])).finish()
    assert run.error.name == "EVENT_TIMEOUT"
    assert run.now == START + timedelta(minutes=1)


async def test_an_event_timeout_may_be_continued():
    run = await drive([event("e", config={"timeout": 10}, on_error="continue"), noop("a", "e")])
    await run.finish()
    assert run.started() == ["a"]


async def test_the_event_type_may_be_a_template():
    run = await drive([event("e", config={"event": "order-{{ trigger.id }}"})], input={"id": 7})
    assert await run.event("order-7")
    bad = await drive([event("e", config={"event": "{{ trigger.id }}"})], input={"id": "no spaces!"})
    assert bad.error.name == "INVALID_CONFIG"


@pytest.mark.parametrize(
    "match",
    [
        "payload.id == trigger.id",
        "id == trigger.id",
        {"field": "payload.id", "operator": "eq", "value": "{{ trigger.id }}"},
        {"all": [{"field": "id", "operator": "eq", "value": "{{ trigger.id }}"}]},
    ],
)
async def test_match_turns_events_down(match):
    run = await drive([event("e", config={"match": match})], input={"id": 7})
    for payload in ('{"id": 8}', "null", "7", '{"trigger": {"id": 1}}'):
        assert not await run.event("go", payload)
    assert await run.event("go", '{"id": 7, "trigger": {"id": 1}}')
    assert run.output == {"id": 7, "trigger": {"id": 1}}


async def test_a_match_that_fails_is_no_match():
    run = await drive([event("e", config={"match": "payload.n > 'a'"})])
    assert not await run.event("go", '{"n": 1}')
    assert await run.event("go", '{"n": "b"}')


# --- completed from outside --------------------------------------------------------------------------------------


async def test_external_waits_for_its_completion():
    run = await drive([{"id": "x", "type": "external", "timeout": "2 days"}, noop("a", "x")])
    [do] = [c for c in run.commands if isinstance(c, Do)]
    assert (do.external, do.timeout, do.immediate) == (True, 172_800_000, True)
    await run.complete("x", '{"by": "me"}')
    assert run.started() == ["x", "a"]


async def test_an_async_action_runs_first():
    run = await drive(
        [call("x", **{"async": True}), sets("a", "x", values={"x": "{{ steps.x.output.y }}"})], perform=ok
    )
    assert run.executed == [("x-1", 1)]
    await run.complete("x", '{"y": 1}')
    assert run.output == {"x": 1}


async def test_an_outside_failure_counts_as_an_attempt():
    node = call("x", **{"async": True}, retries={"limit": 1, "delay": 1000})
    run = await drive([node], perform=ok)
    await run.fail_outside("x", Failure("Error", "first"))
    await run.advance(2)
    assert run.executed == [("x-1", 1), ("x-1", 2)]
    await run.fail_outside("x", Failure("Error", "second"))
    assert run.error.message == "second"


async def test_timeout_of_an_outside_step_is_a_failed_attempt():
    node = {"id": "x", "type": "external", "timeout": 1000, "retries": {"limit": 1, "delay": 0}}
    run = await (await drive([node])).finish()
    assert run.executed == [("x-1", 1), ("x-1", 2)]
    assert run.error.name == "STEP_TIMEOUT"


async def test_total_timeout_is_final():
    node = call("x", total_timeout=5000, **{"async": True}, retries={"limit": 5, "delay": 0})
    run = await (await drive([node, noop("a", "x")], perform=ok)).finish()
    assert run.error.name == "STEP_TIMEOUT"
    assert run.executed == [("x-1", 1)]
    assert run.rollback is not None


async def test_outputs_of_an_outside_step():
    node = {"id": "x", "type": "external", "outputs": {"who": "{{ result.by }}"}}
    run = await drive([node])
    await run.complete("x", '{"by": "me"}')
    assert run.output == {"who": "me"}


async def test_outputs_that_fail_fail_the_node():
    node = {"id": "x", "type": "external", "outputs": {"who": "{{ result.by > 'a' }}"}}
    run = await drive([node])
    await run.complete("x", '{"by": 1}')
    assert run.error.name == "EXPRESSION_ERROR"
    await run.check_replay()


# --- retries -----------------------------------------------------------------------------------------------------


async def test_retry_policy_reaches_the_driver():
    retries = {"limit": 4, "delay": "2 seconds", "backoff": "linear", "max_delay": "1 minute", "jitter": 0.5,
               "multiplier": 3}  # fmt: skip
    run = await drive([call("a", retries=retries, timeout=7000, total_timeout=9000)], perform=ok)
    [do] = [c for c in run.commands if isinstance(c, Do)]
    retry = do.retry
    assert (retry.limit, retry.delay, retry.backoff, retry.multiplier) == (4, 2000, "linear", 3)
    assert (retry.max_delay, retry.jitter) == (60_000, 0.5)
    assert (do.timeout, do.total_timeout) == (7000, 9000)
    assert decode_json(do.config) == {
        "type": "call_api",
        "config": {"retries": {"limit": 4, "delay": 2000, "backoff": "linear"}, "timeout": 7000},
    }


@pytest.mark.parametrize(
    ("condition", "attempts"),
    [
        ("error.message == 'no'", 3),
        ("error.code == 'X'", 1),
        ({"field": "error.output.status", "operator": "gte", "value": 500}, 3),
        ("error.output.status > 'a'", 1),
    ],
)
async def test_retries_when(condition, attempts):
    async def perform(_do, _attempt):
        raise StepFailure(Failure("Error", "no", output='{"status":503}'))

    node = call("a", retries={"limit": 2, "delay": 0, "when": condition})
    run = await (await drive([node], perform=perform)).finish()
    assert len(run.executed) == attempts


async def test_a_failed_call_keeps_its_output():
    async def perform(_do, _attempt):
        raise StepFailure(Failure("Error", "no", output='{"status":503}'))

    nodes = [call("a", on_error="continue"), sets("b", "a", values={"s": "{{ steps.a.output.status }}"})]
    run = await drive(nodes, perform=perform)
    assert run.output == {"s": 503}


async def test_templates_are_rendered_as_the_run_stood_at_the_start():
    seen = []

    async def perform(do, _attempt):
        seen.append(do.data.body.config.render(do.data.scope))
        raise StepFailure(Failure("Error", "again"))

    nodes = [
        call("a", config={"url": "https://{{ vars.host }}/"}, retries={"limit": 1, "delay": 1000}),
        sets("b", values={"host": "new.example"}),
    ]
    await (await drive(nodes, vars={"host": "old.example"}, perform=perform)).finish()
    assert seen == [{"url": "https://old.example/"}] * 2


# --- children ----------------------------------------------------------------------------------------------------


async def test_a_child_workflow():
    node = {
        "id": "c",
        "type": "workflow",
        "config": {"workflow": "ship-{{ trigger.kind }}", "input": {"n": "{{ trigger.n }}"}},
    }
    run = await drive([node], input={"kind": "fast", "n": 2})
    [do] = [c for c in run.commands if isinstance(c, Do)]
    assert do.child is not None
    assert (do.child.workflow, do.child.input, do.child.wait) == ("ship-fast", '{"n":2}', True)
    await run.complete("c", '{"shipped":true}')
    assert run.output == {"shipped": True}


async def test_the_timeout_of_a_child_bounds_the_step():
    node = {"id": "c", "type": "workflow", "config": {"workflow": "w"}, "timeout": 4000, "total_timeout": 9000}
    run = await drive([node])
    [do] = [c for c in run.commands if isinstance(c, Do)]
    assert (do.timeout, do.total_timeout) == (None, 4000)
    await run.finish()
    assert run.error.name == "STEP_TIMEOUT"


async def test_a_child_nobody_waits_for():
    run = await drive([{"id": "c", "type": "workflow", "config": {"workflow": "w", "wait": False}}])
    [do] = [c for c in run.commands if isinstance(c, Do)]
    assert do.child is not None
    assert (do.child.input, do.child.wait) == ("{}", False)


@pytest.mark.parametrize(
    ("config", "given"), [({}, "{}"), ({"input": None}, "null"), ({"input": "{{ nothing }}"}, "null")]
)
async def test_the_input_of_a_child(config, given):
    run = await drive([{"id": "c", "type": "workflow", "config": {"workflow": "w", **config}}])
    [do] = [c for c in run.commands if isinstance(c, Do)]
    assert do.child.input == given


@pytest.mark.parametrize("config", [{"workflow": "{{ missing }}"}, {"workflow": "w", "wait": "{{ 'maybe' }}"}])
async def test_a_child_that_makes_no_sense(config):
    run = await drive([{"id": "c", "type": "workflow", "config": config}])
    assert run.error.name == "INVALID_CONFIG"


# --- for_each ----------------------------------------------------------------------------------------------------


def each(id, *depends_on, items="{{ trigger }}", **fields):
    values = {"item": "{{ item }}", "index": "{{ index }}"}
    config = {"values": values, **fields.pop("config", {})}
    return {"id": id, "type": "set", "for_each": items, "config": config, "depends_on": list(depends_on), **fields}


async def test_one_child_per_item():
    run = await drive([each("e"), noop("a", "e")], input=["x", "y"], outputs={"e": "{{ steps.e.output }}"})
    keys = [c.key for c in run.commands if isinstance(c, Do) and c.key.name == "e"]
    assert [key.count for key in keys] == [1, 2]
    assert run.output == {"e": [{"item": "x", "index": 0}, {"item": "y", "index": 1}]}
    await run.check_replay()


async def test_no_items_give_an_empty_array():
    run = await drive([each("e"), noop("a", "e")], input=[], outputs={"e": "{{ steps.e.output }}"})
    assert run.executed == [("e-1", 1), ("a-1", 1)]
    assert run.output == {"e": []}


@pytest.mark.parametrize(("items", "name"), [({"a": 1}, "EXPRESSION_ERROR"), ([0] * 10_001, "LIMIT_EXCEEDED")])
async def test_items_must_be_an_array_of_limited_length(items, name):
    run = await drive([each("e")], input=items)
    assert run.error.name == name


async def test_children_run_a_few_at_once():
    node = call("e", for_each="{{ trigger }}", config={"url": "https://example.com/{{ item }}", "parallel": 2})
    run = await drive([node], input=[1, 2, 3], perform=ok)
    assert [c.key.count for c in run.batches[0][1] if isinstance(c, Do)] == [1, 2]
    assert [c.key.count for c in run.batches[1][1] if isinstance(c, Do)] == [3]
    assert run.output == [{"status": 200}] * 3


async def test_children_share_the_instances_slots():
    node = call("e", for_each="{{ trigger }}", config={"url": "https://example.com/{{ item }}"})
    run = await drive([node], input=[1, 2, 3], perform=ok, limits={"max_parallel": 1})
    assert [c.key.count for c in run.batches[0][1] if isinstance(c, Do)] == [1]
    assert run.output == [{"status": 200}] * 3


async def second_breaks(do, _attempt):
    if do.key.count == 2:
        raise StepFailure(Failure("Error", "second"))
    return f'"{do.key.count}"'


async def test_a_failing_child_fails_the_node_and_stops_the_rest():
    node = call("e", for_each="{{ trigger }}", config={"url": "https://example.com", "parallel": 1})
    run = await drive([node], input=[1, 2, 3], perform=second_breaks)
    assert run.error.message == "second"
    assert run.executed == [("e-1", 1), ("e-2", 1)]


async def test_continue_goes_on_with_the_other_items():
    node = call(
        "e", for_each="{{ trigger }}", on_error="continue", config={"url": "https://example.com", "parallel": 1}
    )
    run = await drive([node], input=[1, 2, 3], perform=second_breaks)
    assert run.output == ["1", None, "3"]
    await run.check_replay()


async def test_children_may_sleep():
    node = wait("e", for_each="{{ trigger }}", config={"durationMs": "{{ item }}"})
    run = await (await drive([node], input=[10, 30, 20])).finish()
    assert [item["durationMs"] for item in run.output] == [10, 30, 20]
    assert run.now == START + timedelta(milliseconds=30)


async def test_expression_errors_of_one_child():
    node = each("e", config={"values": {"x": "{{ item > `1` && item > 'a' }}"}}, on_error="continue")
    run = await drive([node], input=[1, 2, 0])
    assert run.output == [{"x": False}, None, {"x": False}]


# --- sync points -------------------------------------------------------------------------------------------------


def sync_states(run):
    return [
        (c.name, c.count, decode_json(c.payload or "{}")["state"])
        for c in run.commands
        if isinstance(c, Record) and c.kind == Kind.SYNC_POINT
    ]


async def test_a_sync_point_is_reached_then_completed():
    nodes = [noop("a"), {"id": "x", "type": "external"}, noop("b", "s")]
    run = await drive(nodes, sync_points=[{"id": "s", "required": ["a", "x"]}])
    assert sync_states(run) == [("s", 1, "reached")]
    assert run.started() == ["a", "x"]
    await run.complete("x")
    assert sync_states(run) == [("s", 1, "reached"), ("s", 2, "completed")]
    assert run.started() == ["a", "x", "b"]
    await run.check_replay()


async def test_skipped_nodes_count_for_a_sync_point():
    run = await drive([noop("a", when="`false`"), noop("b", "s")], sync_points=[{"id": "s", "required": ["a"]}])
    assert run.started() == ["b"]


async def test_a_sync_point_times_out_from_the_start_of_its_first_node():
    nodes = [wait("w", config={"durationMs": 5000}), {"id": "x", "type": "external", "depends_on": ["w"]}]
    sync = [{"id": "s", "required": ["x"], "timeout": 2000}]
    run = await (await drive(nodes, sync_points=sync)).advance(6)
    assert isinstance(run.end, type(None))
    await run.advance(2)
    assert sync_states(run) == [("s", 3, "failed")]
    assert run.rollback is None, "the outside step in flight may still finish"
    await run.complete("x")
    assert run.error.name == "SYNC_POINT_TIMEOUT"
    await run.check_replay()


async def test_a_sync_timeout_may_be_continued():
    nodes = [{"id": "x", "type": "external"}, noop("b", "s")]
    sync = [{"id": "s", "required": ["x"], "timeout": 2000, "on_timeout": "continue"}]
    run = await (await drive(nodes, sync_points=sync)).advance(3)
    assert run.started() == ["x", "b"]
    await run.complete("x")
    assert sync_states(run) == [("s", 3, "failed"), ("s", 1, "reached")]
    assert isinstance(run.end, Finish)


async def test_a_sync_point_in_time_cancels_its_timer():
    nodes = [{"id": "x", "type": "external"}, wait("w", config={"duration": "1 hour"})]
    run = await drive(nodes, sync_points=[{"id": "s", "required": ["x"], "timeout": 2000}])
    await run.complete("x")
    await run.finish()
    assert isinstance(run.end, Finish)
    assert CancelTimer("sync:s") in run.commands


async def test_a_required_node_that_failed_fails_the_sync_point():
    nodes = [fails("a", on_error="continue"), noop("b", "s"), noop("c", "s", join="all_done")]
    run = await drive(nodes, sync_points=[{"id": "s", "required": ["a"]}])
    assert sync_states(run) == [("s", 1, "reached"), ("s", 3, "failed")]
    assert run.skipped() == {"b": "failure"}
    assert run.started() == ["a", "c"]


# --- milestones --------------------------------------------------------------------------------------------------


async def test_milestones_after_nodes_and_sync_points():
    nodes = [noop("a"), {"id": "x", "type": "external"}, noop("b", "x")]
    run = await drive(
        nodes,
        sync_points=[{"id": "s", "required": ["a", "x"]}],
        milestones=[{"id": "first", "after": ["a"]}, {"id": "all", "after": ["s", "b"]}],
    )
    assert run.records(Kind.MILESTONE) == ["initialization", "first"]
    await run.complete("x")
    assert run.records(Kind.MILESTONE) == ["initialization", "first", "all"]


async def test_milestones_of_a_document_without_any():
    run = await drive([noop("a")], sync_points=[{"id": "s", "required": ["a"]}])
    assert run.records(Kind.MILESTONE) == ["initialization", "s", "completion"]
    assert isinstance(run.commands[-1], Finish)


async def test_a_failed_node_achieves_nothing():
    run = await drive([fails("a", on_error="continue")], milestones=[{"id": "m", "after": ["a"]}])
    assert run.records(Kind.MILESTONE) == ["initialization"]


# --- dry runs ----------------------------------------------------------------------------------------------------


async def test_a_dry_run_touches_nothing_and_waits_for_nobody():
    nodes = [
        {"id": "n", "type": "send_notification", "config": {"message": "hi"}},
        {"id": "t", "type": "create_task", "config": {"title": "do"}},
        call("c"),
        wait("w", config={"duration": "1 day"}),
        wait("u", type="wait_until", config={"at": "2030-01-01"}),
        event("e"),
        {"id": "x", "type": "external"},
        {"id": "child", "type": "workflow", "config": {"workflow": "w"}},
    ]
    run = await drive(nodes, run=run_context(trigger={"source": "api", "dryRun": True}))
    await run.finish()
    assert run.now == START
    output = run.output
    assert output["n"] == {
        "notificationSent": True,
        "message": "hi",
        "recipient": "user-7",
        "timestamp": "2026-01-01T00:00:00.000Z",
    }
    assert output["t"]["status"] == "TODO"
    assert output["c"] == {"status": 200, "statusText": "OK", "data": None}
    assert output["w"] == {"waited": True, "durationMs": 86_400_000}
    assert output["e"] is None
    assert output["child"] is None
