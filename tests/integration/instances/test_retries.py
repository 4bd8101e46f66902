"""Retrying an execution from a step: as a new one, which takes over what need not run again."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from instances.creation import Wanted
from instances.errors import CannotRetry, InvalidFirstStep, RolledBack
from instances.executions.waiting import Until
from instances.lifecycle import Kind, Status
from instances.projections.history import History
from instances.projections.steps import Outcome
from instances.runtimes.document import register_action_handler, unregister_action_handler
from instances.runtimes.protocol import StepKey, StepKind
from tests.integration.instances.test_executions import Desk, desk, worker  # noqa: F401
from tests.support.document_runs import event, noop

pytestmark = pytest.mark.usefixtures("worker")


class Recorder:
    """A handler that counts its calls, and fails for the nodes it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.instead: Any = None

    async def __call__(self, action: Any, context: Any) -> Any:
        self.calls.append(action["id"])
        if self.instead is not None:
            return await self.instead(action, context)
        if action["id"] in self.broken:
            return {"success": False, "error": f"{action['id']} broke"}
        return {"success": True, "output": {"of": action["id"], "call": len(self.calls)}}


@pytest.fixture
def recorder():
    recorder = Recorder()
    register_action_handler("recorded", recorder)
    yield recorder
    unregister_action_handler("recorded")


def works(id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "handler", "config": {"handler": "recorded"}, "depends_on": list(depends_on), **fields}


async def ended(desk: Desk, key: UUID) -> tuple[Status, History]:  # noqa: F811
    waited = await desk.executions.wait(desk.world.caller, key, Until.END, 15)
    facts, history = await desk.instances.history(desk.world.caller, key)
    assert waited.ended
    return facts.status, history


def step(history: History, name: str):
    return history.steps[StepKey(StepKind.DO, name)]


DIAMOND = [works("a"), works("b", "a"), works("c", "a"), works("d", "b", "c"), works("e", "c")]


async def test_what_is_not_after_the_first_step_is_taken_over(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"b"}
    key = await desk.run([*DIAMOND], rollback="never", limits={"max_parallel": 1})
    status, before = await ended(desk, key)
    assert status is Status.ERRORED
    recorder.broken, recorder.calls = set(), []
    retried = await desk.executions.retry(desk.world.caller, key)
    assert retried.first == "b"
    status, after = await ended(desk, retried.key)
    assert status is Status.COMPLETE
    assert "a" not in recorder.calls and {"b", "d"} <= {*recorder.calls}
    kept, old = step(after, "a"), step(before, "a")
    assert (kept.output, kept.started_at, kept.ended_at) == (old.output, old.started_at, old.ended_at)
    assert (kept.counted_attempts, kept.outcome) == ([], Outcome.COMPLETED)
    assert len(step(after, "b").counted_attempts) == 1
    row = await desk.until(retried.key, Status.COMPLETE)
    assert (row["origin_key"], row["retried_from"], row["trigger_source"]) == (key, "b", 7)
    origin = await desk.until(key, Status.ERRORED)
    assert (row["version_key"], row["input"]) == (origin["version_key"], origin["input"])
    assert await desk.executions.retries(desk.world.caller, key) == [retried.key]


