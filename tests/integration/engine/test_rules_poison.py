"""A run that takes its workers down with it is ended, and harms nobody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from instances.engine.runs.endings import CLEARED, MAX_DEATHS_ALONE, SUSPECT_AFTER, SUSPECTED
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import RunContext, SessionLost, StoredVersion
from tests.support.engine import Engine
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, one_step


async def die(engine: Engine, deaths: int, runs: int) -> None:
    """Let workers claim everything and die with it, one after the other, before anything is written."""
    for _ in range(deaths):
        victim, heir = await Puppet.enter(engine), await Puppet.enter(engine)
        assert len(await victim.claim()) == runs
        await engine.admin.execute("delete from worker where id = $1", victim.worker_id)
        assert len(await heir.take_over()) == runs
    assert await engine.admin.fetchval("select min(takeovers) from live") == deaths


async def test_runs_that_workers_died_with_are_opened_one_by_one_and_go_on(engine: Engine) -> None:
    opened: list[str] = []
    alone: list[bool] = []

    def watched(run: RunContext) -> Steps:
        opened.append(run.instance_id)
        alone.append(worker.suspects.locked())
        return (yield from one_step(run))

    await engine.define("w", watched)
    keys = await engine.create_many("w", 20)
    await die(engine, deaths=5, runs=20)
    worker = await engine.worker()
    for key in keys:
        await engine.until(key, Status.COMPLETE)
        notes = [row["name"] for row in await engine.journal(key) if row["kind"] == Kind.NOTE]
        assert notes == [SUSPECTED, CLEARED]
    assert sorted(opened) == sorted(str(key) for key in keys)
    assert all(alone)
    assert not worker.suspects.locked()


class Stuck:
    """A session in whose first turn its worker dies: it never comes back."""

    takes_past = False
    busy = False

    def __init__(self, entered: list[str]) -> None:
        self._entered = entered

    async def start(self, run: RunContext, _wake: Any) -> Stuck:
        self._run = run
        return self

    async def turn(self, _messages: Any) -> list[Any]:
        self._entered.append(self._run.instance_id)
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        pass


async def test_a_run_whose_workers_die_while_it_is_opened_alone_is_stopped(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of those that were claimed, and died, with it."""

    def ends(_run: RunContext) -> Steps:
        return "1"
        yield []

    entered: list[str] = []
    opens = engine.runtime.open

    async def open(version: StoredVersion) -> Any:
        return Stuck(entered) if version.handle == "kills" else await opens(version)

    monkeypatch.setattr(engine.runtime, "open", open)
    await engine.define("kills", one_step)
    await engine.define("w", ends)
    keys = await engine.create_many("w", 5)
    poison = await engine.create("kills")
    keys += await engine.create_many("w", 5)
    await die(engine, deaths=3, runs=11)
    for n in range(MAX_DEATHS_ALONE):
        worker = await engine.worker()
        await engine.eventually(lambda n=n: len(entered) > n)
        assert worker.suspects.locked()
        await worker.stop()
    await engine.worker()
    row = await engine.until(poison, Status.ERRORED)
    assert json.loads(row["error"])["message"] == "The instance ended every worker that opened it and was stopped"
    assert entered == [str(poison)] * MAX_DEATHS_ALONE
    for key in keys:
        await engine.until(key, Status.COMPLETE)


async def test_a_session_that_is_lost_is_not_a_worker_that_died(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: the worker lives."""
    losses = 2 * MAX_DEATHS_ALONE
    opens = engine.runtime.open

    class Gone:
        async def start(self, run: RunContext, wake: Any) -> Any:
            nonlocal losses
            if losses:
                losses -= 1
                raise SessionLost("no sandbox")
            return await program.start(run, wake)

    async def open(version: StoredVersion) -> Gone:
        nonlocal program
        program = await opens(version)
        return Gone()

    program: Any = None
    monkeypatch.setattr(engine.runtime, "open", open)
    await engine.define("w", one_step)
    [key] = await engine.create_many("w", 1)
    await die(engine, deaths=3, runs=1)
    worker = await engine.worker()
    while losses:
        left = losses
        await engine.eventually(lambda left=left: losses < left and worker.held == 0)
        await engine.advance(6)
    await engine.until(key, Status.COMPLETE)


async def test_whoever_is_restarted_is_above_suspicion(engine: Engine) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    await engine.convict(key)
    await engine.client.restart(engine.account, key)
    await engine.worker()
    await engine.until(key, Status.COMPLETE)


@pytest.mark.parametrize("want", ["pause", "rollback"])
async def test_a_poisonous_run_ends_whatever_was_asked_of_it(engine: Engine, want: str) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    victim = await Puppet.enter(engine)
    await victim.flush(await victim.claim_one(), entries=1)
    if want == "rollback":
        await engine.client.terminate(engine.account, key, rollback=True)
    await engine.convict(key)
    await victim.leave()
    await engine.admin.execute("delete from worker")
    worker = await engine.worker()
    if want == "pause":
        await engine.eventually(lambda: worker.held == 0)
        await engine.until(key, Status.ERRORED)
    else:
        await engine.until(key, Status.TERMINATED)


async def test_an_entry_between_deaths_clears_the_count(engine: Engine) -> None:
    await engine.define("w", one_step)
    await engine.create("w")
    for _ in range(5):
        victim, heir = await Puppet.enter(engine), await Puppet.enter(engine)
        await victim.flush(await victim.claim_one(), entries=1)
        await engine.admin.execute("delete from worker where id = $1", victim.worker_id)
        await heir.take_over()
    assert await engine.admin.fetchval("select takeovers from live") == 1


async def test_a_run_that_breaks_the_engine_is_stopped_and_harms_nobody(engine: Engine) -> None:
    """A session that raises is a fault of the platform; after a few tries nobody tries again."""
    tries: list[str] = []

    def breaks(run: RunContext) -> Steps:
        tries.append(run.instance_id)
        raise RuntimeError("a broken session")
        yield []

    await engine.define("breaks", breaks)
    await engine.define("w", one_step)
    worker = await engine.worker()
    broken = await engine.create("breaks")
    keys = await engine.create_many("w", 5)
    row = await engine.until(broken, Status.ERRORED)
    assert "WorkflowInternalError" in row["error"]
    assert len(tries) == SUSPECT_AFTER + MAX_DEATHS_ALONE
    for key in keys:
        await engine.until(key, Status.COMPLETE)
    assert worker.held == 0
