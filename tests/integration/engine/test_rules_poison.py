"""A run that takes its workers down with it is ended, and harms nobody else."""

from __future__ import annotations

import json

import pytest

from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    RunContext,
)
from tests.support.engine import Engine
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, one_step


async def test_a_run_that_ends_three_workers_in_a_row_is_stopped(engine: Engine) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    for n in range(1, 4):
        victim, heir = await Puppet.enter(engine), await Puppet.enter(engine)
        await victim.claim_one()
        await engine.admin.execute("delete from worker where id = $1", victim.worker_id)
        assert await heir.take_over() == [(engine.account, key)]
        assert (await engine.live(key))["takeovers"] == n  # type: ignore[index]
    await engine.worker()
    row = await engine.until(key, Status.ERRORED)
    assert json.loads(row["error"])["name"] == "WorkflowInternalError"
    assert Kind.STEP_STARTED not in await engine.kinds(key)


@pytest.mark.parametrize("want", ["pause", "rollback"])
async def test_a_poisonous_run_ends_whatever_was_asked_of_it(engine: Engine, want: str) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    victim = await Puppet.enter(engine)
    await victim.flush(await victim.claim_one(), entries=1)
    if want == "rollback":
        await engine.client.terminate(engine.account, key, rollback=True)
    await engine.admin.execute("update live set takeovers = 3")
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
    """A session that raises is a fault of the platform; after three tries nobody tries again."""
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
    assert len(tries) == 3
    for key in keys:
        await engine.until(key, Status.COMPLETE)
    assert worker.held == 0
