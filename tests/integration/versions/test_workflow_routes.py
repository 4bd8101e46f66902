"""Workflows and versions over HTTP, in the shapes Cloudflare's clients read."""

import json
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import cloudflare
import pytest

from instances.egress import EgressClient, EgressPolicy
from instances.lifecycle import BY_WIRE
from tenants.clock import iso
from versions.schemas import STATUS_NAMES

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def doc(*nodes: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"spec": "workflow/1", "name": "Order intake", "nodes": list(nodes) or [{"id": "a"}], **rest}


async def put(api, name="orders", definition=None, **beside):
    return await api("PUT", f"/workflows/{name}", json={"definition": definition or doc(), **beside})


def test_status_names_are_the_engines():
    assert {name: number for number, name in enumerate(STATUS_NAMES)} == {k: int(v) for k, v in BY_WIRE.items()}


# ---- put


async def test_put_answers_as_cloudflare_does(api):
    status, result, envelope = await put(api)
    assert status == 200
    assert set(result) == {
        "id", "name", "class_name", "script_name", "created_on", "modified_on", "triggered_on", "version_id",
        "is_deleted", "terminator_running",
    }  # fmt: skip
    assert result | {"id": 0, "version_id": 0} == {
        "id": 0,
        "version_id": 0,
        "name": "orders",
        "class_name": "Document",
        "script_name": "orders",
        "created_on": "2026-01-01T00:00:00.000Z",
        "modified_on": "2026-01-01T00:00:00.000Z",
        "triggered_on": None,
        "is_deleted": 0,
        "terminator_running": 0,
    }
    assert UUID(result["id"]) != UUID(result["version_id"])
    assert envelope["messages"] == []


async def test_an_identical_put_changes_nothing(api, clock):
    _, first, _ = await put(api, limits={"steps": 5}, schedules=[{"cron": "0 4 * * *"}])
    clock.advance(60)
    reordered = dict(reversed(list(doc().items())))
    _, again, _ = await put(api, definition=reordered, limits={"steps": 5}, schedules=[{"cron": "0 4 * * *"}])
    assert again == first
    assert (await api("GET", "/workflows/orders/versions"))[2]["result_info"]["total_count"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"definition": doc({"id": "b"})},
        {"limits": {"steps": 6}},
        {"limits": None},
        {"concurrency": {"limit": 2}},
        {"default_retention": {"success_retention": "2 days"}},
        {"schedules": []},
        {"definition": doc(name="Renamed")},
    ],
)
async def test_any_change_makes_a_version(api, clock, change):
    settings = {"limits": {"steps": 5}, "schedules": [{"cron": "0 4 * * *"}]}
    _, first, _ = await put(api, **settings)
    clock.advance(60)
    definition = change.get("definition")
    _, second, _ = await put(
        api, definition=definition, **(settings | {k: v for k, v in change.items() if k != "definition"})
    )
    assert second["version_id"] != first["version_id"]
    assert second["id"] == first["id"]
    assert second["created_on"] == first["created_on"]
    assert second["modified_on"] == "2026-01-01T00:01:00.000Z"


async def test_class_and_script_beside_a_definition_are_ignored(api):
    status, result, _ = await put(api, class_name="Mine", script_name="my-script", jurisdiction="eu", anything=1)
    assert (status, result["class_name"], result["script_name"]) == (200, "Document", "orders")


async def test_every_problem_of_a_document_is_an_error_with_its_pointer(api):
    definition = doc({"id": "a", "timeout": 0}, {"id": "a", "depends_on": ["x"]}, {"id": "c", "type": "nope"})
    status, _, envelope = await put(api, definition=definition)
    assert status == 400
    assert [(e["code"], e["source"]["pointer"], e["meta"]["kind"]) for e in envelope["errors"]] == [
        (10002, "/definition/nodes/0/timeout", "INVALID_FIELD"),
        (10002, "/definition/nodes/2/type", "UNKNOWN_TYPE"),
        (10002, "/definition/nodes/1/id", "DUPLICATE_ID"),
        (10002, "/definition/nodes/1/depends_on/0", "UNKNOWN_REFERENCE"),
    ]
    assert (await api("GET", "/workflows/orders"))[0] == 404


