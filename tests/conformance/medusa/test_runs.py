"""Running workflows through the Medusa face: transactions, what is waited for, what becomes of failures."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from app.faces.medusa.command_routes import OUTCOME_IN_METRICS
from app.observability.metrics import HTTP

from .conftest import BASE, Medusa
from .test_executions import ONE, WAITS, script

NOOP = {"type": "noop"}


def saga(last: dict[str, Any], first: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Three steps, of which the first can be undone."""
    return [
        {"id": "one", "type": "set", "config": {"values": {"a": 1}}, "compensate": first or NOOP},
        {"id": "two", "depends_on": ["one"]},
        {"id": "three", "depends_on": ["two"], **last},
    ]


FAILS = {"type": "fail", "config": {"message": "no carrier"}}


def halves(execution: dict[str, Any], path: str) -> tuple[tuple[str, str], tuple[str, str]]:
    step = execution["execution"]["steps"][path]
    invoke, compensate = step["invoke"], step["compensate"]
    return (invoke["state"], invoke["status"]), (compensate["state"], compensate["status"])


async def test_a_run_that_finishes(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE)
    answer = await medusa.run("flow", "o-1", input={"sku": "A1"})
    assert answer.status_code == 200
    assert answer.json() == {
        "acknowledgement": {"transactionId": "o-1", "workflowId": "flow", "hasFinished": True, "hasFailed": False}
    }
    assert answer.headers["x-transaction-id"] == "o-1"
    assert answer.headers["x-workflow-execution-id"] == (await medusa.get("flow", "o-1"))["id"]


async def test_a_run_without_a_transaction_gets_one(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE)
    bare = await medusa.face.http.post(f"{BASE}/flow/run")
    told = bare.json()["acknowledgement"]
    assert re.fullmatch("auto-[0-9A-Z]{26}", told["transactionId"])
    assert bare.headers["x-transaction-id"] == told["transactionId"]
    assert (await medusa.get("flow", told["transactionId"]))["context"]["data"]["payload"] == {}


@pytest.mark.parametrize("given", ["null", "[1,2]", '"text"', '{"a":1e400,"b":"\\u0000\\ud800"}'])
async def test_the_input_is_kept_as_it_was_sent(medusa: Medusa, given: str) -> None:
    await medusa.face.deploy("flow", ONE)
    headers = {"content-type": "application/json"}
    body = f'{{"transaction_id":"t","input":{given}}}'
    assert (await medusa.face.http.post(f"{BASE}/flow/run", content=body, headers=headers)).status_code == 200
    shown = await medusa.face.http.get(f"{BASE}/flow/t?fields=context.data")
    assert f'"payload":{given}' in shown.text


@pytest.mark.parametrize(
    "nodes",
    [
        WAITS,
        [{"id": "w", "type": "wait_for_event", "config": {"event": "go"}}],
        [{"id": "w", "type": "wait", "config": {"duration": "1 hour"}}],
    ],
)
async def test_a_run_that_waits_itself_is_not_waited_for(medusa: Medusa, nodes: list[dict[str, Any]]) -> None:
    """Whatever it waits for: somebody outside, an event, a time."""
    await medusa.face.deploy("flow", nodes)
    answer = await medusa.run("flow", "t")
    assert answer.json()["acknowledgement"]["hasFinished"] is False
    shown = await medusa.get("flow", "t")
    assert shown["state"] == "invoking"
    assert shown["execution"]["hasWaitingSteps"] is True


async def test_a_run_may_not_be_waited_for_at_all(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE)
    answer = await medusa.run("flow", "t", now=True)
    assert answer.headers["preference-applied"] == "respond-async"
    assert (await medusa.until("flow", "t", "done"))["transaction_id"] == "t"


async def test_one_transaction_runs_once_at_a_time(medusa: Medusa) -> None:
    """While it runs there is one instance; after the end a second one."""
    await medusa.face.deploy("flow", WAITS)
    first = await medusa.run("flow", "t", input={"n": 1})
    again = await medusa.run("flow", "t", input={"n": 2})
    assert again.json() == first.json()
    assert again.headers["x-workflow-execution-id"] == first.headers["x-workflow-execution-id"]
    assert (await medusa.list())["count"] == 1
    assert (await medusa.answer("flow", "success", transaction_id="t", step_id="ship")).status_code == 200
    await medusa.until("flow", "t", "done")
    second = await medusa.run("flow", "t", input={"n": 3})
    assert second.headers["x-workflow-execution-id"] != first.headers["x-workflow-execution-id"]
    told = (await medusa.list())["workflow_executions"]
    assert [one["context"]["data"]["payload"]["n"] for one in told] == [1, 3]  # by run
    assert (await medusa.get("flow", "t"))["context"]["data"]["payload"] == {"n": 3}  # the newest


