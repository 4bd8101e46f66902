"""Events, pause, resume, terminate, restart, delete, and what each status makes of them."""

from __future__ import annotations

import asyncio
import json

import pytest

from instances.lifecycle import Kind, Status
from tenants.limits import PAYLOAD_BYTES
from tenants.tokens import TokenGrant
from tests.support.instances import World

CONFIG = {"config": {"retries": {"limit": 0, "delay": 0}, "timeout": 1}}


async def make(world: World, call, status: Status, instance_id: str = "i") -> str:
    """An instance in `status`."""
    assert (await call("POST", "/instances", json={"instance_id": instance_id, "params": 1})).status == 200
    if status is not Status.QUEUED:
        await world.begin(instance_id, status if not status.finished else Status.RUNNING)
    if status.finished:
        body = '{"name":"Error","message":"no"}' if status is Status.ERRORED else "1"
        await world.end([instance_id], status, body)
    return instance_id


async def command(call, status: str, **more):
    return await call("PATCH", "/instances/i/status", json={"status": status} | more)


Q, R, W, P, WP, RB = (
    Status.QUEUED,
    Status.RUNNING,
    Status.WAITING,
    Status.PAUSED,
    Status.WAITING_FOR_PAUSE,
    Status.ROLLING_BACK,
)
C, E, T = Status.COMPLETE, Status.ERRORED, Status.TERMINATED

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
    from instances.engine.client import NewInstance

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


class TestRestart:
    async def finished(self, world: World, call) -> list[int]:
        """An instance that ran a, slept and ran b; seqs of their starts."""
        await make(world, call, Status.RUNNING)
        seqs = await world.write(
            "i",
            (Kind.STEP_STARTED, "a", 1, 1, CONFIG),
            (Kind.STEP_COMPLETED, "a", 1, 1, "1"),
            (Kind.SLEEP_STARTED, "b", 1, None, {"due": 0}),
            (Kind.SLEEP_COMPLETED, "b", 1),
            (Kind.STEP_STARTED, "b", 1, 1, CONFIG),
            (Kind.STEP_COMPLETED, "b", 1, 1, "2"),
        )
        await world.end(["i"])
        return seqs

    async def steps(self, call) -> list[tuple[str, str]]:
        return [(step["type"], step["name"]) for step in (await call("GET", "/instances/i")).result["steps"]]

    @pytest.mark.parametrize(
        ("start", "kept"),
        [
            ({"name": "b"}, [("step", "a-1"), ("sleep", "b-1")]),
            ({"name": "b", "count": 1, "type": "do"}, [("step", "a-1"), ("sleep", "b-1")]),
            ({"name": "b", "type": "sleep"}, [("step", "a-1")]),
            ({"name": "a"}, []),
            (None, []),
        ],
    )
    async def test_from_a_step(self, world, call, start, kept):
        await self.finished(world, call)
        assert (await command(call, "restart", **({"from": start} if start else {}))).result["status"] == "queued"
        assert await self.steps(call) == kept
        view = (await call("GET", "/instances/i")).result
        assert (view["success"], view["output"], view["end"]) == (None, None, None)
        assert (view["start"] is None) == (start is None)

    @pytest.mark.parametrize(
        "start", [{"name": "c"}, {"name": "b", "count": 2}, {"name": "b-1"}, {"name": "b", "type": "waitForEvent"}]
    )
    async def test_from_a_step_that_never_ran(self, world, call, start):
        await self.finished(world, call)
        answer = await command(call, "restart", **{"from": start})
        assert (answer.status, answer.code, answer.headers["x-should-retry"]) == (409, 10453, "false")
        assert "not found in execution history" in answer.body["errors"][0]["message"]
        assert (await call("GET", "/instances/i")).result["status"] == "complete"

    async def test_whole_restart_moves_to_the_newest_version_and_a_partial_one_stays(self, world, call):
        workflow = await world.admin.fetchval("select workflow_key from workflow where account_id = $1", world.account)
        await self.finished(world, call)
        old = (await call("GET", "/instances/i")).result["versionId"]
        new = await world.deploy(workflow)
        await command(call, "restart", **{"from": {"name": "b"}})
        assert (await call("GET", "/instances/i")).result["versionId"] == old
        await command(call, "restart")
        assert (await call("GET", "/instances/i")).result["versionId"] == str(new)

    async def test_steps_of_the_run_before_are_gone_for_good(self, world, call):
        await self.finished(world, call)
        await command(call, "restart")
        answer = await command(call, "restart", **{"from": {"name": "a"}})
        assert answer.code == 10453
        assert (await call("GET", "/instances/i/step?name=a-1&type=step")).status == 404

    async def test_at_the_same_time(self, world, call):
        """One of them finds it finished, the others find it restarted: none is refused for that."""
        for _ in range(5):
            await make(world, call, Status.COMPLETE)
            answers = await asyncio.gather(*(command(call, "restart") for _ in range(6)))
            assert {answer.status for answer in answers} == {200}
            await call("DELETE", "/instances/i")

    async def test_params_stay_and_times_start_anew(self, world, call):
        await self.finished(world, call)
        world.clock.advance(60)
        await command(call, "restart")
        view = (await call("GET", "/instances/i")).result
        assert (view["params"], view["queued"]) == (1, "2026-01-01T00:01:00.000Z")


