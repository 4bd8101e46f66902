"""Creating instances: ids, parameters, retention, limits, batches, repeats."""

from __future__ import annotations

import dataclasses
import json
from uuid import UUID

import pytest

from instances.creation import Wanted
from instances.engine.requests import Create
from tenants.limits import PAYLOAD_BYTES, Limits
from versions.errors import InvalidInput, WorkflowNotFound


async def stored(world, instance_id: str):
    return await world.admin.fetchrow(
        "select * from instance where account_id = $1 and instance_id = $2", world.account, instance_id
    )


async def test_create(world, call):
    answer = await call("POST", "/instances", json={"instance_id": "one", "params": {"a": 1}})
    version = await world.admin.fetchval("select version_key from version where account_id = $1", world.account)
    workflow = await world.admin.fetchval("select workflow_key from workflow where account_id = $1", world.account)
    assert answer.result == {
        "id": "one",
        "status": "queued",
        "version_id": str(version),
        "workflow_id": str(workflow),
        "trigger_source": "api",
    }
    row = await stored(world, "one")
    assert (row["input"], row["trigger_source"], row["status"]) == ('{"a":1}', 1, 0)
    assert row["triggered_by"]
    assert row["success_retention_ms"] == 30 * 86_400_000


@pytest.mark.parametrize("body", [b"", b"{}", b" ", b'{"instance_id":null,"unknown":{"a":[1]}}'])
async def test_generated_id_is_the_key(world, call, body):
    result = (await call("POST", "/instances", content=body)).result
    row = await stored(world, result["id"])
    assert UUID(result["id"]) == row["key"]
    assert row["input"] == "{}"


@pytest.mark.parametrize(
    ("params", "text"),
    [('{"a":1}', '{"a":1}'), ('"{\\"a\\":1}"', '{"a":1}'), ('"plain"', '"plain"'), ("null", "null"), ("0", "0")],
)
async def test_params_as_text_or_as_value(world, call, params, text):
    await call("POST", "/instances", content=f'{{"instance_id":"p","params":{params}}}')
    assert (await stored(world, "p"))["input"] == text
    assert (await call("GET", "/instances/p")).result["params"] == json.loads(text)


async def test_params_keep_what_postgres_text_could_not_hold(world, call):
    sent = rb'{"instance_id":"n","params":{"nul":"\u0000","lone":"\ud800","big":123456789012345678901234567890}}'
    await call("POST", "/instances", content=sent)
    view = await call("GET", "/instances/n")
    assert view.result["params"] == {"nul": "\0", "lone": "\ud800", "big": 123456789012345678901234567890}


@pytest.mark.parametrize("instance_id", ["a", "_", "A-b_9", "0", "x" * 100])
async def test_ids_that_are_accepted(world, call, instance_id):
    assert (await call("POST", "/instances", json={"instance_id": instance_id})).result["id"] == instance_id


@pytest.mark.parametrize(
    "instance_id",
    [
        "",
        "-a",
        " a",
        "a b",
        "a/b",
        "ä",
        "x" * 101,
        "a\n",
        "#invalid!",
        "batch",
        "terminate",
        "terminateAll",
        "cf_" + "0" * 64,
    ],
)
async def test_ids_that_are_not(world, call, instance_id):
    answer = await call("POST", "/instances", json={"instance_id": instance_id})
    assert (answer.status, answer.code) == (400, 10450)
    assert answer.body["errors"][0]["message"].startswith("instance_id ")
    assert answer.body["errors"][0]["source"] == {"pointer": "/instance_id"}


async def test_an_id_in_use(world, call):
    await call("POST", "/instances", json={"instance_id": "one"})
    answer = await call("POST", "/instances", json={"instance_id": "one"})
    assert (answer.status, answer.code) == (400, 10405)
    assert answer.body["errors"][0]["message"] == "workflows.api.error.instance.already_exists"
    await world.workflow("second")
    assert (await call("POST", "/instances", workflow="second", json={"instance_id": "one"})).status == 200
    await call("DELETE", "/instances/one")
    assert (await call("POST", "/instances", json={"instance_id": "one"})).status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"instance_id":5}', "/instance_id"),
        ('{"location_hint":"mars"}', "/location_hint"),
        ('{"location_hint":7}', "/location_hint"),
        ('{"instance_retention":5}', "/instance_retention"),
        ('{"instance_retention":{"success_retention":"soon"}}', "/instance_retention/success_retention"),
        ('{"instance_retention":{"error_retention":-1}}', "/instance_retention/error_retention"),
        ('{"instance_retention":{"error_retention":true}}', "/instance_retention/error_retention"),
        ('{"instance_retention":{"error_retention":1.5}}', "/instance_retention/error_retention"),
        ('{"instance_retention":{"error_retention":"31 days"}}', "/instance_retention/error_retention"),
        ('{"instance_retention":{"error_retention":99999999999999999999}}', "/instance_retention/error_retention"),
        ("[]", None),
        ("nope", None),
    ],
)
async def test_bodies_that_are_refused(world, call, body, pointer):
    answer = await call("POST", "/instances", content=body)
    assert (answer.status, answer.code) == (400, 10002)
    assert answer.body["errors"][0].get("source", {}).get("pointer") == pointer


