"""GraphQL of the orchestration face over HTTP: every query and mutation, the limits, and how requests are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from graphql import (
    build_client_schema,
    build_schema,
    introspection_from_schema,
    lexicographic_sort_schema,
    print_schema,
)

from app.faces.orchestration import graphql
from app.faces.orchestration.graphql.api import SCHEMA
from tests.conformance.conftest import Face, client
from tests.support.api import new_tenant

PACKAGE = Path(graphql.__file__).parent
RESPONSE = "application/graphql-response+json"
DEEPER = " { workflowDefinition { executions(limit: 1)"
TASKS = [{"name": "Task 1"}, {"name": "Task 2", "dependencies": ["task-1"]}]


def test_the_schema_is_the_published_one() -> None:
    published = build_schema((PACKAGE / "schema.graphql").read_text())
    # As clients see them: a default of 2.0 is the number 2 in one spelling or the other.
    seen = [
        print_schema(lexicographic_sort_schema(build_client_schema(introspection_from_schema(one))))
        for one in (published, SCHEMA)
    ]
    assert seen[0].replace("= 2.0", "= 2") == seen[1].replace("= 2.0", "= 2")


async def send(http: httpx.AsyncClient, query: str, accept: str = RESPONSE, **variables: Any) -> httpx.Response:
    return await http.post("/graphql", json={"query": query, "variables": variables}, headers={"accept": accept})


async def ask(http: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
    answer = await send(http, query, **variables)
    body = answer.json()
    assert answer.status_code == 200 and "errors" not in body, answer.text
    return body["data"]


async def code(http: httpx.AsyncClient, query: str, **variables: Any) -> tuple[int, str]:
    answer = await send(http, query, **variables)
    (error,) = answer.json()["errors"]
    assert error["extensions"]["requestId"] == answer.headers["x-request-id"]
    return answer.status_code, error["extensions"]["code"]


CREATE = (
    "mutation ($input: CreateWorkflowDefinitionInput!) { createWorkflowDefinition(input: $input) { id name version } }"
)
START = "mutation ($input: StartWorkflowExecutionInput!) { startWorkflowExecution(input: $input) { id status } }"


async def make(face: Face, tasks: list[dict[str, Any]] = TASKS, name: str = "Sample") -> str:
    made = await ask(face.http, CREATE, input={"name": name, "tasks": tasks})
    return made["createWorkflowDefinition"]["id"]


async def start(face: Face, workflow: str, **more: Any) -> str:
    started = await ask(face.http, START, input={"workflowDefinitionId": workflow, **more})
    return started["startWorkflowExecution"]["id"]


async def ended(face: Face, id: str) -> dict[str, Any]:
    query = "query ($id: ID!) { workflowExecution(id: $id) { status endTime } }"
    body = await face.when(
        lambda: send(face.http, query, id=id), lambda body: body["data"]["workflowExecution"]["endTime"] is not None
    )
    return body["data"]["workflowExecution"]


async def test_from_a_definition_to_its_outcome(face: Face) -> None:
    workflow = await make(face)
    id = await start(face, workflow, initialContext='{"order": 7}')
    assert (await ended(face, id))["status"] == "COMPLETED"
    everything = """query ($id: ID!) { workflowExecution(id: $id) {
      id workflowDefinitionId workflowVersion status startTime endTime error output
      workflowDefinition { id name tasks { id name dependencies } }
      taskExecutions { id taskDefinitionId status attempts error output workflowExecutionId }
      context { id data version }
      progress { completedTasks totalTasks blockers { id } }
      logs(level: DEBUG) { level message taskDefinitionId }
    } }"""
    told = (await ask(face.http, everything, id=id))["workflowExecution"]
    assert (told["workflowDefinitionId"], told["workflowVersion"], told["error"]) == (workflow, "1.0.0", None)
    assert told["workflowDefinition"]["tasks"][1] == {"id": "task-2", "name": "Task 2", "dependencies": ["task-1"]}
    assert [task["status"] for task in told["taskExecutions"]] == ["COMPLETED", "COMPLETED"]
    assert told["context"]["version"] == 3
    assert told["progress"] == {"completedTasks": 2, "totalTasks": 2, "blockers": []}


async def test_me(face: Face) -> None:
    told = await ask(face.http, "{ me { id username role accountId } }")
    assert (told["me"]["role"], told["me"]["accountId"]) == ("admin", face.tenant.id.hex)


async def test_an_unknown_id_is_null_in_queries_and_an_error_in_mutations(face: Face) -> None:
    query = """{ workflowDefinition(id: 0) { id } workflowExecution(id: "nothing") { id } taskExecution(id: 12) { id }
                 progressReport(workflowExecutionId: 1) { id } webhookRegistration(id: 7) { id } }"""
    assert set((await ask(face.http, query)).values()) == {None}
    for field in (
        "deleteWorkflowDefinition(id: 0)",
        "cancelWorkflowExecution(id: 0) { id }",
        "retryTaskExecution(id: 0) { id }",
        "deleteWebhook(id: 0)",
    ):
        assert await code(face.http, f"mutation {{ {field} }}") == (200, "NOT_FOUND"), field


async def test_nothing_of_another_account(face: Face, stranger: httpx.AsyncClient) -> None:
    workflow = await make(face)
    id = await start(face, workflow)
    query = "query ($w: ID!, $e: ID!) { workflowDefinition(id: $w) { id } workflowExecution(id: $e) { id } }"
    assert await ask(stranger, query, w=workflow, e=id) == {"workflowDefinition": None, "workflowExecution": None}
    for field in ("cancelWorkflowExecution", "retryWorkflowExecution", "pauseWorkflowExecution"):
        assert await code(stranger, f"mutation ($id: ID!) {{ {field}(id: $id) {{ id }} }}", id=id) == (200, "NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { me { id } } query B { me { id } }", "OPERATION_RESOLUTION_FAILURE"),
        ("query ($id: ID!) { workflowDefinition(id: $id) { id } }", "BAD_USER_INPUT"),
        (f"{{ me {{ {'id ' * 2000} }} }}", "QUERY_TOO_COMPLEX"),
        (f"{{ me {{ {' '.join(f'a{n}: id' for n in range(31))} }} }}", "QUERY_TOO_COMPLEX"),
        (f"{{ {' '.join(f'a{n}: me {{ id }}' for n in range(16))} }}", "QUERY_TOO_COMPLEX"),
        ("{ workflowExecutions(limit: 100) { taskExecutions { id } } }", "QUERY_TOO_COMPLEX"),
        ("{ workflowExecution(id: 1)" + DEEPER * 4 + " { id }" + " } }" * 4 + " }", "QUERY_TOO_DEEP"),
    ],
)
async def test_what_is_refused_before_it_is_executed(face: Face, query: str, expected: str) -> None:
    assert await code(face.http, query) == (400, expected)
    assert (await send(face.http, query, "application/json")).status_code == 200


@pytest.mark.parametrize(
    "body", [b'{"query":"\xff"}', b'{"query":"\\ud800"}', b'{"variables":{"n":1e999}}', b"{", b"\xff"]
)
async def test_what_is_no_json(face: Face, body: bytes) -> None:
    headers = {"accept": RESPONSE, "content-type": "application/json"}
    answer = await face.http.post("/graphql", content=body, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (400, "BAD_USER_INPUT")


async def test_a_page_is_from_1_to_100(face: Face) -> None:
    assert await code(face.http, "{ workflowDefinitions(limit: 101) { id } }") == (200, "BAD_USER_INPUT")
    assert await code(face.http, "{ workflowDefinitions(offset: -1) { id } }") == (200, "BAD_USER_INPUT")


async def test_without_a_credential_only_typename(server: Any) -> None:
    async with client(server, None) as nobody:
        assert await ask(nobody, "{ __typename }") == {"__typename": "Query"}
        assert await code(nobody, "{ me { id } }") == (401, "UNAUTHENTICATED")
        assert await code(nobody, "{ __schema { types { name } } }") == (401, "UNAUTHENTICATED")
        assert (await send(nobody, "{ me { id } }", "application/json")).status_code == 200


async def test_a_missing_scope_is_an_error_of_that_field_only(face: Face) -> None:
    weak = await new_tenant(face.server.platform, ["workflows:read"], of=face.tenant.id)
    async with client(face.server, weak) as http:
        answer = (await send(http, "{ workflowDefinitions { id } webhookRegistrations { id } }")).json()
        assert await code(http, CREATE, input={"name": "x"}) == (200, "FORBIDDEN")
    assert answer["data"] is None  # the field cannot be null, so its parent is
    (error,) = answer["errors"]
    assert (error["extensions"]["code"], error["path"]) == ("FORBIDDEN", ["webhookRegistrations"])


async def test_an_invalid_definition_names_every_problem(face: Face) -> None:
    answer = await send(face.http, CREATE, input={"name": "x", "tasks": [{"name": "a", "dependencies": ["gone"]}]})
    (error,) = answer.json()["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["extensions"]["errors"]


async def test_queries_by_get_but_no_mutations(face: Face) -> None:
    answer = await face.http.get(
        "/graphql",
        params={"query": "query ($n: Int) { workflowDefinitions(limit: $n) { id } }", "variables": '{"n": 3}'},
    )
    assert answer.json() == {"data": {"workflowDefinitions": []}}
    answer = await face.http.get("/graphql", params={"query": "mutation { deleteWebhook(id: 1) }"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_requests_that_are_none(face: Face) -> None:
    post = face.http.post
    assert (await post("/graphql", json=[{"query": "{ me { id } }"}])).status_code == 400
    assert (await post("/graphql", json={"query": "{ me { id } }", "more": 1})).status_code == 400
    assert (await post("/graphql", json={})).status_code == 400
    assert (await post("/graphql", content=b"{", headers={"content-type": "application/json"})).status_code == 400
    assert (await post("/graphql", content=b"x", headers={"content-type": "text/plain"})).status_code == 415
    assert (await post("/graphql", json={"query": "x" * 102_400})).status_code == 413
    async with httpx.AsyncClient(base_url=face.server.base_url, trust_env=False) as http:
        answer = await http.put("/graphql", json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert answer.json()["errors"][0]["extensions"]["code"] == "METHOD_NOT_ALLOWED"


async def test_the_page(face: Face) -> None:
    answer = await face.http.get("/graphql", headers={"accept": "text/html,*/*"})
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
