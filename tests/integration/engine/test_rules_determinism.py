"""A workflow that does not do what its journal says is stopped, never silently given the wrong results."""

from __future__ import annotations

from typing import Any

import pytest

from instances.lifecycle import Status
from instances.runtimes.protocol import (
    Attempt,
    Do,
    Message,
    RunContext,
)
from tests.support.engine import Engine, step
from tests.support.scripts import Steps, nap, outcome, wait


async def in_two_lives(engine: Engine, first: list[Any], second: list[Any]) -> str:
    """Run `first`, sleep, then on replay `second` instead; the error of the run ("" when it completes)."""
    lives = iter([first, second])

    def script(run: RunContext) -> Steps:
        commands = next(lives)
        messages: list[Message] = []
        for command in commands:
            messages = yield [command]
            outcome(messages[0])
        yield [nap("last")]
        return "1"

    async def body(_: Do, attempt: Attempt) -> str | None:
        return "1"

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.advance(60)

    async def ended() -> bool:
        return (await engine.status(key)).finished

    await engine.eventually(ended)
    row = await engine.admin.fetchrow("select * from instance where key = $1", key)
    assert row is not None
    return row["error"] or ""


A, B = step("a"), step("b")


@pytest.mark.parametrize(
    ("first", "second", "missing"),
    [
        ([A], [B], "a-1"),
        ([A, B], [A], "b-1"),
        ([A, B], [B, A], "a-1"),
        ([A, step("a", 2)], [A, step("a", 3)], "a-2"),
    ],
    ids=["renamed", "left out", "other order", "other count"],
)
async def test_a_recorded_step_that_is_not_called_again_is_an_error(
    engine: Engine, first: list[Any], second: list[Any], missing: str
) -> None:
    error = await in_two_lives(engine, first, second)
    assert "NonDeterministicError" in error
    assert f'the recorded step \\"{missing}\\" was not called on replay' in error


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (step("a", fingerprint="1"), step("a", fingerprint="2")),
        (step("a"), step("a", fingerprint="1")),
        (nap("n", seconds=0, fingerprint="1"), nap("n", seconds=0, fingerprint="2")),
    ],
    ids=["step", "step without", "sleep"],
)
async def test_a_step_that_differs_from_its_record_is_an_error(engine: Engine, first: Any, second: Any) -> None:
    error = await in_two_lives(engine, [first], [second])
    assert "NonDeterministicError" in error
    assert "differs from the recorded one" in error


async def test_a_wait_for_another_type_is_an_error(engine: Engine) -> None:
    """The wait is still open: it is found when it is called again, not when its event comes."""
    types = iter("ab")

    def script(run: RunContext) -> Steps:
        type = next(types)
        [message] = yield [wait("w", type, fingerprint=type)]
        return outcome(message)

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "a", None)
    assert "NonDeterministicError" in (await engine.until(key, Status.ERRORED))["error"]


async def test_what_stays_the_same_replays(engine: Engine) -> None:
    assert await in_two_lives(engine, [A, B], [A, B]) == ""
