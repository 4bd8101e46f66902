"""Steps answered from outside through the Medusa face."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Medusa
from .test_executions import WAITS, script

SHIP = {"transaction_id": "t", "step_id": "ship"}


async def test_success_completes_the_step_and_the_run_goes_on(medusa: Medusa) -> None:
    """Once: a repeated call is refused, and names the status the step has by then."""
    await medusa.face.deploy("flow", [*WAITS, {"id": "after", "depends_on": ["ship"]}])
    await medusa.run("flow", "t")
    answer = await medusa.answer("flow", "success", **SHIP, response={"tracking": "T9"}, compensate_input={"undo": 1})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    again = await medusa.answer("flow", "success", **SHIP)
    assert (again.status_code, again.json()) == (
        400,
        {"type": "not_allowed", "message": "Cannot set step success when status is ok"},
    )
    shown = await medusa.until("flow", "t", "done")
    output = {"output": {"tracking": "T9"}, "compensateInput": {"undo": 1}}
    assert shown["context"]["data"]["invoke"]["ship"] == {"output": output}
    late = await medusa.answer("flow", "failure", **SHIP)
    assert late.json()["message"] == "Cannot set step failure when status is ok"


async def test_a_step_may_be_named_by_its_path(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", [{"id": "a"}, {"id": "ship", "type": "external", "depends_on": ["a"]}])
    await medusa.run("flow", "t")
    answer = await medusa.answer("flow", "success", transaction_id="t", step_id="_root.a.ship")
    assert answer.status_code == 200
    assert (await medusa.until("flow", "t", "done"))["context"]["data"]["invoke"]["ship"]["output"]["output"] is None


@pytest.mark.parametrize(
    ("response", "message"),
    [({"message": "no carrier"}, "no carrier"), ("sorry", "sorry"), ({"a": 1}, '{"a":1}'), (None, "Step failed")],
)
async def test_failure_fails_the_step(medusa: Medusa, response: Any, message: str) -> None:
    await medusa.face.deploy("flow", WAITS)
    await medusa.run("flow", "t")
    body = {} if response is None else {"response": response}
    assert (await medusa.answer("flow", "failure", **SHIP, **body)).json() == {"success": True}
    shown = await medusa.until("flow", "t", "reverted")
    [error] = shown["context"]["errors"]
    assert (error["action"], error["error"]["message"].replace(" ", "")) == ("ship", message.replace(" ", ""))


async def test_a_failed_attempt_leaves_the_step_its_retries(medusa: Medusa) -> None:
    nodes = [{"id": "ship", "type": "external", "retries": {"limit": 1, "delay": 1}}]
    await medusa.face.deploy("flow", nodes)
    await medusa.run("flow", "t")
    assert (await medusa.answer("flow", "failure", **SHIP)).status_code == 200

    async def ask() -> Any:
        return await medusa.face.http.get("/admin/workflows-executions/flow/t")

    def waits_again(body: Any) -> bool:
        step = body["workflow_execution"]["execution"]["steps"]["_root.ship"]
        return step["attempts"] == 2 and step["invoke"]["status"] == "waiting_response"

    body = await medusa.face.when(ask, waits_again)
    step = body["workflow_execution"]["execution"]["steps"]["_root.ship"]
    assert (step["failures"], step["definition"]["maxRetries"]) == (1, 1)
    assert (await medusa.answer("flow", "success", **SHIP)).status_code == 200
    await medusa.until("flow", "t", "done")


async def test_what_cannot_be_answered(medusa: Medusa) -> None:
    """Checked in this order: workflow, transaction, step, phase, status."""
    await medusa.face.deploy("flow", [{"id": "later", "depends_on": ["ship"]}, *WAITS])
    await medusa.run("flow", "t")
    for body, workflow, status, message in (
        (SHIP, "nope", 404, 'Workflow with id "nope" not found.'),
        (SHIP | {"transaction_id": "x"}, "flow", 404, "Transaction x could not be found."),
        (SHIP | {"step_id": "x"}, "flow", 404, 'Step with id "x" not found.'),
        (SHIP | {"action": "compensate"}, "flow", 400, "Incorrect action type."),
        (SHIP | {"step_id": "later"}, "flow", 400, "Cannot set step success when status is idle"),
        ({"step_id": "ship"}, "flow", 400, "Invalid request: Field 'transaction_id' is required"),
        ({"transaction_id": "t"}, "flow", 400, "Invalid request: Field 'step_id' is required"),
        (
            SHIP | {"action": "undo"},
            "flow",
            400,
            "Invalid request: Expected: 'invoke, compensate' for field 'action', but got: 'undo'",
        ),
        (SHIP | {"x": 1}, "flow", 400, "Invalid request: Unrecognized fields: 'x'"),
        (
            {"action": "undo", "x": 1},
            "flow",
            400,
            "Invalid request: Field 'transaction_id' is required; Field 'step_id' is required; "
            "Expected: 'invoke, compensate' for field 'action', but got: 'undo'",
        ),
    ):
        answer = await medusa.answer(workflow, "success", **body)
        assert (answer.status_code, answer.json()["message"]) == (status, message)
    assert (await medusa.get("flow", "t"))["state"] == "invoking"


async def test_a_compensation_may_be_answered(medusa: Medusa) -> None:
    """By failure, too: then the execution has failed."""
    undo = {"type": "noop", "async": True}
    nodes = [{"id": "ship", "compensate": undo}, {"id": "bad", "type": "fail", "depends_on": ["ship"]}]
    nodes[1]["config"] = {"message": "no"}
    await medusa.face.deploy("flow", nodes)
    await medusa.run("flow", "t")
    await medusa.until("flow", "t", "compensating")
    wrong = await medusa.answer("flow", "success", **SHIP)
    assert (wrong.status_code, wrong.json()["message"]) == (400, "Incorrect action type.")
    answer = await medusa.answer("flow", "failure", **SHIP, action="compensate", response="stuck")
    assert answer.status_code == 200, answer.text
    shown = await medusa.until("flow", "t", "failed")
    assert shown["context"]["errors"][-1] == {
        "action": "ship",
        "handlerType": "compensate",
        "error": {"name": "Error", "message": "stuck", "stack": ""},
    }


async def test_waits_for_events_may_be_answered(medusa: Medusa) -> None:
    """Of documents and of scripts: the response is the event's payload; a failure is thrown."""
    await medusa.face.deploy("flow", [{"id": "ship", "type": "wait_for_event", "config": {"event": "go"}}])
    await medusa.run("flow", "t")
    assert (await medusa.answer("flow", "success", **SHIP, response={"a": 1})).status_code == 200
    shown = await medusa.until("flow", "t", "done")
    assert shown["context"]["data"]["invoke"]["ship"]["output"]["output"] == {"a": 1}
    await script(
        medusa, "await step.waitForEvent('ship', {type: 'go'}); await step.waitForEvent('ship', {type: 'go'});"
    )
    await medusa.run("code", "t")
    assert (await medusa.answer("code", "success", **SHIP)).status_code == 200
    second = SHIP | {"step_id": "ship-2"}

    async def ask() -> Any:
        return await medusa.face.http.get("/admin/workflows-executions/code/t")

    await medusa.face.when(ask, lambda body: "_root.ship-2" in body["workflow_execution"]["execution"]["steps"])
    assert (await medusa.answer("code", "failure", **second, response="never")).status_code == 200
    shown = await medusa.until("code", "t", "failed")
    assert shown["context"]["errors"][0]["error"]["message"] == "never"