async def test_an_idempotent_workflow_runs_a_transaction_once(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE, idempotent=True)
    first, again = await medusa.run("flow", "t"), await medusa.run("flow", "t")
    assert again.json()["acknowledgement"]["hasFinished"] is True
    assert again.headers["x-workflow-execution-id"] == first.headers["x-workflow-execution-id"]
    await medusa.face.deploy("bad", [{"id": "f", **FAILS}], idempotent=True)
    assert [(await medusa.run("bad", "t")).status_code for _ in range(2)] == [500, 500]
    assert (await medusa.list("workflow_id=bad"))["count"] == 1


# --- failures ----------------------------------------------------------------------------------------------------


async def test_a_failed_run_is_an_error_of_its_caller(medusa: Medusa) -> None:
    """Which can look it up; and the service's own figures do not take it for one of its errors."""
    await medusa.face.deploy("flow", saga(FAILS))

    def counted() -> float:
        samples = [one for metric in HTTP.collect() for one in metric.samples if one.name.endswith("_count")]
        return sum(one.value for one in samples if one.labels["status"] == OUTCOME_IN_METRICS)

    before = counted()
    answer = await medusa.run("flow")
    assert (answer.status_code, answer.json()) == (
        500,
        {"code": "unknown_error", "type": "unknown_error", "message": "An unknown error occurred."},
    )
    shown = await medusa.get("flow", answer.headers["x-transaction-id"])
    assert shown["id"] == answer.headers["x-workflow-execution-id"]
    assert shown["state"] == "reverted"
    assert counted() == before + 1


