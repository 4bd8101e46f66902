"""What a node's `outputs` make of its result is what everybody sees, whatever the node's type."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import Face

CHILD = [{"id": "a", "type": "set", "config": {"values": {"n": "{{ trigger.n }}"}}}]
NODES: list[dict[str, Any]] = [
    {"id": "begin", "type": "trigger", "outputs": {"made": "{{ result.n }}"}},
    {"id": "nothing", "outputs": {"made": "{{ result }}"}},
    {"id": "vary", "type": "set", "config": {"values": {"v": 7}}, "outputs": {"made": "{{ result.v }}"}},
    {
        "id": "gate",
        "type": "condition",
        "config": {"field": "trigger.n", "operator": "eq", "value": 1},
        "outputs": {"made": "{{ result.conditionMet }}"},
    },
    {"id": "nap", "type": "wait", "config": {"durationMs": 5}, "outputs": {"made": "{{ result.durationMs }}"}},
    {
        "id": "until",
        "type": "wait_until",
        "config": {"at": "2020-01-01"},
        "outputs": {"made": "{{ result.waited }}"},
    },
    {"id": "child", "type": "workflow", "config": {"workflow": "child", "input": {"n": 3}},
     "outputs": {"made": "{{ result.n }}"}},
    {"id": "event", "type": "wait_for_event", "config": {"event": "go"}, "outputs": {"made": "{{ result.by }}"}},
    {"id": "answer", "type": "external", "outputs": {"made": "{{ result.by }}"}},
    {"id": "told", "type": "send_notification", "async": True, "config": {"message": "Hi"},
     "outputs": {"made": "{{ result.by }}"}},
    {"id": "each", "type": "external", "for_each": ["x"], "outputs": {"made": "{{ item }}{{ result.by }}"}},
    {"id": "none", "type": "noop", "for_each": [], "outputs": {"made": "{{ result }}"}},
]  # fmt: skip
MADE: dict[str, Any] = {
    "begin": 1,
    "nothing": "success",
    "vary": 7,
    "gate": True,
    "nap": 5,
    "until": True,
    "child": 3,
    "event": "ada",
    "answer": "bob",
    "told": "cy",
}
EXPECTED: dict[str, Any] = {id: {"made": made} for id, made in MADE.items()} | {"each": [{"made": "xdi"}], "none": []}


async def run_it(face: Face) -> tuple[str, str]:
    """Ids of the workflow and of an instance of it that is complete."""
    await face.deploy("child", CHILD)
    seen = {id: f"{{{{ steps.{id}.output }}}}" for id in EXPECTED}
    id = (await face.deploy("shapes", NODES, outputs=seen | {"v": "{{ vars.v }}"}))["id"]
    instance = (await face.cloud.post("/workflows/shapes/instances", json={"params": {"n": 1}})).json()["result"]["id"]
    path = f"/workflows/shapes/instances/{instance}"
    await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == "waiting")
    for type, by in (("go", "ada"), ("step:answer", "bob"), ("step:told", "cy"), ("step:each", "di")):
        sent = await face.cloud.post(f"{path}/events/{type}", json={"by": by})
        assert sent.status_code == 200, sent.text
    return id, instance


@pytest.fixture
async def done(face: Face) -> tuple[str, str]:
    """Ids of the workflow and of an instance of it that is complete."""
    id, instance = await run_it(face)
    path = f"/workflows/shapes/instances/{instance}"
    body = await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == "complete")
    assert body["result"]["output"] == EXPECTED | {"v": 7}, "what other nodes see"
    return id, instance


async def test_cloudflare(face: Face, done: tuple[str, str]) -> None:
    path = f"/workflows/shapes/instances/{done[1]}"
    steps = (await face.cloud.get(path)).json()["result"]["steps"]
    shown = {step["name"].removesuffix("-1"): json.loads(step["output"]) for step in steps if step.get("output")}
    items = {"each": {"made": "xdi"}, "none": []}
    assert shown == {id: made for id, made in (EXPECTED | items).items() if id not in ("nap", "until")}, (
        "sleeps have none"
    )
    for name, kind in (("event", "waitForEvent"), ("vary", "step"), ("told", "step"), ("answer", "waitForEvent")):
        one = await face.cloud.get(f"{path}/step", params={"name": f"{name}-1", "type": kind})
        assert one.json()["result"]["output"] == EXPECTED[name]


async def test_a_long_one_is_cut_short_like_others(face: Face) -> None:
    node = {"id": "a", "type": "wait_for_event", "config": {"event": "go"}, "outputs": {"made": "{{ result }}"}}
    await face.deploy("long", [node])
    instance = (await face.cloud.post("/workflows/long/instances", json={})).json()["result"]["id"]
    path = f"/workflows/long/instances/{instance}"
    await face.cloud.post(f"{path}/events/go", json="x" * 2000)
    body = await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == "complete")
    shown = body["result"]["steps"][0]["output"]
    assert shown == ('{"made":"' + "x" * 2000)[:1024] + "[truncated output]"


async def test_medusa(face: Face, done: tuple[str, str]) -> None:
    [one] = (await face.http.get("/admin/workflows-executions?workflow_id=shapes")).json()["workflow_executions"]
    full = (await face.http.get(f"/admin/workflows-executions/{one['id']}")).json()["workflow_execution"]
    told = full["context"]["data"]["invoke"]
    assert {name: result["output"]["output"] for name, result in told.items()} == EXPECTED


async def test_jobsprint(face: Face, done: tuple[str, str]) -> None:
    [one] = (await face.http.get("/v1/executions", params={"workflowId": done[0]})).json()["data"]
    full = (await face.http.get(f"/v1/executions/{one['id']}")).json()["data"]
    assert {step["stepId"]: step["output"] for step in full["executionSteps"]} == EXPECTED


async def test_orchestration(face: Face, done: tuple[str, str]) -> None:
    [one] = (await face.http.get("/api/executions", params={"workflowDefinitionId": done[0]})).json()
    told = json.loads(one["context"]["data"])
    assert told == {"n": 1} | {f"{id}-result": made for id, made in EXPECTED.items() if id != "begin"}


async def test_workspaces(face: Face, done: tuple[str, str]) -> None:
    listed = (await face.http.get(f"/api/workspaces/default/workflows/{done[0]}/executions")).json()["executions"]
    full = (await face.http.get(f"/api/workspaces/default/workflows/executions/{listed[0]['id']}")).json()["execution"]
    assert {step["actionId"]: step["output"] for step in full["steps"]} == without(EXPECTED, "begin")


async def test_a_mistake_in_them_fails_the_step_everywhere(face: Face) -> None:
    """Also of nodes whose result comes from outside: the step is not shown as done when the run says it failed."""
    nodes = [
        {**node, "on_error": "continue", "outputs": {"made": "{{ sum(keys({a: `1`})) }}"}}
        for node in NODES
        if node["id"] in ("vary", "gate", "nap", "event", "answer")
    ]
    await face.deploy("wrong", nodes, outputs={node["id"]: f"{{{{ steps.{node['id']}.status }}}}" for node in nodes})
    made = await face.cloud.post("/workflows/wrong/instances", json={"params": {"n": 1}})
    path = f"/workflows/wrong/instances/{made.json()['result']['id']}"
    for type in ("go", "step:answer"):
        await face.cloud.post(f"{path}/events/{type}", json={"by": "ada"})
    body = await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == "complete")
    assert set(body["result"]["output"].values()) == {"failed"}
    [one] = (await face.http.get("/admin/workflows-executions?workflow_id=wrong")).json()["workflow_executions"]
    full = (await face.http.get(f"/admin/workflows-executions/{one['id']}")).json()["workflow_execution"]
    states = {name: step["invoke"]["state"] for name, step in full["execution"]["steps"].items() if name != "_root"}
    assert states == {f"_root.{node['id']}": "failed" for node in nodes}


def without(told: dict[str, Any], id: str) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != id}