async def test_a_step_that_blocks_a_slot_does_not_keep_results_back(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    """With one slot, the step that runs again is called first; what came later in the original is handed over."""
    recorder.broken = {"z"}
    nodes = [works("a"), works("b"), works("y", "b"), works("z", "y")]
    key = await desk.run(nodes, rollback="never", limits={"max_parallel": 1})
    assert (await ended(desk, key))[0] is Status.ERRORED
    recorder.broken, recorder.calls = set(), []
    retried = await desk.executions.retry(desk.world.caller, key, first="a")
    assert (await ended(desk, retried.key))[0] is Status.COMPLETE
    assert sorted(recorder.calls) == ["a", "z"]


async def test_a_retry_survives_its_worker(desk: Desk, recorder: Recorder, worker: Any) -> None:  # noqa: F811
    recorder.broken = {"b"}
    key = await desk.run([works("a"), works("b", "a"), event("go", "b"), works("c", "go")], rollback="never")
    assert (await ended(desk, key))[0] is Status.ERRORED
    recorder.broken, recorder.calls = set(), []
    retried = await desk.executions.retry(desk.world.caller, key)
    await desk.until(retried.key, Status.WAITING)  # parked: the rest is another life
    await desk.executions.complete_step(desk.world.caller, retried.key, "go", "1")
    assert (await ended(desk, retried.key))[0] is Status.COMPLETE
    assert recorder.calls == ["b", "c"]


async def test_repeating_the_request_finds_the_retry(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"a"}
    key = await desk.run([works("a")], rollback="never")
    await ended(desk, key)
    recorder.broken = set()
    new_key = desk.world.ids.uuid7()
    made = await asyncio.gather(*(desk.executions.retry(desk.world.caller, key, new_key=new_key) for _ in range(4)))
    assert {one.key for one in made} == {new_key} and len({one.no for one in made}) == 1
    assert await desk.executions.retries(desk.world.caller, key) == [new_key]


async def test_options_are_taken_along(desk: Desk) -> None:  # noqa: F811
    nodes = [{"id": "f", "type": "fail"}]
    wanted = Wanted(input='{"n":1}', dry_run=True, variables={"a": 1}, timeout_ms=9_000)
    key = await desk.run(nodes, wanted=wanted)
    await ended(desk, key)
    retried = await desk.executions.retry(desk.world.caller, key)
    row = await desk.until(retried.key, Status.ERRORED)
    assert (row["input"], row["dry_run"]) == ('{"n":1}', True)
    assert json.loads(row["trigger_detail"]) == {"dryRun": True, "timeout": 9_000, "variables": {"a": 1}}


async def test_compensations_of_what_was_taken_over(desk: Desk, recorder: Recorder, worker: Any) -> None:  # noqa: F811
    """They belong to the new one: terminated before anybody held it, it is rolled back, not just ended."""
    undo = {"type": "set", "config": {"values": {"undone": "{{ compensation.input.of }}"}}}
    recorder.broken = {"b"}
    key = await desk.run([works("a", compensate=undo), works("b", "a")], rollback="never")
    await ended(desk, key)
    await worker.drain(0)
    retried = await desk.executions.retry(desk.world.caller, key)
    cancelled = await desk.executions.cancel(desk.world.caller, retried.key, rollback=True)
    assert cancelled.status is Status.ROLLING_BACK


async def test_what_was_compensated_must_start_over(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    undo = {"type": "set", "config": {"values": {"undone": True}}}
    recorder.broken = {"b"}
    key = await desk.run([works("a", compensate=undo), works("b", "a")])
    await ended(desk, key)
    with pytest.raises(RolledBack):
        await desk.executions.retry(desk.world.caller, key, first="b")
    recorder.broken, recorder.calls = set(), []
    for first in (None, "a"):
        retried = await desk.executions.retry(desk.world.caller, key, first=first)
        assert retried.first is None
        assert (await ended(desk, retried.key))[0] is Status.COMPLETE
    assert recorder.calls == ["a", "b"] * 2


async def test_first_steps_that_are_refused(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"b"}
    key = await desk.run([works("a"), works("b", "a"), works("c", "b")], rollback="never")
    await ended(desk, key)
    with pytest.raises(InvalidFirstStep, match='"nobody"'):
        await desk.executions.retry(desk.world.caller, key, first="nobody")
    with pytest.raises(InvalidFirstStep, match='"b"'):
        await desk.executions.retry(desk.world.caller, key, first="c")


async def test_only_failed_and_terminated_ones_are_retried(desk: Desk) -> None:  # noqa: F811
    complete = await desk.run([noop("a")])
    await ended(desk, complete)
    waiting = await desk.run([event("e")])
    await desk.until(waiting, Status.WAITING)
    for key in (complete, waiting):
        with pytest.raises(CannotRetry):
            await desk.executions.retry(desk.world.caller, key)
    await desk.executions.cancel(desk.world.caller, waiting)
    retried = await desk.executions.retry(desk.world.caller, waiting)
    assert retried.first is None
    await desk.until(retried.key, Status.WAITING)
    assert Kind.WAIT_STARTED in await desk.kinds(retried.key)
