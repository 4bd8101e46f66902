"""Retrying one step in place: of a failed instance, of one that went on, and before its time."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from instances.errors import CannotRetryStep, RolledBack, StepNotFound
from instances.lifecycle import Kind, Status
from instances.projections.steps import Outcome, State
from tests.integration.instances.test_executions import Desk, desk, worker  # noqa: F401
from tests.integration.instances.test_retries import Recorder, ended, recorder, step, works  # noqa: F401
from tests.support.document_runs import event, wait

pytestmark = pytest.mark.usefixtures("worker")


async def counters(desk: Desk) -> dict[int, int]:  # noqa: F811
    rows = await desk.world.admin.fetch("select status, sum(n)::int as n from counter group by 1 having sum(n) <> 0")
    return {row["status"]: row["n"] for row in rows}


async def until(desk: Desk, key: UUID, kind: Kind, n: int = 1) -> None:  # noqa: F811
    async with asyncio.timeout(15):
        while (await desk.kinds(key)).count(kind) < n:
            await asyncio.sleep(0.005)


async def test_a_failed_instance_goes_on(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    """Side by side: one branch failed it while another finished; a sleep was cut off by the failure."""
    recorder.broken = {"b"}
    nodes = [works("a"), works("b", "a"), works("c", "b"), wait("s", "a", config={"durationMs": 5000}), works("d", "s")]
    key = await desk.run(nodes, sync_points=[{"id": "p", "name": "p", "required": ["b"]}])
    status, before = await ended(desk, key)
    assert (status, step(before, "b").outcome) == (Status.ERRORED, Outcome.FAILED)
    assert await counters(desk) == {7: 1}
    recorder.broken, recorder.calls = set(), []
    await desk.executions.retry_step(desk.world.caller, key, "b")
    assert await counters(desk) == {}
    live = await desk.world.admin.fetchrow("select * from instance where key = $1", key)
    assert live is not None
    assert live["status"] == 6 or (live["ended_at"], live["retain_until"], live["error"]) == (None, None, None)
    await desk.until(key, Status.WAITING)  # the sleep begins anew, and time stands still here
    facts, history = await desk.instances.history(desk.world.caller, key)
    assert facts.run == 1 and history.rollback is None
    again = step(history, "b")
    assert again.started_at == step(before, "b").started_at
    assert [(attempt.number, attempt.outcome) for attempt in again.counted_attempts] == [
        (1, Outcome.FAILED),
        (2, Outcome.COMPLETED),
    ]
    assert [mark.state for mark in history.sync_points] == ["reached", "completed"]
    assert recorder.calls == ["b", "c"]
    desk.world.clock.advance(6)
    assert (await ended(desk, key))[0] is Status.COMPLETE
    assert recorder.calls == ["b", "c", "d"] and await counters(desk) == {6: 1}


async def test_it_may_fail_again_and_be_retried_again(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"a"}
    key = await desk.run([works("a", retries={"limit": 1, "delay": 0})])
    await ended(desk, key)
    for attempts in (4, 6):
        await desk.executions.retry_step(desk.world.caller, key, "a")
        status, history = await ended(desk, key)
        assert status is Status.ERRORED
        assert len(step(history, "a").counted_attempts) == attempts  # each time with a policy that begins anew
    recorder.broken = set()
    await desk.executions.retry_step(desk.world.caller, key, "a")
    status, history = await ended(desk, key)
    assert (status, len(step(history, "a").counted_attempts)) == (Status.COMPLETE, 7)


async def test_a_deadline_begins_anew(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"a"}
    key = await desk.run([works("a"), event("e", "a")], limits={"timeout": "10 seconds"})
    await ended(desk, key)
    recorder.broken = set()
    desk.world.clock.advance(60)
    await desk.executions.retry_step(desk.world.caller, key, "a")
    await desk.until(key, Status.WAITING)
    desk.world.clock.advance(9)
    await asyncio.sleep(0.05)
    assert await desk.status(key) is Status.WAITING
    desk.world.clock.advance(2)
    row = await desk.until(key, Status.ERRORED)
    assert "EXECUTION_TIMEOUT" in row["error"]


async def test_of_many_requests_one_counts(desk: Desk, recorder: Recorder, worker: Any) -> None:  # noqa: F811
    recorder.broken = {"a"}
    key = await desk.run([works("a")])
    await ended(desk, key)
    await worker.drain(0)
    asked = [desk.executions.retry_step(desk.world.caller, key, "a") for _ in range(5)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome is None] == [None]
    assert {type(outcome) for outcome in outcomes if outcome} == {CannotRetryStep}
    assert (await desk.kinds(key)).count(Kind.REOPENED) == 1


async def test_what_was_compensated_is_over(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"b"}
    key = await desk.run([works("a", compensate={"type": "noop"}), works("b", "a")])
    await ended(desk, key)
    with pytest.raises(RolledBack):
        await desk.executions.retry_step(desk.world.caller, key, "b")


async def test_a_failure_that_was_passed_over_is_made_good(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    """In a run that waits elsewhere; what depended on it has run, and does not run again. Over two lives."""
    recorder.broken = {"a"}
    key = await desk.run([works("a", on_error="continue"), works("b", "a"), event("e", "b")])
    await desk.until(key, Status.WAITING)
    recorder.calls = []
    await desk.executions.retry_step(desk.world.caller, key, "a")
    await until(desk, key, Kind.STEP_FAILED, 2)
    recorder.broken = set()
    await desk.until(key, Status.WAITING)
    await desk.executions.retry_step(desk.world.caller, key, "a")
    await until(desk, key, Kind.STEP_COMPLETED, 2)
    await desk.until(key, Status.WAITING)
    _, history = await desk.instances.history(desk.world.caller, key)
    made_good = step(history, "a")
    assert (made_good.outcome, len(made_good.counted_attempts)) == (Outcome.COMPLETED, 3)
    await desk.executions.complete_step(desk.world.caller, key, "e", "1")
    assert (await ended(desk, key))[0] is Status.COMPLETE
    assert recorder.calls == ["a", "a"]


async def test_one_that_was_passed_over_in_a_failed_instance(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    """It is made good, and what failed the instance stands; that can be retried after it."""
    recorder.broken = {"a", "c"}
    nodes = [works("a", on_error="continue"), works("b", "a"), works("c", "b"), wait("s", config={"durationMs": 9000})]
    key = await desk.run(nodes, limits={"timeout": "1 hour"})
    before = (await ended(desk, key))[0]
    desk.world.clock.advance(7200)
    recorder.broken, recorder.calls = {"c"}, []
    await desk.executions.retry_step(desk.world.caller, key, "a")
    await until(desk, key, Kind.ERRORED, 2)
    status, history = await ended(desk, key)
    assert (before, status) == (Status.ERRORED, Status.ERRORED)
    assert (step(history, "a").outcome, step(history, "c").outcome) == (Outcome.COMPLETED, Outcome.FAILED)
    assert len(step(history, "a").counted_attempts) == 2
    assert (await desk.until(key, Status.ERRORED))["error"] == '{"name":"Error","message":"c broke"}'
    assert await counters(desk) == {7: 1}
    recorder.broken = set()
    await desk.executions.retry_step(desk.world.caller, key, "c")
    await desk.until(key, Status.WAITING)
    desk.world.clock.advance(10)
    assert (await ended(desk, key))[0] is Status.COMPLETE
    assert recorder.calls == ["a", "c"]


async def test_the_end_waits_for_it(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"a"}
    nodes = [works("a", on_error="continue", retries={"limit": 0}), event("e", "a")]
    key = await desk.run(nodes)
    await desk.until(key, Status.WAITING)
    release = asyncio.Event()
    entered = asyncio.Event()

    async def slowly(action: Any, context: Any) -> Any:
        entered.set()
        await release.wait()
        return {"success": True, "output": "late"}

    recorder.instead = slowly
    await desk.executions.retry_step(desk.world.caller, key, "a")
    async with asyncio.timeout(15):
        await entered.wait()
    await desk.executions.complete_step(desk.world.caller, key, "e", '"over"')
    await until(desk, key, Kind.WAIT_COMPLETED)
    await asyncio.sleep(0.05)
    assert await desk.status(key) is Status.RUNNING
    release.set()
    status, history = await ended(desk, key)
    assert (status, step(history, "a").output) == (Status.COMPLETE, '"late"')


async def test_a_retry_that_is_due_later_comes_now(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    recorder.broken = {"a"}
    key = await desk.run([works("a", retries={"limit": 3, "delay": 3_600_000})])
    await desk.until(key, Status.WAITING)
    _, history = await desk.instances.history(desk.world.caller, key)
    assert step(history, "a").state is State.RETRYING
    await desk.executions.retry_step(desk.world.caller, key, "a")
    await until(desk, key, Kind.ATTEMPT_FAILED, 2)
    await desk.until(key, Status.WAITING)
    recorder.broken = set()
    await desk.executions.retry_step(desk.world.caller, key, "a")
    status, history = await ended(desk, key)
    assert (status, len(step(history, "a").counted_attempts)) == (Status.COMPLETE, 3)


async def test_steps_that_cannot_be_retried(desk: Desk, recorder: Recorder) -> None:  # noqa: F811
    caller = desk.world.caller
    key = await desk.run([works("a"), event("e", "a"), works("b", "e")])
    await desk.until(key, Status.WAITING)
    for name, state in (("a", "complete"), ("b", "pending")):
        with pytest.raises(CannotRetryStep, match=state):
            await desk.executions.retry_step(caller, key, name)
    with pytest.raises(StepNotFound):
        await desk.executions.retry_step(caller, key, "nobody")
    recorder.broken = {"a"}
    cancelled = await desk.run([works("a", on_error="continue"), event("e", "a")])
    await desk.until(cancelled, Status.WAITING)
    await desk.executions.cancel(caller, cancelled)
    with pytest.raises(CannotRetryStep, match="terminated"):
        await desk.executions.retry_step(caller, cancelled, "a")