async def test_retention(world, call):
    retention = {"success_retention": "2 days", "error_retention": 5000}
    await call(
        "POST", "/instances", json={"instance_id": "r", "instance_retention": retention, "location_hint": "weur"}
    )
    row = await stored(world, "r")
    assert (row["success_retention_ms"], row["error_retention_ms"]) == (172_800_000, 5000)


async def test_largest_params(world, call):
    fits = "x" * (PAYLOAD_BYTES - 2)
    assert (await call("POST", "/instances", json={"params": fits})).status == 200
    escaped = json.dumps({"params": fits}).replace("x", r"\u0078", 10_000)
    assert (await call("POST", "/instances", content=escaped)).status == 200
    answer = await call("POST", "/instances", json={"params": fits + "x"})
    assert (answer.status, answer.code) == (413, 10458)
    assert (await call("POST", "/instances", content=b'"' + b"x" * 3 * 2**20 + b'"')).status == 413


async def test_unknown_workflow_and_other_accounts_workflow(world, other, call):
    await other.workflow("theirs")
    for handle in ("nope", "theirs"):
        for path, body in (("/instances", {}), ("/instances/batch", [{}])):
            answer = await call("POST", path, workflow=handle, json=body)
            assert (answer.status, answer.code) == (404, 10200)


@pytest.mark.parametrize("status", ["inactive", "draft", "archived"])
async def test_only_active_workflows_are_started(world, call, status):
    await world.admin.execute("update workflow set status = $2 where account_id = $1", world.account, status)
    for path, body in (("/instances", {"instance_id": "one"}), ("/instances/batch", [{}, {}])):
        answer = await call("POST", path, json=body)
        assert (answer.status, answer.code) == (409, 10211)
    assert await world.admin.fetchval("select count(*) from instance") == 0


async def set_limits(tenants, world, **limits):
    await tenants.accounts.set_limits(world.caller, changes=limits)
    world.clock.advance(2)


async def test_queue_limit(world, call, tenants):
    await set_limits(tenants, world, queued=2)
    for _ in range(2):
        assert (await call("POST", "/instances")).status == 200
    answer = await call("POST", "/instances")
    assert (answer.status, answer.code) == (429, 10456)
    assert answer.headers["retry-after"] == "1"
    assert (await call("POST", "/instances/batch", json=[{}])).code == 10456


async def test_a_batch_has_to_fit_into_the_queue_as_a_whole(world, call, tenants):
    await set_limits(tenants, world, queued=3)
    assert (await call("POST", "/instances")).status == 200
    refused = await call("POST", "/instances/batch", json=[{}] * 3)
    assert (refused.status, refused.code) == (429, 10456)
    assert (await call("POST", "/instances/batch", json=[{}] * 100)).code == 10456
    assert (await call("POST", "/instances/batch", json=[{}] * 2)).status == 200
    assert (await call("POST", "/instances")).code == 10456


async def test_creation_rate(world, call, tenants):
    await set_limits(tenants, world, creations_per_second=2)
    await call("POST", "/instances", json={"instance_id": "a"})
    await call("POST", "/instances")
    answer = await call("POST", "/instances")
    assert (answer.status, answer.code) == (429, 10457)
    assert int(answer.headers["retry-after"]) >= 1
    assert (await call("POST", "/instances/batch", json=[{}])).code == 10457
    assert (await call("PATCH", "/instances/a/status", json={"status": "restart"})).code == 10457
    world.clock.advance(1)
    assert (await call("POST", "/instances/batch", json=[{}, {}])).status == 200
    assert (await call("POST", "/instances")).code == 10457


async def test_payload_limit_of_the_account(world, call, tenants):
    await set_limits(tenants, world, payload_bytes=100)
    assert (await call("POST", "/instances", json={"params": "x" * 98})).status == 200
    assert (await call("POST", "/instances", json={"params": "x" * 99})).code == 10458


async def test_open_limits_by_default():
    assert (Limits().queued, Limits().creations_per_second) == (None, None)


