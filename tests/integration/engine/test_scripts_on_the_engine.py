"""Scripts on the engine: replay hands everything back in order, and a sandbox that dies costs an attempt at most."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any

import pytest

from instances.engine.requests import Repeat
from instances.engine.runs.failures import decode_failure
from instances.executions.retries import takeover
from instances.lifecycle import Kind, Status
from instances.projections.entries import Entry
from tests.support.engine import Engine
from tests.support.guest import GuestError
from tests.support.guest_runtime import GuestRuntime


@pytest.fixture
def guests(engine: Engine) -> GuestRuntime:
    runtime = GuestRuntime(engine.clock.now)
    engine.runtime = runtime
    return runtime


async def give(value: Any) -> Any:
    return value


async def test_a_script_runs_parks_and_goes_on_in_another_life(engine: Engine, guests: GuestRuntime) -> None:
    calls: list[str] = []

    async def note(name: str) -> str:
        calls.append(name)
        return name

    async def script(event: Any, step: Any) -> Any:
        step.log("begins")
        first = await step.do("first", lambda *_: note("first"))
        step.log("waits")
        got = await step.wait("go", "go", 60_000)
        step.log("goes on")
        last = await step.do("last", lambda *_: note("last"))
        return [event["payload"]["v"], first, got["payload"], last]

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w", input='{"n":1}')
    await engine.until(key, Status.WAITING)
    await engine.eventually(lambda: engine.workers[0].held == 0)
    await engine.client.send_event(engine.account, key, "go", "7")
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == '[{"n":1},"first",7,"last"]'
    assert calls == ["first", "last"]
    lines = [row["payload"] for row in await engine.journal(key) if row["kind"] == Kind.LOG]
    assert [line.split('"message":"')[1][:-2] for line in lines] == ["begins", "waits", "goes on"]


async def test_parallel_branches_get_their_own_results_on_replay(engine: Engine, guests: GuestRuntime) -> None:
    """Both branches call a step of the same name; which result is whose depends on the order of the first ones."""
    gates = {"A": asyncio.Event(), "B": asyncio.Event()}

    async def gated(name: str) -> str:
        return name

    async def script(event: Any, step: Any) -> Any:
        seen: dict[str, Any] = {}
        a, b = step.do("A", lambda *_: gated("A")), step.call("gate", {})
        await b
        second = step.do("B", lambda *_: gated("B"))
        seen["B"] = await second
        seen["b2"] = await step.do("charge", lambda *_: give("for B"))
        seen["A"] = await a
        seen["a2"] = await step.do("charge", lambda *_: give("for A"))
        await step.wait("go", "go", 60_000)
        return seen

    async def gate(facts: Any, args: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"v": 1}

    del gates
    guests.handlers["gate"] = gate
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.eventually(lambda: engine.workers[0].held == 0)
    await engine.client.send_event(engine.account, key, "go", "7")
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == '{"B":"B","b2":"for B","A":"A","a2":"for A"}'


async def test_a_step_inside_a_step_keeps_its_result_when_the_outer_one_runs_again(
    engine: Engine, guests: GuestRuntime
) -> None:
    calls: list[str] = []

    async def inner(*_: Any) -> int:
        calls.append("inner")
        return 5

    async def outer(ctx: Any, step: Any) -> Any:
        calls.append("outer")
        n = await step.do("inner", inner)
        if len([c for c in calls if c == "outer"]) == 1:
            raise GuestError("Error", "once")
        return n

    async def script(event: Any, step: Any) -> Any:
        config = {"retries": {"limit": 1, "delay": 30_000, "backoff": "constant"}}
        return await step.do("outer", outer, config=config)

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.ATTEMPT_FAILED)
    await engine.until(key, Status.WAITING)
    await engine.eventually(lambda: engine.workers[0].held == 0)
    await engine.advance(30)
    assert (await engine.until(key, Status.COMPLETE))["output"] == "5"
    # A new life counts calls from the start, so the inner step of the second attempt is the one of the first.
    assert calls == ["outer", "inner", "outer"]


async def test_a_delay_function_says_how_long_to_wait(engine: Engine, guests: GuestRuntime) -> None:
    asked: list[Any] = []

    async def fails(ctx: Any, _: Any) -> Any:
        if ctx["attempt"] < 3:
            raise GuestError("Error", f"attempt {ctx['attempt']}")
        return "done"

    def delay(attempt: int, error: Any) -> Any:
        asked.append((attempt, error["message"]))
        return "20 seconds"

    async def script(event: Any, step: Any) -> Any:
        config = {"retries": {"limit": 5, "delay": "[dynamic]", "backoff": "linear"}}
        return await step.do("flaky", fails, config=config, delay=delay)

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    for failures, seconds in ((1, 20), (2, 40)):
        await engine.written(key, Kind.ATTEMPT_FAILED, failures)
        await engine.until(key, Status.WAITING)
        await engine.advance(seconds)
    await engine.until(key, Status.COMPLETE)
    assert asked == [(1, "attempt 1"), (2, "attempt 2")]
    delays = [decode_failure(r["payload"]).delay for r in await engine.journal(key) if r["kind"] == Kind.ATTEMPT_FAILED]
    assert delays == [20_000, 40_000]


async def test_d10_after_a_delay_function_that_ended_its_sandbox_comes_the_default_delay(
    engine: Engine, guests: GuestRuntime
) -> None:
    async def fails(ctx: Any, _: Any) -> Any:
        raise GuestError("Error", "no")

    async def script(event: Any, step: Any) -> Any:
        config = {"retries": {"limit": 1, "delay": "[dynamic]", "backoff": "constant"}}
        return await step.do("flaky", fails, config=config, delay=lambda attempt, error: 1)

    guests.die_on = lambda message: "cpu" if message["op"] == "delay" else None
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.ATTEMPT_FAILED)
    [failed] = [row for row in await engine.journal(key) if row["kind"] == Kind.ATTEMPT_FAILED]
    assert decode_failure(failed["payload"]).delay == 10_000


async def test_an_attempt_that_uses_up_its_cpu_time_fails_and_is_retried(engine: Engine, guests: GuestRuntime) -> None:
    async def script(event: Any, step: Any) -> Any:
        config = {"retries": {"limit": 1, "delay": 0, "backoff": "constant"}}
        return await step.do("spin", lambda *_: give("spun"), config=config)

    guests.die_on = lambda message: "cpu" if message["op"] == "attempt" and message["attempt"] == 1 else None
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"spun"'
    [failed] = [r for r in await engine.journal(key) if r["kind"] == Kind.ATTEMPT_FAILED]
    assert decode_failure(failed["payload"]).message == "Worker exceeded CPU time limit."
    assert len(guests.processes) == 2


async def test_an_attempt_that_ends_three_sandboxes_fails(engine: Engine, guests: GuestRuntime) -> None:
    async def script(event: Any, step: Any) -> Any:
        try:
            return await step.do("bomb", give, config={"retries": {"limit": 0, "delay": 0, "backoff": "constant"}})
        except GuestError as error:
            return [error.name, str(error)]

    guests.die_on = lambda message: "memory" if message["op"] == "attempt" else None
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == '["WorkflowInternalError","The attempt ended 3 sandboxes in a row"]'
    assert len(guests.processes) == 4


async def test_code_outside_steps_that_ends_sandboxes_is_stopped(engine: Engine, guests: GuestRuntime) -> None:
    async def script(event: Any, step: Any) -> Any:
        return None

    guests.die_on = lambda message: "memory" if message["op"] == "start" else None
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    row = await engine.until(key, Status.ERRORED)
    assert "WorkflowInternalError" in row["error"] and "3 sandboxes" in row["error"]
    assert len(guests.processes) == 3


async def test_neighbours_of_a_death_go_on_without_a_failed_attempt(engine: Engine, guests: GuestRuntime) -> None:
    gate = asyncio.Event()

    async def slow(facts: Any, args: Any) -> dict[str, Any]:
        await gate.wait()
        return {"v": "answer"}

    async def asks(ctx: Any, step: Any) -> Any:
        return await step.call("slow", {})

    async def script(event: Any, step: Any) -> Any:
        if event["payload"]["v"]["bomb"]:
            return await step.do("bomb", give, config={"retries": {"limit": 0, "delay": 0, "backoff": "constant"}})
        return await step.do("patient", asks, config={"retries": {"limit": 0, "delay": 0, "backoff": "constant"}})

    guests.handlers["slow"] = slow
    bombs: set[int] = set()

    def die_on(message: dict[str, Any]) -> str | None:
        if message["op"] == "start" and message["event"]["payload"]["v"]["bomb"]:
            bombs.add(message["r"])
        return "cpu" if message["op"] == "attempt" and message["ctx"]["step"]["name"] == "bomb" else None

    guests.die_on = die_on
    await engine.define("w", script)
    await engine.worker()
    neighbour = await engine.create("w", input='{"bomb":false}')
    await engine.written(neighbour, Kind.STEP_STARTED)
    bomb = await engine.create("w", input='{"bomb":true}')
    row = await engine.until(bomb, Status.ERRORED)
    assert "Worker exceeded CPU time limit." in row["error"]
    gate.set()
    assert (await engine.until(neighbour, Status.COMPLETE))["output"] == '"answer"'
    kinds = await engine.kinds(neighbour)
    assert Kind.ATTEMPT_INTERRUPTED in kinds and Kind.ATTEMPT_FAILED not in kinds


async def test_a_run_that_waits_for_the_host_outside_steps_stays_in_memory(
    engine: Engine, guests: GuestRuntime
) -> None:
    gate = asyncio.Event()

    async def slow(facts: Any, args: Any) -> dict[str, Any]:
        await gate.wait()
        return {"v": 3}

    async def script(event: Any, step: Any) -> Any:
        return await step.call("slow", {})

    guests.handlers["slow"] = slow
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.STARTED)
    gate.set()
    assert (await engine.until(key, Status.COMPLETE))["output"] == "3"


async def test_values_json_lacks_reach_a_wait_as_they_were_sent(engine: Engine, guests: GuestRuntime) -> None:
    async def script(event: Any, step: Any) -> Any:
        return await step.wait("go", "go", 60_000)

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "go", ' {"$t":"d","v":5}')
    await engine.until(key, Status.COMPLETE)
    [completed] = [row for row in await engine.journal(key) if row["kind"] == Kind.WAIT_COMPLETED]
    assert completed["payload"].startswith(' {"payload": {"$t":"d","v":5},"timestamp":"')


async def test_a_script_has_until_its_deadline(engine: Engine, guests: GuestRuntime) -> None:
    """Then what is open is given up, what was done is undone, and the instance ends as timed out; over two lives."""
    undone: list[str] = []

    async def undo(*_: Any) -> None:
        undone.append("first")

    async def script(event: Any, step: Any) -> Any:
        await step.do("first", lambda *_: give(1), undo=undo)
        await step.wait("never", "never", 3_600_000)

    await engine.define("w", script)
    await engine.worker()
    [key] = await engine.create_many("w", 1, trigger_detail='{"timeout":60000}')
    await engine.until(key, Status.WAITING)
    await engine.eventually(lambda: engine.workers[0].held == 0)
    await engine.advance(61)
    row = await engine.until(key, Status.ERRORED)
    assert row["error"] == '{"name":"EXECUTION_TIMEOUT","message":"the instance did not finish in time"}'
    assert (undone, row["rollback"]) == (["first"], '{"outcome":"complete","error":null}')
    assert (await engine.kinds(key)).count(Kind.TIMER_FIRED) == 1


async def test_a_script_that_ends_before_its_deadline(engine: Engine, guests: GuestRuntime) -> None:
    async def script(event: Any, step: Any) -> Any:
        return await step.do("first", lambda *_: give(1))

    await engine.define("w", script)
    await engine.worker()
    [key] = await engine.create_many("w", 1, trigger_detail='{"timeout":60000}')
    assert (await engine.until(key, Status.COMPLETE))["output"] == "1"


async def test_a_retry_keeps_what_started_before_its_first_step(engine: Engine, guests: GuestRuntime) -> None:
    calls: list[str] = []
    broken = {"c"}

    async def note(name: str) -> str:
        calls.append(name)
        if name in broken:
            raise GuestError("Error", f"{name} broke")
        return f"{name}{len(calls)}"

    async def script(event: Any, step: Any) -> Any:
        a = await step.do("a", lambda *_: note("a"))
        b = await step.do("b", lambda *_: note("b"))
        return [
            a,
            b,
            await step.do(
                "c", lambda *_: note("c"), config={"retries": {"limit": 0, "delay": 0, "backoff": "constant"}}
            ),
        ]

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    row = await engine.until(key, Status.ERRORED)
    broken.clear()
    entries = [Entry(*(entry[name] for name in Entry.__struct_fields__)) for entry in await engine.journal(key)]
    for first, expected, called in ((None, ["a1", "b2", "c4"], ["c"]), ("b", ["a1", "b5", "c6"], ["b", "c"])):
        taken = takeover(entries, None, first, row["error"])
        repeat = Repeat(
            account_id=engine.account,
            origin=key,
            run=row["run"],
            seq=row["seq"],
            key=engine.ids.uuid7(),
            from_step=taken.first,
            detail=f'{{"seed":"{key}/1"}}',
            triggered_by=None,
            kept=taken.kept,
        )
        before = len(calls)
        assert isinstance(await engine.client.retry(repeat), int)
        assert json.loads((await engine.until(repeat.key, Status.COMPLETE))["output"]) == expected
        assert calls[before:] == called


async def test_a_run_that_is_over_leaves_nothing_to_the_garbage_collector(engine: Engine, guests: GuestRuntime) -> None:
    """Parts that hold each other in a circle would fill the memory of a busy worker, and take its time."""
    seen: list[weakref.ref[Any]] = []

    async def look() -> None:
        [run] = engine.workers[0]._runs
        session = run._state.session
        seen.extend(weakref.ref(part) for part in (run, session, run._steps, run._waits))

    async def script(event: Any, step: Any) -> Any:
        await step.do("look", lambda *_: look())
        await step.wait("go", "go", 60_000)

    await engine.define("w", script)
    await engine.worker()
    gc.collect()
    gc.disable()
    try:
        key = await engine.create("w")
        await engine.until(key, Status.WAITING)
        await engine.eventually(lambda: all(part() is None for part in seen))
        assert len(seen) == 4
    finally:
        gc.enable()


async def test_a_step_that_ends_at_once_is_one_commit_with_its_start(
    engine: Engine, guests: GuestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.engine.runs.run.MOMENT", 60)

    async def script(event: Any, step: Any) -> Any:
        for number in range(5):
            await step.do("quick", lambda *_, number=number: give(number))

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE)
    commits = {row["xmin"] for row in await engine.admin.fetch("select xmin::text from journal where key = $1", key)}
    assert len(commits) == 1 + 5 + 1  # the create, a commit for each step, the end


async def test_a_step_that_takes_its_time_shows_as_begun(engine: Engine, guests: GuestRuntime) -> None:
    end = asyncio.Event()

    async def ask(facts: Any, args: Any) -> dict[str, Any]:
        await end.wait()
        return {"v": 1}

    async def script(event: Any, step: Any) -> Any:
        async def slow(_: Any, inside: Any) -> Any:
            return await inside.call("ask", {})

        return await step.do("slow", slow)

    guests.handlers["ask"] = ask
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.STEP_STARTED)
    end.set()
    await engine.until(key, Status.COMPLETE)
