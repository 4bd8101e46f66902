"""Restarting instances, from any step."""

from __future__ import annotations

import asyncio

import pytest

from instances.lifecycle import Kind, Status
from tests.support.commands import command, make
from tests.support.instances import World

CONFIG = {"config": {"retries": {"limit": 0, "delay": 0}, "timeout": 1}}


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