class TestEvents:
    @pytest.mark.parametrize("status", [Q, R, W, P, WP, RB])
    async def test_stored_whatever_the_status(self, world, call, status):
        await make(world, call, status)
        world.clock.advance(1)
        answer = await call("POST", "/instances/i/events/go", content=b' {"a": [1, 2.0]} ')
        assert answer.result == {"instanceId": "i", "timestamp": "2026-01-01T00:00:01.000Z"}
        row = await world.admin.fetchrow("select type, payload from inbox")
        assert tuple(row) == ("go", '{"a": [1, 2.0]}')

    @pytest.mark.parametrize("status", [C, E, T])
    async def test_refused_when_finished(self, world, call, status):
        await make(world, call, status)
        answer = await call("POST", "/instances/i/events/go", json={})
        assert (answer.status, answer.code) == (400, 10454)

    @pytest.mark.parametrize(
        ("body", "payload"),
        [(b"", "{}"), (b"null", "null"), (b'"x"', '"x"'), (b"5", "5"), (rb'"\ud800\u0000"', r'"\ud800\u0000"')],
    )
    async def test_any_json_value(self, world, call, body, payload):
        await make(world, call, Q)
        assert (await call("POST", "/instances/i/events/go", content=body)).status == 200
        assert await world.admin.fetchval("select payload from inbox") == payload

    @pytest.mark.parametrize("body", [b"nope", b"{", b'"\xff"', b"\x00"])
    async def test_bodies_that_are_no_json(self, world, call, body):
        await make(world, call, Q)
        answer = await call("POST", "/instances/i/events/go", content=body)
        assert (answer.status, answer.code) == (400, 10002)

    @pytest.mark.parametrize(
        "event_type",
        ["go", "a-b_C9", "x" * 100, "step:node-1", "step%3Anode", "step:" + "x" * 128, f"step:{'x' * 128}:compensate"],
    )
    async def test_types(self, world, call, event_type):
        await make(world, call, Q)
        assert (await call("POST", f"/instances/i/events/{event_type}")).status == 200

    @pytest.mark.parametrize(
        "event_type",
        [
            *("a.b", "-a", "a%20b", "x" * 101, "ä", "a:b", "step:", "step:a:b", "step:" + "x" * 129, "step-failed:a"),
            *("step::compensate", "a:compensate", "step:a:compensate:compensate", f"step:{'x' * 129}:compensate"),
        ],
    )
    async def test_types_that_are_refused(self, world, call, event_type):
        await make(world, call, Q)
        answer = await call("POST", f"/instances/i/events/{event_type}")
        assert (answer.status, answer.code) == (400, 10455)

    async def test_size(self, world, call):
        await make(world, call, Q)
        fits = b'"' + b"x" * (PAYLOAD_BYTES - 2) + b'"'
        assert (await call("POST", "/instances/i/events/go", content=fits)).status == 200
        answer = await call("POST", "/instances/i/events/go", content=b"[" + fits + b"]")
        assert (answer.status, answer.code) == (413, 10458)

    async def test_too_many_unread(self, world, call):
        await make(world, call, Q)
        await world.admin.execute("update live set unread = 1000")
        answer = await call("POST", "/instances/i/events/go")
        assert (answer.status, answer.code) == (429, 10465)
        assert "retry-after" in answer.headers

    async def test_idempotency_key(self, world, call):
        await make(world, call, Q)
        headers = {"idempotency-key": "k"}
        first = await call("POST", "/instances/i/events/go", json=1, headers=headers)
        world.clock.advance(1)
        again = await call("POST", "/instances/i/events/go", json=1, headers=headers)
        assert (again.body, again.headers["idempotent-replayed"]) == (first.body, "true")
        assert (await call("POST", "/instances/i/events/go", json=2, headers=headers)).status == 409
        assert await world.admin.fetchval("select count(*) from inbox") == 1

    async def test_a_repeat_after_the_process_died_stores_nothing_twice(self, world, call):
        await make(world, call, Q)
        headers = {"idempotency-key": "k"}
        await call("POST", "/instances/i/events/go", headers=headers)
        await world.admin.execute("update idempotency_key set status = null, response = null")
        await world.admin.execute("delete from inbox")  # a wait has taken it
        world.clock.advance(100)
        assert (await call("POST", "/instances/i/events/go", headers=headers)).status == 200
        assert await world.admin.fetchval("select count(*) from inbox") == 0

    async def test_the_first_use_of_a_key_does_not_search_the_journal(self, world, call, monkeypatch):
        async def search(*_args):
            raise AssertionError("searched")

        monkeypatch.setattr("instances.store.event_received", search)
        await make(world, call, Q)
        assert (await call("POST", "/instances/i/events/go", headers={"idempotency-key": "k"})).status == 200

    async def test_a_stored_answer_is_for_who_may_send(self, world, call, tenants):
        await make(world, call, Q)
        headers = {"idempotency-key": "k"}
        assert (await call("POST", "/instances/i/events/go", headers=headers)).status == 200
        _, token = await tenants.tokens.create(world.caller, TokenGrant(name="r", scopes=["executions:read"]))
        answer = await call("POST", "/instances/i/events/go", headers=headers | {"authorization": f"Bearer {token}"})
        assert (answer.status, answer.code) == (403, 10000)

    @pytest.mark.parametrize("fact", ["step-failed:a", "step:a:compensate", "step-input:a"])
    async def test_faces_may_tell_what_callers_may_not_name(self, world, call, instances, fact):
        await make(world, call, R)
        assert await instances.tell(world.caller, "orders", "i", fact, "1", dedupe="step:a:1")
        assert not await instances.tell(world.caller, "orders", "i", fact, "2", dedupe="step:a:1")
        assert [tuple(row) for row in await world.admin.fetch("select type, payload from inbox")] == [(fact, "1")]
        await world.admin.execute("delete from inbox")  # read
        assert not await instances.tell(world.caller, "orders", "i", fact, "3", dedupe="step:a:1")
        assert await world.admin.fetchval("select count(*) from inbox") == 0


