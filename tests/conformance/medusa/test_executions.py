"""Executions of the Medusa face: lists, single ones, what they are made of."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from instances.search.query import Facet
from tests.conformance.conftest import client
from tests.support.api import new_tenant

from .conftest import BASE, Medusa

ONE = [{"id": "reserve", "type": "set", "config": {"values": {"reservation": "r9"}}}]
WAITS = [{"id": "ship", "type": "external"}]
ALL = {
    "id",
    "workflow_id",
    "transaction_id",
    "execution",
    "context",
    "state",
    "created_at",
    "updated_at",
    "deleted_at",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", ALL),
        ("fields=%2Bcontext", ALL),
        ("fields=+context", ALL),
        ("fields=%20context", ALL),
        ("fields=-execution", ALL - {"execution"}),
        ("fields=id,state", {"id", "state"}),
        ("fields=id,-context", {"id", "context"}),
        ("fields=execution.steps", {"id", "execution"}),
        ("fields=%2Brun_id,retention_time.*", ALL | {"run_id", "retention_time"}),
        ("fields=id,name", {"id"}),
    ],
)
async def test_fields(medusa: Medusa, fields: str, expected: set[str]) -> None:
    await medusa.face.deploy("flow", ONE)
    await medusa.run("flow", "o-1")
    [listed] = (await medusa.list(fields))["workflow_executions"]
    one = await medusa.face.http.get(f"{BASE}/flow/o-1?{fields}")
    shown = one.json()["workflow_execution"]
    assert shown == listed
    assert set(shown) == expected
    if fields == "fields=execution.steps":
        assert set(shown["execution"]) == {"steps"}
        assert set(shown["execution"]["steps"]) == {"_root", "_root.reserve"}
    by_id = await medusa.face.http.get(f"{BASE}/{shown['id']}?{fields}")
    assert by_id.json()["workflow_execution"] == shown


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ("execution.definition.action", {"definition": {"action": "a"}}),
        ("execution.definition.next.action", {"definition": {"next": [{"action": "b"}, {"action": "c"}]}}),
        ("execution.steps._root.next", {"steps": {"_root": {"next": ["_root.a"]}}}),
        ("execution.options,execution.hasAsyncSteps", {"options": {"store": True}, "hasAsyncSteps": False}),
    ],
)
async def test_parts_of_the_steps_and_their_definition(medusa: Medusa, fields: str, kept: dict[str, Any]) -> None:
    await medusa.face.deploy("flow", [{"id": "a"}, *({"id": id, "depends_on": ["a"]} for id in "bc")])
    await medusa.run("flow", "o-1")
    [listed] = (await medusa.list(f"fields={fields}"))["workflow_executions"]
    assert listed["execution"] == kept


async def test_the_whole_execution(medusa: Medusa) -> None:
    """Every part of the object of a finished run."""
    await medusa.face.deploy("order-intake", ONE, retention="7 days", limits={"timeout": 60_000}, idempotent=True)
    await medusa.run("order-intake", "o-1", input={"sku": "A1"})
    shown = await medusa.get("order-intake", "o-1")
    flow, context = shown["execution"], shown["context"]
    assert shown["id"] == f"wf_exec_{flow['runId']}"
    assert (shown["workflow_id"], shown["transaction_id"], shown["state"]) == ("order-intake", "o-1", "done")
    assert shown["deleted_at"] is None
    assert (flow["modelId"], flow["transactionId"], flow["state"]) == ("order-intake", "o-1", "done")
    assert flow["options"] == {"store": True, "retentionTime": 604_800, "timeout": 60, "idempotent": True}
    for flag in ("hasAsyncSteps", "hasFailedSteps", "hasSkippedSteps", "hasWaitingSteps", "hasRevertedSteps"):
        assert flow[flag] is False
    assert isinstance(flow["startedAt"], int)
    assert flow["cancelledAt"] is flow["timedOutAt"] is None
    assert flow["steps"]["_root"] == {"id": "_root", "next": ["_root.reserve"]}
    step = flow["steps"]["_root.reserve"]
    definition = {"uuid": step["uuid"], "action": "reserve", "store": True, "noCompensation": True}
    assert step["definition"] == flow["definition"] == definition
    assert (step["id"], step["depth"], step["attempts"], step["failures"]) == ("_root.reserve", 1, 1, 0)
    assert step["invoke"] == {"state": "done", "status": "ok"}
    assert step["compensate"] == {"state": "dormant", "status": "idle"}
    assert step["lastAttempt"] == step["startedAt"] >= flow["startedAt"]
    reserved = {"reservation": "r9"}
    assert context == {
        "data": {
            "payload": {"sku": "A1"},
            "invoke": {"reserve": {"output": {"output": reserved, "compensateInput": reserved}}},
            "compensate": {},
        },
        "compensate": {},
        "errors": [],
    }


async def test_a_script_s_steps_hang_from_the_root(medusa: Medusa) -> None:
    """Plain names, counted from the second on; dots and colons are underscores."""
    await script(medusa, "await step.do('a.b', async () => 1); await step.do('a.b', async () => 2);")
    await medusa.run("code", "t")
    shown = await medusa.get("code", "t")
    steps = shown["execution"]["steps"]
    assert list(steps) == ["_root", "_root.a_b", "_root.a_b-2"]
    assert steps["_root"]["next"] == ["_root.a_b", "_root.a_b-2"]
    assert {name: told["output"]["output"] for name, told in shown["context"]["data"]["invoke"].items()} == {
        "a_b": 1,
        "a_b-2": 2,
    }


async def test_a_long_chain_of_steps(medusa: Medusa) -> None:
    """Its paths are long, its definition is cut where readers of JSON give up."""
    nodes = [{"id": f"n{place}", "depends_on": [f"n{place - 1}"] if place else []} for place in range(150)]
    await medusa.face.deploy("long", nodes)
    await medusa.run("long", "t", now=True)
    flow = (await medusa.until("long", "t", "done"))["execution"]
    assert len(flow["steps"]) == 151
    assert flow["steps"]["_root." + ".".join(f"n{place}" for place in range(150))]["depth"] == 150
    depth, at = 1, flow["definition"]
    while "next" in at:
        depth, at = depth + 1, at["next"]
    assert depth == 100


async def script(medusa: Medusa, body: str) -> None:
    """Deploy a script as the workflow `code`."""
    source = (
        "import { WorkflowEntrypoint } from 'cloudflare:workers';"
        f"export class Flow extends WorkflowEntrypoint {{ async run(event, step) {{ {body} }} }}"
    )
    metadata = '{"main_module": "index.js", "compatibility_date": "2026-01-01"}'
    files = {
        "metadata": (None, metadata, "application/json"),
        "index.js": ("index.js", source, "application/javascript+module"),
    }
    cloud = medusa.face.cloud
    uploaded = await cloud.put("/workers/scripts/mine", files=files)
    assert uploaded.status_code == 200, uploaded.text
    made = await cloud.put("/workflows/code", json={"script_name": "mine", "class_name": "Flow"})
    assert made.status_code == 200, made.text


async def test_lists_are_filtered_ordered_and_paged(medusa: Medusa) -> None:
    for name in ("b", "a", "c"):
        await medusa.face.deploy(name, ONE)
        for transaction in ("2", "1"):
            await medusa.run(name, transaction)
    first = (await medusa.list("fields=created_at&workflow_id=b&transaction_id=2"))["workflow_executions"][0]

    async def seen(query: str) -> list[str]:
        told = await medusa.list(query)
        assert told["count"] >= len(told["workflow_executions"])
        return [f"{one['workflow_id']}{one['transaction_id']}" for one in told["workflow_executions"]]

    assert (await medusa.list())["limit"] == 100
    assert await seen("") == ["a1", "a2", "b1", "b2", "c1", "c2"]
    assert await seen("workflow_id[0]=a&workflow_id[1]=b") == ["a1", "a2", "b1", "b2"]
    assert await seen("workflow_id[]=a,b&fields=workflow_id,transaction_id") == ["a1", "a2", "b1", "b2"]
    since = first["created_at"]
    assert await seen(f"created_at[$gte]={since}&order=created_at") == ["b2", "b1", "a2", "a1", "c2", "c1"]
    assert await seen("state=done&order=-transaction_id&limit=3") == ["c2", "a2", "b2"]
    assert await seen("state=failed") == []
    assert await seen(f"id[$gt]={first['id']}&order=-id") == ["c1", "c2", "a1", "a2", "b1"]
    assert await seen(f"id[$lte]={first['id']}") == ["b2"]
    assert sorted(await seen("q=1")) == ["a1", "b1", "c1"]
    assert await seen("$or[0][workflow_id]=c&$or[1][transaction_id]=1") == ["a1", "b1", "c1", "c2"]
    page = await medusa.list("limit=2&offset=3")
    assert (page["limit"], page["offset"], page["count"]) == (2, 3, 6)
    assert [one["workflow_id"] for one in page["workflow_executions"]] == ["b", "c"]


async def test_every_state_can_be_asked_for(medusa: Medusa) -> None:
    await medusa.face.deploy("done", ONE)
    await medusa.face.deploy("invoking", WAITS)
    await medusa.face.deploy("reverted", [{"id": "f", "type": "fail", "config": {"message": "no"}}])
    await medusa.face.deploy("failed", [{"id": "f", "type": "fail", "config": {"message": "no"}}], rollback="never")
    for name in ("done", "invoking", "reverted", "failed"):
        await medusa.run(name, "t")
    for name in ("done", "invoking", "reverted", "failed"):
        told = (await medusa.list(f"state={name}"))["workflow_executions"]
        assert [(one["workflow_id"], one["state"]) for one in told] == [(name, name)]
    for name in ("not_started", "waiting_to_compensate", "compensating"):
        assert (await medusa.list(f"state={name}"))["count"] == 0
    assert len(Facet) == 13  # a new one must be given a state


async def test_deleted_executions_are_shown_on_demand(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE)
    await medusa.run("flow", "o-1")
    id = (await medusa.get("flow", "o-1"))["id"].removeprefix("wf_")
    deleted = await medusa.face.http.delete(f"/v1/executions/{id}")
    assert deleted.status_code == 200, deleted.text
    assert (await medusa.list())["count"] == 0
    assert (await medusa.list("with_deleted=false"))["count"] == 0
    [one] = (await medusa.list("with_deleted=true"))["workflow_executions"]
    assert one["deleted_at"] is not None
    assert (await medusa.face.http.get(f"{BASE}/flow/o-1")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", f"{BASE}?foo=1", "Invalid request: Unrecognized fields: 'foo'"),
        ("GET", f"{BASE}/wf_exec_01890A5DAC96774BBCCEB30209?limit=1", "Invalid request: Unrecognized fields: 'limit'"),
        ("GET", f"{BASE}/flow/o-1?x=1", "Invalid request: Unrecognized fields: 'x'"),
        ("GET", f"{BASE}?offset=99999999", "Invalid request: offset must be a whole number from 0 to 100000"),
        (
            "GET",
            f"{BASE}?foo=1&limit=1&limit=2&offset=-1&order=x&state=y",  # three problems are told
            "Invalid request: Expected type: 'number' for field 'limit', got: 'array'; "
            "Value for field 'offset' too small, expected at least: '0'; Expected: "
            "'id, workflow_id, transaction_id, state, created_at, updated_at' for field 'order', but got: 'x'",
        ),
    ],
)
async def test_bad_queries_name_the_field(medusa: Medusa, method: str, path: str, message: str) -> None:
    answer = await medusa.face.http.request(method, path)
    assert (answer.status_code, answer.json()) == (400, {"type": "invalid_data", "message": message})


async def test_what_is_not_there(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE)
    id = "wf_exec_01890A5DACF5ZPXMNC6B1ZZZZZ"
    for path, message in (
        (id, f"WorkflowExecution with id: {id} was not found"),
        ("nothing", "WorkflowExecution with id: nothing was not found"),
        ("flow/x", "Transaction x could not be found."),
        ("nope/x", 'Workflow with id "nope" not found.'),
        ("nope/subscribe", 'Workflow with id "nope" not found.'),
        ("flow/x/subscribe", "Transaction x could not be found."),
        ("flow/x/reserve/subscribe", "Transaction x could not be found."),
    ):
        answer = await medusa.face.http.get(f"{BASE}/{path}")
        assert (answer.status_code, answer.json()) == (404, {"type": "not_found", "message": message}), path
    await medusa.run("flow", "o-1")
    answer = await medusa.face.http.get(f"{BASE}/flow/o-1/nope/subscribe")
    assert (answer.status_code, answer.json()["message"]) == (404, 'Step with id "nope" not found.')


async def test_paths_and_methods_that_do_not_exist(medusa: Medusa) -> None:
    async with httpx.AsyncClient(base_url=medusa.face.server.base_url, headers=medusa.face.tenant.headers) as http:
        unknown = await http.get("/admin/nope")
        assert (unknown.status_code, unknown.json()["type"]) == (404, "not_found")
        wrong = await http.patch(BASE)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert wrong.json()["type"] == "not_allowed"
        head = await http.head(BASE)
        assert (head.status_code, head.content) == (200, b"")


# --- who may -----------------------------------------------------------------------------------------------------


def every_route(workflow: str, transaction: str, id: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    answer = {"transaction_id": transaction, "step_id": "ship"}
    return [
        ("GET", f"{BASE}/{id}", None),
        ("GET", f"{BASE}/{workflow}/{transaction}", None),
        ("POST", f"{BASE}/{workflow}/run", {}),
        ("POST", f"{BASE}/{workflow}/steps/success", answer),
        ("POST", f"{BASE}/{workflow}/steps/failure", answer),
        ("GET", f"{BASE}/{workflow}/subscribe", None),
        ("GET", f"{BASE}/{workflow}/{transaction}/subscribe", None),
        ("GET", f"{BASE}/{workflow}/{transaction}/ship/subscribe", None),
    ]


async def test_another_account_finds_nothing(medusa: Medusa, stranger: httpx.AsyncClient) -> None:
    await medusa.face.deploy("flow", WAITS)
    await medusa.run("flow", "o-1")
    id = (await medusa.get("flow", "o-1"))["id"]
    for method, path, body in every_route("flow", "o-1", id):
        answer = await stranger.request(method, path, json=body)
        assert (answer.status_code, answer.json()["type"]) == (404, "not_found"), path
    assert (await stranger.get(BASE)).json()["count"] == 0
    assert (await medusa.get("flow", "o-1"))["state"] == "invoking"


async def test_scopes(medusa: Medusa) -> None:
    """Without a credential 401; without the scope 403, before anything is looked up."""
    await medusa.face.deploy("flow", WAITS)
    await medusa.run("flow", "o-1")
    id = (await medusa.get("flow", "o-1"))["id"]
    server = medusa.face.server
    none = await new_tenant(server.platform, ["account:read"], of=medusa.face.tenant.id)
    reader = await new_tenant(server.platform, ["executions:read"], of=medusa.face.tenant.id)
    async with client(server, None) as nobody, client(server, none) as poor, client(server, reader) as reads:
        for method, path, body in [*every_route("flow", "o-1", id), ("GET", BASE, None)]:
            missing = await nobody.request(method, path, json=body)
            assert (missing.status_code, missing.json()["message"]) == (401, "Unauthorized"), path
            refused = await poor.request(method, path, json=body)
            assert (refused.status_code, refused.json()["type"]) == (403, "forbidden"), path
            if method == "POST":
                refused = await reads.request(method, path, json=body)
                assert refused.status_code == 403, path
                assert refused.json()["message"] == "Forbidden: the credential lacks the scope executions:write"
        assert (await reads.get(f"{BASE}/{id}")).status_code == 200
        assert (await reads.get(f"{BASE}/flow/o-1")).status_code == 200


async def test_how_long_an_execution_is_kept(medusa: Medusa) -> None:
    """Its own say, else its workflow's, else the account's; in seconds, by how it ended."""
    await medusa.face.deploy("flow", ONE, retention="90 minutes")
    await medusa.face.deploy("fails", [{"id": "f", "type": "fail"}])
    own = {"instance_id": "own", "instance_retention": {"success_retention": 500, "error_retention": 1000}}
    for name in ("flow", "fails"):
        assert (await medusa.face.cloud.post(f"/workflows/{name}/instances", json=own)).status_code == 200
        await medusa.run(name, "t")
        await medusa.until(name, "own", "done", "reverted")
    listed = await medusa.list("fields=retention_time,transaction_id,workflow_id")
    told = {(one["workflow_id"], one["transaction_id"]): one["retention_time"] for one in listed["workflow_executions"]}
    assert told == {("flow", "own"): 0.5, ("flow", "t"): 5400, ("fails", "own"): 1, ("fails", "t"): 2_592_000}


async def test_a_child_names_the_step_that_waits_for_it(medusa: Medusa) -> None:
    """By Medusa's key of the step: workflow, transaction, step, half; and the item, of a step that runs per item."""
    start = {"type": "workflow", "config": {"workflow": "child", "input": {}}}
    nodes = [
        {"id": "kid", **start, "compensate": start},
        {"id": "each", **start, "for_each": "{{ `[1,2]` }}", "depends_on": ["kid"]},
        {"id": "alone", "type": "workflow", "config": {"workflow": "child", "wait": False}, "depends_on": ["each"]},
        {"id": "bad", "type": "fail", "depends_on": ["alone"]},
    ]
    await medusa.face.deploy("child", WAITS)
    await medusa.face.deploy("parent", nodes)
    await medusa.run("parent", "t", now=True)
    seen: list[str | None] = []
    for _ in range(5):
        child = await _waiting_child(medusa)
        transaction_id, metadata = child["transaction_id"], child["execution"]["metadata"]
        seen.append(metadata.get("parentStepIdempotencyKey"))
        again = (await medusa.run("child", transaction_id, now=True)).json()["acknowledgement"]
        assert again.get("parentStepIdempotencyKey") == seen[-1]
        assert (await medusa.get("child", transaction_id))["execution"]["metadata"] == metadata
        await medusa.answer("child", "success", transaction_id=transaction_id, step_id="ship")
        await medusa.until("child", transaction_id, "done")
    assert seen[0] == "parent:t:kid:invoke"
    assert set(seen[1:3]) == {"parent:t:each:invoke:1", "parent:t:each:invoke:2"}
    assert set(seen[3:]) == {None, "parent:t:kid:compensate"}
    await medusa.until("parent", "t", "reverted")


async def _waiting_child(medusa: Medusa) -> dict[str, Any]:
    async def ask() -> httpx.Response:
        return await medusa.face.http.get(f"{BASE}?workflow_id=child&state=invoking")

    def waits(body: dict[str, Any]) -> bool:
        return any(one["execution"]["hasWaitingSteps"] for one in body["workflow_executions"])

    return (await medusa.face.when(ask, waits))["workflow_executions"][0]
