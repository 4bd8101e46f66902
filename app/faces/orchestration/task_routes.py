"""Tasks of executions: look at one, try it again, complete or fail it from outside."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces.orchestration import views
from app.faces.orchestration.errors import Conflict
from app.faces.orchestration.schemas import CompleteBody, FailBody, raw_text
from instances.errors import InstanceNotFound, StepNotFound
from instances.projections.execution_steps import ExecutionStep, Forward
from instances.runtimes.protocol import StepKind
from instances.search.executions import Shown
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.bodies import decode_body
from tenants.spellings import parse_no, split_step_no

ONLY_FAILED = "Only failed tasks can be retried"
_RETRIABLE = frozenset({Forward.FAILED, Forward.TIMED_OUT, Forward.RETRYING})

Who = NamedDependency[Caller]
Instances = NamedDependency[InstanceService]


async def find(instances: InstanceService, caller: Caller, id: str) -> tuple[Shown, ExecutionStep]:
    """The task of an id, with its execution. Raises :class:`StepNotFound`."""
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


def named(step: ExecutionStep) -> tuple[str, int]:
    """The plain name and the count that services know a step by."""
    return (step.id, 1) if step.key is None else (step.key.name, step.key.count)


def require_retriable(step: ExecutionStep) -> None:
    """Raise :class:`Conflict` unless a task failed, or waits for its next attempt."""
    if step.state not in _RETRIABLE or step.key is None or step.key.kind is not StepKind.DO:
        raise Conflict(ONLY_FAILED)


@get("/tasks/{id:str}")
async def get_task(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """One task."""
    return views.task(*await find(instances, caller, id))


@post("/tasks/{id:str}/retry", status_code=200)
async def retry_task(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """Try a failed task again, in place: its execution goes on."""
    caller.require("executions:write")
    shown, step = await find(instances, caller, id)
    require_retriable(step)
    name, count = named(step)
    await instances.executions.retry_step(caller, shown.row.facts.key, name, count=count)
    return views.retried(views.task(shown, step))


@post("/tasks/{id:str}/complete", status_code=200)
async def complete_task(id: FromPath[str], body: RawBody, caller: Who, instances: Instances) -> dict[str, Any]:
    """Complete a task that waits for that, or for an event."""
    caller.require("executions:write")
    output = raw_text(decode_body(body, CompleteBody).output)
    shown, step = await find(instances, caller, id)
    name, count = named(step)
    await instances.executions.complete_step(caller, shown.row.facts.key, name, output, count=count)
    return views.task(*await find(instances, caller, id))


@post("/tasks/{id:str}/fail", status_code=200)
async def fail_task(id: FromPath[str], body: RawBody, caller: Who, instances: Instances) -> dict[str, Any]:
    """Fail the attempt of a task that waits to be completed; its retry policy decides what follows."""
    caller.require("executions:write")
    error = raw_text(decode_body(body, FailBody).error)
    shown, step = await find(instances, caller, id)
    name, count = named(step)
    await instances.executions.fail_step(caller, shown.row.facts.key, name, error, count=count)
    return views.task(*await find(instances, caller, id))


route_handlers = [get_task, retry_task, complete_task, fail_task]
