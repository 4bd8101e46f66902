"""What can be followed: the object at once, then each change of it, until the execution has ended.

At most one message per `PACE` seconds and subject: what changes meanwhile is told by the next one, which is the newest
state. Of what changed the last state is always told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import strawberry

from app.faces.orchestration import executions, views
from app.faces.orchestration.graphql.context import Asked, Context
from app.faces.orchestration.graphql.types import (
    ProgressReport,
    TaskExecution,
    ToldExecution,
    WorkflowExecution,
    told_progress,
    told_task,
)
from instances.errors import InstanceNotFound
from instances.projections.execution_steps import ExecutionStep
from instances.search.executions import Shown

PACE = 0.1
"""Seconds between two messages."""
_TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


async def _states(context: Context, shown: Shown) -> AsyncGenerator[tuple[Shown, list[ExecutionStep]]]:
    """`shown` with all steps, then the newest state after each change, `PACE` apart, with those that have changed; it
    ends with the execution, or when that is deleted."""
    instances, clock = context.platform.instances, asyncio.get_running_loop().time
    key = shown.row.facts.key
    follow = instances.follow.instance(context.caller, key, shown.execution.history.last_seq)
    async with contextlib.aclosing(follow) as changes:
        yield shown, shown.execution.steps
        growing = instances.growing(context.caller, shown)
        while not _over(growing.shown):
            earliest = clock() + PACE
            ended = await anext(changes, None) is None
            await asyncio.sleep(max(0.0, earliest - clock()))
            try:
                renewed = await growing.look()
            except InstanceNotFound:
                return
            context.forget()
            yield growing.shown, [one.now for one in renewed if one.now != one.before]
            if ended:
                return


def _over(shown: Shown) -> bool:
    return views.status_of(shown.execution.facet) in _TERMINAL


async def _found(info: Asked, id: str) -> Shown:
    return await executions.find(info.context.platform.instances, info.context.caller, id)


async def _executions(context: Context, shown: Shown) -> AsyncGenerator[Any]:
    last: Any = None
    async with contextlib.aclosing(_states(context, shown)) as states:
        async for state, steps in states:
            told = ToldExecution(state)
            if steps or told != last:
                yield told
            last = told


async def _tasks(context: Context, shown: Shown) -> AsyncGenerator[Any]:
    last: dict[str, Any] = {}
    async with contextlib.aclosing(_states(context, shown)) as states:
        async for state, steps in states:
            for step in filter(lambda step: step.counts, steps):
                told = told_task(state, step)
                before = last.get(told["id"])
                last[told["id"]] = told
                if told != before and (before is not None or told["status"] != "PENDING"):
                    yield told


async def _reports(context: Context, shown: Shown) -> AsyncGenerator[Any]:
    last: Any = None
    async with contextlib.aclosing(_states(context, shown)) as states:
        async for state, _ in states:
            report = await told_progress(context, state)
            facts = {**report, "estimatedCompletion": None}  # an estimate moves with the clock
            if facts != last:
                yield report
            last = facts


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def workflow_execution_updated(
        self, info: Asked, id: strawberry.ID
    ) -> AsyncGenerator[WorkflowExecution, None]:
        return _executions(info.context, await _found(info, id))

    @strawberry.subscription
    async def task_execution_updated(
        self, info: Asked, workflow_execution_id: strawberry.ID
    ) -> AsyncGenerator[TaskExecution, None]:
        return _tasks(info.context, await _found(info, workflow_execution_id))

    @strawberry.subscription
    async def progress_report_updated(
        self, info: Asked, workflow_execution_id: strawberry.ID
    ) -> AsyncGenerator[ProgressReport, None]:
        return _reports(info.context, await _found(info, workflow_execution_id))
