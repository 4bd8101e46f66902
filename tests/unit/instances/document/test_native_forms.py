"""What native forms promise of a run, from the body to the end of the instance."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from instances.runtimes.document.plan import compile_plan
from instances.runtimes.protocol import Attempt, Do, Failure, StepFailure
from tests.support.document_runs import START, Driver, run_context
from tests.support.forms import document_of

NOTIFY = {"type": "send_notification", "config": {"message": "hi"}}


async def run(dialect: str, body: dict[str, Any], *, failing: Any = (), input: str = "{}") -> tuple[Driver, list[Any]]:
    """The run, and when each attempt began: (node, seconds since the start)."""
    attempts: list[Any] = []

    async def perform(do: Do, _attempt: Attempt) -> str | None:
        attempts.append((do.key.name, (driver.now - START).total_seconds()))
        if do.key.name in failing:
            raise StepFailure(Failure("Error", "no"))
        return f'{{"by":"{do.key.name}"}}'

    plan = compile_plan(document_of(dialect, body))
    driver = Driver(plan, run=run_context(input), perform=perform)
    await (await driver.start()).finish()
    return driver, attempts


def actions(*given: Any) -> dict[str, Any]:
    return {"name": "w", "actions": list(given)}


async def test_actions_run_one_after_the_other():
    driver, attempts = await run("004", actions(*[NOTIFY] * 3))
    assert [name for name, _ in attempts] == ["action-0", "action-1", "action-2"]
    assert driver.output == {"by": "action-2"}


async def test_a_failure_stops_the_workflow():
    driver, attempts = await run("004", actions(*[NOTIFY] * 5), failing=["action-2"])
    assert [name for name, _ in attempts] == ["action-0", "action-1", "action-2"]
    assert driver.error.message == "no"


async def test_a_failure_may_be_passed_over():
    body = actions(NOTIFY, NOTIFY, {**NOTIFY, "onError": "continue"}, NOTIFY, NOTIFY)
    driver, attempts = await run("004", body, failing=["action-2"])
    assert len(attempts) == 5
    assert driver.output == {"by": "action-4"}


@pytest.mark.parametrize("failing", [["action-0"], []])
async def test_a_retry_is_made_three_times_after_one_two_and_four_seconds(failing: list[str]):
    driver, attempts = await run("004", actions({**NOTIFY, "onError": "retry"}, NOTIFY), failing=failing)
    if failing:
        assert attempts == [("action-0", 0.0), ("action-0", 1.0), ("action-0", 3.0), ("action-0", 7.0)]
        assert driver.error.message == "no"
    else:
        assert attempts == [("action-0", 0.0), ("action-1", 0.0)]


async def test_waiting_is_longer_than_any_timeout():
    driver, attempts = await run("004", actions({"type": "wait", "config": {"durationMs": 60_000}}, NOTIFY))
    assert attempts == [("action-1", 60.0)]
    assert driver.now - START >= timedelta(seconds=60)


@pytest.mark.parametrize(("kind", "ran"), [("premium", 1), ("basic", 0)])
async def test_a_false_condition_skips_the_rest_and_the_workflow_completes(kind: str, ran: int):
    gate = {"type": "condition", "config": {"field": "trigger.userType", "operator": "equals", "value": "premium"}}
    driver, attempts = await run("004", actions(gate, NOTIFY), input=f'{{"userType":"{kind}"}}')
    assert len([name for name, _ in attempts if name == "action-1"]) == ran
    assert set(driver.skipped()) == (set() if ran else {"action-1"})
    assert driver.output is not None or not ran


async def test_an_action_whose_conditions_do_not_hold_is_left_out():
    condition = {"field": "trigger.n", "operator": "gt", "value": 1}
    driver, attempts = await run("004", actions({**NOTIFY, "conditions": [condition]}, NOTIFY), input='{"n":1}')
    assert [name for name, _ in attempts] == ["action-1"]
    assert set(driver.skipped()) == {"action-0"}


async def test_tasks_wait_for_what_they_depend_on_and_for_sync_points():
    body = {
        "name": "w",
        "tasks": [
            {"name": "Last", "dependencies": ["Ready"]},
            {"name": "A", "type": "send_notification", "config": {"message": "a"}},
            {"name": "B", "dependencies": ["A"], "retryPolicy": {"maxRetries": 2, "backoffMultiplier": 3}},
        ],
        "synchronizationPoints": [{"name": "Ready", "requiredTasks": ["A", "B"]}],
    }
    _, attempts = await run("002", {**body, "tasks": [{**task, **_NOTE} for task in body["tasks"]]})
    assert [name for name, _ in attempts] == ["task-2", "task-3", "task-1"]
    _, attempts = await run("002", {**body, "tasks": [{**task, **_NOTE} for task in body["tasks"]]}, failing=["task-3"])
    assert attempts == [("task-2", 0.0), ("task-3", 0.0), ("task-3", 1.0), ("task-3", 4.0)]


_NOTE = {"type": "send_notification", "config": {"message": "x"}}


async def test_nodes_follow_their_connections_and_read_the_input_by_its_keys():
    body = {
        "name": "w",
        "definition": {
            "nodes": [
                {"id": "node_2", "type": "set", "parameters": {"values": {"text": "{{ email.body }}"}}},
                {"id": "node_1", "type": "trigger"},
            ],
            "connections": [{"from": "node_1", "to": "node_2"}],
        },
    }
    plan = compile_plan(document_of("001", body))
    driver = await (await Driver(plan, run=run_context('{"email":{"body":"Hello"}}')).start()).finish()
    assert driver.output == {"text": "Hello"}
