"""What ran out of time is shown so, and what was undone is shown as undone, however the step was waiting."""

from __future__ import annotations

from typing import Any

from tests.conformance.conftest import Face

NAP = {"id": "nap", "type": "wait", "config": {"duration": "1 hour"}, "total_timeout": 30, "on_error": "continue"}
EVENT = {"id": "event", "type": "wait_for_event", "config": {"event": "go", "timeout": 30}, "on_error": "continue"}
ANSWER = {"id": "answer", "type": "external", "compensate": {"type": "noop"}}


async def run(face: Face, nodes: list[dict[str, Any]], status: str, **document: Any) -> str:
    """The path of an instance that has come to `status`."""
    await face.deploy("late", nodes, **document)
    instance = (await face.cloud.post("/workflows/late/instances", json={})).json()["result"]["id"]
    path = f"/workflows/late/instances/{instance}"
    await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == status)
    return path


async def medusa(face: Face) -> dict[str, tuple[str, str]]:
    """States of each step, forward and back."""
    [one] = (await face.http.get("/admin/workflows-executions?workflow_id=late")).json()["workflow_executions"]
    full = (await face.http.get(f"/admin/workflows-executions/{one['id']}")).json()["workflow_execution"]
    steps = {path.rpartition(".")[2]: step for path, step in full["execution"]["steps"].items() if path != "_root"}
    return {name: (step["invoke"]["state"], step["compensate"]["state"]) for name, step in steps.items()}


async def codes(face: Face) -> dict[str, str]:
    """Codes of the errors of steps in JobSprint."""
    [one] = (await face.http.get("/v1/executions")).json()["data"]
    full = (await face.http.get(f"/v1/executions/{one['id']}")).json()["data"]
    return {step["stepId"]: step["error"]["code"] for step in full["executionSteps"] if "error" in step}


async def test_timers_and_events(face: Face) -> None:
    await run(face, [NAP, EVENT], "complete")
    assert await medusa(face) == {"nap": ("timeout", "dormant"), "event": ("timeout", "dormant")}
    assert await codes(face) == {"nap": "STEP_TIMEOUT", "event": "EVENT_TIMEOUT"}


async def test_the_deadline_of_the_instance(face: Face) -> None:
    await run(face, [ANSWER], "errored", limits={"timeout": 40})
    assert await medusa(face) == {"answer": ("timeout", "reverted")}
    assert await codes(face) == {"answer": "STEP_TIMEOUT"}


async def test_what_was_waited_for_when_it_was_cancelled(face: Face) -> None:
    """It is undone, and seen to be."""
    path = await run(face, [ANSWER], "waiting")
    await face.cloud.patch(f"{path}/status", json={"status": "terminate", "rollback": True})
    await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == "terminated")
    assert await medusa(face) == {"answer": ("failed", "reverted")}


async def test_a_retry_does_not_take_over_what_was_given_up(face: Face) -> None:
    """The timer has no result that could be handed over: it is begun anew, and the retry does not wait for ever."""
    fails = {"id": "fails", "type": "fail", "depends_on": ["nap"]}
    await run(face, [NAP, fails], "errored")
    [one] = (await face.http.get("/v1/executions")).json()["data"]
    again = await face.http.post(f"/v1/executions/{one['id']}/retry", json={})
    assert again.status_code == 200, again.text
    body = await face.when(lambda: face.http.get("/v1/executions?status=error"), lambda body: len(body["data"]) == 2)
    assert {each["status"] for each in body["data"]} == {"error"}