async def test_warnings_are_messages(api):
    definition = doc({"id": "a", "type": "set", "config": {"values": {"x": "{{ steps.b.output }}"}}}, {"id": "b"})
    status, _, envelope = await put(api, definition=definition)
    assert status == 200
    (message,) = envelope["messages"]
    assert message["code"] == 10471
    assert message["source"] == {"pointer": "/definition/nodes/0/config/values/x"}
    assert "steps.b" in message["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "class_name is required"),
        (b"{}", "class_name is required"),
        (b'{"class_name": "A"}', "script_name is required"),
        (b'{"class_name": "", "script_name": "s"}', "class_name"),
        (b"[]", "body"),
        (b"nonsense", "JSON"),
        (b'{"definition": {"spec": "workflow/1"}, "limits": {"steps": 0}}', "limits.steps"),
        (b'{"definition": {"spec": "workflow/1"}, "limits": {"steps": 25001}}', "limits.steps must be at most 25000"),
        (b'{"definition": {"spec": "workflow/1"}, "limits": {"steps": 1e300}}', "limits.steps"),
        (b'{"definition": {"spec": "workflow/1"}, "concurrency": {"limit": "2"}}', "concurrency.limit"),
        (
            b'{"definition": {"spec": "workflow/1"}, "default_retention": {"error_retention": "soon"}}',
            "error_retention",
        ),
        (b'{"definition": {"spec": "workflow/1"}, "default_retention": {"error_retention": "31 days"}}', "between"),
        (b'{"definition": {"spec": "workflow/1", "retention": "31 days"}}', "retention must be at most"),
        (b'{"definition": {"spec": "workflow/1"}, "schedules": [{"cron": "* * * * 0"}]}', '"* * * * 0"'),
        (b'{"definition": {"spec": "workflow/1"}, "schedules": [{}]}', "cron"),
        (b'{"definition": {"spec": "workflow/1"}, "schedules": {}}', "schedules"),
        (b'{"definition": 5}', "must be an object"),
        (b'{"definition": {"spec": "workflow/1", "vars": {"n": ' + b"9" * 30 + b"}}}", "64 bits"),
        (b'{"definition": {"spec": "workflow/1", "vars": {"n": ' + b"9" * 5000 + b"}}}", ""),
        (b'{"definition": {"spec": "workflow/1", "name": "a\\u0000b"}}', "NUL"),
        (b'{"definition": {"spec": "workflow/1", "name": "a\\ud800b"}}', ""),
        (b'{"definition": {"spec": "workflow/1", "vars": ' + b"[" * 100_000 + b"}}", ""),
        (b"\xff\xfe", ""),
    ],
)
async def test_what_is_wrong_with_a_put_is_named(api, body, words):
    status, _, envelope = await api("PUT", "/workflows/orders", content=body)
    assert status == 400
    assert envelope["errors"][0]["code"] == 10002
    assert words in envelope["errors"][0]["message"]


@pytest.mark.parametrize("name", ["executions", "validate", "metrics", "settings", "a.b", "-a", "a" * 65, "ä", "a%20b"])
async def test_names_that_no_workflow_may_have(api, name):
    status, _, envelope = await put(api, name)
    assert (status, envelope["errors"][0]["code"]) == (400, 10002)


async def test_an_explicit_script_is_refused_with_a_clear_message(api):
    body = {"class_name": "Flow", "script_name": "worker"}
    status, _, envelope = await api("PUT", "/workflows/orders", json=body)
    assert (status, envelope["errors"][0]["code"]) == (404, 10007)


