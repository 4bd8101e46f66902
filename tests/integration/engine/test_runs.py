"""A run from create to end: steps, retries, timers, events, children, pause, restart, rollback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from typing import Any

import pytest

from instances.engine.client import Control
from instances.engine.requests import SendEvent
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    BeginRollback,
    Broken,
    Child,
    Do,
    EndRollback,
    Fail,
    Failure,
    Retry,
    RollbackRequested,
    RunContext,
    Sleep,
    StepFailure,
    StepKey,
    StepKind,
    Timer,
    TimerFired,
    Wait,
)
from tests.support.engine import Engine, ScriptFailed, step

Steps = Generator[list[Any], list[Any], str | None]


def two_steps(run: RunContext) -> Steps:
    yield [step("a", immediate=True)]
    [done] = yield [step("b")]
    return done.value


def one_step(run: RunContext) -> Steps:
    yield [step("a")]
    return "1"


async def test_a_run_completes(engine: Engine) -> None:
    await engine.worker()
    await engine.define("two", two_steps)
    key = await engine.create("two")
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == '"done"'
    assert row["started_at"] is not None and row["ended_at"] is not None and row["retain_until"] is not None
    assert await engine.kinds(key) == [
        Kind.QUEUED,
        Kind.STARTED,
        Kind.STEP_STARTED,
        Kind.STEP_COMPLETED,
        Kind.STEP_STARTED,
        Kind.STEP_COMPLETED,
        Kind.COMPLETED,
    ]
    assert [row["seq"] for row in await engine.journal(key)] == list(range(1, 8))


async def test_retries_wait_and_then_the_step_fails(engine: Engine) -> None:
    calls: list[int] = []

    async def body(_: Do, attempt: Attempt) -> str | None:
        calls.append(attempt.number)
        raise StepFailure(Failure("Busy", f"attempt {attempt.number}"))

    def script(run: RunContext) -> Steps:
        [message] = yield [step("a", retry=Retry(2, 60_000, "linear"))]
        assert isinstance(message, Broken)
        raise ScriptFailed(message.failure.message)

    await engine.worker()
    await engine.define("w", script, body)
    key = await engine.create("w")
    for pause in (60, 120):
        await engine.until(key, Status.WAITING)
        await engine.advance(pause)
        await engine.eventually(lambda n=len(calls): _after(calls, n))
    row = await engine.until(key, Status.ERRORED)
    assert calls == [1, 2, 3]
    assert json.loads(row["error"]) == {"name": "Error", "message": "attempt 3"}
    delays = [json.loads(r["payload"])["delay"] for r in await engine.journal(key) if r["kind"] == Kind.ATTEMPT_FAILED]
    assert delays == [60_000, 120_000]


async def _after(calls: list[Any], n: int) -> bool:
    return len(calls) > n


async def test_a_sleep_parks_and_resumes(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        yield [Sleep(StepKey(StepKind.SLEEP, "nap"), duration=3_600_000)]
        return "1"

    worker = await engine.worker()
    await engine.define("w", script)
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.eventually(lambda: _truth(worker.held == 0))
    await engine.advance(3599)
    assert await engine.status(key) is Status.WAITING
    await engine.advance(1)
    await engine.until(key, Status.COMPLETE)


async def _truth(value: bool) -> bool:
    return value


def waits(run: RunContext) -> Steps:
    [message] = yield [Wait(StepKey(StepKind.WAIT, "approval"), "approved", 60_000)]
    if isinstance(message, Broken):
        raise ScriptFailed(message.failure.message)
    return message.value


@pytest.mark.parametrize("when", ["queued", "waiting", "paused"])
async def test_an_event_is_never_lost(engine: Engine, when: str) -> None:
    await engine.define("w", waits)
    key = await engine.create("w")
    if when != "queued":
        await engine.worker()
        await engine.until(key, Status.WAITING)
    if when == "paused":
        assert (await engine.client.pause(engine.account, key)).status is Status.PAUSED
    assert await engine.client.send_event(engine.account, key, "approved", '{"by":"Ada"}') is SendEvent.STORED
    if when == "queued":
        await engine.worker()
    if when == "paused":
        assert await engine.status(key) is Status.PAUSED
        await engine.client.resume(engine.account, key)
    row = await engine.until(key, Status.COMPLETE)
    assert json.loads(row["output"])["payload"] == {"by": "Ada"}
    assert await engine.admin.fetchval("select count(*) from inbox") == 0


async def test_events_are_first_in_first_out_per_type(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        got = []
        for n in range(1, 4):
            [message] = yield [Wait(StepKey(StepKind.WAIT, "w", n), "t", 60_000)]
            got.append(json.loads(message.value)["payload"])
        return json.dumps(got)

    await engine.define("w", script)
    key = await engine.create("w")
    for n in range(3):
        await engine.client.send_event(engine.account, key, "other", "0")
        await engine.client.send_event(engine.account, key, "t", str(n))
    await engine.worker()
    assert json.loads((await engine.until(key, Status.COMPLETE))["output"]) == [0, 1, 2]


async def test_a_wait_times_out_and_its_event_stays_unread(engine: Engine) -> None:
    await engine.worker()
    await engine.define("w", waits)
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.advance(61)
    row = await engine.until(key, Status.ERRORED)
    assert json.loads(row["error"])["message"] == "Execution timed out after 60000ms"
    assert await engine.client.send_event(engine.account, key, "approved", "1") is SendEvent.NOT_LIVE


async def test_pause_lets_steps_in_flight_finish(engine: Engine) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def body(do: Do, _: Attempt) -> str | None:
        entered.set()
        await gate.wait()
        return f'"{do.key.name}"'

    def script(run: RunContext) -> Steps:
        yield [step("a")]
        yield [step("b")]
        return "1"

    await engine.worker()
    await engine.define("w", script, body)
    key = await engine.create("w")
    await entered.wait()
    assert (await engine.client.pause(engine.account, key)).status is Status.WAITING_FOR_PAUSE
    gate.set()
    await engine.until(key, Status.PAUSED)
    started = [r["name"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED]
    assert started == ["a"]
    assert (await engine.client.pause(engine.account, key)).outcome is Control.NOTHING
    await engine.client.resume(engine.account, key)
    await engine.until(key, Status.COMPLETE)


async def test_resume_before_the_pause_settles_cancels_it(engine: Engine) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        entered.set()
        await gate.wait()
        return "1"

    await engine.worker()
    await engine.define("w", one_step, body)
    key = await engine.create("w")
    await entered.wait()
    await engine.client.pause(engine.account, key)
    assert (await engine.client.resume(engine.account, key)).status is Status.RUNNING
    gate.set()
    await engine.until(key, Status.COMPLETE)


async def test_a_pause_moves_sleeps_but_not_moments(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        until = int(run.created_at.timestamp() * 1000) + 100_000
        done: list[Any] = []
        done += yield [
            Sleep(StepKey(StepKind.SLEEP, "relative"), duration=100_000),
            Sleep(StepKey(StepKind.SLEEP, "absolute"), until=until),
        ]
        if len(done) < 2:
            done += yield []
        return json.dumps([m.key.name for m in done])

    await engine.worker()
    await engine.define("w", script)
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.pause(engine.account, key)
    await engine.advance(50)
    await engine.client.resume(engine.account, key)
    await engine.until(key, Status.WAITING)
    await engine.advance(51)
    await engine.eventually(lambda: _count(engine, key, Kind.SLEEP_COMPLETED, 1))
    await engine.until(key, Status.WAITING)
    await engine.advance(49)
    row = await engine.until(key, Status.COMPLETE)
    assert json.loads(row["output"]) == ["absolute", "relative"]


async def _count(engine: Engine, key: Any, kind: Kind, n: int) -> bool:
    return (await engine.kinds(key)).count(kind) >= n


async def test_terminate_stops_at_once_and_is_final(engine: Engine) -> None:
    entered = asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        entered.set()
        await asyncio.Event().wait()
        return None

    worker = await engine.worker()
    await engine.define("w", one_step, body)
    key = await engine.create("w")
    await entered.wait()
    assert (await engine.client.terminate(engine.account, key)).status is Status.TERMINATED
    await engine.eventually(lambda: _truth(worker.held == 0))
    assert await engine.status(key) is Status.TERMINATED
    assert (await engine.kinds(key))[-1] is Kind.TERMINATED
    assert (await engine.client.terminate(engine.account, key)).outcome is Control.NOT_LIVE


async def test_restart_runs_again_on_the_newest_version(engine: Engine) -> None:
    await engine.worker()
    await engine.define("w", two_steps)
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE)

    async def other(_: Do, __: Attempt) -> str | None:
        return '"new"'

    await engine.define("w", two_steps, other)
    assert (await engine.client.restart(engine.account, key)).outcome is Control.DONE
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == '"new"' and row["run"] == 2
    counts = await engine.admin.fetch("select status, sum(n) as n from counter group by 1 having sum(n) <> 0")
    assert [(r["status"], r["n"]) for r in counts] == [(6, 1)]


async def test_restart_from_a_step_keeps_what_started_before(engine: Engine) -> None:
    calls: list[str] = []

    async def body(do: Do, _: Attempt) -> str | None:
        calls.append(do.key.name)
        return str(len(calls))

    def script(run: RunContext) -> Steps:
        values = []
        for name in "abc":
            [done] = yield [step(name)]
            values.append(int(done.value))
        return json.dumps(values)

    await engine.worker()
    await engine.define("w", script, body)
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE)
    b = next(r["seq"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED and r["name"] == "b")
    assert (await engine.client.restart(engine.account, key, from_seq=b, expected_run=2)).outcome is Control.REFUSED
    await engine.client.restart(engine.account, key, from_seq=b, expected_run=1)
    await engine.eventually(lambda: _after(calls, 4))
    row = await engine.until(key, Status.COMPLETE)
    assert calls == ["a", "b", "c", "b", "c"]
    assert json.loads(row["output"]) == [1, 4, 5]


async def test_a_failed_run_rolls_back(engine: Engine) -> None:
    seen: list[Status] = []
    keys: list[Any] = []

    async def body(do: Do, _: Attempt) -> str | None:
        if do.key.kind is StepKind.ROLLBACK:
            seen.append(await engine.status(keys[0]))
        return "1"

    def script(run: RunContext) -> Steps:
        # BeginRollback is answered by nothing: the commands of the same turn go on.
        done = []
        for name in ("a", "b"):
            [message] = yield [step(name)]
            done.append(message.key.name)
        failure = Failure("Error", "no")
        first = [BeginRollback(failure)]
        for name in reversed(done):
            yield [*first, Do(StepKey(StepKind.ROLLBACK, name), config='{"config":{}}', guarded=True)]
            first = []
        yield [EndRollback(True), Fail(failure)]
        return None

    await engine.worker()
    await engine.define("w", script, body)
    keys.append(await engine.create("w"))
    row = await engine.until(keys[0], Status.ERRORED)
    assert json.loads(row["rollback"]) == {"outcome": "complete", "error": None}
    assert json.loads(row["error"]) == {"name": "Error", "message": "no"}
    assert seen == [Status.ROLLING_BACK, Status.ROLLING_BACK]
    names = [r["name"] for r in await engine.journal(keys[0]) if r["kind"] == Kind.ROLLBACK_STEP_STARTED]
    assert names == ["b", "a"]


async def test_terminate_with_rollback(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        yield [step("a")]
        [message] = yield [Sleep(StepKey(StepKind.SLEEP, "long"), duration=3_600_000)]
        assert isinstance(message, RollbackRequested)
        yield [Do(StepKey(StepKind.ROLLBACK, "a"), config='{"config":{}}')]
        yield [EndRollback(True)]
        return None

    await engine.worker()
    await engine.define("w", script)
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    assert (await engine.client.terminate(engine.account, key, rollback=True)).status is Status.ROLLING_BACK
    row = await engine.until(key, Status.TERMINATED)
    assert json.loads(row["rollback"])["outcome"] == "complete"


async def test_a_child_ends_and_its_parent_goes_on(engine: Engine) -> None:
    def parent(run: RunContext) -> Steps:
        [message] = yield [step("kid", child=Child("child", '{"n":1}'))]
        if isinstance(message, Broken):
            raise ScriptFailed(message.failure.message)
        return message.value

    def child(run: RunContext) -> Steps:
        yield [Wait(StepKey(StepKind.WAIT, "go"), "go", 60_000)]
        return run.input

    await engine.worker()
    await engine.define("child", child)
    await engine.define("parent", parent)
    key = await engine.create("parent")
    kid = await engine.eventually(
        lambda: engine.admin.fetchval("select key from live where key <> $1 and status = 2", key)
    )
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, kid, "go", None)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '{"n":1}'


async def test_terminating_a_parent_ends_its_children(engine: Engine) -> None:
    def parent(run: RunContext) -> Steps:
        yield [step("kid", child=Child("child", None))]
        return None

    await engine.worker()
    await engine.define("child", waits)
    await engine.define("parent", parent)
    key = await engine.create("parent")
    kid = await engine.eventually(
        lambda: engine.admin.fetchval("select key from live where key <> $1 and status = 2", key)
    )
    await engine.client.terminate(engine.account, key)
    assert await engine.status(kid) is Status.TERMINATED


async def test_a_terminated_child_fails_its_parents_step(engine: Engine) -> None:
    def parent(run: RunContext) -> Steps:
        [message] = yield [step("kid", child=Child("child", None))]
        assert isinstance(message, Broken)
        raise ScriptFailed(message.failure.message)

    await engine.worker()
    await engine.define("child", waits)
    await engine.define("parent", parent)
    key = await engine.create("parent")
    kid = await engine.eventually(
        lambda: engine.admin.fetchval("select key from live where key <> $1 and status = 2", key)
    )
    await engine.until(key, Status.WAITING)
    await engine.client.delete(engine.account, [kid])
    assert "terminated" in (await engine.until(key, Status.ERRORED))["error"]


async def test_the_step_limit_ends_the_run(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        for n in range(10):
            yield [step("s", n + 1, immediate=True)]
        return None

    await engine.worker()
    await engine.define("w", script, steps=3)
    row = await engine.until(await engine.create("w"), Status.ERRORED)
    assert "The limit of 3 steps" in row["error"]


async def test_timers_fire_once_and_replay(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        [message] = yield [Timer("deadline", 60_000)]
        assert isinstance(message, TimerFired)
        yield [Sleep(StepKey(StepKind.SLEEP, "more"), duration=60_000)]
        return '"late"'

    await engine.worker()
    await engine.define("w", script)
    key = await engine.create("w")
    for _ in range(2):
        await engine.until(key, Status.WAITING)
        await engine.eventually(lambda: engine.admin.fetchval("select phase = 2 from live"))
        await engine.advance(60)
        await engine.eventually(
            lambda: engine.admin.fetchval("select count(*) = 0 or bool_or(ready_at > $1) from live", engine.clock.now())
        )
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"late"'
    assert (await engine.kinds(key)).count(Kind.TIMER_FIRED) == 1