class TestBatch:
    async def test_results_in_order(self, world, call):
        batch = [{"instance_id": f"b{n}", "params": n} for n in range(100)]
        answer = await call("POST", "/instances/batch", json=batch)
        assert [row["id"] for row in answer.result] == [f"b{n}" for n in range(100)]
        assert answer.body["messages"] == []
        assert {row["status"] for row in answer.result} == {"queued"}
        assert (await stored(world, "b7"))["input"] == "7"
        listed = (await call("GET", "/instances?per_page=100")).result
        assert [row["id"] for row in listed] == [f"b{n}" for n in reversed(range(100))]

    async def test_used_and_repeated_ids_are_left_out_and_named(self, world, call):
        await call("POST", "/instances", json={"instance_id": "used"})
        batch = [{"instance_id": "a"}, {"instance_id": "used"}, {}, {"instance_id": "a"}, {"instance_id": "used"}]
        answer = await call("POST", "/instances/batch", json=batch)
        assert answer.result[0]["id"] == "a"
        assert len(answer.result) == 2
        assert answer.body["messages"] == [
            {"code": 10405, "message": "workflows.api.error.instance.already_exists", "source": {"pointer": "/1"}},
            {"code": 10415, "message": "workflows.api.error.instance.duplicate_in_batch", "source": {"pointer": "/3"}},
            {"code": 10405, "message": "workflows.api.error.instance.already_exists", "source": {"pointer": "/4"}},
        ]

    @pytest.mark.parametrize(
        ("batch", "code", "pointer"),
        [
            ([], 10002, None),
            ([{}] * 101, 10002, None),
            ({}, 10002, None),
            ([{"instance_id": "ok"}, 5], 10002, "/1"),
            ([{"instance_id": "ok"}, {"instance_id": "-"}], 10450, "/1/instance_id"),
            ([{"instance_id": "ok"}, {"instance_id": "batch"}], 10450, "/1/instance_id"),
            ([{"instance_id": "ok"}, {"location_hint": "x"}], 10002, "/1/location_hint"),
            ([{"instance_id": "ok"}, {"instance_retention": {"error_retention": "x"}}], 10002, None),
        ],
    )
    async def test_anything_else_wrong_creates_nothing(self, world, call, batch, code, pointer):
        answer = await call("POST", "/instances/batch", json=batch)
        assert (answer.status, answer.code) == (400, code)
        if pointer is not None:
            assert answer.body["errors"][0]["source"]["pointer"] == pointer
        assert (await call("GET", "/instances")).result == []

    async def test_one_payload_too_large_creates_nothing(self, world, call):
        answer = await call("POST", "/instances/batch", json=[{}, {"params": "x" * PAYLOAD_BYTES}])
        assert (answer.status, answer.code) == (413, 10458)
        assert answer.body["errors"][0]["source"]["pointer"] == "/1/params"
        assert (await call("GET", "/instances")).result == []


class TestIdempotencyKey:
    async def test_same_request_same_answer(self, world, call):
        headers = {"idempotency-key": "k1"}
        first = await call("POST", "/instances", json={"params": 1}, headers=headers)
        again = await call("POST", "/instances", json={"params": 1}, headers=headers)
        assert again.result == first.result
        assert (again.headers.get("idempotent-replayed"), first.headers.get("idempotent-replayed")) == ("true", None)
        assert len((await call("GET", "/instances")).result) == 1

    async def test_different_request_is_refused(self, world, call):
        headers = {"idempotency-key": "k1"}
        await call("POST", "/instances", json={"params": 1}, headers=headers)
        answer = await call("POST", "/instances", json={"params": 2}, headers=headers)
        assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")

    async def test_keys_belong_to_account_and_workflow(self, world, other, call):
        await world.workflow("second")
        headers = {"idempotency-key": "k1"}
        ids = {
            (await call("POST", "/instances", headers=headers, **where)).result["id"]
            for where in ({}, {"of": other}, {"workflow": "second"})
        }
        assert len(ids) == 3

    async def test_refused_request_gives_the_key_back(self, world, call):
        headers = {"idempotency-key": "k1"}
        assert (await call("POST", "/instances", workflow="later", headers=headers)).status == 404
        await world.workflow("later")
        assert (await call("POST", "/instances", workflow="later", headers=headers)).status == 200

    async def test_batch(self, world, call):
        headers = {"idempotency-key": "k1"}
        batch = [{}, {"instance_id": "x"}, {"instance_id": "x"}]
        first = await call("POST", "/instances/batch", json=batch, headers=headers)
        again = await call("POST", "/instances/batch", json=batch, headers=headers)
        assert again.body == first.body
        assert len(first.result) == 2
        assert len((await call("GET", "/instances")).result) == 2

    async def test_a_repeat_after_the_process_died_finds_what_was_created(self, world, call, admin):
        """The answer was never stored; the key's seed leads to the instance."""
        headers = {"idempotency-key": "k1"}
        first = await call("POST", "/instances", json={"instance_id": "x"}, headers=headers)
        await admin.execute("update idempotency_key set status = null, response = null")
        waits = await call("POST", "/instances", json={"instance_id": "x"}, headers=headers)
        assert (waits.status, waits.code, waits.headers["retry-after"]) == (409, 10463, "1")
        world.clock.advance(5)
        again = await call("POST", "/instances", json={"instance_id": "x"}, headers=headers)
        assert again.result == first.result

    async def test_bad_key(self, world, call):
        assert (await call("POST", "/instances", headers={"idempotency-key": "a b"})).code == 10002