async def test_yaml(api):
    text = """
    definition:
      spec: workflow/1
      name: Order intake   # the same document
      nodes:
        - id: a
    limits: {steps: 7}
    """
    headers = {"content-type": "application/yaml; charset=utf-8"}
    status, first, _ = await api("PUT", "/workflows/orders", content=text.encode(), headers=headers)
    assert status == 200
    _, second, _ = await put(api, limits={"steps": 7})
    assert second["version_id"] == first["version_id"]
    for bad in (b"definition: &a {x: *a}", b"a: 1\na: 2", b"definition: [", b"- 1", b"limits: {steps: x}"):
        status, _, envelope = await api("PUT", "/workflows/orders", content=bad, headers=headers)
        assert (status, envelope["errors"][0]["code"]) == (400, 10002)


async def test_quotas(api, admin, clock, boss):
    limits = {"workflows": 1, "schedules": 2, "concurrency": 3, "steps_max": 10, "steps": 10}
    await admin.execute("update account set limits = $2 where account_id = $1", boss.account_id, json.dumps(limits))
    assert (await put(api, "one", schedules=[{"cron": "0 1 * * *"}], concurrency={"limit": 3}))[0] == 200
    assert (await put(api, "one", schedules=[{"cron": "0 1 * * *"}, {"cron": "0 2 * * *"}]))[0] == 200
    status, _, envelope = await put(api, "one", schedules=[{"cron": f"0 {n} * * *"} for n in range(3)])
    assert (status, envelope["errors"][0]["code"]) == (403, 10461)
    status, _, envelope = await put(api, "two")
    assert (status, envelope["errors"][0]["code"]) == (403, 10461)
    assert (await put(api, "one", concurrency={"limit": 4}))[0] == 400
    assert (await put(api, "one", limits={"steps": 11}))[0] == 400


async def test_a_plan_without_cron(api, admin, boss):
    await admin.execute("update account set profile = 'cloudflare-free' where account_id = $1", boss.account_id)
    status, _, envelope = await put(api, schedules=[{"cron": "0 1 * * *"}])
    assert status == 403
    assert envelope["errors"] == [{"code": 10208, "message": "workflows.api.error.workflow.cron_requires_paid_plan"}]
    every_second = doc(triggers=[{"type": "schedule", "interval": 1000}])
    assert (await put(api, definition=every_second))[2]["errors"][0]["code"] == 10208
    assert (await put(api))[0] == 200


# ---- get, list, delete


async def test_get_counts_instances_by_status(api, versions, boss, insert_instance, clock):
    _, made, _ = await put(api, schedules=[{"cron": "0 4 * * *"}, {"cron": "30 4 * * *"}])
    key, version = UUID(made["id"]), UUID(made["version_id"])
    for status in (0, 1, 1, 5, 6, 6, 6, 7, 8):
        clock.advance(1)
        await insert_instance(boss.account_id, key, version, status)
    _, result, _ = await api("GET", "/workflows/orders")
    assert result == {
        "id": made["id"],
        "name": "orders",
        "class_name": "Document",
        "script_name": "orders",
        "created_on": made["created_on"],
        "modified_on": made["modified_on"],
        "triggered_on": iso(clock.now()),
        "instances": {
            "queued": 1, "running": 2, "waiting": 0, "paused": 0, "waitingForPause": 0, "rollingBack": 1,
            "complete": 3, "errored": 1, "terminated": 1,
        },
        "schedules": [
            {"cron": "0 4 * * *", "next_instance": "2026-01-01T04:00:00.000Z"},
            {"cron": "30 4 * * *", "next_instance": "2026-01-01T04:30:00.000Z"},
        ],
    }  # fmt: skip
    _, (row,), _ = await api("GET", "/workflows")
    assert row == result
    _, again, _ = await put(api, schedules=[])
    assert again["triggered_on"] == iso(clock.now())


