"""Attempts are counted: through deaths of workers, which cost one, and drains, which do not."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    Broken,
    Do,
    Failure,
    Retry,
    RunContext,
    StepFailure,
)
from tests.support.engine import Engine, ScriptFailed, step
from tests.support.scripts import Steps, outcome


@pytest.mark.parametrize(
    "options", [{"retry": Retry(0)}, {"retry": Retry(3), "guarded": True}], ids=["no retries", "guarded"]
)
async def test_a_start_that_must_last_is_committed_before_the_step_runs(engine: Engine, options: Any) -> None:
    seen: list[list[Kind]] = []

    async def body(_: Do, attempt: Attempt) -> str | None:
        seen.append(await engine.kinds(key))
        if options["retry"].limit and attempt.number == 1:
            raise StepFailure(Failure("Busy", "again"))
        return None

    def script(run: RunContext) -> Steps:
        yield [step("a", **options)]
        return "1"

    await engine.define("w", script, body)
    key = await engine.create("w")
    await engine.worker()
    if options["retry"].limit:
        await engine.until(key, Status.WAITING)
        await engine.advance(1)
    await engine.until(key, Status.COMPLETE)
    assert seen[0][-1] is Kind.STEP_STARTED
    assert [kinds[-1] for kinds in seen[1:]] == [Kind.ATTEMPT_STARTED] * (len(seen) - 1)


async def die(engine: Engine) -> None:
    """The only worker is gone without a word; another one takes its place."""
    worker = engine.workers.pop()
    engine.bell.workers.remove(worker)
    await worker.stop()
    await engine.worker()


async def leave(engine: Engine) -> None:
    """The only worker drains; another one takes its place."""
    worker = engine.workers.pop()
    engine.bell.workers.remove(worker)
    await worker.drain(0)
    await worker.stop()
    await engine.worker()


class Interrupted:
    """A step whose first attempt never ends by itself."""

    def __init__(self, engine: Engine, *, limit: int) -> None:
        self.engine, self.limit = engine, limit
        self.attempts: list[int] = []
        self.known: list[Kind] = []
        self.key: UUID

    async def body(self, _: Do, attempt: Attempt) -> str | None:
        self.attempts.append(attempt.number)
        if len(self.attempts) == 1:
            await asyncio.Event().wait()
        self.known = await self.engine.kinds(self.key)
        return '"done"'

    def script(self, run: RunContext) -> Steps:
        [message] = yield [step("a", retry=Retry(self.limit, 0))]
        if isinstance(message, Broken):
            raise ScriptFailed(message.failure.message)
        return str(message.attempts)

    async def begin(self) -> UUID:
        await self.engine.define("w", self.script, self.body)
        await self.engine.worker()
        self.key = await self.engine.create("w")
        await self.engine.written(self.key, Kind.STEP_STARTED)
        await self.engine.eventually(lambda: self.attempts)
        return self.key


async def test_an_attempt_whose_worker_died_counts_as_failed(engine: Engine) -> None:
    work = Interrupted(engine, limit=1)
    key = await work.begin()
    await die(engine)
    assert (await engine.until(key, Status.COMPLETE))["output"] == "2"
    assert work.attempts == [1, 2]
    [failed] = [row for row in await engine.journal(key) if row["kind"] == Kind.ATTEMPT_FAILED]
    assert json.loads(failed["payload"])["name"] == "WorkflowInternalError"


async def test_without_retries_an_attempt_whose_worker_died_is_the_last(engine: Engine) -> None:
    work = Interrupted(engine, limit=0)
    key = await work.begin()
    await die(engine)
    row = await engine.until(key, Status.ERRORED)
    assert "Attempt failed due to internal workflows error" in row["error"]
    assert work.attempts == [1]


@pytest.mark.parametrize("limit", [0, 1])
async def test_an_attempt_cut_off_by_a_drain_does_not_count(engine: Engine, limit: int) -> None:
    work = Interrupted(engine, limit=limit)
    key = await work.begin()
    await leave(engine)
    await engine.until(key, Status.COMPLETE)
    assert len(work.attempts) == 2
    kinds = await engine.kinds(key)
    assert Kind.ATTEMPT_INTERRUPTED in kinds and Kind.ATTEMPT_FAILED not in kinds
    assert work.known[-1] is Kind.ATTEMPT_STARTED, "on its second dispatch the start is committed first"


async def test_after_a_drain_a_death_still_counts(engine: Engine) -> None:
    """A step without retries that was cut off by a drain and then died has had its one attempt."""
    work = Interrupted(engine, limit=0)
    key = await work.begin()
    hold = asyncio.Event()

    async def holds(_: Do, attempt: Attempt) -> str | None:
        work.attempts.append(attempt.number)
        await hold.wait()
        return None

    [source] = engine.runtime.scripts
    engine.runtime.scripts[source] = (work.script, holds)
    await leave(engine)
    await engine.eventually(lambda: len(work.attempts) == 2)
    await die(engine)
    await engine.until(key, Status.ERRORED)
    assert len(work.attempts) == 2


async def test_a_drain_lets_attempts_end_within_its_grace(engine: Engine) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        entered.set()
        await gate.wait()
        return '"ended"'

    def script(run: RunContext) -> Steps:
        [message] = yield [step("a")]
        yield [step("b", immediate=True)]
        return outcome(message)

    await engine.define("w", script, body)
    worker = await engine.worker()
    key = await engine.create("w")
    await entered.wait()
    draining = asyncio.create_task(worker.drain(5))
    await asyncio.sleep(0.02)
    assert not draining.done()
    gate.set()
    await draining
    assert worker.held == 0
    assert await engine.status(key) is Status.QUEUED
    assert Kind.ATTEMPT_INTERRUPTED not in await engine.kinds(key)
    await engine.worker()
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"ended"'
