"""Tasks of executions as REST and GraphQL find and treat them."""

from __future__ import annotations

from app.faces.orchestration import views
from app.faces.orchestration.errors import Conflict
from instances.errors import InstanceNotFound, StepNotFound
from instances.projections.execution_steps import ExecutionStep, Forward
from instances.runtimes.protocol import StepKind
from instances.search.executions import Shown
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.spellings import parse_no, split_step_no

ONLY_FAILED = "Only failed tasks can be retried"
_RETRIABLE = frozenset({Forward.FAILED, Forward.TIMED_OUT, Forward.RETRYING})

Task = tuple[Shown, ExecutionStep]
"""A task, after its execution."""


async def find(instances: InstanceService, caller: Caller, id: str) -> Task:
    """The task of an id. Raises :class:`StepNotFound`."""
    caller.require("executions:read")
    no, position = split_step_no(parse_no(id) or 0)
    if not no:
        raise StepNotFound()
    try:
        row = await instances.searcher.one_by_no(caller, no)
    except InstanceNotFound:
        raise StepNotFound() from None
    shown = await instances.reader.of(caller, row)
    step = next((step for step in views.tasks_of(shown.execution) if step.position == position), None)
    if step is None:
        raise StepNotFound()
    return shown, step


async def retry(instances: InstanceService, caller: Caller, id: str) -> Task:
    """Try a failed task again, in place; the task as it was. Raises :class:`Conflict` unless it failed, or waits for
    its next attempt.
    """
    shown, step = await find(instances, caller, id)
    if step.state not in _RETRIABLE or step.key is None or step.key.kind not in (StepKind.DO, StepKind.WAIT):
        raise Conflict(ONLY_FAILED)
    name, count = _named(step)
    await instances.executions.retry_step(caller, shown.row.facts.key, name, count=count, kind=step.key.kind)
    return shown, step


async def complete(instances: InstanceService, caller: Caller, id: str, output: str | None) -> Task:
    """Complete a task that waits for that, or for an event, with JSON text; the task as it is then."""
    shown, step = await find(instances, caller, id)
    name, count = _answered(step)
    await instances.executions.complete_step(caller, shown.row.facts.key, name, output, count=count)
    return await find(instances, caller, id)


async def fail(instances: InstanceService, caller: Caller, id: str, error: str | None) -> Task:
    """Fail the attempt of a task that waits to be completed, or the wait for an event; the task as it is then."""
    shown, step = await find(instances, caller, id)
    name, count = _answered(step)
    await instances.executions.fail_step(caller, shown.row.facts.key, name, error, count=count)
    return await find(instances, caller, id)


def _answered(step: ExecutionStep) -> tuple[str, int | None]:
    """The step an answer is for. A task that runs once per item: of its runs the first that waits for one."""
    name, count = _named(step)
    return name, count if step.node is None else None


def _named(step: ExecutionStep) -> tuple[str, int]:
    """The plain name and the count that services know a step by."""
    return (step.id, 1) if step.key is None else (step.key.name, step.key.count)