DEFINITION = {
    "spec": "workflow/1",
    "name": "checked",
    "input_schema": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}},
}


class TestInputSchema:
    async def test_input_is_checked(self, world, call):
        await world.workflow("doc", definition=DEFINITION)
        assert (await call("POST", "/instances", workflow="doc", json={"params": {"n": 1}})).status == 200
        for body in ({}, {"params": {"n": "x"}}, {"params": 5}):
            assert (await call("POST", "/instances", workflow="doc", json=body)).status == 400
        answer = await call(
            "POST", "/instances/batch", workflow="doc", json=[{"params": {"n": 1}}, {"params": {"n": "x"}}]
        )
        assert answer.status == 400
        assert answer.body["errors"][0]["source"]["pointer"] == "/1/params/n"
        assert len((await call("GET", "/instances", workflow="doc")).result) == 1

    async def test_a_caller_of_another_workspace_is_not_told_what_it_asks(self, world, call, instances):
        """Bindings are such callers, and whoever has a restricted token. Neither before nor after others asked."""
        await world.workflow("doc", definition=DEFINITION)
        outside = dataclasses.replace(world.caller, workspace_id=UUID(int=7))
        for _ in range(2):
            for params in (None, '{"n":1}'):
                with pytest.raises(WorkflowNotFound):
                    await instances.create(outside, "doc", Wanted(input=params))
            assert (await call("POST", "/instances", workflow="doc", json={"params": {"n": 1}})).status == 200
        inside = dataclasses.replace(world.caller, workspace_id=world.account)  # where the tests put workflows
        with pytest.raises(InvalidInput):
            await instances.create(inside, "doc", Wanted())
        assert (await instances.create(inside, "doc", Wanted(input='{"n":1}'))).outcome is Create.CREATED

    async def test_what_the_workflow_asks_is_remembered(self, world, call, versions, monkeypatch):
        await world.workflow("doc", definition=DEFINITION)
        loaded = []
        load = versions.load
        monkeypatch.setattr(versions, "load", lambda *key: loaded.append(key) or load(*key))
        for _ in range(3):
            await call("POST", "/instances", workflow="doc", json={"params": {"n": 1}})
        assert len(loaded) == 1

    async def test_a_new_version_counts_at_once(self, world, call):
        workflow = await world.workflow("doc")
        assert (await call("POST", "/instances", workflow="doc")).status == 200
        await world.deploy(workflow, DEFINITION)
        answer = await call("POST", "/instances", workflow="doc", json={"instance_id": "gone"})
        assert answer.status == 400
        assert len((await call("GET", "/instances", workflow="doc")).result) == 1
        assert (await call("POST", "/instances", workflow="doc", json={"params": {"n": 1}})).status == 200
        await world.deploy(workflow)
        assert (await call("POST", "/instances", workflow="doc")).status == 200


async def test_scope_and_audit(world, call, tenants, admin):
    from tenants.tokens import TokenGrant

    _, viewer = await tenants.tokens.create(world.caller, TokenGrant(name="v", scopes=["executions:read"]))
    headers = {"authorization": f"Bearer {viewer}"}
    assert (await call("POST", "/instances", headers=headers)).status == 403
    assert (await call("POST", "/instances/batch", json=[{}], headers=headers)).status == 403
    await call("POST", "/instances", json={"instance_id": "a"})
    await call("POST", "/instances/batch", json=[{}, {}])
    await tenants.close()
    rows = await admin.fetch("select action, target, detail from audit_line where action like 'instance.%' order by id")
    assert [tuple(row) for row in rows] == [
        ("instance.create", "orders/a", None),
        ("instance.create_batch", "orders", '{"count":2}'),
    ]
