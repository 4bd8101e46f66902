"""What an account allows its instances, at the boundary: stored bytes, outgoing requests, steps."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    Broken,
    Child,
    Do,
    Done,
    Failure,
    Retry,
    RunContext,
    StepFailure,
    StepKey,
    StepKind,
    Wait,
)
from tenants.limits import Limits
from tests.support.engine import Engine, step

Steps = Generator[list[Any], list[Any], str | None]


def outcome(message: Done | Broken) -> str:
    """How a step ended: `done`, or the code of its failure."""
    return "done" if isinstance(message, Done) else message.failure.code or message.failure.name


def steps_and_an_event(run: RunContext) -> Steps:
    """Stores 2 (parameters), 4 (a step's output) and, with its event, some 70 bytes; then 4 more if they fit."""
    yield [step("first")]
    yield [Wait(StepKey(StepKind.WAIT, "event"), "go", 3_600_000)]
    [message] = yield [step("last", retry=Retry(3, 0))]
    return f'"{outcome(message)}"'


async def body(_step: Do, _attempt: Attempt) -> str | None:
    return '"é"'


async def with_state(engine: Engine, limit: int | None) -> tuple[str, int]:
    """The last step's end, and how much the instance stored before it."""
    worker = await engine.worker(limits=Limits(state_bytes=limit))
    await engine.define("w", steps_and_an_event, body)
    key = await engine.create("w")
    await engine.written(key, Kind.WAIT_STARTED)
    await engine.eventually(lambda: worker.held == 0)
    await engine.client.send_event(engine.account, key, "go", '"now"')
    row = await engine.until(key, Status.COMPLETE)
    event = next(row["payload"] for row in await engine.journal(key) if row["kind"] == Kind.WAIT_COMPLETED)
    kinds = await engine.kinds(key)
    assert Kind.ATTEMPT_FAILED not in kinds, "trying again would not help"
    await engine.close()
    await engine.client.start()
    return row["output"].strip('"'), 2 + 4 + len(event)


async def test_a_step_whose_output_does_not_fit_fails_also_after_a_replay(engine: Engine) -> None:
    end, stored = await with_state(engine, None)
    assert end == "done"
    assert await with_state(engine, stored + 4) == ("done", stored)
    assert await with_state(engine, stored + 3) == ("LIMIT_EXCEEDED", stored)


async def test_what_a_child_returns_counts(engine: Engine) -> None:
    def child(run: RunContext) -> Steps:
        return '"a child\'s"'
        yield []

    def parent(run: RunContext) -> Steps:
        [message] = yield [step("child", child=Child("child", "{}"))]
        return f'"{outcome(message)}"'

    await engine.worker(limits=Limits(state_bytes=2 + 10))
    await engine.define("child", child)
    await engine.define("parent", parent)
    key = await engine.create("parent")
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"LIMIT_EXCEEDED"'


@pytest.mark.parametrize(("limit", "made", "end"), [(None, 5, "Busy"), (5, 5, "Busy"), (4, 4, "LIMIT_EXCEEDED")])
async def test_attempts_of_outgoing_steps_are_requests(engine: Engine, limit: int | None, made: int, end: str) -> None:
    """One request of a first step, four attempts of a second, in the life of two workers."""
    requests = 0

    async def request(_step: Do, _attempt: Attempt) -> str | None:
        nonlocal requests
        requests += 1
        if requests > 1:
            raise StepFailure(Failure("Busy", "try again"))
        return "1"

    def script(run: RunContext) -> Steps:
        yield [step("one", outgoing=True)]
        [message] = yield [step("two", outgoing=True, retry=Retry(3, 60_000, "constant"))]
        return f'"{outcome(message)}"'

    worker = await engine.worker(limits=Limits(subrequests=limit))
    await engine.define("w", script, request)
    key = await engine.create("w")
    for failed in (1, 2, 3):
        await engine.written(key, Kind.ATTEMPT_FAILED, failed)
        await engine.eventually(lambda: worker.held == 0)
        await engine.advance(61)
    assert (await engine.until(key, Status.COMPLETE))["output"] == f'"{end}"'
    assert requests == made


async def test_a_lowered_limit_of_steps_counts_for_versions_there_are(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        for name in ("a", "b", "c"):
            yield [step(name)]
        return "1"

    await engine.worker(limits=Limits(steps=2, steps_max=2))
    await engine.define("w", script, steps=3)
    key = await engine.create("w")
    assert "limit of 2 steps" in (await engine.until(key, Status.ERRORED))["error"]