async def test_list_pages_newest_first_and_ends_empty(api, clock):
    for name in ("alpha", "Beta", "gamma-beta"):
        clock.advance(1)
        await put(api, name)
    status, rows, envelope = await api("GET", "/workflows/?per_page=2")
    assert [row["name"] for row in rows] == ["gamma-beta", "Beta"]
    assert envelope["result_info"] == {"page": 1, "per_page": 2, "count": 2, "total_count": 3, "total_pages": 2}
    assert [r["name"] for r in (await api("GET", "/workflows?per_page=2&page=2"))[1]] == ["alpha"]
    status, rows, envelope = await api("GET", "/workflows?page=5000")
    assert (status, rows, envelope["result_info"]["total_count"]) == (200, [], 3)
    assert [row["name"] for row in (await api("GET", "/workflows?search=BETA"))[1]] == ["gamma-beta", "Beta"]
    assert (await api("GET", "/workflows?search=%25"))[1] == []
    for query in ("page=0", "per_page=101", "per_page=x", "search=", "search=" + "x" * 65, "search=%00"):
        assert (await api("GET", f"/workflows?{query}"))[0] == 400


async def test_unknown_workflows_are_404_10200(api):
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("GET", f"/versions/{UUID(int=1)}/graph")):
        for name in ("nobody", "a.b", "x" * 100):
            status, _, envelope = await api(method, f"/workflows/{name}{path}")
            assert status == 404
            assert envelope["errors"] == [{"code": 10200, "message": "workflows.api.error.workflow.not_found"}]


async def test_delete_is_at_once_and_leaves_a_job(api, admin, boss, clock):
    _, made, _ = await put(api, schedules=[{"cron": "* * * * *"}])
    clock.advance(1)
    status, result, _ = await api("DELETE", "/workflows/orders")
    assert (status, result) == (200, {"status": "ok", "success": True})
    assert (await api("GET", "/workflows/orders"))[0] == 404
    assert (await api("DELETE", "/workflows/orders"))[0] == 404
    assert (await api("GET", "/workflows"))[1] == []
    (job,) = await admin.fetch("select * from termination_job")
    assert (job["account_id"], job["kind"], str(job["workflow_key"])) == (
        boss.account_id,
        "delete_workflow",
        made["id"],
    )
    assert await admin.fetchval("select count(*) from schedule") == 0
    _, anew, _ = await put(api)
    assert anew["id"] != made["id"]


# ---- versions


async def test_versions(api, clock):
    ids = []
    for steps in (1, 2, 3):
        clock.advance(1)
        beside = {"default_retention": {"success_retention": "2 days", "error_retention": 5000}} if steps == 3 else {}
        ids.append((await put(api, limits={"steps": steps}, concurrency={"limit": 4}, **beside))[1]["version_id"])
    _, rows, envelope = await api("GET", "/workflows/orders/versions?per_page=2")
    assert [row["id"] for row in rows] == [ids[2], ids[1]]
    assert envelope["result_info"] == {"page": 1, "per_page": 2, "count": 2, "total_count": 3, "total_pages": 2}
    assert (await api("GET", "/workflows/orders/versions?page=9"))[1] == []
    _, workflow, _ = await api("GET", "/workflows/orders")
    created = "2026-01-01T00:00:03.000Z"
    assert rows[0] == {
        "id": ids[2],
        "class_name": "Document",
        "created_on": created,
        "modified_on": created,
        "workflow_id": workflow["id"],
        "has_dag": True,
        "language": "document",
        "limits": {"steps": 3},
        "concurrency": {"limit": 4},
        "default_retention": {"success_retention": 172_800_000, "error_retention": 5_000},
    }
    assert "default_retention" not in rows[1]
    assert (await api("GET", f"/workflows/orders/versions/{ids[2]}"))[1] == rows[0]


