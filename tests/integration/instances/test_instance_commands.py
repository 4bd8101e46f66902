"""Pause, resume, terminate, and what each status makes of every command."""

from __future__ import annotations

import json

import pytest

from instances.lifecycle import Status
from tenants.tokens import TokenGrant
from tests.support.commands import RB, WP, C, E, P, Q, R, T, W, command, make

OUTCOMES = [
    # command, status before, status after or code of the refusal
    ("pause", Q, P),
    ("pause", R, WP),
    ("pause", W, P),
    ("pause", P, P),
    ("pause", WP, WP),
    ("pause", RB, 10451),
    ("pause", C, 10451),
    ("pause", E, 10451),
    ("pause", T, 10451),
    ("resume", Q, Q),
    ("resume", R, R),
    ("resume", W, W),
    ("resume", P, Q),
    ("resume", WP, R),
    ("resume", RB, 10452),
    ("resume", C, 10452),
    ("resume", E, 10452),
    ("resume", T, 10452),
    ("terminate", Q, T),
    ("terminate", R, T),
    ("terminate", W, T),
    ("terminate", P, T),
    ("terminate", WP, T),
    ("terminate", RB, RB),
    ("terminate", C, 10401),
    ("terminate", E, 10401),
    ("terminate", T, 10401),
    ("restart", Q, Q),
    ("restart", R, Q),
    ("restart", W, Q),
    ("restart", P, Q),
    ("restart", WP, Q),
    ("restart", RB, 10453),
    ("restart", C, Q),
    ("restart", E, Q),
    ("restart", T, Q),
]


@pytest.mark.parametrize(("name", "before", "after"), OUTCOMES)
async def test_every_command_in_every_status(world, call, name: str, before: Status, after: Status | int):
    await make(world, call, before)
    world.clock.advance(5)
    answer = await command(call, name)
    if isinstance(after, Status):
        assert answer.result == {"status": after.wire, "timestamp": "2026-01-01T00:00:05.000Z"}
        assert (await call("GET", "/instances/i?simple=true")).result["status"] == after.wire
    else:
        assert (answer.status, answer.code, answer.headers["x-should-retry"]) == (409, after, "false")
        assert (await call("GET", "/instances/i?simple=true")).result["status"] == before.wire


@pytest.mark.parametrize(
    ("before", "after"), [(Q, T), (R, RB), (W, RB), (P, RB), (WP, RB), (RB, RB), (C, 10401), (E, 10401), (T, 10401)]
)
async def test_terminate_with_rollback(world, call, before, after):
    await make(world, call, before)
    answer = await command(call, "terminate", rollback=True)
    assert (answer.result["status"] if isinstance(after, Status) else answer.code) == (
        after.wire if isinstance(after, Status) else after
    )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/status"),
        ({"status": "stop"}, "/status"),
        ({"status": 5}, "/status"),
        ({"action": "pause"}, "/status"),
        ({"status": "pause", "rollback": True}, "/rollback"),
        ({"status": "restart", "rollback": False}, "/rollback"),
        ({"status": "terminate", "rollback": "yes"}, "/rollback"),
        ({"status": "pause", "from": {"name": "a"}}, "/from"),
        ({"status": "restart", "from": {}}, "/from/name"),
        ({"status": "restart", "from": {"name": ""}}, "/from/name"),
        ({"status": "restart", "from": {"name": "x" * 257}}, "/from/name"),
        ({"status": "restart", "from": {"name": "a", "count": 0}}, "/from/count"),
        ({"status": "restart", "from": {"name": "a", "count": 2**31}}, "/from/count"),
        ({"status": "restart", "from": {"name": "a", "count": 10**30}}, "/from/count"),
        ({"status": "restart", "from": {"name": "a\0"}}, "/from/name"),
        ({"status": "restart", "from": {"name": "\ud800"}}, "/from/name"),
        ({"status": "restart", "from": {"name": "a", "type": "step"}}, "/from/type"),
    ],
)
async def test_bodies_that_are_refused(world, call, body, pointer):
    await make(world, call, Status.RUNNING)
    answer = await call("PATCH", "/instances/i/status", content=json.dumps(body).encode())
    assert (answer.status, answer.code) == (400, 10002)
    [error] = answer.body["errors"]
    assert error["source"]["pointer"] == pointer
    assert error["message"].isprintable()  # nothing of what hides surrogates from the decoder