async def test_only_the_newest_run_is_answered(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", WAITS)
    await medusa.run("flow", "t")
    await medusa.answer("flow", "success", **SHIP, response=1)
    await medusa.until("flow", "t", "done")
    await medusa.run("flow", "t")
    assert (await medusa.answer("flow", "success", **SHIP, response=2)).status_code == 200
    await medusa.until("flow", "t", "done")
    told = (await medusa.list("order=created_at"))["workflow_executions"]
    assert [one["context"]["data"]["invoke"]["ship"]["output"]["output"] for one in told] == [1, 2]


@pytest.mark.parametrize(("how", "status"), [("success", "ok"), ("failure", "temp_failure")])
async def test_a_repeated_answer_is_refused_before_the_run_has_read_the_first(
    medusa: Medusa, how: str, status: str
) -> None:
    """Only answers given at the same time are a conflict."""
    await medusa.face.deploy("flow", [{"id": "ship", "type": "external", "retries": {"limit": 1, "delay": 0}}])
    await medusa.run("flow", "t")
    await medusa.pause("flow", "t")  # a run that is paused reads nothing
    assert (await medusa.answer("flow", how, **SHIP)).status_code == 200
    again = await medusa.answer("flow", "success", **SHIP)
    assert (again.status_code, again.json()) == (
        400,
        {"type": "not_allowed", "message": f"Cannot set step success when status is {status}"},
    )
