"""Parents and children for the tests of the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from instances.engine.requests import NewInstance
from instances.lifecycle import Status
from instances.runtimes.protocol import (
    Child,
    EndRollback,
    Failure,
    RollbackRequested,
    RunContext,
    StepKey,
    StepKind,
)
from jobs.doorbell import NoDoorbell
from jobs.termination.requests import TerminationJobs
from jobs.termination.terminator import Terminator
from tests.support.engine import Engine, Script, step
from tests.support.scripts import Steps, awaits_go, calls_child, outcome, wait

DAY = 86_400


def can_be_undone(run: RunContext) -> Steps:
    """Waits for `go`; asked to roll back, it waits for `undone` first."""
    [message] = yield [wait("w", "go")]
    if isinstance(message, RollbackRequested):
        yield [wait("undo", "undone", seconds=DAY)]
        yield [EndRollback(True)]
    return outcome(message)


async def kids_of(engine: Engine, parent: UUID) -> list[UUID]:
    rows = await engine.admin.fetch("select key from instance where parent_key = $1 order by created_at, key", parent)
    return [row["key"] for row in rows]


async def kid_of(engine: Engine, parent: UUID) -> UUID:
    """The one child of a parent, once it is there."""
    [kid] = await engine.eventually(lambda: kids_of(engine, parent))
    return kid


async def waiting_family(engine: Engine, child: Script = awaits_go, parent: Script = calls_child) -> tuple[UUID, UUID]:
    """A parent that waits, and its child that waits."""
    await engine.define("child", child)
    await engine.define("parent", parent)
    await engine.worker()
    key = await engine.create("parent")
    await engine.until(key, Status.WAITING)
    kid = await kid_of(engine, key)
    await engine.until(kid, Status.WAITING)
    return key, kid


async def nothing_is_left(engine: Engine) -> None:
    await engine.eventually(lambda: all(worker.held == 0 for worker in engine.workers))
    assert await engine.admin.fetchval("select count(*) from live") == 0
    assert await engine.admin.fetchval("select count(*) from inbox") == 0


End = Callable[[Engine, UUID], Awaitable[Any]]


async def completed(engine: Engine, kid: UUID) -> None:
    await engine.client.send_event(engine.account, kid, "go", "1")
    await engine.until(kid, Status.COMPLETE)


async def deleted(engine: Engine, kid: UUID) -> None:
    await engine.client.delete(engine.account, [kid])


async def run_job(engine: Engine, kid: UUID, kind: Any, **options: Any) -> None:
    jobs = TerminationJobs(engine.db, engine.clock, engine.ids, NoDoorbell())
    workflow: Any = await engine.admin.fetchval("select workflow_key from instance where key = $1", kid)
    await jobs.start(engine.account, workflow, kind, **options)
    terminator = Terminator(engine.db, engine.clock, lambda worker, runs: None)
    while await terminator.tick():
        pass
    engine.workers[0].wake()


def races(run: RunContext) -> Steps:
    """Goes on with whatever comes first, the child or `hurry`."""
    yield [step("kid", child=Child("child", None)), wait("w", "hurry", seconds=DAY)]
    return "1"


KID = StepKey(StepKind.DO, "kid")
BORED = Failure("Bored", "not interested any more")


def child_of(engine: Engine, parent: UUID, *, wait: bool = True, epoch: int | None = None) -> NewInstance:
    return NewInstance(
        account_id=engine.account,
        key=(key := engine.ids.uuid7()),
        instance_id=str(key),
        handle="w",
        parent_key=parent if wait else None,
        maker_key=parent,
        maker_epoch=epoch,
        depth=1,
    )