async def test_a_documents_own_retention_shows(api):
    await put(api, definition=doc(retention="1 day"), default_retention={"error_retention": 1})
    _, (row,), _ = await api("GET", "/workflows/orders/versions")
    assert row["default_retention"] == {"success_retention": 86_400_000, "error_retention": 1}


async def test_graph_and_dag(api):
    _, made, _ = await put(api)
    _, dag, _ = await api("GET", f"/workflows/orders/versions/{made['version_id']}/dag")
    _, graph, _ = await api("GET", f"/workflows/orders/versions/{made['version_id']}/graph")
    assert set(dag) == {"id", "class_name", "created_on", "modified_on", "workflow_id", "dag"}
    assert set(graph) == set(dag) | {"graph"}
    assert graph["graph"] == graph["dag"] == dag["dag"]
    assert graph["graph"]["version"] == 1
    assert [node["id"] for node in graph["graph"]["workflow"]["nodes"]] == ["a"]


async def test_unknown_versions(api):
    await put(api, "one")
    _, other, _ = await put(api, "two")
    for version, code in ((UUID(int=5), 10300), (other["version_id"], 10300), ("latest", 7003)):
        for tail in ("", "/dag", "/graph"):
            status, _, envelope = await api("GET", f"/workflows/one/versions/{version}{tail}")
            assert (status, envelope["errors"][0]["code"]) == (404, code)


# ---- settings


async def test_account_settings(api):
    assert (await api("GET", "/workflows/settings"))[1] == {"default_retention": {}}
    change = {"default_retention": {"success_retention": "2 days", "error_retention": 60_000}}
    expected = {"default_retention": {"success_retention": 172_800_000, "error_retention": 60_000}}
    assert (await api("PATCH", "/workflows/settings", json=change))[1] == expected
    change = {"default_retention": {"error_retention": None}}
    expected = {"default_retention": {"success_retention": 172_800_000}}
    assert (await api("PATCH", "/workflows/settings", json=change))[1] == expected
    assert (await api("PATCH", "/workflows/settings", json={}))[1] == expected
    assert (await api("GET", "/workflows/settings"))[1] == expected
    for bad in ({"success_retention": "31 days"}, {"success_retention": -1}, {"error_retention": "x"}, 7):
        assert (await api("PATCH", "/workflows/settings", json={"default_retention": bad}))[0] == 400


# ---- who may do what


async def test_scopes(make_api, boss, api):
    await put(api)
    reader = await make_api(boss, "workflows:read")
    assert (await reader("GET", "/workflows"))[0] == 200
    for method, path in (
        ("PUT", "/workflows/orders"),
        ("DELETE", "/workflows/orders"),
        ("PATCH", "/workflows/settings"),
    ):
        status, _, envelope = await reader(method, path, json={"definition": doc()})
        assert (status, envelope["errors"][0]["code"]) == (403, 10000)
    nobody = await make_api(boss, "executions:read")
    for path in ("/workflows", "/workflows/orders", "/workflows/orders/versions", "/workflows/settings"):
        assert (await nobody("GET", path))[0] == 403
    assert (await (await make_api(boss, "workflows:delete"))("DELETE", "/workflows/orders"))[0] == 200


async def test_another_account_sees_nothing(api, make_api, stranger, boss):
    _, made, _ = await put(api)
    theirs = await make_api(stranger)
    version = made["version_id"]
    assert (await theirs("GET", "/workflows"))[1] == []
    for path in ("", "/versions", f"/versions/{version}", f"/versions/{version}/dag", f"/versions/{version}/graph"):
        assert (await theirs("GET", f"/workflows/orders{path}"))[0] == 404
    assert (await theirs("DELETE", "/workflows/orders"))[0] == 404
    _, own, _ = await put(theirs)
    assert own["id"] != made["id"]
    assert (await theirs("GET", f"/workflows/orders/versions/{version}"))[0] == 404
    theirs.account_id = boss.account_id
    assert (await theirs("GET", "/workflows"))[0] == 404
    assert (await api("GET", "/workflows/orders"))[0] == 200


