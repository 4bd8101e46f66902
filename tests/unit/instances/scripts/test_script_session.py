"""A script's session: what its code calls becomes commands, and outcomes reach the code in their order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from instances.runtimes.protocol import (
    BeginRollback,
    Broken,
    Cancel,
    Do,
    EndRollback,
    Fail,
    Failure,
    Finish,
    Log,
    RollbackRequested,
    SessionLost,
    Sleep,
    StepFailure,
    StepKey,
    StepKind,
    StopRollback,
    Wait,
)
from tests.support.guest import GuestError
from tests.support.script_bench import Bench, at, done, keys


async def give(value: Any) -> Any:
    return value


async def test_calls_become_commands_and_outcomes_go_on() -> None:
    async def run(event: Any, step: Any) -> Any:
        first = await step.do("add", lambda ctx, _: give(event["payload"]["v"]["a"] + 1))
        await step.sleep("nap", "10 seconds")
        got = await step.wait("go", "go", "1 hour")
        return [first, got["payload"]]

    b = Bench(run=run)
    session = b.session(input='{"a":1}')
    [do] = await b.begin(session)
    assert isinstance(do, Do) and do.key == StepKey(StepKind.DO, "add") and do.timeout == 600_000
    [sleep] = await b.perform(session, do)
    assert isinstance(sleep, Sleep) and sleep.duration == 10_000
    [wait] = await session.turn([done(sleep.key, None, 12)])
    assert isinstance(wait, Wait) and (wait.type, wait.timeout) == ("go", 3_600_000)
    [finish] = await session.turn([done(wait.key, '{"payload":7,"timestamp":"2026","type":"go"}', 13)])
    assert finish == Finish("[2,7]")


async def test_names_are_counted_by_kind_in_call_order() -> None:
    async def run(event: Any, step: Any) -> None:
        promises = [step.do("a", give), step.do("a", give), step.sleep("a", 5), step.do("b", give)]
        for promise in promises:
            await promise

    b = Bench(run=run)
    assert keys(await b.begin(b.session())) == ["do:a-1", "do:a-2", "sleep:a-1", "do:b-1"]


async def test_outcomes_of_the_past_are_handed_over_in_journal_order() -> None:
    """Branches whose second steps share a name get their own results again, whichever was called first."""
    order: list[str] = []

    async def run(event: Any, step: Any) -> Any:
        a, b = step.do("A", give), step.do("B", give)
        a.then.append(lambda: order.append(f"A at {step.now}"))
        b.then.append(lambda: order.append(f"B at {step.now}"))
        return [await a, await b]

    b = Bench(run=run)
    past = [done(StepKey(StepKind.DO, "B"), '"b"', 1), done(StepKey(StepKind.DO, "A"), '"a"', 2)]
    commands = await b.begin(b.session(), *past)
    assert keys(commands[:2]) == ["do:A-1", "do:B-1"]
    assert commands[2:] == [Finish('["a","b"]')]
    start = int(at(0).timestamp() * 1000)
    assert order == [f"B at {start + 1000}", f"A at {start + 2000}"]


async def test_a_recorded_step_that_is_not_called_ends_the_run() -> None:
    async def run(event: Any, step: Any) -> None:
        await step.do("other", give)

    b = Bench(run=run)
    commands = await b.begin(b.session(), done(StepKey(StepKind.DO, "gone"), "1"))
    assert commands[-1] == Fail(Failure("NonDeterministicError", 'the recorded step "gone-1" was not called on replay'))


async def test_a_failed_attempt_raises_and_keeps_its_name() -> None:
    async def explode(ctx: Any, _: Any) -> None:
        raise GuestError("TypeError", "no")

    async def run(event: Any, step: Any) -> Any:
        try:
            await step.do("bad", explode)
        except GuestError as error:
            return [error.name, str(error)]

    b = Bench(run=run)
    session = b.session()
    [do] = await b.begin(session)
    with pytest.raises(StepFailure) as failed:
        await session.execute(do, b.attempt())  # type: ignore[arg-type]
    assert failed.value.failure == Failure("TypeError", "no")
    assert await session.turn([Broken(do.key, failed.value.failure, at(1))]) == [Finish('["TypeError","no"]')]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("flags", "attempt", "caught"),
    [
        (
            (),
            ("WorkflowFatalError", 'Step threw a NonRetryableError with message "stop"'),
            "WorkflowFatalError",
        ),
        (
            ("workflows_preserve_non_retryable_error_message",),
            ("NonRetryableError", "stop"),
            "NonRetryableError",
        ),
    ],
)
async def test_non_retryable_errors(flags: tuple[str, ...], attempt: tuple[str, str], caught: str) -> None:
    async def explode(ctx: Any, _: Any) -> None:
        raise GuestError("NonRetryableError", "stop")

    async def run(event: Any, step: Any) -> Any:
        try:
            await step.do("bad", explode)
        except GuestError as error:
            return error.name

    b = Bench(run=run)
    session = b.session(flags=flags)
    [do] = await b.begin(session)
    with pytest.raises(StepFailure) as failed:
        await session.execute(do, b.attempt())  # type: ignore[arg-type]
    failure = failed.value.failure
    assert (failure.name, failure.message, failure.permanent) == (*attempt, True)
    assert await session.turn([Broken(do.key, failure, at(1))]) == [Finish(f'"{caught}"')]  # type: ignore[union-attr]


async def test_a_run_that_throws_undoes_its_steps_in_reverse() -> None:
    undone: list[str] = []

    def undo(name: str) -> Any:
        async def go(error: Any) -> None:
            undone.append(f"{name} because {error['message']}")

        return go

    async def run(event: Any, step: Any) -> None:
        await step.do("one", lambda *_: give(1), undo=undo("one"))
        step.do("open", lambda *_: give(0))
        await step.do("two", lambda *_: give(2), undo=undo("two"))
        raise GuestError("Error", "boom")

    b = Bench(run=run)
    session = b.session()
    [one] = await b.begin(session)
    [pending, two] = await b.perform(session, one)
    commands = await b.perform(session, two)
    boom = Failure("Error", "boom")
    assert commands[:2] == [Cancel(pending.key, boom), BeginRollback(boom)]  # type: ignore[union-attr]
    undo_two = commands[2]
    assert isinstance(undo_two, Do) and undo_two.key == StepKey(StepKind.ROLLBACK, "two")
    [undo_one] = await b.perform(session, undo_two)
    assert await b.perform(session, undo_one) == [EndRollback(True), Fail(boom)]
    assert undone == ["two because boom", "one because boom"]


async def test_a_handler_that_fails_stops_the_rest() -> None:
    async def run(event: Any, step: Any) -> None:
        await step.do("one", lambda *_: give(1), undo=give)
        await step.do("two", lambda *_: give(2), undo=give)
        raise GuestError("Error", "boom")

    b = Bench(run=run)
    session = b.session()
    [one] = await b.begin(session)
    [two] = await b.perform(session, one)
    commands = await b.perform(session, two)
    broken = Failure("Error", "cannot undo")
    assert await session.turn([Broken(commands[-1].key, broken, at(3))]) == [  # type: ignore[union-attr]
        EndRollback(False, broken),
        Fail(Failure("Error", "boom")),
    ]


async def test_a_requested_rollback_leaves_the_end_to_the_driver_and_can_be_stopped() -> None:
    async def run(event: Any, step: Any) -> None:
        await step.do("one", lambda *_: give(1), undo=give)
        await step.do("two", lambda *_: give(1), undo=give)
        await step.sleep("long", 100_000)

    b = Bench(run=run)
    session = b.session()
    [one] = await b.begin(session)
    [two] = await b.perform(session, one)
    [sleep] = await b.perform(session, two)
    why = Failure("Terminated", "asked")
    commands = await session.turn([RollbackRequested(why, at(5))])
    assert commands[0] == Cancel(sleep.key, why)  # type: ignore[union-attr]
    assert keys(commands[1:]) == ["rollback:two-1"]
    assert await session.turn([StopRollback(at(6))]) == []
    assert await session.turn([done(commands[1].key, None, 7)]) == [EndRollback(False)]  # type: ignore[union-attr]


async def test_what_cannot_be_stored_ends_the_run_at_once_and_undoes_nothing() -> None:
    async def run(event: Any, step: Any) -> Any:
        await step.do("one", lambda *_: give(1), undo=give)
        try:
            await step.do("bad", give)
        except GuestError:
            return "caught"

    b = Bench(run=run)
    session = b.session()
    [one] = await b.begin(session)
    [bad] = await b.perform(session, one)
    failure = Failure("WorkflowFatalError", 'Value returned from step "bad" is not serialisable', "UNSERIALISABLE")
    [fail] = await session.turn([Broken(bad.key, failure, at(2))])  # type: ignore[union-attr]
    assert isinstance(fail, Fail) and fail.failure.name == "WorkflowFatalError"
    assert 'the step "bad" returned a value which is not serialisable' in fail.failure.message


async def test_calls_of_the_host_wake_the_driver_and_keep_the_run_busy() -> None:
    gate = asyncio.Event()

    async def slow(facts: Any, args: Any) -> dict[str, Any]:
        await gate.wait()
        return {"v": args["n"] + 1}

    async def run(event: Any, step: Any) -> None:
        n = await step.call("slow", {"n": 1})
        await step.do(f"after-{n}", give)

    b = Bench(run=run)
    b.handlers["slow"] = slow
    session = b.session()
    assert await b.begin(session) == []
    assert session.busy
    gate.set()
    while not b.woken:
        await asyncio.sleep(0)
    assert keys(await session.turn([])) == ["do:after-2-1"]
    assert not session.busy


async def test_lines_inside_a_step_belong_to_its_attempt() -> None:
    async def talk(ctx: Any, step: Any) -> None:
        step.log("inside")

    async def run(event: Any, step: Any) -> None:
        step.log("outside")
        await step.do("one", talk)

    b = Bench(run=run)
    session = b.session()
    log, do = await b.begin(session)
    assert log == Log("info", "outside")
    await b.perform(session, do)
    assert b.logged == [("info", "inside")]


async def test_nested_steps_are_marked() -> None:
    async def outer(ctx: Any, step: Any) -> Any:
        return await step.do("inner", lambda *_: give(5))

    async def run(event: Any, step: Any) -> Any:
        return await step.do("outer", outer)

    b = Bench(run=run)
    session = b.session()
    [do] = await b.begin(session)
    assert isinstance(do, Do) and not do.nested
    working = asyncio.ensure_future(session.execute(do, b.attempt()))
    while not b.woken:
        await asyncio.sleep(0)
    [inner] = await session.turn([])
    assert isinstance(inner, Do) and inner.nested
    assert await b.perform(session, inner) == []
    assert await working == "5"


@pytest.mark.parametrize(("op", "step"), [("attempt", StepKey(StepKind.DO, "one")), ("start", None)])
async def test_a_death_names_whose_message_it_was(op: str, step: StepKey | None) -> None:
    async def run(event: Any, step: Any) -> None:
        await step.do("one", give)

    b = Bench(run=run)
    b.process.die_on = lambda message: "memory" if message["op"] == op else None
    session = b.session()
    with pytest.raises(SessionLost):
        [do] = await b.begin(session)
        await session.execute(do, b.attempt())  # type: ignore[arg-type]
    with pytest.raises(SessionLost) as lost:
        await session.turn([])
    assert (lost.value.blame, lost.value.step, lost.value.failure) == (True, step, None)


async def test_neighbours_of_a_death_are_not_blamed() -> None:
    async def run(event: Any, step: Any) -> None:
        await step.do("one", give)

    b = Bench(run=run)
    killer, neighbour = b.session(), b.session()
    [do] = await b.begin(killer)
    await b.begin(neighbour)
    b.process.die_on = lambda message: "cpu" if message["op"] == "attempt" else None
    with pytest.raises(SessionLost):
        await killer.execute(do, b.attempt())  # type: ignore[arg-type]
    with pytest.raises(SessionLost) as lost:
        await killer.turn([])
    assert lost.value.failure == Failure("Error", "Worker exceeded CPU time limit.")
    with pytest.raises(SessionLost) as spared:
        await neighbour.turn([])
    assert (spared.value.blame, spared.value.step, spared.value.failure) == (False, None, None)


async def test_a_closed_run_is_dropped_and_its_sandbox_released() -> None:
    async def run(event: Any, step: Any) -> None:
        await step.do("one", give)

    b = Bench(run=run)
    session = b.session()
    await b.begin(session)
    await session.close()
    other = b.session()
    await b.begin(other)
    assert b.released == 1
    assert [m["op"] for frame in b.process.frames for m in frame] == ["start", "drop", "start"]


async def test_messages_of_many_runs_share_frames() -> None:
    async def run(event: Any, step: Any) -> Any:
        return await step.do("one", lambda *_: give(1))

    b = Bench(run=run)
    sessions = [b.session() for _ in range(50)]
    commands = await asyncio.gather(*(b.begin(session) for session in sessions))
    assert all(keys(c) == ["do:one-1"] for c in commands)
    assert len(b.process.frames) <= 2
