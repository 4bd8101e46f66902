"""Deleting instances, and commands to many."""

from __future__ import annotations

import pytest

from instances.lifecycle import Status
from tests.support.commands import WP, C, P, Q, R, W, make


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