async def test_changes_are_audited(api, admin):
    await put(api)
    await put(api)
    await put(api, limits={"steps": 1})
    await api("DELETE", "/workflows/orders")
    lines = await admin.fetch("select action, target from audit_line where action like 'workflow%' order by id")
    assert [tuple(line) for line in lines] == [
        ("workflow.create", "orders"), ("workflow.update", "orders"), ("workflow.delete", "orders")
    ]  # fmt: skip


# ---- Cloudflare's SDK


async def test_with_the_sdk(sdk, api):
    account = api.account_id.hex
    made = await sdk.workflows.update(
        "orders", account_id=account, class_name="X", script_name="y", limits={"steps": 9},
        schedules=[{"cron": "0 4 * * *"}], extra_body={"definition": doc()},
    )  # fmt: skip
    assert made.version_id
    found = await sdk.workflows.get("orders", account_id=account)
    assert (found.name, found.schedules[0].cron, found.instances["running"]) == ("orders", "0 4 * * *", 0)
    for n in range(12):
        await put(api, f"w{n}")
    assert len([row async for row in sdk.workflows.list(account_id=account)]) == 13
    (version,) = [row async for row in sdk.workflows.versions.list("orders", account_id=account)]
    assert (version.id, version.limits.steps, version.language) == (made.version_id, 9, "document")
    graph = await sdk.workflows.versions.graph(version.id, account_id=account, workflow_name="orders")
    assert graph.graph.workflow.nodes[0].name == "a"
    assert (await sdk.workflows.versions.get(version.id, account_id=account, workflow_name="orders")).has_dag
    assert (await sdk.workflows.delete("orders", account_id=account)).status == "ok"
    with pytest.raises(cloudflare.NotFoundError):
        await sdk.workflows.get("orders", account_id=account)


async def test_schedules_keep_their_next_firing(api, versions, boss, clock, admin):
    await put(api, schedules=[{"cron": "*/10 * * * *"}, {"cron": "0 4 * * *"}])
    before = await admin.fetch("select id, next_at from schedule order by id")
    clock.advance(timedelta(minutes=25).total_seconds())
    await put(api, schedules=[{"cron": "*/10 * * * *"}, {"cron": "0 5 * * *"}], limits={"steps": 3})
    after = {row["id"]: row["next_at"] for row in await admin.fetch("select id, next_at from schedule")}
    assert after[before[0]["id"]] == before[0]["next_at"]
    assert before[1]["id"] not in after
    assert len(after) == 2


async def test_a_name_that_leads_inside_is_refused_when_it_is_written(versions, api):
    async def resolver(host, _port):
        if host == "unknown.example":
            raise OSError
        return {"db.example": ["10.0.0.1"], "api.example": ["93.184.216.34"]}[host]

    egress = EgressClient(EgressPolicy(), resolver=resolver)
    versions._check_url, versions._vet_url = egress.policy.problem, egress.vet

    def calling(*urls):
        return doc(*({"id": f"n{n}", "type": "call_api", "config": {"url": url}} for n, url in enumerate(urls)))

    status, _, envelope = await put(api, definition=calling("https://api.example/", "https://db.example/"))
    assert status == 400
    [error] = envelope["errors"]
    assert error["source"] == {"pointer": "/definition/nodes/1/config/url"}
    assert error["message"] == "nodes/1/config/url must lead to an address that may be called"
    assert "10.0" not in str(envelope)
    status, _, _ = await put(api, definition=calling("https://api.example/", "https://unknown.example/"))
    assert status == 200
    await egress.close()


async def test_no_script_has_a_name_that_cannot_be_stored(api):
    status, _, envelope = await api("PUT", "/workflows/w", json={"script_name": "a\0b", "class_name": "Flow"})
    assert (status, envelope["errors"][0]["code"]) == (404, 10007)