class TestDelete:
    @pytest.mark.parametrize("status", list(Status))
    async def test_in_every_status(self, world, call, status):
        await make(world, call, status)
        world.clock.advance(1)
        assert (await call("DELETE", "/instances/i")).result == {
            "instanceId": "i",
            "timestamp": "2026-01-01T00:00:01.000Z",
        }
        assert (await call("GET", "/instances/i")).code == 10400
        assert (await call("DELETE", "/instances/i")).code == 10400
        assert await world.admin.fetchval("select count(*) from journal") == 0
        assert (await call("POST", "/instances", json={"instance_id": "i"})).status == 200


class TestBatches:
    async def test_terminate(self, world, other, call):
        await make(other, lambda *a, **k: call(*a, of=other, **k), Status.RUNNING, "theirs")
        for status, name in ((R, "run"), (Q, "queue"), (P, "pause"), (C, "done")):
            await make(world, call, status, name)
        ids = ["run", "done", "queue", "pause", "queue", "nope", "theirs"]
        answer = await call("POST", "/instances/batch/terminate", json=ids)
        assert answer.result == {"status": "ok", "instancesTerminated": 3}
        statuses = {row["id"]: row["status"] for row in (await call("GET", "/instances")).result}
        assert statuses == {"run": "terminated", "queue": "terminated", "pause": "terminated", "done": "complete"}
        assert (await call("GET", "/instances/theirs", of=other)).result["status"] == "running"
        again = await call("POST", "/instances/batch/terminate", json=ids)
        assert again.result["instancesTerminated"] == 0

    async def test_delete(self, world, other, call):
        await make(other, lambda *a, **k: call(*a, of=other, **k), Status.RUNNING, "theirs")
        await make(world, call, R, "run")
        await make(world, call, C, "done")
        ids = ["done", "*/30 * * * *-1786001400000", "run", "done", "theirs", "*/30 * * * *-1786001400000"]
        answer = await call("POST", "/instances/batch/delete", json={"instances": ids})
        missing = {"code": 10400, "message": "workflows.api.error.instance.not_found"}
        assert answer.result == {
            "deleted": [{"id": "done"}, {"id": "run"}, {"id": "done"}],
            "errors": [{"id": name, **missing} for name in (ids[1], "theirs", ids[1])],
        }
        assert (await call("GET", "/instances")).result == []
        assert (await call("GET", "/instances/theirs", of=other)).status == 200

    async def test_a_failure_is_told_per_instance_and_without_its_cause(self, world, call, engine, monkeypatch):
        async def broken(*_args):
            raise ZeroDivisionError("secret cause")

        await make(world, call, C, "done")
        monkeypatch.setattr(engine, "delete", broken)
        answer = await call("POST", "/instances/batch/delete", json={"instances": ["done", "nope"]})
        assert answer.result == {
            "deleted": [],
            "errors": [
                {"id": "done", "code": 10001, "message": "workflows.api.error.internal_server"},
                {"id": "nope", "code": 10400, "message": "workflows.api.error.instance.not_found"},
            ],
        }

    @pytest.mark.parametrize(
        ("path", "body", "code"),
        [
            ("terminate", [], 10002),
            ("terminate", ["a"] * 101, 10002),
            ("terminate", {}, 10002),
            ("terminate", ["a", 5], 10002),
            ("terminate", ["a", "bad!"], 10450),
            ("delete", {"instances": []}, 10002),
            ("delete", {"instances": ["a"] * 101}, 10002),
            ("delete", {}, 10002),
            ("delete", ["a"], 10002),
            ("delete", {"instances": ["a", ""]}, 10450),
            ("delete", {"instances": ["a", "x" * 272]}, 10450),
        ],
    )
    async def test_what_is_refused_changes_nothing(self, world, call, path, body, code):
        await make(world, call, R, "a")
        answer = await call("POST", f"/instances/batch/{path}", json=body)
        assert (answer.status, answer.code) == (400, code)
        assert (await call("GET", "/instances/a")).result["status"] == "running"

    async def test_a_bad_id_is_pointed_at(self, world, call):
        for path, body, pointer in (
            ("terminate", ["a", "b!"], "/1"),
            ("delete", {"instances": ["b!"]}, "/instances/0"),
        ):
            [error] = (await call("POST", f"/instances/batch/{path}", json=body)).body["errors"]
            assert error["source"]["pointer"] == pointer

    async def test_unknown_workflow(self, world, call):
        for path, body in (("terminate", ["a"]), ("delete", {"instances": ["a"]})):
            assert (await call("POST", f"/instances/batch/{path}", workflow="nope", json=body)).code == 10200


