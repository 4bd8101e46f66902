"""A restart forgets what started at or after its point and keeps what started before; a hundred cost what one costs."""

from __future__ import annotations

import asyncio
import json

from instances.engine import store
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    Do,
    EndRollback,
    RollbackRequested,
    RunContext,
    StepKey,
    StepKind,
)
from tests.support.engine import Engine, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, one_step, wait


async def test_a_restart_erases_events_and_results(engine: Engine) -> None:
    runs: list[str] = []

    async def body(_: Do, __: Attempt) -> str | None:
        runs.append("a")
        return str(len(runs))

    def script(run: RunContext) -> Steps:
        [message] = yield [step("a")]
        yield [wait("w", "go")]
        return message.value

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "other", None)
    await engine.client.restart(engine.account, key)
    await engine.eventually(lambda: len(runs) == 2)
    await engine.until(key, Status.WAITING)
    assert await engine.admin.fetchval("select count(*) from inbox") == 0
    assert (await engine.live(key))["unread"] == 0  # type: ignore[index]
    await engine.client.send_event(engine.account, key, "go", None)
    row = await engine.until(key, Status.COMPLETE)
    assert (row["output"], row["run"]) == ("2", 2)


async def test_a_restart_from_a_step_keeps_what_started_before_it_even_if_it_ended_later(engine: Engine) -> None:
    """Started: long, short, last. Ended: short, long, last. From `short`: `long` keeps its result."""
    ran: list[str] = []
    gate = asyncio.Event()

    async def body(do: Do, _: Attempt) -> str | None:
        ran.append(do.key.name)
        if do.key.name == "long":
            await gate.wait()
        return json.dumps(f"{do.key.name} {ran.count(do.key.name)}")

    def script(run: RunContext) -> Steps:
        messages = yield [step("long"), step("short")]
        while len(messages) < 2:
            messages = messages + (yield [])
        messages = messages + (yield [step("last")])
        return json.dumps(sorted(json.loads(m.value) for m in messages))

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.STEP_COMPLETED, 1)
    gate.set()
    await engine.until(key, Status.COMPLETE)
    started = {r["name"]: r["seq"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED}
    assert started["long"] < started["short"]
    await engine.client.restart(engine.account, key, from_seq=started["short"])
    await engine.eventually(lambda: len(ran) == 5)
    row = await engine.until(key, Status.COMPLETE)
    assert ran == ["long", "short", "last", "short", "last"]
    assert json.loads(row["output"]) == ["last 2", "long 1", "short 2"]


async def test_a_restart_from_a_step_stays_on_its_version_and_a_full_one_moves_on(engine: Engine) -> None:
    await engine.define("w", one_step)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE)

    async def newer(_: Do, __: Attempt) -> str | None:
        return '"newer"'

    await engine.define("w", one_step, newer)
    start = next(r["seq"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED)
    await engine.client.restart(engine.account, key, from_seq=start)
    await engine.written(key, Kind.COMPLETED, 2)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"done"'
    await engine.client.restart(engine.account, key)
    await engine.written(key, Kind.COMPLETED, 3)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"newer"'


async def test_a_run_restarted_from_a_step_is_compensated_for_what_it_keeps(engine: Engine) -> None:
    """Asked to roll back before it is claimed again: it has not started anew, but what it keeps did run."""
    undone: list[str] = []

    async def body(do: Do, _: Attempt) -> str | None:
        if do.key.kind is StepKind.ROLLBACK:
            undone.append(do.key.name)
        return None

    def script(run: RunContext) -> Steps:
        done: list[str] = []
        for name in ("a", "b"):
            messages = yield [step(name)]
            for message in messages:
                if isinstance(message, RollbackRequested):
                    for other in reversed(done):
                        yield [Do(StepKey(StepKind.ROLLBACK, other), config='{"config":{}}')]
                    yield [EndRollback(True)]
                done.append(name)
        return "1"

    await engine.define("w", script, body)
    worker = await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE)
    await worker.drain(0)
    b = next(r["seq"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED and r["name"] == "b")
    await engine.client.restart(engine.account, key, from_seq=b)
    assert (await engine.client.terminate(engine.account, key, rollback=True)).status is Status.ROLLING_BACK
    await engine.worker()
    await engine.until(key, Status.TERMINATED)
    assert undone == ["a"]


async def test_a_hundred_restarts_keep_replay_small(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    for _ in range(100):
        await puppet.flush(row, entries=10)
        await engine.client.restart(engine.account, key)
        row = await puppet.claim_one()
    assert len(await engine.journal(key)) > 1000
    read = await store.journals(puppet.connection, [(engine.account, key, row["live_from"])])
    assert [Kind(entry["kind"]) for entry in read[engine.account, key]] == [Kind.RESTARTED]