async def test_operators_choose_how_failures_are_told_and_how_long_is_waited(
    medusa: Medusa, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = medusa.face.server.platform
    patient = dataclasses.replace(platform.settings, run_throws=False)
    monkeypatch.setattr(platform, "settings", patient)
    await medusa.face.deploy("flow", saga(FAILS))
    answer = await medusa.run("flow", "t")
    told = answer.json()["acknowledgement"]
    assert (answer.status_code, told["hasFinished"], told["hasFailed"]) == (200, True, True)
    monkeypatch.setattr(platform, "settings", dataclasses.replace(patient, run_wait=0.05))
    await script(medusa, "await step.do('a', () => new Promise((done) => setTimeout(done, 1500)));")
    late = await medusa.run("code", "t")
    assert late.json()["acknowledgement"]["hasFinished"] is False
    assert "preference-applied" not in late.headers


@pytest.mark.parametrize(
    ("code", "status"),
    [("not_found", 404), ("invalid_data", 400), ("conflict", 409), ("duplicate_error", 422), ("database_error", 500)],
)
async def test_a_failure_of_a_known_type_keeps_it(medusa: Medusa, code: str, status: int) -> None:
    await medusa.face.deploy("flow", [{"id": "f", "type": "fail", "config": {"message": "no stock", "code": code}}])
    answer = await medusa.run("flow", "t")
    assert answer.status_code == status
    assert (answer.json()["type"], answer.json()["message"]) == (code, "no stock")


async def test_a_rolled_back_run(medusa: Medusa) -> None:
    """It passes through `compensating`; what had something to undo is told from what had not."""
    await medusa.face.deploy("flow", saga(FAILS, {"type": "noop", "async": True}))
    await medusa.run("flow", "t")
    under_way = await medusa.until("flow", "t", "compensating")
    assert halves(under_way, "_root.one") == (("done", "ok"), ("compensating", "waiting_response"))
    assert under_way["execution"]["steps"]["_root.one"]["stepFailed"] is True
    done = await medusa.answer("flow", "success", transaction_id="t", step_id="one", action="Compensate", response=5)
    assert done.status_code == 200, done.text
    shown = await medusa.until("flow", "t", "reverted")
    assert halves(shown, "_root.one") == (("done", "ok"), ("reverted", "ok"))
    assert halves(shown, "_root.one.two") == (("done", "ok"), ("reverted", "idle"))
    assert halves(shown, "_root.one.two.three") == (("failed", "permanent_failure"), ("reverted", "idle"))
    assert shown["context"]["compensate"] == shown["context"]["data"]["compensate"] == {"one": {"output": 5}}
    error = {"name": "Error", "message": "no carrier", "stack": ""}
    assert shown["context"]["errors"] == [{"action": "three", "handlerType": "invoke", "error": error}]
    assert shown["execution"]["hasRevertedSteps"] is True


async def test_a_run_drains_before_it_is_rolled_back(medusa: Medusa) -> None:
    """A step beside the one that failed, which somebody outside has to complete, holds the compensation back."""
    beside = {"id": "beside", "type": "external", "depends_on": ["one"]}
    await medusa.face.deploy("flow", [*saga(FAILS), beside])
    await medusa.run("flow", "t")
    shown = await medusa.until("flow", "t", "waiting_to_compensate")
    assert halves(shown, "_root.one") == (("done", "ok"), ("not_started", "idle"))
    assert halves(shown, "_root.one.beside")[0] == ("invoking", "waiting_response")
    assert (await medusa.answer("flow", "success", transaction_id="t", step_id="beside")).status_code == 200
    shown = await medusa.until("flow", "t", "reverted")
    assert halves(shown, "_root.one.beside") == (("done", "ok"), ("reverted", "idle"))


async def test_a_failed_compensation(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", saga(FAILS, {"type": "fail", "config": {"message": "stuck"}}))
    assert (await medusa.run("flow", "t")).status_code == 500
    shown = await medusa.get("flow", "t")
    assert shown["state"] == "failed"
    assert halves(shown, "_root.one") == (("done", "ok"), ("failed", "permanent_failure"))
    assert [(one["action"], one["handlerType"]) for one in shown["context"]["errors"]] == [
        ("three", "invoke"),
        ("one", "compensate"),
    ]


async def test_a_failure_that_is_ignored(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", saga({**FAILS, "on_error": "continue"}))
    assert (await medusa.run("flow", "t")).json()["acknowledgement"]["hasFailed"] is False
    flow = (await medusa.get("flow", "t"))["execution"]
    assert (flow["state"], flow["hasFailedSteps"]) == ("done", True)
    definition = flow["steps"]["_root.one.two.three"]["definition"]
    assert definition["continueOnPermanentFailure"] is True


async def test_skipped_steps(medusa: Medusa) -> None:
    nodes = [
        {"id": "no", "when": {"field": "input.x", "operator": "eq", "value": 1}},
        {"id": "bad", **FAILS, "on_error": "skip"},
        {"id": "after", "depends_on": ["bad"]},
    ]
    await medusa.face.deploy("flow", nodes)
    answer = await medusa.run("flow", "t")
    assert answer.status_code == 200, answer.text
    shown = await medusa.get("flow", "t")
    assert halves(shown, "_root.no")[0] == ("skipped", "ok")
    assert halves(shown, "_root.bad.after")[0] == ("skipped_failure", "idle")
    assert shown["execution"]["hasSkippedSteps"] is shown["execution"]["hasSkippedOnFailureSteps"] is True
    assert shown["execution"]["steps"]["_root.bad"]["definition"]["skipOnPermanentFailure"] is True


async def test_a_run_that_is_cancelled(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", WAITS)
    await medusa.run("flow", "t")
    patched = await medusa.face.cloud.patch("/workflows/flow/instances/t/status", json={"status": "terminate"})
    assert patched.status_code == 200, patched.text
    shown = await medusa.until("flow", "t", "failed", "reverted")
    assert isinstance(shown["execution"]["cancelledAt"], int)
    assert shown["context"]["errors"][-1]["error"]["name"] == "WorkflowTerminated"


async def test_timeouts(medusa: Medusa) -> None:
    """Of a step, and of the whole."""
    await medusa.face.deploy("step", [{"id": "ship", "type": "external", "total_timeout": 50}])
    await medusa.run("step", "t", now=True)
    shown = await medusa.until("step", "t", "reverted", "failed")
    assert halves(shown, "_root.ship")[0] == ("timeout", "permanent_failure")
    assert isinstance(shown["execution"]["steps"]["_root.ship"]["timedOutAt"], int)
    assert shown["context"]["errors"][0]["error"]["name"] == "TransactionStepTimeoutError"
    await medusa.face.deploy("whole", WAITS, limits={"timeout": 50})
    await medusa.run("whole", "t", now=True)
    shown = await medusa.until("whole", "t", "reverted", "failed")
    assert isinstance(shown["execution"]["timedOutAt"], int)
    assert "TransactionTimeoutError" in [one["error"]["name"] for one in shown["context"]["errors"]]


async def test_a_parallel_group_and_what_joins_it(medusa: Medusa) -> None:
    """The join hangs from the deepest step before it, the last one among equals; the deepest are undone first."""
    undo = {"type": "noop"}
    nodes = [
        {"id": "start", "compensate": undo},
        {"id": "left", "depends_on": ["start"], "compensate": undo},
        {"id": "right", "depends_on": ["start"], "compensate": undo},
        {"id": "join", "depends_on": ["right", "left"], "compensate": undo},
        {"id": "end", "depends_on": ["join"], **FAILS},
    ]
    await medusa.face.deploy("flow", nodes)
    assert (await medusa.run("flow", "t")).status_code == 500
    flow = (await medusa.get("flow", "t"))["execution"]
    assert {path: step.get("depth") for path, step in flow["steps"].items()} == {
        "_root": None,
        "_root.start": 1,
        "_root.start.left": 2,
        "_root.start.right": 2,
        "_root.start.right.join": 3,
        "_root.start.right.join.end": 4,
    }
    assert flow["steps"]["_root.start"]["next"] == ["_root.start.left", "_root.start.right"]
    following = flow["definition"]["next"]
    assert [step["action"] for step in following] == ["left", "right"]
    assert following[1]["next"]["action"] == "join"
    async with medusa.face.http.stream("GET", f"{BASE}/flow/t/subscribe?lastEventId=0") as stream:
        text = (await stream.aread()).decode()
    undone = re.findall(
        r'onCompensateStepSuccess","workflow_id":"flow","transaction_id":"t","step":\{"id":"([^"]*)', text
    )
    assert undone[0] == "_root.start.right.join"
    assert sorted(undone[1:3]) == ["_root.start.left", "_root.start.right"]
    assert undone[3:] == ["_root.start"]


# --- scripts -----------------------------------------------------------------------------------------------------


async def test_a_script_that_fails(medusa: Medusa) -> None:
    """Without compensations nothing is rolled back: `failed`. Names of errors that are types are kept."""
    await script(
        medusa,
        "await step.do('a', {retries: {limit: 0, delay: 1}}, async () => {"
        " const e = new Error('gone'); e.name = 'not_found'; throw e; });",
    )
    answer = await medusa.run("code", "t")
    assert (answer.status_code, answer.json()) == (404, {"type": "not_found", "message": "gone"})
    shown = await medusa.get("code", "t")
    assert shown["state"] == "failed"
    assert halves(shown, "_root.a")[0] == ("failed", "permanent_failure")


# --- what cannot be run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "type", "message"),
    [
        ('{"x":1}', "invalid_data", "Invalid request: Unrecognized fields: 'x'"),
        (
            '{"transaction_id":1}',
            "invalid_data",
            "Invalid request: Expected type: 'string' for field 'transaction_id', got: 'number'",
        ),
        (
            '{"transaction_id":1e999}',
            "invalid_data",
            "Invalid request: Expected type: 'string' for field 'transaction_id', got: 'number'",
        ),
        (
            '{"transaction_id":null,"x":1}',
            "invalid_data",
            "Invalid request: Expected type: 'string' for field 'transaction_id', got: 'null'; "
            "Unrecognized fields: 'x'",
        ),
        (
            '{"transaction_id":""}',
            "invalid_data",
            "Invalid request: Field 'transaction_id' must be a text of 1 to 255 characters: no control characters",
        ),
        ('{"transaction_id":"run"}', "not_allowed", "transaction_id 'run' is reserved."),
        ('{"transaction_id":"steps"}', "not_allowed", "transaction_id 'steps' is reserved."),
        ('{"transaction_id":"subscribe"}', "not_allowed", "transaction_id 'subscribe' is reserved."),
        ("[]", "invalid_data", "Invalid request: Expected type: 'object' for the body"),
    ],
)
async def test_bodies_that_are_refused(medusa: Medusa, body: str, type: str, message: str) -> None:
    await medusa.face.deploy("flow", ONE)
    answer = await medusa.face.http.post(f"{BASE}/flow/run", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (400, {"type": type, "message": message})
    assert (await medusa.list())["count"] == 0


async def test_what_else_cannot_be_run(medusa: Medusa) -> None:
    assert (await medusa.run("nope")).json() == {"type": "not_found", "message": 'Workflow with id "nope" not found.'}
    await medusa.face.deploy("strict", ONE, input_schema={"type": "object", "required": ["sku"]})
    refused = await medusa.run("strict", "t", input={})
    assert (refused.status_code, refused.json()["type"]) == (400, "invalid_data")
    assert "sku" in refused.json()["message"]
    large = await medusa.run("strict", "t", input={"sku": "x" * (1 << 20)})
    assert (large.status_code, large.json()["type"]) == (413, "invalid_data")
    broken = await medusa.face.http.post(f"{BASE}/strict/run", content=b"{", headers={"content-type": "text/json+json"})
    assert (broken.status_code, broken.json()["type"]) == (400, "invalid_data")
    other = await medusa.face.http.post(f"{BASE}/strict/run", data={"input": "1"})
    assert (other.status_code, other.json()["type"]) == (415, "invalid_data")
    await medusa.face.deploy("off", ONE)
    listed = await medusa.face.http.post("/v1/workflows/off/deactivate")
    assert listed.status_code == 200, listed.text
    inactive = await medusa.run("off", "t")
    assert (inactive.status_code, inactive.json()) == (
        400,
        {"type": "not_allowed", "message": "The workflow is not active."},
    )


async def test_an_unusual_transaction_id_fits_into_a_header(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE)
    answer = await medusa.run("flow", "Köln 7%")
    assert answer.headers["x-transaction-id"] == "K%C3%B6ln 7%25"
    assert (await medusa.get("flow", "K%C3%B6ln 7%25"))["transaction_id"] == "Köln 7%"