@pytest.mark.parametrize("path", ["/status", "/events/go"])
async def test_what_is_deleted_meanwhile_is_not_there(world, call, engine, monkeypatch, path):
    """Between finding the instance and commanding it somebody may delete it: that is a 404, not a wrong status."""
    await make(world, call, Status.RUNNING)
    name = "send_event" if "events" in path else "pause"
    really = getattr(engine, name)

    async def too_late(*args, **options):
        await engine.delete(world.account, [await world.key("i")])
        return await really(*args, **options)

    monkeypatch.setattr(engine, name, too_late)
    method = "POST" if "events" in path else "PATCH"
    answer = await call(method, f"/instances/i{path}", json={"status": "pause"})
    assert (answer.status, answer.code) == (404, 10400)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/step?name=a-1&type=step", None),
        ("GET", "/logs", None),
        ("DELETE", "", None),
        ("PATCH", "/status", {"status": "pause"}),
        ("PATCH", "/status", {"status": "resume"}),
        ("PATCH", "/status", {"status": "terminate"}),
        ("PATCH", "/status", {"status": "terminate", "rollback": True}),
        ("PATCH", "/status", {"status": "restart"}),
        ("PATCH", "/status", {"status": "restart", "from": {"name": "a"}}),
        ("POST", "/events/go", {}),
    ],
)
async def test_what_is_not_there(world, other, call, method, path, body):
    """Neither an unknown instance, nor another workflow's, nor another account's."""
    await world.workflow("second")
    await make(other, lambda *a, **k: call(*a, of=other, **k), Status.RUNNING, "theirs")
    assert (await call("POST", "/instances", workflow="second", json={"instance_id": "elsewhere"})).status == 200
    options = {} if body is None else {"json": body}
    for instance_id in ("nope", "theirs", "elsewhere"):
        answer = await call(method, f"/instances/{instance_id}{path}", **options)
        assert (answer.status, answer.code) == (404, 10400)
    answer = await call(method, f"/instances/theirs{path}", workflow="unknown", **options)
    assert (answer.status, answer.code) == (404, 10200)
    assert (await call("GET", "/instances/theirs", of=other)).result["status"] == "running"


@pytest.mark.parametrize("instance_id", ["invalid!", "a?b".replace("?", "%3F"), "ä", "x" * 272])
async def test_ids_that_no_instance_can_have(world, call, instance_id):
    answer = await call("GET", f"/instances/{instance_id}")
    assert (answer.status, answer.code) == (400, 10450)


@pytest.mark.parametrize("spelled", ["*%2F30%20*%20*%20*%20*-1786001400000", "*/30%20*%20*%20*%20*-1786001400000"])
async def test_ids_of_scheduled_instances(world, call, spelled):
    from instances.engine.requests import NewInstance

    detail = '{"cron":"*/30 * * * *","scheduledTime":1786001400000}'
    item = NewInstance(
        account_id=world.account,
        key=world.ids.uuid7(),
        instance_id="*/30 * * * *-1786001400000",
        handle="orders",
        trigger_source=4,
        trigger_detail=detail,
    )
    await world.engine.create([item])
    view = (await call("GET", f"/instances/{spelled}")).result
    assert (view["trigger"], view["schedule"]["scheduledTime"]) == ({"source": "cron"}, 1786001400000)
    assert (await call("POST", f"/instances/{spelled}/events/go")).result["instanceId"] == item.instance_id
    assert (await call("PATCH", f"/instances/{spelled}/status", json={"status": "pause"})).result["status"] == "paused"
    assert (await call("GET", f"/instances/{spelled}/step?name=a-1&type=step")).status == 404
    assert (await call("GET", f"/instances/{spelled}/logs")).status == 200
    assert (await call("DELETE", f"/instances/{spelled}")).result["instanceId"] == item.instance_id


async def test_scopes(world, call, tenants):

    await make(world, call, R)
    needs = {
        "executions:read": [
            ("GET", "/instances", None),
            ("GET", "/instances/i", None),
            ("GET", "/instances/i/step?name=a-1&type=step", None),
            ("GET", "/instances/i/logs", None),
            ("GET", "/instances/terminate", None),
        ],
        "executions:write": [
            ("POST", "/instances/i/events/go", {}),
            *[
                ("PATCH", "/instances/i/status", {"status": name})
                for name in ("pause", "resume", "terminate", "restart")
            ],
            ("PATCH", "/instances/i/status", {"status": "restart", "from": {"name": "a"}}),
            ("POST", "/instances/batch/terminate", ["i"]),
            ("PUT", "/instances/terminate", None),
        ],
        "executions:delete": [
            ("DELETE", "/instances/i", None),
            ("POST", "/instances/batch/delete", {"instances": ["i"]}),
        ],
    }
    _, none = await tenants.tokens.create(world.caller, TokenGrant(name="n", scopes=["workflows:write"]))
    _, reader = await tenants.tokens.create(world.caller, TokenGrant(name="r", scopes=["executions:read"]))
    for scope, requests in needs.items():
        for method, path, body in requests:
            for token in [none] if scope == "executions:read" else [none, reader]:
                headers = {"authorization": f"Bearer {token}"}
                answer = await call(method, path, headers=headers, **({} if body is None else {"json": body}))
                assert (answer.status, answer.code) == (403, 10000), (method, path)


async def test_audit(world, call, tenants, admin):
    await make(world, call, R)
    await call("POST", "/instances/i/events/go", json={"secret": 1})
    for name in ("pause", "resume", "resume", "terminate", "restart"):
        await command(call, name)
    await call("POST", "/instances/batch/terminate", json=["i"])
    await call("PUT", "/instances/terminate?status=paused")
    await call("DELETE", "/instances/i")
    await call("POST", "/instances/batch/delete", json={"instances": ["i"]})
    await tenants.close()
    rows = await admin.fetch("select action, target, detail from audit_line where action like 'instance.%' order by id")
    assert [tuple(row) for row in rows][1:] == [
        ("instance.send_event", "orders/i", '{"type":"go"}'),
        ("instance.pause", "orders/i", None),
        ("instance.resume", "orders/i", None),
        ("instance.terminate", "orders/i", None),
        ("instance.restart", "orders/i", None),
        ("instance.terminate_batch", "orders", '{"ended":1}'),
        ("instance.terminate_all", "orders", '{"status":"paused"}'),
        ("instance.delete", "orders/i", None),
        ("instance.delete_batch", "orders", '{"deleted":0}'),
    ]