class TestTerminateAll:
    async def test_start_and_ask(self, world, other, call):
        assert (await call("GET", "/instances/terminate")).result == {"status": "not_running"}
        assert (await call("PUT", "/instances/terminate")).result == {"status": "ok"}
        assert (await call("PUT", "/instances/terminate?status=paused")).result == {"status": "already_running"}
        assert (await call("GET", "/instances/terminate")).result == {"status": "running"}
        assert (await call("GET", "/instances/terminate", of=other)).result == {"status": "not_running"}
        assert await world.admin.fetchval("select statuses from termination_job") is None

    @pytest.mark.parametrize("status", [Q, R, P, WP, W])
    async def test_of_one_status(self, world, call, status):
        assert (await call("PUT", f"/instances/terminate?status={status.wire}")).result == {"status": "ok"}
        assert await world.admin.fetchval("select statuses from termination_job") == [int(status)]

    @pytest.mark.parametrize("status", ["complete", "rollingBack", "", "x"])
    async def test_other_statuses_are_refused(self, world, call, status):
        answer = await call("PUT", f"/instances/terminate?status={status}")
        assert (answer.status, answer.code) == (400, 10002)

    async def test_unknown_workflow(self, world, call):
        for method in ("GET", "PUT"):
            assert (await call(method, "/instances/terminate", workflow="nope")).code == 10200


async def test_scopes(world, call, tenants):
    from tenants.tokens import TokenGrant

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
