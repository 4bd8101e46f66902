"""Child workflows, and nodes that run for each item."""

from datetime import timedelta

import pytest

from instances.runtimes.protocol import (
    Do,
    Failure,
    StepFailure,
)
from tests.support.document_runs import START, call, drive, noop, ok, wait

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
