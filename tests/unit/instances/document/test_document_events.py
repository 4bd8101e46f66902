"""Nodes that wait for an event, or to be completed from outside."""

from datetime import timedelta

import pytest

from instances.runtimes.protocol import (
    Do,
    Failure,
    Wait,
)
from tests.support.document_runs import START, call, drive, event, noop, ok, sets

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
